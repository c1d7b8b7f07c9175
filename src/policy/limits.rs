//! Limits of a document: who is counted together, what a request costs, what is said about it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};

use super::network::{Parts, network};
use crate::bounded::Key;
use crate::config::{Missing, OnLoss};
use crate::facts::{Fact, Facts};
use crate::ratelimit::{Gauge, Held, Rates, Refused, Rule, Shared, Window};
use crate::scalar::Rate;
use crate::telemetry::metrics::LimitReading;

mod compile;

/// Limits that hold together.
pub type Limits = Arc<[Arc<Limit>]>;

/// A limit. Clones are by `Arc`: routes of one table share it.
#[derive(Debug)]
pub struct Limit {
    pub name: Arc<str>,
    kind: Kind,
    /// Alternatives; the first that has all its facts decides. Empty: everybody together.
    key: Box<[Box<[Fact]>]>,
    missing: Missing,
    cost: Cost,
    pub dry_run: bool,
    keys: usize,
    /// Of a limit of the fleet: what is done without the others, and what is known of them.
    fleet: Option<OnLoss>,
    shared: OnceLock<Arc<Shared>>,
    /// What was used, and what came of it: under the name of the limit, across changes.
    rates: OnceLock<Arc<Rates>>,
    gauge: OnceLock<Arc<Gauge>>,
    counts: OnceLock<Arc<Counts>>,
    rule: OnceLock<Rule>,
    /// There was another rule under its name, by whose measure somebody may have used more than there is now.
    changed: AtomicBool,
    /// `RateLimit-Policy`.
    policy: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rate { rate: Rate, burst: NonZeroU32 },
    Concurrent(NonZeroU32),
}

#[derive(Debug, Default)]
struct Cost {
    method: BTreeMap<String, NonZeroU32>,
    header: Option<HeaderName>,
}

/// What came of requests so far.
#[derive(Debug, Default)]
struct Counts {
    allowed: AtomicU64,
    limited: AtomicU64,
    dry_run: AtomicU64,
}

/// What a limit says about a request.
#[derive(Debug)]
pub enum Said {
    /// It is let through.
    Allowed(Window, Taken),
    /// It is let through, and counted as one of those under way.
    Entered(Held),
    /// It is not counted.
    Skipped,
    /// Not now; and when, if that is known.
    Refused { wait: Option<Duration>, remaining: Option<u32> },
}

/// What was taken, and of whom.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    key: Key,
    cost: NonZeroU32,
}

impl Limit {
    /// A limit on something of the gateway itself, by client address.
    pub fn of_clients(name: &str, rate: Rate, burst: u32, keys: usize) -> Limit {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        Limit::bare(name, Kind::Rate { rate, burst }, keys)
    }

    fn bare(name: &str, kind: Kind, keys: usize) -> Limit {
        let policy = match kind {
            Kind::Rate { rate, .. } => {
                // In whole seconds, which is what the field knows.
                let (per, second) = (rate.per, Duration::from_secs(1));
                let (quota, window) = match per < second {
                    true => (u64::from(rate.count) * 1000 / u64::try_from(per.as_millis().max(1)).unwrap_or(1), 1),
                    false => (u64::from(rate.count), ceil(per)),
                };
                format!("\"{name}\";q={quota};w={window}")
            }
            Kind::Concurrent(_) => String::new(),
        };
        Limit {
            name: name.into(),
            kind,
            key: [[Fact::ClientIp].into()].into(),
            missing: Missing::OneBucket,
            cost: Cost::default(),
            dry_run: false,
            keys,
            fleet: None,
            shared: OnceLock::new(),
            rates: OnceLock::new(),
            gauge: OnceLock::new(),
            counts: OnceLock::new(),
            rule: OnceLock::new(),
            changed: AtomicBool::new(false),
            policy: policy.into(),
        }
    }

    /// Whether its key is known only once it is proven who asks.
    pub fn is_proven(&self) -> bool {
        self.key.iter().flatten().any(Fact::is_proven)
    }

    /// The captures that its keys need.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.key.iter().flatten().filter_map(|fact| match fact {
            Fact::Capture(name) => Some(&**name),
            _ => None,
        })
    }

    /// Takes over what was used under the name.
    pub fn inherit(&self, previous: &Limit) {
        let _ = self.counts.set(previous.counts().clone());
        if let Some(shared) = previous.shared.get() {
            let _ = self.shared.set(shared.clone());
        }
        // Keys are made otherwise.
        if self.fleet.is_some() != previous.fleet.is_some() {
            return;
        }
        let changed = self.kind != previous.kind || previous.changed.load(Ordering::Relaxed);
        self.changed.store(changed, Ordering::Relaxed);
        if let Some(rates) = previous.rates.get() {
            rates.keys().set_bound(self.keys);
            let _ = self.rates.set(rates.clone());
        }
        if let Some(gauge) = previous.gauge.get() {
            gauge.keys().set_bound(self.keys);
            let _ = self.gauge.set(gauge.clone());
        }
    }

    fn rates(&self) -> &Arc<Rates> {
        self.rates.get_or_init(|| Arc::new(Rates::new(self.keys)))
    }

    fn gauge(&self) -> &Arc<Gauge> {
        self.gauge.get_or_init(|| Arc::new(Gauge::new(self.keys)))
    }

    fn counts(&self) -> &Arc<Counts> {
        self.counts.get_or_init(Arc::default)
    }

    fn rule(&self, rate: Rate, burst: NonZeroU32) -> &Rule {
        let changed = || self.changed.load(Ordering::Relaxed);
        self.rule.get_or_init(|| Rule::new(rate.per_one(), burst, self.rates(), changed()))
    }

    pub fn reading(&self) -> LimitReading {
        let counts = self.counts();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (keys, evicted) = match self.kind {
            Kind::Rate { .. } => (self.rates().keys().len(), self.rates().keys().evicted()),
            Kind::Concurrent(_) => (self.gauge().keys().len(), self.gauge().keys().evicted()),
        };
        LimitReading {
            name: self.name.to_string(),
            allowed: read(&counts.allowed),
            limited: read(&counts.limited),
            dry_run: read(&counts.dry_run),
            keys: keys as u64,
            evicted,
            nodes: self.shared().map(|shared| shared.nodes().get()),
            alone: self.shared().map(|shared| shared.is_alone()),
        }
    }

    /// What a key is made of: nothing is allocated for facts that stand in the request.
    fn key(&self, client: IpAddr, facts: &dyn Facts) -> Option<Key> {
        let hashed = |index: usize, all: &[Fact]| {
            let parts = Parts { index, all, client, facts };
            // Asked for twice, for one that is missing must not be hashed as nothing.
            let there = all.iter().all(|fact| *fact == Fact::ClientIp || facts.fact(fact).is_some());
            there.then(|| self.keyed(&parts))
        };
        if self.key.is_empty() {
            return hashed(0, &[]);
        }
        self.key.iter().enumerate().find_map(|(index, all)| hashed(index, all))
    }

    fn keyed(&self, of: impl std::hash::Hash) -> Key {
        match (self.shared(), self.kind) {
            (Some(shared), _) => shared.key(of),
            (None, Kind::Rate { .. }) => self.rates().keys().key(of),
            (None, Kind::Concurrent(_)) => self.gauge().keys().key(of),
        }
    }

    /// What it has in common with other nodes, if it is a limit of the fleet.
    pub fn shared(&self) -> Option<&Arc<Shared>> {
        self.fleet?;
        Some(self.shared.get_or_init(|| Arc::new(Shared::new(&self.name))))
    }

    /// What another node has let through.
    pub fn spent_elsewhere(&self, key: Key, cost: NonZeroU32) {
        if let (Kind::Rate { rate, burst }, Some(_)) = (self.kind, self.fleet) {
            self.rule(rate, burst).spend(key, cost);
        }
    }

    /// Takes from the rate, as one of several nodes if the others are lost.
    fn take(&self, key: Key, cost: NonZeroU32, rate: Rate, burst: NonZeroU32) -> Said {
        let rule = self.rule(rate, burst);
        let said = |cost: NonZeroU32, taken: Result<Window, Refused>| match taken {
            Ok(window) => Said::Allowed(window, Taken { key, cost }),
            Err(Refused { wait, remaining }) => Said::Refused { wait, remaining: Some(remaining) },
        };
        let Some((shared, on_loss)) = self.shared().zip(self.fleet) else { return said(cost, rule.take(key, cost)) };
        match (shared.alone(), on_loss) {
            (None, _) => {
                let taken = rule.take(key, cost);
                if taken.is_ok() {
                    shared.used(key, cost);
                }
                said(cost, taken)
            }
            (Some(_), OnLoss::Allow) => Said::Skipped,
            (Some(_), OnLoss::Deny) => Said::Refused { wait: Some(Duration::from_secs(1)), remaining: None },
            (Some(nodes), OnLoss::LocalShare) => {
                // A share of the rate, and of the burst: at least one, so that a limit is not a wall.
                let share = NonZeroU32::new(burst.get() / nodes).unwrap_or(NonZeroU32::MIN);
                let rule = Rule::new(rate.per_one().saturating_mul(nodes.get()), share, self.rates(), true);
                said(cost, rule.take(key, cost.min(share)))
            }
        }
    }

    /// Counts a request.
    pub fn check(&self, client: IpAddr, method: &Method, headers: &HeaderMap, facts: &dyn Facts) -> Said {
        let key = match (self.key(client, facts), self.missing) {
            (Some(key), _) => key,
            (None, Missing::Skip) => return Said::Skipped,
            (None, Missing::Deny) => return self.counted(Said::Refused { wait: None, remaining: None }),
            (None, Missing::OneBucket) => self.keyed("nobody"),
        };
        let said = match self.kind {
            Kind::Rate { rate, burst } => {
                let cost = self.cost(method, headers, burst);
                self.take(key, cost, rate, burst)
            }
            Kind::Concurrent(most) => match self.gauge().enter(key, most) {
                Some(held) => Said::Entered(held),
                None => Said::Refused { wait: Some(Duration::from_secs(1)), remaining: None },
            },
        };
        self.counted(said)
    }

    fn counted(&self, said: Said) -> Said {
        let counts = self.counts();
        let counter = match &said {
            Said::Refused { .. } if self.dry_run => &counts.dry_run,
            Said::Refused { .. } => &counts.limited,
            Said::Allowed(..) | Said::Entered(_) | Said::Skipped => &counts.allowed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        said
    }

    /// Gives back what was counted for a request that another limit has refused.
    pub fn give_back(&self, taken: Taken) {
        if let Kind::Rate { rate, burst } = self.kind {
            self.rule(rate, burst).give_back(taken.key, taken.cost);
            if let Some(shared) = self.shared() {
                shared.given_back(taken.key, taken.cost);
            }
        }
    }

    /// Whether clients are counted by where they come from.
    pub fn is_by_address(&self) -> bool {
        self.key.iter().flatten().any(|fact| *fact == Fact::ClientIp)
    }

    /// One failure of a client.
    pub fn fail(&self, client: IpAddr) -> Result<(), Duration> {
        let Kind::Rate { rate, burst } = self.kind else { return Ok(()) };
        let key = self.rates().keys().key(network(client));
        let refused = |wait: Option<Duration>| wait.unwrap_or(Duration::from_secs(1));
        self.rule(rate, burst).take(key, NonZeroU32::MIN).map(|_| ()).map_err(|at| refused(at.wait))
    }

    fn cost(&self, method: &Method, headers: &HeaderMap, burst: NonZeroU32) -> NonZeroU32 {
        let by_method = self.cost.method.get(method.as_str()).copied().unwrap_or(NonZeroU32::MIN);
        let told = self.cost.header.as_ref().and_then(|name| headers.get(name)?.to_str().ok()?.trim().parse().ok());
        // A client that names a price can only pay more, and no more than there is.
        told.map_or(by_method, |told: NonZeroU32| told.max(by_method).min(burst.max(by_method)))
    }

    /// As `RateLimit-Policy` has it (draft-ietf-httpapi-ratelimit-headers): `"name";q=100;w=1`. Empty without a rate.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Appends how it stands, as `RateLimit` has it: `"name";r=50;t=3`: so many can be used, no more within so many seconds.
    pub fn stands(&self, remaining: u32, next_in: Duration, list: &mut String) {
        let between = if list.is_empty() { "" } else { ", " };
        let _ = write!(list, "{between}\"{}\";r={remaining};t={}", self.name, ceil(next_in));
    }
}

/// Seconds, rounded up.
pub fn ceil(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
