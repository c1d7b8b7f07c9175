//! Who may pass, and how much: the policies of a route in their fixed order.
//!
//! Overload, addresses, cross-origin preflights, limits on what nobody has proven, proof, what is required of it, limits on what was
//! proven. Limits on unproven keys and the count of failures come first, so that bad tokens and slow hashes are no lever.

use std::sync::Arc;
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
use crate::facts::{Proven, Subject};
use crate::overload::Weight;
use crate::policy::auth::Answer;
use crate::policy::limits::{Taken, ceil};
use crate::policy::{Access, Cors, ForwardAuth, Limit, Passed, Proof, Said, Tried, Word, unix_now};
use crate::ratelimit::Held;
use crate::rejection::{Code, Rejection};
use crate::routes::Route;
use crate::upstream::exchange;

/// Longest answer of a service that is passed on.
const ANSWER_MAX: usize = 64 << 10;

/// A request that is turned away hears of it after this long.
const SHED_AFTER: Duration = Duration::from_millis(250);

const TOO_OFTEN: &str = "the client has failed to authenticate too often";

/// How important a request is by its route alone. `None`: it depends on who asks.
fn early_weight(route: &Route) -> Option<Weight> {
    match route.importance {
        Some(Importance::Critical) => Some(Weight::Critical),
        Some(Importance::Normal) => Some(Weight::Normal),
        Some(Importance::Sheddable) => Some(Weight::Sheddable),
        None => route.access.is_none().then_some(Weight::Sheddable),
    }
}

/// By which limits a request was counted, and what they say.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// And what was taken of them.
    by: Vec<(Arc<Limit>, Option<Taken>)>,
    /// Places among what may be under way.
    pub(super) held: Vec<Held>,
    /// `RateLimit-Policy` and `RateLimit`.
    policies: String,
    states: String,
}

impl Counted {
    fn say(&mut self, limit: &Limit, remaining: u32, next_in: Duration) {
        if !self.policies.is_empty() {
            self.policies.push_str(", ");
        }
        self.policies.push_str(limit.policy());
        limit.stands(remaining, next_in, &mut self.states);
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
            && let Err(rejection) = self.shed(ctx, weight).await
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
        if route.cors.is_some() && Cors::preflight_method(&request.method, &request.headers).is_some() {
            // What it says is said by `finish`, as on every answer.
            ctx.preflight = true;
            return Verdict::Answer(StatusCode::NO_CONTENT, HeaderMap::new(), Bytes::new());
        }
        if let Err(rejection) = self.count(session, ctx, route, &route.limits_before) {
            return Verdict::Reject(rejection);
        }
        if let Some(access) = &route.access {
            // Boxed: routes without it should not carry its future.
            match Box::pin(self.prove_subject(session, ctx, route, access)).await {
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
    async fn shed(&self, ctx: &mut Ctx, weight: Weight) -> std::result::Result<(), Rejection> {
        if !self.overload.sheds(weight) {
            return Ok(());
        }
        Err(self.turned_away(ctx).await)
    }

    async fn turned_away(&self, ctx: &mut Ctx) -> Rejection {
        ctx.limits.held.clear();
        tokio::time::sleep(SHED_AFTER).await;
        let rejection = Rejection::new(Code::Overload, "the gateway has too much to do");
        rejection.retry_after(Duration::from_secs(1))
    }

    /// Requests that nothing is served for cost nothing to answer, and as much to read as others: under overload their
    /// answers come late, too.
    pub(super) async fn slow_down(&self, rejection: &Rejection) {
        if matches!(rejection.code, Code::NoRoute | Code::MethodNotAllowed) && self.overload.sheds(Weight::Sheddable) {
            tokio::time::sleep(SHED_AFTER).await;
        }
    }

    async fn prove_subject(&self, session: &Session, ctx: &mut Ctx, route: &Route, access: &Access) -> Verdict {
        let blocked = access.proving.is_blocked(ctx.client);
        // Who is known already costs next to nothing; who is not has to be found out about.
        let busy = route.importance.is_none() && self.overload.sheds(Weight::Unknown);
        let passed = match self.try_proofs(session, ctx, route, access, blocked.is_some() || busy).await {
            (Answer::Pass(passed), _) => passed,
            (Answer::Unknown, _) => {
                // It may have failed too often while it waited for its turn.
                return Verdict::Reject(match blocked.or_else(|| access.proving.is_blocked(ctx.client)) {
                    Some(wait) => Rejection::new(Code::Limit, TOO_OFTEN).retry_after(wait),
                    None => self.turned_away(ctx).await,
                });
            }
            (Answer::Unavailable(cause), _) => {
                let rejection = Rejection::new(Code::AuthUnavailable, cause).retry_after(Duration::from_secs(1));
                return Verdict::Reject(rejection);
            }
            (Answer::Invalid { cause, guess }, refusal) => {
                if guess {
                    access.proving.failed(ctx.client);
                    if let Some(wait) = blocked {
                        return Verdict::Reject(Rejection::new(Code::Limit, TOO_OFTEN).retry_after(wait));
                    }
                }
                let mut rejection = Rejection::new(Code::AuthInvalid, cause);
                rejection.challenges = access.challenges(Some("invalid_token"), None);
                return refusal.unwrap_or(Verdict::Reject(rejection));
            }
            (Answer::Required, refusal) => {
                if route.importance.is_none()
                    && let Err(rejection) = self.shed(ctx, Weight::Sheddable).await
                {
                    return Verdict::Reject(rejection);
                }
                let mut rejection = Rejection::new(Code::AuthRequired, "the request has no credentials");
                rejection.challenges = access.challenges(None, None);
                return refusal.unwrap_or(Verdict::Reject(rejection));
            }
        };
        let Passed { subject, limits, bearer, known } = passed;
        let anonymous = subject.by == Proven::Anonymous;
        ctx.subject = Some(subject.clone());
        ctx.bearer = bearer;
        if !anonymous && let Some(rejection) = self.insufficient(session, ctx, route, access, &subject) {
            return Verdict::Reject(rejection);
        }
        if route.importance.is_none()
            && let Err(rejection) = self.shed(ctx, if known { Weight::Normal } else { Weight::Sheddable }).await
        {
            return Verdict::Reject(rejection);
        }
        match self.count(session, ctx, route, &limits) {
            Ok(()) => Verdict::Pass,
            Err(rejection) => Verdict::Reject(rejection),
        }
    }

    /// Tries the proofs in their order, and what a service would answer where it says no.
    async fn try_proofs(
        &self,
        session: &Session,
        ctx: &Ctx,
        route: &Route,
        access: &Access,
        known_only: bool,
    ) -> (Answer, Option<Verdict>) {
        let (mut tried, mut refusal) = (Vec::new(), None);
        for proof in &access.proofs {
            let one = match proof {
                Proof::Forward(_) if known_only => Tried::Unknown,
                Proof::Forward(service) => match self.ask(session, ctx, route, service).await {
                    Ok(one) => one,
                    Err((status, answer)) => {
                        refusal = refusal.or(Some(answer));
                        // It knows best who guesses.
                        Tried::Bad { cause: format!("`{}` answered {status}", service.name), guess: false }
                    }
                },
                proof => proof.attempt(&ctx.head(session), &access.proving, known_only).await,
            };
            let done = matches!(one, Tried::Good(_));
            tried.push(one);
            if done {
                break;
            }
        }
        (access.decide(tried), refusal)
    }

    fn insufficient(
        &self,
        session: &Session,
        ctx: &Ctx,
        route: &Route,
        access: &Access,
        subject: &Subject,
    ) -> Option<Rejection> {
        let head = ctx.head(session);
        let captured = route.captured(&ctx.captures, head.path);
        let missing = access.missing(subject, &route.facts(&head, &captured, Some(subject)))?;
        let mut rejection = Rejection::new(Code::AuthForbidden, format!("{} does not suffice", missing.what()));
        rejection.challenges = access.challenges(Some("insufficient_scope"), missing.scope());
        Some(rejection)
    }

    /// Asks a service. The error is its own answer to the client.
    async fn ask(
        &self,
        session: &Session,
        ctx: &Ctx,
        route: &Route,
        service: &ForwardAuth,
    ) -> std::result::Result<Tried, (StatusCode, Verdict)> {
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
                if service.tells(unix_now()) {
                    tracing::warn!(service = %service.name, cause, "requests pass that nobody decides about");
                }
                let nobody = Subject::new(Proven::Forward, "", &service.name);
                Tried::Good(Passed { known: false, ..Passed::new(nobody) })
            }
        };
        match exchange(pool, request, service.timeout, ANSWER_MAX).await {
            Err(error) => Ok(failed(format!("`{}`: {error}", service.name))),
            Ok(answer) => match service.judge(answer.status(), answer.headers()) {
                Word::Pass(subject) => Ok(Tried::Good(Passed { known: true, ..Passed::of(subject) })),
                Word::Failed(cause) => Ok(failed(cause)),
                Word::Answer(status, headers) => Err((status, Verdict::Answer(status, headers, answer.into_body()))),
            },
        }
    }

    /// Counts a request by limits; the first that refuses ends it, and those before it take nothing.
    fn count(
        &self,
        session: &Session,
        ctx: &mut Ctx,
        route: &Route,
        limits: &[Arc<Limit>],
    ) -> std::result::Result<(), Rejection> {
        if limits.is_empty() {
            return Ok(());
        }
        // Taken out while the rest of the context is read.
        let mut told = std::mem::take(&mut ctx.limits);
        let refused = self.count_by(session, ctx, route, limits, &mut told);
        ctx.limits = told;
        refused.map_or(Ok(()), Err)
    }

    fn count_by(
        &self,
        session: &Session,
        ctx: &Ctx,
        route: &Route,
        limits: &[Arc<Limit>],
        told: &mut Counted,
    ) -> Option<Rejection> {
        let head = ctx.head(session);
        let captured = route.captured(&ctx.captures, head.path);
        let facts = route.facts(&head, &captured, ctx.subject.as_deref());
        for limit in limits {
            // A key of a client may have the limit that its route has, too.
            if told.by.iter().any(|(known, _)| Arc::ptr_eq(known, limit)) {
                continue;
            }
            let said = limit.check(ctx.client, head.method, head.headers, &facts);
            let taken = if let Said::Allowed(_, taken) = &said { Some(*taken) } else { None };
            told.by.push((limit.clone(), taken));
            match said {
                Said::Skipped => {}
                Said::Entered(one) => told.held.push(one),
                Said::Allowed(..) if limit.dry_run => {}
                Said::Refused { .. } if limit.dry_run => {
                    tracing::debug!(limit = %limit.name, route = %route.name, "would be refused (dry run)");
                }
                Said::Allowed(window, _) => told.say(limit, window.remaining, window.next_in),
                Said::Refused { wait, remaining } => {
                    if let Some(remaining) = remaining {
                        told.say(limit, remaining, wait.unwrap_or_default());
                    }
                    // But for those by address, which bound what finding out about a client costs.
                    for (other, taken) in told.by.iter().filter(|(other, _)| !other.is_by_address()) {
                        taken.iter().for_each(|taken| other.give_back(*taken));
                    }
                    told.held.clear();
                    let mut rejection = Rejection::new(Code::Limit, format!("limit `{}`", limit.name));
                    // Rounded up, or the client would come a moment too early.
                    rejection.retry_after = wait.map(|wait| Duration::from_secs(ceil(wait)));
                    return Some(rejection);
                }
            }
        }
        None
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
        if !ctx.limits.policies.is_empty() {
            // Beside what the upstream says of limits of its own.
            let _ = head.append_header("ratelimit-policy", ctx.limits.policies.as_str());
            let _ = head.append_header("ratelimit", ctx.limits.states.as_str());
        }
    }
}
