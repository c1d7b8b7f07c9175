//! The first phases of a request: who asks, for what, and which route takes it.

use std::sync::atomic::Ordering;

use http::Version;
use http::header::VIA;
use pingora_proxy::Session;

use super::client::{scheme, strip};
use super::ctx::{Ctx, RequestId, asked_host};
use super::gate::Gate;
use crate::facts::{Scheme, host, path};
use crate::rejection::{Code, Rejection};
use crate::routes::Found;

/// RFC 8555 8.3. Answered before any route while an order is under way.
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";
const X_REQUEST_ID: &str = "x-request-id";
const TRACEPARENT: &str = "traceparent";

impl Gate {
    /// Ids, trace and client; refused heads end here. Nothing of the request is believed yet.
    pub(super) fn greet(&self, session: &Session, ctx: &mut Ctx) -> Result<(), Rejection> {
        ctx.flow.begin();
        self.reaper.watch(&ctx.flow);
        if let Some(refusal) = ctx.refusal() {
            return Err(Rejection::new(refusal.code, refusal.cause));
        }
        let headers = &session.req_header().headers;
        ctx.trusted = self.trusted.contains(ctx.client);
        ctx.client = self.trusted.client(ctx.client, headers);
        ctx.scheme = scheme(headers).filter(|_| ctx.trusted);
        if let Some(id) = headers.get(X_REQUEST_ID).filter(|_| ctx.trusted).and_then(RequestId::given) {
            ctx.request_id = id;
        }
        let begun = self.telemetry.begin(headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()));
        (ctx.trace, ctx.parent_span) = (begun.context, begun.parent);
        Ok(())
    }

    /// Normalises what was asked for and finds its route.
    pub(super) fn admit(&self, session: &mut Session, ctx: &mut Ctx) -> Result<(), Rejection> {
        self.check_head(session, ctx)?;
        let table = self.live.load_full();
        ctx.revision = Some(table.revision.clone());
        strip(session.req_header_mut(), ctx.trusted, |name| table.is_reserved(name));
        self.normalise(session, ctx)?;
        if let Some(challenges) = &self.challenges {
            let path = ctx.head(session).path;
            ctx.proof = path.strip_prefix(CHALLENGE_PATH).and_then(|token| challenges.http(token));
            if ctx.proof.is_some() {
                return Ok(());
            }
        }
        ctx.hsts = {
            let head = ctx.head(session);
            let name = table.names.find(head.host).filter(|_| head.scheme == Scheme::Https);
            name.and_then(|name| name.hsts.clone())
        };
        let found = {
            let head = ctx.head(session);
            match table.find(&head) {
                Found::Route { route, captures } => Ok((route.clone(), captures)),
                Found::MethodNotAllowed { allow } => {
                    let mut rejection = Rejection::new(Code::MethodNotAllowed, "no route here takes the method");
                    rejection.allow = Some(allow);
                    Err(rejection)
                }
                Found::Refused { route, cause } => {
                    ctx.route = Some(route.clone());
                    Err(Rejection::new(Code::BadRequest, cause.to_string()))
                }
                Found::CertificateRequired => {
                    Err(Rejection::new(Code::Misdirected, "the host is for clients with a certificate"))
                }
                Found::NoRoute => Err(Rejection::new(Code::NoRoute, "no route matches")),
                Found::ToHttps { location } => {
                    ctx.to_https = Some(location);
                    return Ok(());
                }
            }
        };
        ctx.table = Some(table);
        let (route, captures) = found?;
        ctx.captures = captures;
        if let Some(length) = declared_length(session)
            && length > route.body_max
        {
            ctx.route = Some(route);
            return Err(Rejection::new(Code::BodyTooLarge, "the declared length is over the route's bound"));
        }
        ctx.route = Some(route);
        Ok(())
    }

    /// What Pingora lets through that we do not (HTTP/1 heads passed the guard; these hold for HTTP/2 too).
    fn check_head(&self, session: &Session, ctx: &Ctx) -> Result<(), Rejection> {
        let request = session.req_header();
        let bad = |cause: &'static str| Err(Rejection::new(Code::BadRequest, cause));
        if request.headers.len() > self.limits.headers {
            return Err(Rejection::new(Code::HeadTooLarge, "too many header fields"));
        }
        if request.version == Version::HTTP_2 {
            if let Some(connection) = &ctx.connection {
                connection.requests.fetch_add(1, Ordering::Relaxed);
            }
            if request.raw_path().len() > usize::try_from(self.limits.request_line.0).unwrap_or(usize::MAX) {
                return Err(Rejection::new(Code::UriTooLong, "the target is too long"));
            }
            if list_size(request) > self.limits.head.0 {
                return Err(Rejection::new(Code::HeadTooLarge, "the header list is too large"));
            }
            let mut lengths = request.headers.get_all(http::header::CONTENT_LENGTH).iter();
            if let Some(length) = lengths.next()
                && (lengths.next().is_some() || !length.as_bytes().iter().all(u8::is_ascii_digit))
            {
                return bad("the content length is ambiguous");
            }
        }
        if request.method == http::Method::TRACE {
            // It would show headers that routes add (RFC 9110 9.3.8).
            return Err(Rejection::new(Code::MethodNotAllowed, "TRACE"));
        }
        let loops = request
            .headers
            .get_all(VIA)
            .iter()
            .filter_map(|via| via.to_str().ok())
            .any(|via| via.split(',').any(|hop| hop.split_ascii_whitespace().nth(1) == Some(&self.pseudonym)));
        if loops {
            return Err(Rejection::new(Code::Loop, "our own name is in Via"));
        }
        Ok(())
    }

    fn normalise(&self, session: &Session, ctx: &mut Ctx) -> Result<(), Rejection> {
        let request = session.req_header();
        let asked = asked_host(session);
        let normal = host::normalise(asked).map_err(|error| Rejection::new(Code::BadRequest, error.to_string()))?;
        let tls = ctx.connection.as_ref().and_then(|connection| connection.tls.as_ref());
        if tls.is_some_and(|tls| !tls.session.is_good_for(&normal)) {
            return Err(Rejection::new(Code::Misdirected, "the TLS session is not good for this host"));
        }
        ctx.host = Some(normal.into());
        let raw = request.uri.path();
        // `OPTIONS *` asks about the gateway as a whole; it is matched as `/*` would be.
        if raw == "*" {
            return match request.method {
                http::Method::OPTIONS => Ok(()),
                _ => Err(Rejection::new(Code::BadRequest, "`*` is for OPTIONS only")),
            };
        }
        let normal = path::normalise(raw).map_err(|error| Rejection::new(Code::BadRequest, error.to_string()))?;
        if normal.path != raw {
            ctx.path = Some(normal.path.into());
        }
        if let Some(query) = request.uri.query() {
            path::check_query(query).map_err(|error| Rejection::new(Code::BadRequest, error.to_string()))?;
        }
        Ok(())
    }
}

/// The length a request declares. Chunked and HTTP/2 bodies without one are counted as they come.
fn declared_length(session: &Session) -> Option<u64> {
    session.req_header().headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The size of a header list as HTTP/2 counts it (RFC 9113 10.5.1): names, values and 32 bytes for each field.
fn list_size(head: &pingora_http::RequestHeader) -> u64 {
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    (fields.sum::<usize>() + head.raw_path().len() + 32) as u64
}
