//! When an attempt fails: what it means, whether another endpoint is tried, what the client is told.

use std::time::Duration;

use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::answer::begun;
use super::ctx::Ctx;
use super::flow::{Expired, Phase};
use super::gate::Gate;
use super::peer::AT_LIMIT;
use crate::rejection::{Code, Rejection};
use crate::telemetry::metrics::Failure;
use crate::upstream::{Outcome, PickError};

/// How often a request looks for a connection that is about to be free: for a good second in all.
pub(super) const WAITS_MAX: u8 = 50;

impl Gate {
    /// No endpoint took the connection. Nothing was sent, so any method may be tried again.
    pub(super) fn connect_failed(&self, session: &mut Session, ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
        if *error.etype() == AT_LIMIT {
            return self.wait_for_place(ctx, error);
        }
        self.report(ctx, Outcome::Connect, failure_of(&error));
        let replayable = !session.as_ref().retry_buffer_truncated();
        ctx.connect_failed = true;
        let again = replayable && self.may_retry(ctx);
        if again {
            // What the client is told if no other endpoint can be had.
            ctx.rejection = rejection_of(&error, ctx);
        }
        error.set_retry(again);
        error
    }

    /// All connections are in use although the endpoint had a place: one is on its way back. Nothing was tried yet.
    fn wait_for_place(&self, ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
        (ctx.lease, ctx.waits) = (None, ctx.waits + 1);
        ctx.attempts = ctx.attempts.saturating_sub(1);
        ctx.tried.pop();
        let again = ctx.waits < WAITS_MAX && ctx.flow.left().is_none_or(|left| !left.is_zero());
        if !again {
            ctx.rejection = Some(no_lease(PickError::ConnectionLimit));
        }
        error.set_retry(again);
        error
    }

    /// The attempt failed after the connection was there.
    pub(super) fn attempt_failed(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        ctx: &mut Ctx,
        error: Box<Error>,
        client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("Peer: {}", peer._address));
        let upstream_failed = *error.esource() == ErrorSource::Upstream;
        // A kept connection that breaks before it answers was closed as idle: no word about the endpoint, and trying again is
        // no more load on it than the request itself (RFC 9112 9.3.1).
        let was_idle = upstream_failed && client_reused && ctx.status == 0 && outcome_of(&error, ctx) == Outcome::Reset;
        if was_idle {
            self.forget_attempt(ctx, failure_of(&error));
        } else if ctx.flow.expired_by_upstream() || (upstream_failed && ctx.flow.expired().is_none()) {
            let outcome = outcome_of(&error, ctx);
            let failure = match outcome {
                Outcome::Timeout => Failure::Timeout,
                _ => failure_of(&error),
            };
            self.report(ctx, outcome, failure);
        } else {
            ctx.lease = None;
        }
        // After an early end by the clock a second try would outlast the bound.
        let repeatable = session.req_header().method.is_idempotent()
            && !session.as_ref().retry_buffer_truncated()
            && begun(session).is_none()
            && ctx.flow.expired().is_none()
            && outcome_of(&error, ctx) != Outcome::Timeout
            && !ctx.upgraded;
        let again = upstream_failed && repeatable && if was_idle { has_attempts(ctx) } else { self.may_retry(ctx) };
        if again {
            ctx.rejection = rejection_of(&error, ctx);
        }
        error.set_retry(again);
        error
    }

    fn report(&self, ctx: &mut Ctx, outcome: Outcome, failure: Failure) {
        if let Some(lease) = &ctx.lease {
            lease.report(outcome);
        }
        self.forget_attempt(ctx, failure);
    }

    fn forget_attempt(&self, ctx: &mut Ctx, failure: Failure) {
        ctx.attempt_ended(0, Some(failure));
        if let Some(pool) = &ctx.pool {
            pool.metrics(|name| self.telemetry.metrics.upstream(name)).failed(failure);
        }
        ctx.lease = None;
        ctx.flow.hold_upstream(None);
        ctx.flow.enter(Phase::Elsewhere);
    }

    /// Within the route's attempts and the pool's budget. Holds the permit until the request ends.
    fn may_retry(&self, ctx: &mut Ctx) -> bool {
        if !has_attempts(ctx) {
            return false;
        }
        let Some(pool) = &ctx.pool else { return false };
        ctx.retry = None;
        ctx.retry = pool.retry_permit();
        ctx.retry.is_some()
    }
}

/// Whether the route has another attempt, and the request time for it.
fn has_attempts(ctx: &Ctx) -> bool {
    let attempts = ctx.route.as_ref().map_or(1, |route| route.attempts);
    ctx.attempts < attempts && ctx.flow.left().is_none_or(|left| left >= Duration::from_millis(10))
}

/// What a failed pick tells the client.
pub(super) fn no_lease(why: PickError) -> Rejection {
    match why {
        PickError::NoEndpoint => {
            Rejection::new(Code::NoEndpoint, "the pool has no usable endpoint").retry_after(Duration::from_secs(1))
        }
        PickError::BreakerOpen { retry_after } => {
            Rejection::new(Code::BreakerOpen, "the pool's requests in flight are at their bound")
                .retry_after(retry_after)
        }
        PickError::ConnectionLimit => {
            Rejection::new(Code::ConnectionLimit, "every endpoint's connections are at their bound")
                .retry_after(Duration::from_secs(1))
        }
    }
}

fn outcome_of(error: &Error, ctx: &Ctx) -> Outcome {
    match (error.etype(), ctx.flow.expired()) {
        (_, Some(Expired::Head | Expired::Idle | Expired::Request)) => Outcome::Timeout,
        (ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::ConnectTimedout, _) => Outcome::Timeout,
        _ => Outcome::Reset,
    }
}

/// The rejection a final error means; `None` when the client is gone and nothing can be told.
pub(super) fn rejection_of(error: &Error, ctx: &Ctx) -> Option<Rejection> {
    if let Some(rejection) = &ctx.rejection {
        return Some(rejection.clone());
    }
    let cause = error.to_string();
    let of = |code| Some(Rejection::new(code, cause.clone()));
    if let Some(refusal) = ctx.refusal() {
        return Some(Rejection::new(refusal.code, refusal.cause));
    }
    if let Some(expired) = ctx.flow.expired() {
        return Some(rejection_of_expired(expired));
    }
    // Pingora's own bounds are cut to what is left of the request's, and may notice first.
    let late = matches!(error.etype(), ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout);
    if late && ctx.flow.left().is_some_and(|left| left.is_zero()) {
        return Some(rejection_of_expired(Expired::Request));
    }
    match (error.esource(), error.etype()) {
        (ErrorSource::Upstream, _) => of(match failure_of(error) {
            Failure::Timeout => Code::UpstreamTimeout,
            Failure::Connect => Code::UpstreamConnect,
            Failure::Tls => Code::UpstreamTls,
            Failure::Protocol => Code::UpstreamProtocol,
            Failure::Reset | Failure::NoEndpoint | Failure::BreakerOpen | Failure::ConnectionLimit => {
                Code::UpstreamReset
            }
        }),
        (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader | ErrorType::H1Error) => of(Code::BadRequest),
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => of(Code::BodyTimeout),
        (ErrorSource::Downstream, _) => None,
        (_, ErrorType::InvalidHTTPHeader) => of(Code::BadRequest),
        (_, ErrorType::ConnectTimedout) => of(Code::UpstreamTimeout),
        _ => of(Code::Internal),
    }
}

/// What kind of failure an error towards an upstream is.
fn failure_of(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::Timeout,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError
        | ErrorType::ConnectProxyFailure => Failure::Connect,
        ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError
        | ErrorType::TLSWantX509Lookup => Failure::Tls,
        ErrorType::InvalidHTTPHeader
        | ErrorType::H1Error
        | ErrorType::H2Error
        | ErrorType::H2Downgrade
        | ErrorType::InvalidH2 => Failure::Protocol,
        _ => Failure::Reset,
    }
}

/// What running out of time tells the client, where there is still one to tell.
pub(super) fn rejection_of_expired(expired: Expired) -> Rejection {
    match expired {
        Expired::Body => Rejection::new(Code::BodyTimeout, "the request body stalled"),
        Expired::Head => Rejection::new(Code::UpstreamTimeout, "the head of the answer took too long"),
        Expired::Idle => Rejection::new(Code::UpstreamTimeout, "the answer stalled"),
        Expired::Request => Rejection::new(Code::RequestTimeout, "the request as a whole took too long"),
        Expired::MaxAge => Rejection::new(Code::RequestTimeout, "the stream reached its maximum age"),
        Expired::RouteRemoved => Rejection::new(Code::RequestTimeout, "the route was removed"),
        Expired::Revoked => Rejection::new(Code::AuthInvalid, "the token was revoked"),
    }
}
