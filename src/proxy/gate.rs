//! The proxy's hooks, in the order Pingora calls them. Each phase is a file beside this one; here is only their order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use tokio::sync::watch;

use super::Surroundings;
use super::access::Verdict;
use super::answer::{begun, linger_for_body};
use super::client::Trusted;
use super::ctx::Ctx;
use super::failure::rejection_of;
use super::flow::{Phase, Reaper};
use super::peer::{TlsMaterial, Wire};
use crate::front::conn;
use crate::overload::Overload;
use crate::rejection::{Code, Rejection};
use crate::routes::{Destination, Live};
use crate::settings::Limits;
use crate::telemetry::Telemetry;
use crate::tls::Challenges;
use crate::upstream::Outcome;

/// What all requests share.
pub(crate) struct Gate {
    pub(super) live: Arc<Live>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) trusted: Trusted,
    pub(super) limits: Arc<Limits>,
    /// `Proxy-Status` name.
    pub(super) name: String,
    /// Name in `Via`, with a part of its own for this process: finding it again means a loop.
    pub(super) pseudonym: String,
    /// `Via` of requests that came over HTTP/1.1 and over HTTP/2.
    pub(super) via: (HeaderValue, HeaderValue),
    pub(super) reaper: Arc<Reaper>,
    pub(super) material: TlsMaterial,
    pub(super) mirrors: super::mirror::Mirrors,
    pub(super) challenges: Option<Arc<Challenges>>,
    pub(super) overload: Arc<Overload>,
    pub(super) shutdown: watch::Receiver<bool>,
}

impl Gate {
    pub(crate) fn new(
        settings: &crate::settings::Settings,
        around: Surroundings,
        reaper: Arc<Reaper>,
        mirrors: super::mirror::Mirrors,
    ) -> Gate {
        let Surroundings { live, telemetry, challenges, overload, shutdown } = around;
        let name = settings.node_name().to_owned();
        let pseudonym = format!("{name}-{:08x}", fastrand::u32(..));
        Gate {
            live,
            telemetry,
            trusted: Trusted::new(settings.trust.forwarded_from.iter().map(String::as_str)),
            limits: Arc::new(settings.limits.clone()),
            via: (via("1.1", &pseudonym), via("2", &pseudonym)),
            pseudonym,
            name,
            reaper,
            material: TlsMaterial::default(),
            mirrors,
            challenges,
            overload,
            shutdown,
        }
    }

    /// Draining has begun: answers close their HTTP/1 connections, also those to requests that came before.
    pub(super) fn leaving(&self) -> bool {
        *self.shutdown.borrow()
    }
}

/// A hop of RFC 9110 7.6.3. The name was checked with the settings.
fn via(version: &str, pseudonym: &str) -> HeaderValue {
    HeaderValue::try_from(format!("{version} {pseudonym}")).unwrap_or_else(|_| HeaderValue::from_static("1.1 tollgate"))
}

#[async_trait]
impl ProxyHttp for Gate {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new(conn::current(), self.telemetry.clone())
    }

    /// Compression is a policy of its own, not Pingora's default module.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        ctx.http2 = session.as_downstream().as_http2().is_some();
        let old = session.req_header().version == http::Version::HTTP_10;
        let downstream = session.as_downstream_mut();
        // RFC 9110 15.2: HTTP/1.0 knows no 1xx.
        downstream.set_ignore_info_resp(old);
        // The stream and the flow bound every wait; Pingora's own bound on reads is fixed at a minute.
        downstream.set_read_timeout(None);
        if ctx.http2 {
            // A client that opens no window. Over HTTP/1 the stream tells slow from stalled.
            downstream.set_write_timeout(Some(self.limits.write_idle.0));
        }
        let admitted = match self.greet(session, ctx) {
            Ok(()) => self.admit(session, ctx),
            Err(rejection) => Err(rejection),
        };
        if let Err(rejection) = admitted {
            self.slow_down(&rejection).await;
            self.reject(session, ctx, rejection).await?;
            return Ok(true);
        }
        if let Some(proof) = ctx.proof.take() {
            self.prove(session, ctx, proof).await?;
            return Ok(true);
        }
        if let Some(location) = ctx.to_https.take() {
            self.redirect_to(session, ctx, StatusCode::PERMANENT_REDIRECT, location).await?;
            return Ok(true);
        }
        let Some(route) = ctx.route.clone() else {
            return Err(Error::explain(ErrorType::InternalError, "admitted without a route"));
        };
        match self.judge(session, ctx, &route).await {
            Verdict::Pass => {}
            Verdict::Reject(rejection) => {
                self.reject(session, ctx, rejection).await?;
                return Ok(true);
            }
            Verdict::Answer(status, headers, body) => {
                self.pass_on(session, ctx, status, headers, body).await?;
                return Ok(true);
            }
        }
        if matches!(route.destination, Destination::Redirect(_) | Destination::Respond(_)) {
            self.mirror_answer(session, ctx, &route);
        }
        match &route.destination {
            Destination::Redirect(redirect) => self.redirect(session, ctx, &route, redirect).await?,
            Destination::Respond(respond) => self.respond(session, ctx, &route, respond).await?,
            Destination::Upstream(_) | Destination::Split(_) => {
                self.prepare(session, ctx, &route);
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        self.choose(session, ctx)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if let Err(rejection) = self.forward(session, ctx, head) {
            let status = rejection.code.status().as_u16();
            ctx.rejection = Some(rejection);
            return Err(Error::explain(ErrorType::HTTPStatus(status), "the request cannot be forwarded"));
        }
        super::upgrade::hide_body(ctx, head);
        if head.version == http::Version::HTTP_2 {
            self.continue_ourselves(session, head).await?;
        } else if let Some(wire) = &ctx.wire {
            ctx.flow.hold_upstream(Some(wire.clone()));
        }
        if let Some(copying) = &mut ctx.mirror {
            copying.head(head);
        }
        Ok(())
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.reused = reused;
        ctx.wire = digest.and_then(Wire::of);
        if peer.options.alpn.get_max_http_version() == 2 {
            // It may be shared: it cannot be broken for one request, so Pingora's bound on reads comes first.
            ctx.flow.share_upstream();
        }
        if !reused {
            ctx.timings.connect = ctx.attempt_begun.map(|begun| begun.elapsed());
        }
        if ctx.connect_failed {
            // Another endpoint took the connection: what the budget is there to bound is over.
            (ctx.retry, ctx.connect_failed) = (None, false);
        }
        ctx.body_in = 0;
        ctx.sent = Some(Instant::now());
        ctx.flow.enter(if session.is_body_done() { Phase::Head } else { Phase::Body });
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let length = body.as_ref().map_or(0, Bytes::len) as u64;
        ctx.body_in += length;
        ctx.flow.progressed();
        if ctx.upgraded {
            return Ok(());
        }
        let bound = ctx.route.as_ref().map_or(u64::MAX, |route| route.body_max);
        if ctx.body_in > bound {
            ctx.rejection = Some(Rejection::new(Code::BodyTooLarge, "the body grew over the route's bound"));
            return Err(Error::explain(ErrorType::HTTPStatus(413), "body over the bound"));
        }
        if let Some(copying) = &mut ctx.mirror {
            copying.body(body.as_ref(), end_of_stream);
        }
        if end_of_stream && ctx.status == 0 {
            ctx.sent = Some(Instant::now());
            ctx.flow.enter(Phase::Head);
        }
        Ok(())
    }

    fn fail_to_connect(&self, session: &mut Session, _: &HttpPeer, ctx: &mut Ctx, error: Box<Error>) -> Box<Error> {
        self.connect_failed(session, ctx, error)
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Ctx,
        client_reused: bool,
    ) -> Box<Error> {
        self.attempt_failed(peer, session, ctx, error, client_reused)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if head.status == http::StatusCode::SWITCHING_PROTOCOLS && !session.is_upgrade_req() {
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "101 to a request for no upgrade").into_up());
        }
        if head.status.is_informational() && head.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        self.answered(head, ctx);
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, head: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        if head.status.is_informational() && head.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        super::upgrade::settle(ctx, head.status);
        super::attempt::settle_stream(ctx, head);
        let trailers = head.headers.contains_key(http::header::TRAILER);
        if !ctx.upgraded {
            super::hop::strip_response(head);
            super::hop::frame_for(session.req_header().version, head);
            ctx.flow.enter(Phase::Stream);
        }
        if self.leaving() {
            session.set_keepalive(None);
        }
        if !ctx.upgraded {
            linger_for_body(session, ctx);
        }
        if !ctx.upgraded {
            self.stand_in(session, ctx, head)?;
        }
        self.finish(session, ctx, head);
        if !ctx.upgraded {
            self.compress(session, ctx, head, trailers)?;
        }
        ctx.status = head.status.as_u16();
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        if end_of_stream
            && !ctx.upgraded
            && let Some(lease) = ctx.lease.take()
        {
            // Before the client has the last byte: its next request finds the place free.
            lease.report(Outcome::Status(ctx.status));
        }
        if end_of_stream && !ctx.upgraded {
            ctx.limits.held.clear();
        }
        ctx.flow.progressed();
        if let Some(copying) = &mut ctx.mirror {
            copying.answer_body(body.as_ref());
        }
        super::body::recode(ctx, body, end_of_stream)?;
        ctx.body_out += body.as_ref().map_or(0, Bytes::len) as u64;
        Ok(None)
    }

    /// An answer that ends with trailers: what is left of its body comes first, and Pingora then leaves the trailers out.
    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        _: &mut http::HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<Option<Bytes>> {
        let mut rest = None;
        super::body::recode(ctx, &mut rest, true)?;
        Ok(rest)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        let rejection = rejection_of(error, ctx);
        let status = rejection.as_ref().map_or(0, |rejection| rejection.code.status().as_u16());
        match rejection {
            Some(rejection) if begun(session).is_none() => {
                // Pingora gives the connection up after an error.
                session.set_keepalive(None);
                // Pingora drops the connection after this; the answer must be on its way before.
                let written = self.reject(session, ctx, rejection).await;
                if let (Ok(()), false) = (&written, ctx.http2) {
                    let _ = session.as_downstream_mut().finish_body().await;
                    session.as_downstream_mut().shutdown().await;
                }
                if let Err(error) = written {
                    tracing::debug!(%error, "the answer could not be written");
                }
            }
            // The answer has begun: all that is left is to break it off, behind what came of it.
            rejection => {
                ctx.rejection = rejection.or(ctx.rejection.take());
                if let ServerSession::H1(client) = session.as_downstream_mut() {
                    let ended = Error::new(ErrorType::ConnectionClosed);
                    let _ =
                        client.response_duplex_vec(vec![HttpTask::Body(None, false), HttpTask::Failed(ended)]).await;
                }
            }
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    /// Every failure is in the access log with its cause; a second line of Pingora's would only double it.
    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Ctx, _: &Error, _: pingora_proxy::ProxyWarnLogContext) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        if let Some(lease) = ctx.lease.take() {
            lease.report(match ctx.status {
                0 => Outcome::Success,
                status => Outcome::Status(status),
            });
        }
        ctx.flow.hold_upstream(None);
        if let Some(copying) = ctx.mirror.take().filter(|copying| error.is_none() && copying.is_whole()) {
            copying.send(ctx.request_id.as_str().to_owned());
        }
        self.record(session, error, ctx);
    }
}
