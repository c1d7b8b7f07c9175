//! Attempts: which pool, which endpoint, and what its answer means.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::ctx::Ctx;
use super::failure::no_lease;
use super::flow::Bounds;
use super::gate::Gate;
use super::peer::{Call, peer};
use super::upgrade::{asks_for_websocket, hold_body};
use crate::config::{OnExpiry, OnRemove, Protocol};
use crate::facts::{Facts, Proven, Scheme, cookie};
use crate::routes::{Destination, Route};
use crate::telemetry::metrics::Failure;
use crate::upstream::{Lease, PickError, Pool, Sticky, StickyToken, hash_key};

impl Gate {
    /// Before the first attempt: the pool, the bounds, the mirror.
    pub(super) fn prepare(&self, session: &mut Session, ctx: &mut Ctx, route: &Arc<Route>) {
        // Only the document's bounds matter from here on; the table may be replaced.
        ctx.table = None;
        let request = session.req_header();
        let grpc =
            request.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let timeouts = &route.timeout;
        ctx.flow.bound(Bounds {
            // The front bounds bodies of HTTP/1 on the stream; a gRPC client may wait for the server's turn.
            body: ctx.http2.then_some(if grpc { timeouts.idle } else { self.limits.body_idle.0 }),
            head: Some(timeouts.head),
            idle: Some(timeouts.idle),
            request: timeouts.request,
            max_age: max_age(route, ctx),
            client: ctx.connection.clone().filter(|_| !ctx.http2),
            subject: None,
            removed: (route.stream.on_remove == OnRemove::Drain).then(|| route.removed.clone()),
        });
        ctx.told = Some((session.req_header().method.clone(), ctx.head(session).path.into()));
        ctx.pool = match &route.destination {
            Destination::Upstream(pool) => Some(pool.clone()),
            Destination::Split(split) => {
                let head = ctx.head(session);
                let captured = route.captured(&ctx.captures, head.path);
                let chosen = split.choose(&head, &route.facts(&head, &captured, ctx.subject.as_deref()));
                let (pool, cookie) = match chosen {
                    Some(chosen) => (Some(chosen.pool.clone()), chosen.set_cookie.cloned()),
                    None => (None, None),
                };
                ctx.share_cookie = cookie;
                pool
            }
            Destination::Redirect(_) | Destination::Respond(_) => None,
        };
        ctx.mirror = self.mirrors.begin(session, route);
    }

    /// The mirror of a request that the gateway answers by itself: there is no body to copy then but none.
    pub(super) fn mirror_answer(&self, session: &mut Session, ctx: &mut Ctx, route: &Arc<Route>) {
        let Some(mut copying) = self.mirrors.begin(session, route) else { return };
        let mut head = session.req_header().clone();
        if session.as_mut().is_body_empty() && self.forward(session, ctx, &mut head).is_ok() {
            copying.head(&head);
            copying.body(None, true);
            ctx.mirror = Some(copying);
        }
    }

    /// One endpoint for the next attempt.
    pub(super) fn choose(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let (Some(route), Some(pool)) = (ctx.route.clone(), ctx.pool.clone()) else {
            return Err(Error::explain(ErrorType::InternalError, "no pool at the upstream phase"));
        };
        let metrics = pool.metrics(|name| self.telemetry.metrics.upstream(name));
        if ctx.lease.take().is_some() {
            ctx.flow.hold_upstream(None);
        }
        let lease = match self.pick(session, ctx, &route, &pool) {
            Ok(lease) => lease,
            Err(why) => {
                metrics.failed(match why {
                    PickError::NoEndpoint => Failure::NoEndpoint,
                    PickError::BreakerOpen { .. } => Failure::BreakerOpen,
                    PickError::ConnectionLimit => Failure::ConnectionLimit,
                });
                // A retry that found no other endpoint reports the failure it was to mend.
                if ctx.rejection.is_none() {
                    ctx.rejection = Some(no_lease(why));
                }
                return Err(Error::explain(ErrorType::HTTPStatus(503), "no endpoint was picked"));
            }
        };
        // From here on this attempt's failure counts, not the one it is to mend.
        ctx.rejection = None;
        ctx.attempts += 1;
        metrics.attempted();
        if ctx.attempts > 1 {
            metrics.retried();
        }
        ctx.attempt_begun = Some(Instant::now());
        ctx.attempt_trace = (ctx.trace.sampled && self.telemetry.traces()).then(|| ctx.trace.child());
        ctx.endpoint = Some(lease.address());
        ctx.tried.push(lease.address());
        let upgrade = asks_for_websocket(session);
        if lease.transport().protocol != Protocol::H2 && upgrade {
            hold_body(session, ctx);
        }
        let client = ctx.connection.as_ref().map(|connection| {
            let port = if ctx.client == connection.ip() { connection.peer.port() } else { 0 };
            (SocketAddr::new(ctx.client, port), connection.local)
        });
        let call = Call { waits: ctx.waits, client, bodyless: session.as_mut().is_body_empty(), upgrade };
        let peer = peer(&lease, call, &route.timeout, &ctx.flow, &self.material);
        ctx.lease = Some(lease);
        Ok(peer)
    }

    fn pick(
        &self,
        session: &Session,
        ctx: &mut Ctx,
        route: &Route,
        pool: &Arc<Pool>,
    ) -> std::result::Result<Lease, PickError> {
        let Some(spec) = pool.spec() else { return pool.pick(None, &ctx.tried) };
        let head = ctx.head(session);
        let key = spec.hash_by().and_then(|fact| {
            let captured = route.captured(&ctx.captures, head.path);
            route.facts(&head, &captured, ctx.subject.as_deref()).fact(fact).map(|value| hash_key(value.as_bytes()))
        });
        let Some(sticky) = spec.sticky() else { return pool.pick(key, &ctx.tried) };
        let held: Option<StickyToken> = cookie(head.headers, &sticky.cookie).and_then(|value| value.parse().ok());
        let secure = head.scheme;
        let lease = match held {
            Some(token) => pool.pick_sticky(token, key, &ctx.tried)?,
            None => pool.pick(key, &ctx.tried)?,
        };
        let token = lease.sticky_token();
        ctx.sticky_cookie = if held == Some(token) { None } else { sticky_cookie(sticky, token, secure) };
        Ok(lease)
    }

    /// The head of an answer is here.
    pub(super) fn answered(&self, head: &ResponseHeader, ctx: &mut Ctx) {
        ctx.timings.head = ctx.sent.map(|sent| sent.elapsed());
        // An earlier attempt's failure is mended.
        ctx.rejection = None;
        if let (Some(pool), Some(begun)) = (&ctx.pool, ctx.attempt_begun) {
            pool.metrics(|name| self.telemetry.metrics.upstream(name)).answered(head.status.as_u16(), begun.elapsed());
        }
        ctx.attempt_ended(head.status.as_u16(), None);
        if let Some(copying) = &mut ctx.mirror {
            copying.answer_head(head.status, &head.headers);
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            ctx.mirror = None;
        }
    }
}

/// The head of the answer goes to the client: what may last is watched from here on.
pub(super) fn settle_stream(ctx: &Ctx, head: &ResponseHeader) {
    let Some(route) = ctx.route.as_deref().filter(|_| ctx.upgraded || is_stream(head)) else { return };
    let watched = match (&route.access, &ctx.subject) {
        (Some(access), Some(subject)) if subject.by == Proven::Jwt && route.stream.on_expiry == OnExpiry::Close => {
            Some(access.proving.revocations().watch(subject))
        }
        _ => None,
    };
    ctx.flow.lasts(watched);
}

/// Keeps a client on its endpoint. The value tells nothing of the address.
fn sticky_cookie(sticky: &Sticky, token: StickyToken, scheme: Scheme) -> Option<HeaderValue> {
    let age = sticky.max_age.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
    let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{}={token}; Path=/; HttpOnly; SameSite=Lax{age}{secure}", sticky.cookie)).ok()
}

/// Whether an answer may go on for as long as both sides like: nothing says how long it is.
fn is_stream(head: &ResponseHeader) -> bool {
    !head.headers.contains_key(CONTENT_LENGTH)
}

/// How long an upgraded connection or a stream may live: by the route, and no longer than the proof of who asks.
fn max_age(route: &Route, ctx: &Ctx) -> Option<Duration> {
    let expires = ctx.subject.as_ref().and_then(|subject| subject.expires);
    let left = expires.filter(|_| route.stream.on_expiry == OnExpiry::Close).map(|at| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(at).saturating_sub(now)
    });
    match (route.stream.max_age, left) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
