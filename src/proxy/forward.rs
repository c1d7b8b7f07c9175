//! The head that goes upstream: the target that was matched, rewritten; who asked; what the route edits.
//!
//! Written here and not earlier: a client can have anything set before this phase removed by naming it in `Connection`.

use http::header::{COOKIE, HOST, VIA};
use http::{HeaderName, HeaderValue, Version};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::client::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use super::ctx::{Ctx, asked_host};
use super::gate::Gate;
use super::sink::RequestSink;
use crate::facts::Scheme;
use crate::rejection::{Code, Rejection};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Gate {
    pub(super) fn forward(&self, session: &Session, ctx: &Ctx, upstream: &mut RequestHeader) -> Result<(), Rejection> {
        let Some(route) = ctx.route.as_deref() else {
            return Err(Rejection::new(Code::Internal, "no route at the upstream phase"));
        };
        let head = ctx.head(session);
        let captured = route.captured(&ctx.captures, head.path);
        let known = route.facts(&head, &captured);

        let (target, host) = match &route.rewrite {
            Some(rewrite) => {
                let target =
                    rewrite.apply(&head, &known).map_err(|why| Rejection::new(Code::BadRequest, why.to_string()))?;
                (Some(target.path_and_query), target.host)
            }
            None if ctx.path.is_some() || upstream.uri.scheme().is_some() => {
                let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
                (Some(format!("{}{query}", head.path)), None)
            }
            None => (None, None),
        };
        let asked = asked_host(session);
        let authority = host.as_deref().unwrap_or(asked);
        if upstream.version == Version::HTTP_2 || target.is_some() || host.is_some() {
            let path = target.as_deref().unwrap_or_else(|| head_target(upstream));
            let uri = match session.req_header().version {
                // HTTP/2 keeps scheme and authority as pseudo-header fields (RFC 9113 8.3.1).
                Version::HTTP_2 => http::Uri::builder()
                    .scheme(head.scheme.as_str())
                    .authority(authority)
                    .path_and_query(path)
                    .build()
                    .map_err(internal)?,
                _ => path.parse().map_err(internal)?,
            };
            upstream.set_uri(uri);
        }
        upstream.insert_header(HOST, authority).map_err(internal)?;

        if ctx.http2 {
            join_cookies(upstream);
        }
        self.identify(ctx, &head, asked, upstream).map_err(internal)?;
        route.request_headers.apply(&known, &mut RequestSink(upstream));
        Ok(())
    }

    /// Who asked, by which way (RFC 9110 7.6.3, W3C Trace Context).
    fn identify(
        &self,
        ctx: &Ctx,
        head: &crate::facts::Head<'_>,
        asked: &str,
        upstream: &mut RequestHeader,
    ) -> pingora_error::Result<()> {
        let peer = ctx.connection.as_ref().map_or(ctx.client, |connection| connection.ip());
        let hops = if ctx.trusted { joined(upstream, &X_FORWARDED_FOR) } else { None };
        let forwarded_for = match hops {
            Some(hops) => format!("{hops}, {peer}"),
            None => peer.to_string(),
        };
        upstream.insert_header(X_FORWARDED_FOR, forwarded_for)?;
        if !ctx.trusted || !upstream.headers.contains_key(&X_FORWARDED_PROTO) {
            upstream.insert_header(
                X_FORWARDED_PROTO,
                HeaderValue::from_static(match head.scheme {
                    Scheme::Http => "http",
                    Scheme::Https => "https",
                }),
            )?;
        }
        if !ctx.trusted || !upstream.headers.contains_key(&X_FORWARDED_HOST) {
            upstream.insert_header(X_FORWARDED_HOST, asked)?;
        }
        let own = if ctx.http2 { &self.via.1 } else { &self.via.0 };
        let via = match joined(upstream, &VIA) {
            Some(hops) => HeaderValue::try_from(format!("{hops}, {}", own.to_str().unwrap_or_default())),
            None => Ok(own.clone()),
        };
        upstream.insert_header(VIA, via.unwrap_or_else(|_| own.clone()))?;
        upstream.insert_header(X_REQUEST_ID, ctx.request_id.as_str())?;
        if self.telemetry.traces() {
            upstream.insert_header(TRACEPARENT, ctx.attempt_trace.unwrap_or(ctx.trace).header_value())?;
            if ctx.parent_span.is_none() {
                // It belongs to a trace that was not taken up (W3C trace context 3.3).
                upstream.remove_header(&TRACESTATE);
            }
        }
        Ok(())
    }
}

fn head_target(upstream: &RequestHeader) -> &str {
    upstream.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

/// Every field of a name as one list; `None` where there is none.
fn joined(head: &RequestHeader, name: &HeaderName) -> Option<String> {
    let mut all = head.headers.get_all(name).iter().filter_map(|field| field.to_str().ok());
    let first = all.next()?.to_owned();
    Some(all.fold(first, |list, field| list + ", " + field))
}

fn internal(error: impl std::fmt::Display) -> Rejection {
    Rejection::new(Code::Internal, error.to_string())
}

/// HTTP/2 may send a cookie header in crumbs; for others they are one (RFC 9113 8.2.3).
fn join_cookies(upstream: &mut RequestHeader) {
    let crumbs: Vec<&[u8]> = upstream.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        let _ = upstream.insert_header(COOKIE, whole);
    }
}
