//! Answers the gateway gives by itself, and `finish`, through which every answer goes.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, LOCATION, RETRY_AFTER, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora_core::protocols::http::ServerSession;
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::ctx::Ctx;
use super::gate::Gate;
use super::sink::ResponseSink;
use crate::facts::{Facts, Known};
use crate::policy::{Answers, Wrong, server_timing};
use crate::rejection::{Code, Rejection};
use crate::routes::{Redirect, Respond, Route};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
const GRPC: &[u8] = b"application/grpc";

/// `application/grpc` and its codecs (`+proto`); gRPC-Web frames its answers otherwise.
fn is_grpc(kind: &HeaderValue) -> bool {
    let rest = kind.as_bytes().strip_prefix(GRPC);
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The final answer, as far as it is on its way. Pingora counts 1xx as written heads.
pub(super) fn begun(session: &Session) -> Option<&ResponseHeader> {
    session
        .response_written()
        .filter(|head| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS)
}

/// An answer before the request's body is read closes an HTTP/1 connection; the client must be able to read it (RFC 9112 9.6).
pub(super) fn linger_for_body(session: &mut Session, ctx: &Ctx) {
    if ctx.http2 || ctx.held_body || session.as_mut().is_body_done() {
        return;
    }
    if let Some(connection) = &ctx.connection {
        connection.linger();
    }
}

impl Gate {
    /// An HTTP/2 upstream's 100 is lost on its way through Pingora, so a client that waits for it is answered here.
    pub(super) async fn continue_ourselves(&self, session: &mut Session, upstream: &mut RequestHeader) -> Result<()> {
        if upstream.remove_header(&EXPECT).is_some() {
            session.as_downstream_mut().write_continue_response().await?;
        }
        Ok(())
    }

    /// Response policies, on every answer: edits of the route (or the defaults), the request id, cookies that keep a client
    /// where it was put.
    pub(super) fn finish(&self, session: &Session, ctx: &Ctx, head: &mut ResponseHeader) {
        let route = ctx.route.as_deref();
        let timing = self.with_answers(session, ctx, |answers, _, facts| {
            answers.apply(head.status, facts, &mut ResponseSink(head));
            answers.server_timing
        });
        if let Some(timing) = timing.then(|| server_timing(ctx.begun.elapsed(), ctx.timings.head)).flatten() {
            let _ = head.append_header(SERVER_TIMING, timing);
        }
        if route.is_none()
            && let Some(cors) = &ctx.table.clone().unwrap_or_else(|| self.live.load_full()).default_cors
        {
            cors.apply(&session.req_header().headers, &mut ResponseSink(head));
        }
        if let Some(route) = route {
            self.finish_access(session, ctx, route, head);
        }
        if let Some(hsts) = ctx.hsts.as_ref().filter(|_| !head.headers.contains_key(STRICT_TRANSPORT_SECURITY)) {
            let _ = head.insert_header(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        let _ = head.insert_header(X_REQUEST_ID, ctx.request_id.header_value());
        for cookie in [&ctx.share_cookie, &ctx.sticky_cookie].into_iter().flatten() {
            let _ = head.append_header(SET_COOKIE, cookie.clone());
        }
    }

    /// What is done to answers of the route (without one: of the defaults), and what is known of the request.
    pub(super) fn with_answers<T>(
        &self,
        session: &Session,
        ctx: &Ctx,
        act: impl FnOnce(&Answers, &HeaderMap, &dyn Facts) -> T,
    ) -> T {
        let request = ctx.head(session);
        match ctx.route.as_deref() {
            Some(route) => {
                let captured = route.captured(&ctx.captures, request.path);
                act(&route.answers, request.headers, &route.facts(&request, &captured, ctx.subject.as_deref()))
            }
            None => {
                let known = Known { head: &request, route: None, captures: &(), subject: None };
                let table = ctx.table.clone().unwrap_or_else(|| self.live.load_full());
                act(&table.default_answers, request.headers, &known)
            }
        }
    }

    /// Writes a whole answer of our own. The connection stays usable unless the request's body is in the way.
    pub(super) async fn write(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        mut head: ResponseHeader,
        body: Bytes,
    ) -> Result<()> {
        if self.leaving() {
            session.set_keepalive(None);
        }
        linger_for_body(session, ctx);
        self.finish(session, ctx, &mut head);
        ctx.status = head.status.as_u16();
        if let Some(copying) = &mut ctx.mirror {
            copying.answer_head(head.status, &head.headers);
            copying.answer_body(Some(&body));
        }
        let body = self.compress_whole(session, ctx, &mut head, body)?;
        let bodyless = session.req_header().method == Method::HEAD
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if !bodyless {
            ctx.body_out = body.len() as u64;
        }
        let end = bodyless || body.is_empty();
        if let (true, ServerSession::H2(stream)) = (end, session.as_downstream_mut()) {
            // The head itself ends the stream: gRPC calls this trailers-only.
            return stream.write_response_header(Box::new(head), true);
        }
        session.write_response_header(Box::new(head), end).await?;
        if !end {
            session.write_response_body(Some(body), true).await?;
        }
        Ok(())
    }

    /// The answer to a request that is rejected. Tells the client a code and the request id, nothing else.
    pub(super) async fn reject(&self, session: &mut Session, ctx: &mut Ctx, rejection: Rejection) -> Result<()> {
        let code = rejection.code;
        if matches!(
            code,
            Code::BadRequest | Code::HeadTimeout | Code::BodyTimeout | Code::HeadTooLarge | Code::UriTooLong
        ) || !session.as_mut().is_body_done()
        {
            // What follows on the connection is not to be trusted, or would have to be read for nothing.
            session.set_keepalive(None);
            if let Some(connection) = &ctx.connection {
                connection.linger();
            }
        }
        let kind = session.req_header().headers.get(CONTENT_TYPE).filter(|kind| is_grpc(kind)).cloned();
        let grpc = kind.is_some();
        let status = if grpc { StatusCode::OK } else { code.status() };
        let mut head = ResponseHeader::build(status, Some(8))?;
        if let Some(error) = code.proxy_status() {
            head.insert_header(PROXY_STATUS, format!("{}; error={error}", self.name))?;
        }
        if let Some(after) = rejection.retry_after {
            head.insert_header(RETRY_AFTER, after.as_secs().max(1).to_string())?;
        }
        for challenge in &rejection.challenges {
            head.append_header(WWW_AUTHENTICATE, challenge.clone())?;
        }
        if code == Code::MethodNotAllowed {
            // RFC 9110 15.5.6 wants it. Without a route there is what the gateway takes: anything but CONNECT.
            let allow = rejection.allow.clone().unwrap_or(HeaderValue::from_static(METHODS));
            head.insert_header(ALLOW, allow)?;
        }
        let body = if let Some(kind) = kind {
            head.insert_header(CONTENT_TYPE, kind)?;
            head.insert_header(GRPC_STATUS, u16::from(code.grpc_status()).to_string())?;
            head.insert_header(GRPC_MESSAGE, code.as_str())?;
            Bytes::new()
        } else {
            let wrong = Wrong { status, code: code.as_str(), title: code.title() };
            let page =
                self.with_answers(session, ctx, |answers, request, facts| answers.pages.own(wrong, request, facts));
            let (kind, body) = page.unwrap_or_else(|| {
                let text = rejection.problem_json(ctx.request_id.as_str());
                (HeaderValue::from_static("application/problem+json"), Bytes::from(text))
            });
            head.insert_header(CONTENT_TYPE, kind)?;
            // A page for one is none for another, and an error of the gateway is over soon.
            head.insert_header(VARY, "accept")?;
            head.insert_header(CACHE_CONTROL, "no-store")?;
            head.insert_header(CONTENT_LENGTH, body.len().to_string())?;
            body
        };
        ctx.rejection = Some(rejection);
        self.write(session, ctx, head, body).await
    }

    pub(super) async fn redirect(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        route: &Route,
        redirect: &Redirect,
    ) -> Result<()> {
        let location = {
            let mut request = ctx.head(session);
            let bare = super::forward::shown_query(route, request.query);
            request.query = bare.as_deref().or(request.query);
            let captured = route.captured(&ctx.captures, request.path);
            redirect.location(&request, &route.facts(&request, &captured, ctx.subject.as_deref()))
        };
        let location = match location {
            Ok(location) => location,
            Err(why) => return self.reject(session, ctx, Rejection::new(Code::BadRequest, why.to_string())).await,
        };
        self.redirect_to(session, ctx, redirect.status, location).await
    }

    /// The key authorization of a challenge (RFC 8555 8.3).
    pub(super) async fn prove(&self, session: &mut Session, ctx: &mut Ctx, proof: String) -> Result<()> {
        let mut head = ResponseHeader::build(StatusCode::OK, Some(6))?;
        head.insert_header(CONTENT_TYPE, "application/octet-stream")?;
        head.insert_header(CONTENT_LENGTH, proof.len().to_string())?;
        self.write(session, ctx, head, Bytes::from(proof)).await
    }

    pub(super) async fn redirect_to(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        status: StatusCode,
        location: HeaderValue,
    ) -> Result<()> {
        let mut head = ResponseHeader::build(status, Some(6))?;
        head.insert_header(LOCATION, location)?;
        head.insert_header(CONTENT_LENGTH, "0")?;
        self.write(session, ctx, head, Bytes::new()).await
    }

    pub(super) async fn respond(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        route: &Route,
        respond: &Respond,
    ) -> Result<()> {
        let body = {
            let mut request = ctx.head(session);
            let bare = super::forward::shown_query(route, request.query);
            request.query = bare.as_deref().or(request.query);
            let captured = route.captured(&ctx.captures, request.path);
            respond.body(&route.facts(&request, &captured, ctx.subject.as_deref()))
        };
        let mut head = ResponseHeader::build(respond.status, Some(6))?;
        let bodyless = matches!(respond.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if !bodyless {
            head.insert_header(CONTENT_TYPE, respond.content_type.clone())?;
            head.insert_header(CONTENT_LENGTH, body.len().to_string())?;
        }
        self.write(session, ctx, head, body).await
    }
}
