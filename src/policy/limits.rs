//! Limits of a document: who is counted together, what a request costs, what is said about it.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};

use crate::bounded::Key;
use crate::config::{self, Missing};
use crate::facts::{Fact, Facts};
use crate::problem::{Path, Problem};
use crate::ratelimit::{Gauge, Held, Rates, Refused, Rule, Window};
use crate::scalar::Rate;
use crate::telemetry::metrics::LimitReading;

/// Most keys of one limit.
const KEYS_MAX: usize = 10_000_000;

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
    state: OnceLock<Arc<State>>,
    rule: OnceLock<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rate { per_one: Duration, burst: NonZeroU32 },
    Concurrent(NonZeroU32),
}

#[derive(Debug, Default)]
struct Cost {
    method: BTreeMap<String, NonZeroU32>,
    header: Option<HeaderName>,
}

/// What was used, and what came of it: under the name of the limit, across changes.
#[derive(Debug)]
struct State {
    rates: Arc<Rates>,
    gauge: Arc<Gauge>,
    counts: Counts,
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
    Allowed(Window),
    /// It is let through, and counted as one of those under way.
    Entered(Held),
    /// It is not counted.
    Skipped,
    /// Not now; and when, if that is known.
    Refused { wait: Option<Duration>, window: Option<(u32, Duration)> },
}

impl Limit {
    pub fn compile(name: &str, words: &config::Limit, at: &Path, problems: &mut Vec<Problem>) -> Option<Limit> {
        let config::Limit { rate, burst, concurrent, key, missing, cost, dry_run, keys } = words;
        let mut error = |at: Path, message: String, help: &str| problems.push(Problem::error(at, message).help(help));
        if *keys == 0 || *keys > KEYS_MAX {
            error(at.at("keys"), format!("{keys} keys"), "write 1 to 10000000");
        }
        let zero = |number: u32| NonZeroU32::new(number);
        let kind = match (rate, concurrent) {
            (Some(rate), None) => {
                let burst = match burst {
                    None => Some(rate.default_burst()),
                    Some(burst) => zero(*burst),
                };
                if burst.is_none() {
                    error(at.at("burst"), "zero would let nothing through".to_owned(), "write at least 1");
                }
                Kind::Rate { per_one: rate.per_one(), burst: burst? }
            }
            (None, Some(number)) => {
                if burst.is_some() {
                    error(at.at("burst"), "it goes with `rate`".to_owned(), "leave it out");
                }
                let number = zero(*number);
                if number.is_none() {
                    error(at.at("concurrent"), "zero would let nothing through".to_owned(), "write at least 1");
                }
                Kind::Concurrent(number?)
            }
            _ => {
                error(at.clone(), "it is not said how much".to_owned(), "write exactly one of `rate` and `concurrent`");
                return None;
            }
        };
        let mut alternatives: Vec<Box<[Fact]>> = Vec::new();
        match key {
            None => alternatives.push([Fact::ClientIp].into()),
            Some(words) => {
                for (index, facts) in words.iter().enumerate() {
                    let at = at.at("key").at(index);
                    let mut all = Vec::new();
                    for text in facts.iter() {
                        match text.parse::<Fact>() {
                            Ok(fact) => all.push(fact),
                            Err(wrong) => {
                                error(at.clone(), wrong.to_string(), crate::facts::UnknownFact::HELP);
                            }
                        }
                    }
                    alternatives.push(all.into());
                }
            }
        }
        let mut compiled = Cost::default();
        if let Some(config::Cost { method, header }) = cost {
            for (name, number) in method {
                match zero(*number) {
                    Some(number) => drop(compiled.method.insert(name.clone(), number)),
                    None => {
                        error(at.at("cost").at("method").at(name), "nothing".to_owned(), "a request costs 1 or more")
                    }
                }
            }
            if let Some(text) = header {
                compiled.header = HeaderName::from_bytes(text.as_bytes()).ok();
                if compiled.header.is_none() {
                    error(at.at("cost").at("header"), format!("`{text}` is not a header name"), "write `x-cost`");
                }
            }
            if let Kind::Concurrent(_) = kind {
                error(at.at("cost"), "it goes with `rate`".to_owned(), "leave it out");
            }
        }
        Some(Limit {
            name: name.into(),
            kind,
            key: alternatives.into(),
            missing: *missing,
            cost: compiled,
            dry_run: *dry_run,
            keys: *keys,
            state: OnceLock::new(),
            rule: OnceLock::new(),
        })
    }

    /// A limit on something of the gateway itself, by client address.
    pub fn of_clients(name: &str, rate: Rate, burst: u32, keys: usize) -> Limit {
        Limit {
            name: name.into(),
            kind: Kind::Rate { per_one: rate.per_one(), burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN) },
            key: [[Fact::ClientIp].into()].into(),
            missing: Missing::OneBucket,
            cost: Cost::default(),
            dry_run: false,
            keys,
            state: OnceLock::new(),
            rule: OnceLock::new(),
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

    /// Takes over what was used under the name, unless it is of another size.
    pub fn inherit(&self, previous: &Limit) {
        if self.keys == previous.keys {
            let _ = self.state.set(previous.state().clone());
        }
    }

    fn state(&self) -> &Arc<State> {
        self.state.get_or_init(|| {
            let (rates, gauge) = match self.kind {
                Kind::Rate { .. } => (self.keys, 1),
                Kind::Concurrent(_) => (1, self.keys),
            };
            let (rates, gauge) = (Arc::new(Rates::new(rates)), Arc::new(Gauge::new(gauge)));
            Arc::new(State { rates, gauge, counts: Counts::default() })
        })
    }

    fn rule(&self, per_one: Duration, burst: NonZeroU32) -> &Rule {
        self.rule.get_or_init(|| Rule::new(per_one, burst, &self.state().rates))
    }

    pub fn reading(&self) -> LimitReading {
        let state = self.state();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (keys, evicted) = match self.kind {
            Kind::Rate { .. } => (state.rates.keys().len(), state.rates.keys().evicted()),
            Kind::Concurrent(_) => (state.gauge.keys().len(), state.gauge.keys().evicted()),
        };
        LimitReading {
            name: self.name.to_string(),
            allowed: read(&state.counts.allowed),
            limited: read(&state.counts.limited),
            dry_run: read(&state.counts.dry_run),
            keys: keys as u64,
            evicted,
        }
    }

    /// What a key is made of: nothing is allocated for facts that stand in the request.
    fn key(&self, client: IpAddr, facts: &dyn Facts) -> Option<Key> {
        let hashed = |index: usize, all: &[Fact]| {
            let parts = Parts { index, all, client, facts };
            // Asked for twice, for one that is missing must not be hashed as nothing.
            let there = all.iter().all(|fact| *fact == Fact::ClientIp || facts.fact(fact).is_some());
            there.then(|| match self.kind {
                Kind::Rate { .. } => self.state().rates.keys().key(&parts),
                Kind::Concurrent(_) => self.state().gauge.keys().key(&parts),
            })
        };
        if self.key.is_empty() {
            return hashed(0, &[]);
        }
        self.key.iter().enumerate().find_map(|(index, all)| hashed(index, all))
    }

    /// Counts a request.
    pub fn check(&self, client: IpAddr, method: &Method, headers: &HeaderMap, facts: &dyn Facts) -> Said {
        let key = match (self.key(client, facts), self.missing) {
            (Some(key), _) => key,
            (None, Missing::Skip) => return Said::Skipped,
            (None, Missing::Deny) => return self.counted(Said::Refused { wait: None, window: None }),
            (None, Missing::OneBucket) => match self.kind {
                Kind::Rate { .. } => self.state().rates.keys().key("nobody"),
                Kind::Concurrent(_) => self.state().gauge.keys().key("nobody"),
            },
        };
        let said = match self.kind {
            Kind::Rate { per_one, burst } => {
                let rule = self.rule(per_one, burst);
                match rule.take(key, self.cost(method, headers, burst)) {
                    Ok(window) => Said::Allowed(window),
                    Err(Refused { burst, wait }) => Said::Refused { wait, window: Some((burst, rule.window())) },
                }
            }
            Kind::Concurrent(most) => match self.state().gauge.enter(key, most) {
                Some(held) => Said::Entered(held),
                None => Said::Refused { wait: Some(Duration::from_secs(1)), window: None },
            },
        };
        self.counted(said)
    }

    fn counted(&self, said: Said) -> Said {
        let counts = &self.state().counts;
        let counter = match &said {
            Said::Refused { .. } if self.dry_run => &counts.dry_run,
            Said::Refused { .. } => &counts.limited,
            Said::Allowed(_) | Said::Entered(_) | Said::Skipped => &counts.allowed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        said
    }

    /// One failure of a client.
    pub fn fail(&self, client: IpAddr) -> Result<(), Duration> {
        let Kind::Rate { per_one, burst } = self.kind else { return Ok(()) };
        let key = self.state().rates.keys().key(network(client));
        let refused = |wait: Option<Duration>| wait.unwrap_or(Duration::from_secs(1));
        self.rule(per_one, burst).take(key, NonZeroU32::MIN).map(|_| ()).map_err(|at| refused(at.wait))
    }

    fn cost(&self, method: &Method, headers: &HeaderMap, burst: NonZeroU32) -> NonZeroU32 {
        let by_method = self.cost.method.get(method.as_str()).copied().unwrap_or(NonZeroU32::MIN);
        let told = self.cost.header.as_ref().and_then(|name| headers.get(name)?.to_str().ok()?.trim().parse().ok());
        // A client that names a price can only pay more, and no more than there is.
        told.map_or(by_method, |told: NonZeroU32| told.max(by_method).min(burst.max(by_method)))
    }

    /// A policy as `RateLimit-Policy` has it (draft-ietf-httpapi-ratelimit-headers): `"name";q=100;w=10`.
    pub fn policy(&self, burst: u32, window: Duration) -> String {
        format!("\"{}\";q={burst};w={}", self.name, ceil(window))
    }

    /// How it stands, as `RateLimit` has it: `"name";r=50;t=3`.
    pub fn stands(&self, remaining: u32, full_in: Duration) -> String {
        format!("\"{}\";r={remaining};t={}", self.name, ceil(full_in))
    }

    pub fn window(&self) -> Option<Duration> {
        match self.kind {
            Kind::Rate { per_one, burst } => Some(per_one.saturating_mul(burst.get())),
            Kind::Concurrent(_) => None,
        }
    }
}

/// Seconds, rounded up.
pub fn ceil(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

struct Parts<'a> {
    index: usize,
    all: &'a [Fact],
    client: IpAddr,
    facts: &'a dyn Facts,
}

impl Hash for Parts<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
        for fact in self.all {
            match fact {
                Fact::ClientIp => network(self.client).hash(state),
                fact => self.facts.fact(fact).hash(state),
            }
        }
    }
}

/// An IPv4 address, or the /64 of an IPv6 one: the smallest network a client is given.
pub(super) fn network(address: IpAddr) -> (bool, u64) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (false, u64::from(v4.to_bits())),
        IpAddr::V6(v6) => (true, (v6.to_bits() >> 64) as u64),
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
