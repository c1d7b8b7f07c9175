//! From counters that only grow to what happened: differences, rates, percentiles.
//!
//! ```text
//! Traffic of a node ─▶ minus what it said last ─▶ unsaved ─every 10 s─▶ store
//!                 └──▶ the last few, for rates now
//! ```
//! A node that began anew (`started_at_ms`) counts from zero again. What a node did before it was first heard is not known.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fleet::{Counted, Traffic};
use crate::telemetry::metrics::BOUNDS_US;

/// Reports of a node that are kept for its rates now: two seconds apart.
const RECENT: usize = 6;
/// A node that told nothing for so long has no rates.
const STALE_MS: u64 = 15_000;
/// After so long it is forgotten.
const FORGOTTEN_MS: u64 = 600_000;
/// Nodes that are listened to.
const NODES_MAX: usize = 2_000;

/// By node and route; route `""` is all of a node.
pub(super) type ByRoute = BTreeMap<(String, String), Counted>;

/// Counters of all nodes.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<String, Heard>,
    unsaved: ByRoute,
    /// When it was last taken: what is unsaved was heard since then. 0: nobody knows.
    taken_at_ms: u64,
}

#[derive(Debug)]
struct Heard {
    started_at_ms: u64,
    recent: VecDeque<(u64, Traffic)>,
    /// The counters of every route it ever named: busy ones are told of, others not.
    known: BTreeMap<String, Counted>,
    /// It names so few routes that it names all.
    complete: bool,
}

/// Rates of a counted thing, now.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(super) struct Rate {
    pub(super) per_second: f64,
    /// Shares of the requests, in percent.
    pub(super) server_errors: f64,
    pub(super) client_errors: f64,
    pub(super) rejected: f64,
    /// Milliseconds; absent without requests.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

impl Meter {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a report in, heard at `now_ms`.
    pub(super) fn hear(&self, mut traffic: Traffic, now_ms: u64) {
        if traffic.bounds_us != BOUNDS_US {
            // Of another version: its latencies cannot be added to ours.
            traffic.all.took.clear();
            traffic.routes.iter_mut().for_each(|route| route.counted.took.clear());
        }
        let mut inner = self.inner();
        let Inner { nodes, unsaved, taken_at_ms: _ } = &mut *inner;
        if !nodes.contains_key(&traffic.node) && nodes.len() >= NODES_MAX {
            return;
        }
        let node = traffic.node.clone();
        let fresh = || Heard {
            started_at_ms: traffic.started_at_ms,
            recent: VecDeque::new(),
            known: BTreeMap::new(),
            complete: false,
        };
        let heard = nodes.entry(node.clone()).or_insert_with(fresh);
        if heard
            .recent
            .back()
            .is_some_and(|(_, last)| last.at_ms > traffic.at_ms && last.started_at_ms == traffic.started_at_ms)
        {
            return;
        }
        let restarted = heard.started_at_ms != traffic.started_at_ms;
        if restarted {
            // All that it has counted since then happened while it was listened to.
            *heard = Heard { complete: true, ..fresh() };
        }
        let first = heard.recent.is_empty() && !restarted;
        let named = [(String::new(), &traffic.all)];
        let routes = traffic.routes.iter().map(|route| (route.name.clone(), &route.counted));
        for (route, counted) in named.into_iter().chain(routes) {
            let before = heard.known.insert(route.clone(), counted.clone());
            let happened = match before {
                Some(before) => difference(counted, &before),
                None if first || !heard.complete => continue,
                None => counted.clone(),
            };
            if happened.requests() > 0 {
                add(unsaved.entry((node.clone(), route)).or_default(), &happened);
            }
        }
        heard.complete = traffic.routes.len() < crate::fleet::ROUTES_MAX;
        heard.recent.push_back((now_ms, traffic));
        if heard.recent.len() > RECENT {
            heard.recent.pop_front();
        }
    }

    /// What happened since it was last taken.
    pub(super) fn take(&self, now_ms: u64) -> ByRoute {
        let mut inner = self.inner();
        let gone = |heard: &Heard| heard.recent.back().is_none_or(|(at, _)| now_ms.saturating_sub(*at) > FORGOTTEN_MS);
        inner.nodes.retain(|_, heard| !gone(heard));
        inner.taken_at_ms = now_ms;
        std::mem::take(&mut inner.unsaved)
    }

    /// Puts back what could not be saved.
    pub(super) fn restore(&self, samples: ByRoute) {
        let mut inner = self.inner();
        inner.taken_at_ms = 0;
        for (key, counted) in samples {
            add(inner.unsaved.entry(key).or_default(), &counted);
        }
    }

    pub(super) fn unsaved(&self) -> ByRoute {
        self.inner().unsaved.clone()
    }

    /// As `unsaved`, if all of it was heard since a moment.
    pub(super) fn unsaved_since(&self, from_ms: u64) -> Option<ByRoute> {
        let inner = self.inner();
        (inner.taken_at_ms >= from_ms).then(|| inner.unsaved.clone())
    }

    /// The newest report of each node that still tells, and the one to compare it with.
    pub(super) fn now(&self, now_ms: u64) -> Vec<(Traffic, Option<Traffic>)> {
        let inner = self.inner();
        let told = inner.nodes.values().filter_map(|heard| {
            let (at, last) = heard.recent.back()?;
            let first = heard.recent.front().filter(|_| heard.recent.len() > 1);
            (now_ms.saturating_sub(*at) <= STALE_MS).then(|| (last.clone(), first.map(|(_, first)| first.clone())))
        });
        told.collect()
    }
}

/// Adds counters to a total.
pub(super) fn add(total: &mut Counted, more: &Counted) {
    let Counted { classes, rejected, took, bytes_in, bytes_out } = more;
    total.classes.iter_mut().zip(classes).for_each(|(to, more)| *to += more);
    total.took.resize(took.len().max(total.took.len()), 0);
    total.took.iter_mut().zip(took).for_each(|(to, more)| *to += more);
    for (code, number) in rejected {
        *total.rejected.entry(code.clone()).or_default() += number;
    }
    total.bytes_in += bytes_in;
    total.bytes_out += bytes_out;
}

/// What was counted between two readings of one process.
pub(super) fn difference(now: &Counted, before: &Counted) -> Counted {
    let mut classes = now.classes;
    classes.iter_mut().zip(before.classes).for_each(|(now, before)| *now = now.saturating_sub(before));
    let took =
        now.took.iter().enumerate().map(|(at, now)| now.saturating_sub(before.took.get(at).copied().unwrap_or(0)));
    let rejected = now.rejected.iter().map(|(code, now)| {
        let before = before.rejected.get(code).copied().unwrap_or_default();
        (code.clone(), now.saturating_sub(before))
    });
    Counted {
        classes,
        took: took.collect(),
        rejected: rejected.filter(|(_, number)| *number > 0).collect(),
        bytes_in: now.bytes_in.saturating_sub(before.bytes_in),
        bytes_out: now.bytes_out.saturating_sub(before.bytes_out),
    }
}

impl Rate {
    pub(super) fn of(counted: &Counted, seconds: f64) -> Rate {
        let [server, client] = [5, 4].map(|class| counted.classes.get(class).copied().unwrap_or_default());
        let requests = counted.requests();
        Rate {
            per_second: if seconds > 0.0 { requests as f64 / seconds } else { 0.0 },
            server_errors: percent(server, requests),
            client_errors: percent(client, requests),
            rejected: percent(counted.rejected.values().sum(), requests),
            p50_ms: quantile(&counted.took, 0.5),
            p99_ms: quantile(&counted.took, 0.99),
        }
    }
}

pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Milliseconds that this share of the requests stayed below, even within a bucket. `None` without requests.
pub(super) fn quantile(took: &[u64], share: f64) -> Option<f64> {
    let total: u64 = took.iter().sum();
    if total == 0 {
        return None;
    }
    let wanted = share * total as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for (index, number) in took.iter().enumerate() {
        // Beyond the last bound nothing is known but that it was longer.
        let upper = BOUNDS_US.get(index).map_or(lower, |bound| *bound as f64 / 1000.0);
        let number = *number as f64;
        if number > 0.0 && below + number >= wanted {
            return Some(lower + (upper - lower) * ((wanted - below) / number).clamp(0.0, 1.0));
        }
        below += number;
        lower = upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::RouteTraffic;

    fn counted(ok: u64) -> Counted {
        Counted { classes: [0, 0, ok, 0, 0, 0], ..Counted::default() }
    }

    fn traffic(started: u64, at: u64, routes: &[(&str, u64)]) -> Traffic {
        Traffic {
            node: "n".to_owned(),
            region: None,
            started_at_ms: started,
            at_ms: at,
            bounds_us: BOUNDS_US.to_vec(),
            all: counted(routes.iter().map(|(_, ok)| ok).sum()),
            routes: routes
                .iter()
                .map(|(name, ok)| RouteTraffic { name: (*name).to_owned(), counted: counted(*ok) })
                .collect(),
            upstreams: Vec::new(),
            limits: Vec::new(),
            connections: 0,
        }
    }

    fn taken(meter: &Meter) -> Vec<(String, u64)> {
        meter.take(0).into_iter().map(|((_, route), counted)| (route, counted.requests())).collect()
    }

    #[test]
    fn takes_differences_and_begins_anew_with_the_process() {
        let meter = Meter::default();
        meter.hear(traffic(1, 10, &[("a", 100)]), 10);
        assert_eq!(taken(&meter), [], "what was before is not known");
        meter.hear(traffic(1, 12, &[("a", 103), ("b", 4)]), 12);
        assert_eq!(taken(&meter), [(String::new(), 7), ("a".to_owned(), 3), ("b".to_owned(), 4)]);
        meter.hear(traffic(1, 11, &[("a", 101)]), 13);
        assert_eq!(taken(&meter), [], "late");
        meter.hear(traffic(2, 20, &[("a", 5)]), 20);
        assert_eq!(taken(&meter), [(String::new(), 5), ("a".to_owned(), 5)]);
        meter.restore(BTreeMap::from([(("n".to_owned(), "a".to_owned()), counted(2))]));
        assert_eq!(taken(&meter), [("a".to_owned(), 2)]);
        assert_eq!(meter.now(20 + STALE_MS).len(), 1);
        assert!(meter.now(21 + STALE_MS).is_empty());
    }

    #[test]
    fn what_was_heard_before_a_moment_is_not_since_it() {
        let meter = Meter::default();
        meter.take(1_000);
        meter.hear(traffic(1, 1_100, &[("a", 1)]), 1_100);
        meter.hear(traffic(1, 1_200, &[("a", 2)]), 1_200);
        assert!(meter.unsaved_since(1_001).is_none(), "some of it may be older");
        assert_eq!(meter.unsaved_since(1_000).map(|all| all.len()), Some(2));
        let taken = meter.take(2_000);
        meter.restore(taken);
        assert!(meter.unsaved_since(1_000).is_none(), "nobody knows how old it is");
    }

    #[test]
    fn percentiles_lie_within_their_bucket() {
        let mut took = vec![0; 17];
        took[3] = 99;
        took[6] = 1;
        assert!(quantile(&took, 0.5).is_some_and(|ms| (2.5..=5.0).contains(&ms)));
        assert!(quantile(&took, 0.999).is_some_and(|ms| (25.0..=50.0).contains(&ms)));
        assert_eq!(quantile(&[], 0.5), None);
    }

    proptest! {
        #[test]
        fn percentiles_grow_with_their_share(took in proptest::collection::vec(0u64..50, 17), a in 0.0..1.0f64, b in 0.0..1.0f64) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(quantile(&took, low) <= quantile(&took, high));
        }

        #[test]
        fn what_was_added_is_the_difference(a in proptest::array::uniform6(0u64..1000), b in proptest::array::uniform6(0u64..1000)) {
            let (before, more) = (Counted { classes: a, ..Counted::default() }, Counted { classes: b, ..Counted::default() });
            let mut now = before.clone();
            add(&mut now, &more);
            prop_assert_eq!(difference(&now, &before), more);
        }
    }
}
