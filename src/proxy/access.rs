//! Who may pass, and how much: the policies of a route in their fixed order.
//!
//! Addresses, cross-origin preflights, limits on what nobody has proven, proof, what is required of it, limits on what was
//! proven. Limits on unproven keys and the count of failures come first, so that bad tokens and slow hashes are no lever.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::ctx::Ctx;
use super::gate::Gate;
use super::sink::ResponseSink;
use crate::config::{Importance, OnFailure};
use crate::facts::Proven;
use crate::overload::Weight;
use crate::policy::auth::Answer;
use crate::policy::limits::ceil;
use crate::policy::{Access, Cors, ForwardAuth, Limit, Proof, Said, Tried, Word};
use crate::rejection::{Code, Rejection};
use crate::routes::Route;
use crate::upstream::exchange;

/// Longest answer of a service that is passed on.
const ANSWER_MAX: usize = 64 << 10;

/// A request that is turned away hears of it after this long.
const SHED_AFTER: Duration = Duration::from_millis(250);

/// How important a request is by its route alone. `None`: it depends on who asks.
fn early_weight(route: &Route) -> Option<Weight> {
    match route.importance {
        Some(Importance::Critical) => Some(Weight::Critical),
        Some(Importance::Normal) => Some(Weight::Normal),
        Some(Importance::Sheddable) => Some(Weight::Sheddable),
        None => route.access.is_none().then_some(Weight::Sheddable),
    }
}

/// What becomes of a request.
pub(super) enum Verdict {
    Pass,
    Reject(Rejection),
    /// Something else answers: a preflight, the service that decides.
    Answer(StatusCode, HeaderMap, Bytes),
}

impl Gate {
    pub(super) async fn judge(&self, session: &Session, ctx: &mut Ctx, route: &Route) -> Verdict {
        if let Some(weight) = early_weight(route)
            && let Err(rejection) = self.shed(weight).await
        {
            return Verdict::Reject(rejection);
        }
        if route.addresses.is_none()
            && route.cors.is_none()
            && route.access.is_none()
            && route.limits_before.is_empty()
            && route.limits_after.is_empty()
        {
            return Verdict::Pass;
        }
        if route.addresses.as_ref().is_some_and(|addresses| !addresses.allow(ctx.client)) {
            return Verdict::Reject(Rejection::new(Code::AddressDenied, "the client's address may not ask"));
        }
        let request = session.req_header();
        if route.cors.is_some() && Cors::is_preflight(&request.method, &request.headers) {
            // What it says is said by `finish`, as on every answer.
            ctx.preflight = true;
            return Verdict::Answer(StatusCode::NO_CONTENT, HeaderMap::new(), Bytes::new());
        }
        if let Err(rejection) = self.count(session, ctx, route, &route.limits_before) {
            return Verdict::Reject(rejection);
        }
        if let Some(access) = &route.access {
            match self.prove_subject(session, ctx, route, access).await {
                Verdict::Pass => {}
                other => return other,
            }
        }
        match self.count(session, ctx, route, &route.limits_after) {
            Ok(()) => Verdict::Pass,
            Err(rejection) => Verdict::Reject(rejection),
        }
    }

    /// Turns a request away where there are too many. Its answer comes late, so that a client that asks again at once has to
    /// wait, and costs nothing meanwhile.
    async fn shed(&self, weight: Weight) -> std::result::Result<(), Rejection> {
        if !self.overload.sheds(weight) {
            return Ok(());
        }
        tokio::time::sleep(SHED_AFTER).await;
        let rejection = Rejection::new(Code::Overload, "the gateway has too much to do");
        Err(rejection.retry_after(Duration::from_secs(1)))
    }

    async fn prove_subject(&self, session: &Session, ctx: &mut Ctx, route: &Route, access: &Access) -> Verdict {
        if let Some(wait) = access.proving.is_blocked(ctx.client) {
            let cause = "the client has failed to authenticate too often";
            return Verdict::Reject(Rejection::new(Code::Limit, cause).retry_after(wait));
        }
        let mut tried = Vec::new();
        for proof in &access.proofs {
            let one = match proof {
                Proof::Forward(service) => match self.ask(session, ctx, route, service).await {
                    Ok(one) => one,
                    Err(answer) => return answer,
                },
                proof => proof.attempt(&ctx.head(session), &access.proving).await,
            };
            let done = matches!(one, Tried::Good(..));
            tried.push(one);
            if done {
                break;
            }
        }
        let (subject, limits) = match access.decide(tried) {
            Answer::Pass(subject, limits) => (subject, limits),
            Answer::Required => {
                let mut rejection = Rejection::new(Code::AuthRequired, "the request has no credentials");
                rejection.challenges = access.challenges(None, None);
                return Verdict::Reject(rejection);
            }
            Answer::Invalid(cause) => {
                access.proving.failed(ctx.client);
                let mut rejection = Rejection::new(Code::AuthInvalid, cause);
                rejection.challenges = access.challenges(Some("invalid_token"), None);
                return Verdict::Reject(rejection);
            }
            Answer::Unavailable(cause) => {
                let rejection = Rejection::new(Code::AuthUnavailable, cause).retry_after(Duration::from_secs(1));
                return Verdict::Reject(rejection);
            }
        };
        if let Some(missing) = access.missing(&subject).filter(|_| subject.by != Proven::Anonymous) {
            let cause = format!("claim `{}` does not suffice", missing.claim);
            let mut rejection = Rejection::new(Code::AuthForbidden, cause);
            rejection.challenges = access.challenges(Some("insufficient_scope"), missing.scope());
            return Verdict::Reject(rejection);
        }
        let unknown = subject.by == Proven::Anonymous;
        ctx.subject = Some(subject);
        if route.importance.is_none()
            && let Err(rejection) = self.shed(if unknown { Weight::Sheddable } else { Weight::Normal }).await
        {
            return Verdict::Reject(rejection);
        }
        match self.count(session, ctx, route, &limits) {
            Ok(()) => Verdict::Pass,
            Err(rejection) => Verdict::Reject(rejection),
        }
    }

    /// Asks a service. The error is its own answer to the client.
    async fn ask(
        &self,
        session: &Session,
        ctx: &Ctx,
        route: &Route,
        service: &ForwardAuth,
    ) -> std::result::Result<Tried, Verdict> {
        let pool = route.forward.iter().find(|(name, _)| *name == service.name).map(|(_, pool)| pool);
        let Some(pool) = pool else { return Ok(Tried::Unavailable("nobody decides here".to_owned())) };
        let headers = service.question(&ctx.head(session));
        let request = Request::get(service.path.as_str()).body(Bytes::new());
        let Ok(mut request) = request else { return Ok(Tried::Unavailable("no question".to_owned())) };
        *request.headers_mut() = headers;
        if let Ok(host) = http::HeaderValue::try_from(pool.name().to_string()) {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let failed = |cause: String| match service.on_failure {
            OnFailure::Deny => Tried::Unavailable(cause),
            OnFailure::Allow => {
                tracing::warn!(service = %service.name, cause, "a request passes that nobody decided about");
                let subject = crate::facts::Subject::new(Proven::Forward, "", &service.name);
                Tried::Good(subject.into(), std::sync::Arc::default())
            }
        };
        match exchange(pool, request, service.timeout, ANSWER_MAX).await {
            Err(error) => Ok(failed(format!("`{}`: {error}", service.name))),
            Ok(answer) => match service.judge(answer.status(), answer.headers()) {
                Word::Pass(subject) => Ok(Tried::Good(subject, std::sync::Arc::default())),
                Word::Failed(cause) => Ok(failed(cause)),
                Word::Answer(status, headers) => Err(Verdict::Answer(status, headers, answer.into_body())),
            },
        }
    }

    /// Counts a request by limits; the first that refuses ends it.
    fn count(
        &self,
        session: &Session,
        ctx: &mut Ctx,
        route: &Route,
        limits: &[std::sync::Arc<Limit>],
    ) -> std::result::Result<(), Rejection> {
        if limits.is_empty() {
            return Ok(());
        }
        let mut held = Vec::new();
        let (mut policies, mut states) = (Vec::new(), Vec::new());
        let mut refused = None;
        {
            let head = ctx.head(session);
            let captured = route.captured(&ctx.captures, head.path);
            let facts = route.facts(&head, &captured, ctx.subject.as_deref());
            for limit in limits {
                match limit.check(ctx.client, head.method, head.headers, &facts) {
                    Said::Skipped => {}
                    Said::Entered(one) => held.push(one),
                    Said::Allowed(window) => {
                        policies.push(limit.policy(window.burst, limit.window().unwrap_or_default()));
                        states.push(limit.stands(window.remaining, window.full_in));
                    }
                    Said::Refused { .. } if limit.dry_run => {
                        tracing::debug!(limit = %limit.name, route = %route.name, "would be refused (dry run)");
                    }
                    Said::Refused { wait, window } => {
                        if let Some((burst, window)) = window {
                            policies.push(limit.policy(burst, window));
                            states.push(limit.stands(0, wait.unwrap_or(window)));
                        }
                        let mut rejection = Rejection::new(Code::Limit, format!("limit `{}`", limit.name));
                        // Rounded up, or the client would come a moment too early.
                        rejection.retry_after = wait.map(|wait| Duration::from_secs(ceil(wait)));
                        refused = Some(rejection);
                        break;
                    }
                }
            }
        }
        ctx.held.extend(held);
        for (list, more) in [(&mut ctx.limit_policy, policies), (&mut ctx.limit_state, states)] {
            for text in more {
                if !list.is_empty() {
                    list.push_str(", ");
                }
                list.push_str(&text);
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Somebody else's answer.
    pub(super) async fn pass_on(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<()> {
        let mut head = ResponseHeader::build(status, Some(headers.len() + 8))?;
        for (name, value) in &headers {
            head.append_header(name.clone(), value.clone())?;
        }
        if status != StatusCode::NO_CONTENT {
            head.insert_header(http::header::CONTENT_LENGTH, body.len().to_string())?;
        }
        self.write(session, ctx, head, body).await
    }

    /// What limits and cross-origin rules say, on every answer of the route.
    pub(super) fn finish_access(&self, session: &Session, ctx: &Ctx, route: &Route, head: &mut ResponseHeader) {
        if let Some(cors) = &route.cors {
            let request = &session.req_header().headers;
            cors.apply(request, &mut ResponseSink(head));
            if ctx.preflight {
                cors.preflight(request, &mut ResponseSink(head));
            }
        }
        if !ctx.limit_policy.is_empty() {
            let _ = head.insert_header("ratelimit-policy", ctx.limit_policy.as_str());
            let _ = head.insert_header("ratelimit", ctx.limit_state.as_str());
        }
    }
}
