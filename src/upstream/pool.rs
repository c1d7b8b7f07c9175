//! A pool: an upstream's endpoints and everything that outlives tables. Requests pick here.
//!
//! A pick reads one snapshot of members (no lock, no allocation), takes a place in the pool and one at an endpoint, and
//! either both are taken or none: each is one compare-and-swap against its bound, so racing picks never exceed it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::budget::{Budget, RetryPermit};
use super::counters::{Counters, count};
use super::endpoint::Endpoint;
use super::exchange::Kept;
use super::lease::{Lease, Outcome, StickyToken};
use super::members::Members;
use super::pick::Pick;
use super::spec::Spec;
use super::standing::Standing;
use super::tier::Plan;
use crate::telemetry::UpstreamMetrics;

/// The endpoints of an upstream.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    pub(crate) members: ArcSwap<Members>,
    in_flight: AtomicUsize,
    budget: Budget,
    turn: AtomicUsize,
    pub(crate) counters: Counters,
    /// Control work; no request takes this lock.
    pub(crate) standing: Mutex<Standing>,
    pub(crate) kept: Kept,
    /// Held while an ejection is decided, so that two at once cannot empty the pool.
    ejecting: Mutex<()>,
    born: Instant,
    metrics: OnceLock<Arc<UpstreamMetrics>>,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    #[error("no endpoint is known or usable")]
    NoEndpoint,
    #[error("the circuit breaker is open")]
    BreakerOpen { retry_after: Duration },
    #[error("every endpoint is at its connection limit")]
    ConnectionLimit,
}

/// When to come back after the breaker refused: it closes as soon as one request ends.
const BREAKER_RETRY_AFTER: Duration = Duration::from_secs(1);

impl Pool {
    pub(crate) fn new(name: &str) -> Pool {
        Pool {
            name: name.into(),
            members: ArcSwap::default(),
            in_flight: AtomicUsize::new(0),
            budget: Budget::default(),
            turn: AtomicUsize::new(0),
            counters: Counters::default(),
            standing: Mutex::default(),
            kept: Kept::default(),
            ejecting: Mutex::new(()),
            born: Instant::now(),
            metrics: OnceLock::new(),
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The newest spec; `None` before the pool is adopted.
    pub fn spec(&self) -> Option<Arc<Spec>> {
        self.members.load().spec.clone()
    }

    /// The pool's counters, looked up by name once.
    pub fn metrics(&self, find: impl FnOnce(&str) -> Arc<UpstreamMetrics>) -> &Arc<UpstreamMetrics> {
        self.metrics.get_or_init(|| find(&self.name))
    }

    /// Requests in flight, retries included.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Picks an endpoint. `key` (from `hash_key`) matters to `balance = "hash"` only. Endpoints in `tried` are taken
    /// again only when there is no other.
    pub fn pick(self: &Arc<Self>, key: Option<u64>, tried: &[SocketAddr]) -> Result<Lease, PickError> {
        let members = self.members.load();
        let Some(spec) = &members.spec else { return Err(self.refuse(PickError::NoEndpoint)) };
        let place = self.enter(spec)?;
        let now = self.now();
        let mut pick = Pick::new(&members, spec, &self.turn, key, now);
        let member = match pick.among(tried) {
            None if !tried.is_empty() => pick.among(&[]),
            member => member,
        };
        let Some(member) = member else {
            let full = pick.saw_full();
            return Err(self.refuse(if full { PickError::ConnectionLimit } else { PickError::NoEndpoint }));
        };
        count(&self.counters.picks);
        if pick.is_panic() {
            count(&self.counters.panic_picks);
        }
        Ok(Lease::entered(&member.endpoint, &member.transport, place))
    }

    /// As `pick`, but the endpoint of the token if it is healthy, not tried and has room. The token is what the client's
    /// cookie says; the answer's cookie is `Lease::sticky_token`.
    pub fn pick_sticky(
        self: &Arc<Self>,
        token: StickyToken,
        key: Option<u64>,
        tried: &[SocketAddr],
    ) -> Result<Lease, PickError> {
        let members = self.members.load();
        let now = self.now();
        let ejects = members.ejects();
        // Tiers and regions come first: a cookie from a time of need does not keep a client in the second best.
        let rank = match members.plan(now) {
            Plan::Healthy { from } | Plan::Panic { from } => members.ranks.get(from).cloned().unwrap_or_default(),
            Plan::Everyone => 0..members.list.len(),
            Plan::Nobody => 0..0,
        };
        let member = members.list.get(rank).unwrap_or_default().iter().find(|member| {
            member.endpoint.token() == token
                && member.healthy_weight(ejects, now) > 0
                && !tried.contains(&member.endpoint.address())
        });
        if let (Some(member), Some(spec)) = (member, &members.spec) {
            let place = self.enter(spec)?;
            if member.endpoint.enter(member.endpoint.most_in_flight(&member.transport)) {
                count(&self.counters.picks);
                return Ok(Lease::entered(&member.endpoint, &member.transport, place));
            }
        }
        self.pick(key, tried)
    }

    /// Permission for one more try of a request, as far as the budget allows.
    pub fn retry_permit(self: &Arc<Self>) -> Option<RetryPermit> {
        let members = self.members.load();
        let words = &members.spec.as_ref()?.retry_budget;
        if self.budget.take(words, self.in_flight()) {
            count(&self.counters.retries);
            Some(RetryPermit::taken(self))
        } else {
            count(&self.counters.retries_refused);
            None
        }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Milliseconds of the pool's own clock.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn enter(self: &Arc<Self>, spec: &Spec) -> Result<InFlight, PickError> {
        let most = spec.breaker.map_or(usize::MAX, |most| most as usize);
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        match self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(InFlight(self.clone())),
            Err(_) => Err(self.refuse(PickError::BreakerOpen { retry_after: BREAKER_RETRY_AFTER })),
        }
    }

    fn refuse(&self, error: PickError) -> PickError {
        count(match error {
            PickError::NoEndpoint => &self.counters.no_endpoint,
            PickError::BreakerOpen { .. } => &self.counters.breaker_open,
            PickError::ConnectionLimit => &self.counters.connection_limit,
        });
        error
    }

    pub(crate) fn ended(&self, endpoint: &Arc<Endpoint>, outcome: Outcome) {
        let counters = &self.counters;
        let (counter, failed) = match outcome {
            Outcome::Success => (&counters.successes, false),
            Outcome::Connect => (&counters.connect_failures, true),
            Outcome::Reset => (&counters.resets, true),
            Outcome::Timeout => (&counters.timeouts, true),
            Outcome::Status(502..=504) => (&counters.bad_statuses, true),
            Outcome::Status(_) => (&counters.successes, false),
        };
        count(counter);
        if failed {
            count(&endpoint.failures);
            self.failed(endpoint);
        }
    }

    /// Ejects the endpoint if it failed often enough and the pool can do without it.
    fn failed(&self, endpoint: &Arc<Endpoint>) {
        let members = self.members.load();
        let Some(words) = members.spec.as_ref().and_then(|spec| spec.eject.as_ref()) else { return };
        let now = self.now();
        if !endpoint.outlier.failed(words, now) {
            return;
        }
        let _deciding = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        if endpoint.outlier.is_ejected(now) {
            return;
        }
        let with_weight = || members.list.iter().filter(|member| member.weight > 0);
        let ejected = with_weight().filter(|member| member.endpoint.outlier.is_ejected(now)).count();
        let others_healthy = with_weight()
            .any(|member| !Arc::ptr_eq(&member.endpoint, endpoint) && member.is_healthy(members.ejects(), now));
        if others_healthy && (ejected + 1) * 2 <= with_weight().count() {
            endpoint.outlier.eject(words, now);
            count(&self.counters.ejections);
            tracing::warn!(
                event = "upstream.ejected",
                upstream = %self.name,
                endpoint = %endpoint.address(),
                for_ms = words.period.0.as_millis() as u64,
                "endpoint ejected: too many live requests failed"
            );
        }
    }
}

/// One request in flight in a pool, until dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Pool>);

impl InFlight {
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The key of a fact's value for `Pool::pick`: the same on every gateway, whatever its CPU (FNV-1a).
pub fn hash_key(value: &[u8]) -> u64 {
    value.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
