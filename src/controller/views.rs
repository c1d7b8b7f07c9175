//! What is shown, as values: pages and API say the same.

use std::collections::BTreeMap;

use serde::Serialize;

use super::State;
use super::meter::{Rate, add, difference, percent};
use super::picture::{Inner, Stand};
use super::store::{self, Step, StoreError};
use crate::fleet::{Counted, Report, Traffic};
use crate::ledger::now_ms;

#[derive(Clone, Debug, Serialize)]
pub(super) struct NodeView {
    #[serde(flatten)]
    pub(super) report: Report,
    pub(super) stand: Stand,
    /// It runs something else than what is in force or on trial there.
    pub(super) drift: bool,
    pub(super) silent_ms: u64,
    /// Absent while it tells no traffic.
    pub(super) rate: Option<Rate>,
    pub(super) connections: Option<i64>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct RouteView {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) rate: Rate,
    /// By reason, per second.
    pub(super) rejected_by: BTreeMap<String, f64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct UpstreamView {
    pub(super) name: String,
    pub(super) nodes: usize,
    pub(super) in_flight: usize,
    /// Endpoints by state, as all nodes together see them.
    pub(super) endpoints: BTreeMap<String, usize>,
    pub(super) attempts_per_second: f64,
    /// Percent of the attempts.
    pub(super) failures: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct LimitView {
    pub(super) name: String,
    pub(super) nodes: usize,
    pub(super) allowed_per_second: f64,
    pub(super) limited_per_second: f64,
    pub(super) dry_run_per_second: f64,
    pub(super) keys: u64,
    pub(super) evicted: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct CertificateView {
    pub(super) node: String,
    pub(super) name: String,
    pub(super) source: String,
    pub(super) not_after_unix: Option<u64>,
    pub(super) days_left: Option<i64>,
    pub(super) failing: bool,
}

/// A point of a chart: the begin of its step in seconds, and what happened in it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) at: u64,
    #[serde(flatten)]
    pub(super) rate: Rate,
}

/// How much time a chart shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    QuarterHour,
    Day,
}

impl Shown {
    pub(super) fn seconds(self) -> u64 {
        match self {
            Shown::QuarterHour => 900,
            Shown::Day => 24 * 3600,
        }
    }

    pub(super) fn step(self) -> Step {
        match self {
            Shown::QuarterHour => Step::TenSeconds,
            Shown::Day => Step::FiveMinutes,
        }
    }
}

fn seconds(now: &Traffic, before: &Traffic) -> f64 {
    now.at_ms.saturating_sub(before.at_ms) as f64 / 1000.0
}

pub(super) fn nodes(state: &State, picture: &Inner) -> Vec<NodeView> {
    let now = now_ms();
    let traffic: BTreeMap<String, (Traffic, Option<Traffic>)> =
        state.meter.now(now).into_iter().map(|pair| (pair.0.node.clone(), pair)).collect();
    let view = |report: &Report| {
        let stand = picture.stand(report, now);
        let heard = traffic.get(&report.who.node);
        let rate = heard.and_then(|(last, first)| {
            let first = first.as_ref()?;
            Some(Rate::of(&difference(&last.all, &first.all), seconds(last, first)))
        });
        NodeView {
            stand,
            drift: stand == Stand::Behind,
            silent_ms: now.saturating_sub(report.at_ms),
            rate,
            connections: heard.map(|(last, _)| last.connections),
            report: report.clone(),
        }
    };
    picture.nodes.values().map(view).collect()
}

/// Routes with what goes through them now, all nodes together; `""` is everything.
pub(super) fn routes(state: &State) -> Vec<RouteView> {
    let mut total: BTreeMap<String, (Counted, f64, BTreeMap<String, f64>)> = BTreeMap::new();
    for (last, first) in state.meter.now(now_ms()) {
        let Some(first) = first else { continue };
        let took = seconds(&last, &first);
        let before: BTreeMap<&str, &Counted> =
            first.routes.iter().map(|route| (route.name.as_str(), &route.counted)).collect();
        let none = Counted::default();
        let named = [("", &last.all, &first.all)];
        let routes = last.routes.iter().map(|route| {
            (route.name.as_str(), &route.counted, before.get(route.name.as_str()).copied().unwrap_or(&none))
        });
        for (name, now, before) in named.into_iter().chain(routes) {
            let happened = difference(now, before);
            let (counted, per_second, by) = total.entry(name.to_owned()).or_default();
            if took > 0.0 {
                *per_second += happened.requests() as f64 / took;
                for (code, number) in &happened.rejected {
                    *by.entry(code.clone()).or_default() += *number as f64 / took;
                }
            }
            add(counted, &happened);
        }
    }
    let view = |(name, (counted, per_second, rejected_by)): (String, (Counted, f64, BTreeMap<String, f64>))| {
        RouteView { name, rate: Rate { per_second, ..Rate::of(&counted, 0.0) }, rejected_by }
    };
    total.into_iter().map(view).collect()
}

pub(super) fn upstreams(state: &State) -> Vec<UpstreamView> {
    let mut total: BTreeMap<String, (UpstreamView, u64, u64)> = BTreeMap::new();
    for (last, first) in state.meter.now(now_ms()) {
        for upstream in &last.upstreams {
            let (view, attempts, failures) = total.entry(upstream.name.clone()).or_default();
            view.name.clone_from(&upstream.name);
            view.nodes += 1;
            view.in_flight += upstream.in_flight;
            for (endpoint, number) in &upstream.endpoints {
                *view.endpoints.entry(endpoint.clone()).or_default() += number;
            }
            let before =
                first.as_ref().and_then(|first| first.upstreams.iter().find(|before| before.name == upstream.name));
            let (Some(first), Some(before)) = (&first, before) else { continue };
            let took = seconds(&last, first);
            let more = upstream.attempts.saturating_sub(before.attempts);
            *attempts += more;
            *failures += upstream.failures.saturating_sub(before.failures);
            if took > 0.0 {
                view.attempts_per_second += more as f64 / took;
            }
        }
    }
    total
        .into_values()
        .map(|(view, attempts, failures)| UpstreamView { failures: percent(failures, attempts), ..view })
        .collect()
}

pub(super) fn limits(state: &State) -> Vec<LimitView> {
    let mut total: BTreeMap<String, LimitView> = BTreeMap::new();
    for (last, first) in state.meter.now(now_ms()) {
        for limit in &last.limits {
            let view = total.entry(limit.name.clone()).or_default();
            view.name.clone_from(&limit.name);
            view.nodes += 1;
            view.keys += limit.keys;
            view.evicted += limit.evicted;
            let before = first.as_ref().and_then(|first| first.limits.iter().find(|before| before.name == limit.name));
            let (Some(first), Some(before)) = (&first, before) else { continue };
            let took = seconds(&last, first);
            if took > 0.0 {
                let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / took;
                view.allowed_per_second += rate(limit.allowed, before.allowed);
                view.limited_per_second += rate(limit.limited, before.limited);
                view.dry_run_per_second += rate(limit.dry_run, before.dry_run);
            }
        }
    }
    total.into_values().collect()
}

/// Those that end first come first.
pub(super) fn certificates(picture: &Inner) -> Vec<CertificateView> {
    let now = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
    let live = picture.nodes.values().filter(|report| !report.is_silent(now_ms()));
    let mut all: Vec<CertificateView> = live
        .flat_map(|report| {
            report.certificates.iter().map(move |one| CertificateView {
                node: report.who.node.clone(),
                name: one.name.clone(),
                source: one.source.clone(),
                not_after_unix: one.not_after_unix,
                days_left: one.not_after_unix.map(|ends| (i64::try_from(ends).unwrap_or(i64::MAX) - now) / 86_400),
                failing: one.failing,
            })
        })
        .collect();
    all.sort_by(|a, b| (!a.failing, a.not_after_unix, &a.name).cmp(&(!b.failing, b.not_after_unix, &b.name)));
    all
}

/// What a chart of a route shows (`""`: everything). Steps without requests are zero, if anything was saved before them.
pub(super) async fn series(state: &State, route: &str, shown: Shown) -> Result<Vec<Point>, StoreError> {
    let (step, width) = (shown.step(), shown.step().seconds());
    let now = now_ms() / 1000;
    let from = now - shown.seconds() - now % width;
    let name = route.to_owned();
    let mut found = state.store.read(move |connection| store::series(connection, step, &name, from)).await?;
    let current = now - now % width;
    for ((_, of), counted) in state.meter.unsaved() {
        if of == route {
            add(found.entry(current).or_default(), &counted);
        }
    }
    let Some(first) = found.keys().next().copied() else { return Ok(Vec::new()) };
    let point = |at: u64| {
        // The present step has only begun.
        let lasted = if at == current { (now - at).max(2) } else { width };
        Point { at, rate: Rate::of(found.get(&at).unwrap_or(&Counted::default()), lasted as f64) }
    };
    Ok((first..=current).step_by(usize::try_from(width).unwrap_or(1)).map(point).collect())
}
