//! The head that goes upstream: the target that was matched, rewritten; who asked; what the route edits.
//!
//! Written here and not earlier: a client can have anything set before this phase removed by naming it in `Connection`.

use http::header::{AUTHORIZATION, COOKIE, EXPECT, HOST, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::client::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use super::ctx::{Ctx, asked_host};
use super::gate::Gate;
use crate::facts::{Head, Scheme};
use crate::policy::auth::Hidden;
use crate::rejection::{Code, Rejection};
use crate::routes::Route;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Gate {
    /// Names go upstream in lower case, as HTTP/2 has them: to keep the case of HTTP/1, Pingora holds a second map of
    /// names, which would cost more than everything else here.
    pub(super) fn forward(&self, session: &Session, ctx: &Ctx, upstream: &mut RequestHeader) -> Result<(), Rejection> {
        let blank = http::Request::new(()).into_parts().0;
        let mut parts = Parts::from(std::mem::replace(upstream, RequestHeader::from(blank)));
        self.prepare_head(session, ctx, &mut parts)?;
        *upstream = RequestHeader::from(parts);
        Ok(())
    }

    fn prepare_head(&self, session: &Session, ctx: &Ctx, upstream: &mut Parts) -> Result<(), Rejection> {
        let Some(route) = ctx.route.as_deref() else {
            return Err(Rejection::new(Code::Internal, "no route at the upstream phase"));
        };
        let mut head = ctx.head(session);
        let bare = shown_query(route, head.query);
        if let Some(bare) = &bare {
            head.query = Some(bare).filter(|bare| !bare.is_empty()).map(String::as_str);
        }
        let captured = route.captured(&ctx.captures, head.path);
        let known = route.facts(&head, &captured, ctx.subject.as_deref());

        let (target, host) = match &route.rewrite {
            Some(rewrite) => {
                let target =
                    rewrite.apply(&head, &known).map_err(|why| Rejection::new(Code::BadRequest, why.to_string()))?;
                (Some(target.path_and_query), target.host)
            }
            None if ctx.path.is_some() || bare.is_some() || upstream.uri.scheme().is_some() => {
                let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
                (Some(format!("{}{query}", head.path)), None)
            }
            None => (None, None),
        };
        let asked = asked_host(session);
        let authority = host.as_deref().unwrap_or(asked);
        if upstream.version == Version::HTTP_2 || target.is_some() || host.is_some() {
            let path =
                target.as_deref().unwrap_or_else(|| upstream.uri.path_and_query().map_or("/", |path| path.as_str()));
            upstream.uri = match session.req_header().version {
                // HTTP/2 keeps scheme and authority as pseudo-header fields (RFC 9113 8.3.1).
                Version::HTTP_2 => Uri::builder()
                    .scheme(head.scheme.as_str())
                    .authority(authority)
                    .path_and_query(path)
                    .build()
                    .map_err(internal)?,
                _ => path.parse().map_err(internal)?,
            };
        }
        // As it was asked for; shared where it stands in a field already.
        let asked = match session.req_header().headers.get(HOST).filter(|field| field.as_bytes() == asked.as_bytes()) {
            Some(field) => field.clone(),
            None => HeaderValue::from_str(asked).map_err(internal)?,
        };
        let host = match &host {
            Some(host) => HeaderValue::from_str(host).map_err(internal)?,
            None => asked.clone(),
        };
        upstream.headers.insert(HOST, host);
        if session.req_header().version == Version::HTTP_10 {
            // RFC 9110 10.1.1.
            upstream.headers.remove(EXPECT);
        }
        if ctx.http2 {
            join_cookies(&mut upstream.headers);
        }
        self.identify(ctx, &head, asked, &mut upstream.headers)?;
        for name in &route.strip {
            upstream.headers.remove(name);
        }
        if let Some(access) = &route.access {
            hide(&access.hidden, ctx.bearer, &mut upstream.headers);
            for name in access.taken() {
                upstream.headers.remove(name);
            }
        }
        route.request_headers.apply(&known, &mut upstream.headers);
        if let Some(access) = &route.access {
            for (name, value) in ctx.subject.iter().flat_map(|subject| &subject.headers) {
                upstream.headers.append(name, value.clone());
            }
            access.pass.apply(&known, &mut upstream.headers);
        }
        Ok(())
    }

    /// Who asked, by which way (RFC 9110 7.6.3, W3C Trace Context).
    fn identify(
        &self,
        ctx: &Ctx,
        head: &Head<'_>,
        asked: HeaderValue,
        upstream: &mut HeaderMap,
    ) -> Result<(), Rejection> {
        let peer = ctx.connection.as_ref().map(|connection| connection.ip_text());
        let forwarded_for = match (joined(upstream, &X_FORWARDED_FOR).filter(|_| ctx.trusted), peer) {
            (Some(hops), Some(peer)) => text(format!("{hops}, {}", peer.to_str().unwrap_or_default()))?,
            (None, Some(peer)) => peer.clone(),
            (_, None) => text(ctx.client.to_string())?,
        };
        upstream.insert(X_FORWARDED_FOR, forwarded_for);
        if !ctx.trusted || !upstream.contains_key(&X_FORWARDED_PROTO) {
            let scheme = match head.scheme {
                Scheme::Http => "http",
                Scheme::Https => "https",
            };
            upstream.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
        }
        if !ctx.trusted || !upstream.contains_key(&X_FORWARDED_HOST) {
            upstream.insert(X_FORWARDED_HOST, asked);
        }
        let own = if ctx.http2 { &self.via.1 } else { &self.via.0 };
        let via = match joined(upstream, &VIA) {
            Some(hops) => text(format!("{hops}, {}", own.to_str().unwrap_or_default()))?,
            None => own.clone(),
        };
        upstream.insert(VIA, via);
        upstream.insert(X_REQUEST_ID, ctx.request_id.header_value());
        if self.telemetry.traces() {
            upstream.insert(TRACEPARENT, text(ctx.attempt_trace.unwrap_or(ctx.trace).header_value())?);
            if ctx.parent_span.is_none() {
                // It belongs to a trace that was not taken up (W3C trace context 3.3).
                upstream.remove(&TRACESTATE);
            }
        }
        Ok(())
    }
}

/// The query without the credentials in it; `None` if there are none.
pub(super) fn shown_query(route: &Route, query: Option<&str>) -> Option<String> {
    without(query?, &route.access.as_ref()?.hidden.query)
}

/// A query without some of its parameters; `None` if it has none of them.
pub(super) fn without(query: &str, names: &[Box<str>]) -> Option<String> {
    let is_one = |pair: &&str| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        let name = percent_encoding::percent_decode_str(name);
        names.iter().any(|known| name.clone().eq(known.bytes()))
    };
    if names.is_empty() || !query.split('&').any(|pair| is_one(&pair)) {
        return None;
    }
    Some(query.split('&').filter(|pair| !is_one(pair)).collect::<Vec<_>>().join("&"))
}

/// Takes credentials out: what has not proven who asks would stand there as if it had, and what has is none of the upstream's
/// business, but for a token in `Authorization`.
fn hide(hidden: &Hidden, bearer: bool, headers: &mut HeaderMap) {
    remove_cookies(&hidden.cookies, headers);
    for name in &hidden.headers {
        headers.remove(name);
    }
    if hidden.authorization && !bearer {
        headers.remove(AUTHORIZATION);
    }
}

fn remove_cookies(names: &[Box<str>], headers: &mut HeaderMap) {
    if names.is_empty() || !headers.contains_key(COOKIE) {
        return;
    }
    let all: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for field in all {
        let Ok(text) = field.to_str() else { continue };
        let is_one = |pair: &str| {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            names.iter().any(|known| **known == *name.trim())
        };
        let kept: Vec<&str> = text.split(';').map(str::trim).filter(|pair| !is_one(pair)).collect();
        if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::try_from(kept.join("; "))) {
            headers.append(COOKIE, value);
        }
    }
}

fn text(text: String) -> Result<HeaderValue, Rejection> {
    HeaderValue::try_from(text).map_err(internal)
}

/// Every field of a name as one list; `None` where there is none.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut all = headers.get_all(name).iter().filter_map(|field| field.to_str().ok());
    let first = all.next()?.to_owned();
    Some(all.fold(first, |list, field| list + ", " + field))
}

fn internal(error: impl std::fmt::Display) -> Rejection {
    Rejection::new(Code::Internal, error.to_string())
}

/// HTTP/2 may send a cookie header in crumbs; for others they are one (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}
