//! Where requests go: the list grows here.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bind::Binder;
use super::bounds::check_span;
use super::redirect::Redirect;
use super::respond::Respond;
use super::split::{Split, SplitBy};
use crate::config;
use crate::policy::{Presence, Reading, headers};
use crate::problem::{Path, nearest};
use crate::upstream::Pool;

const WEIGHT_MAX: u32 = 10_000;

/// Exactly one per route.
#[derive(Debug)]
pub enum Destination {
    Upstream(Arc<Pool>),
    Split(Split),
    Redirect(Redirect),
    Respond(Respond),
}

/// A copy of requests for another upstream.
#[derive(Debug)]
pub struct Mirror {
    pub pool: Arc<Pool>,
    /// Longest request body that is copied, and how much of the answers is compared, in bytes.
    pub body_max: usize,
    pub compare_headers: Box<[HeaderName]>,
    pub timeout: Duration,
    /// 0 to 100.
    pub(super) percent: f64,
    pub(super) in_flight_max: usize,
    permits: Arc<Semaphore>,
}

impl Mirror {
    pub(super) fn new(
        pool: Arc<Pool>,
        words: &crate::config::Mirror,
        compare_headers: Box<[HeaderName]>,
        in_flight_max: usize,
    ) -> Mirror {
        Mirror {
            pool,
            body_max: usize::try_from(words.body_max.0).unwrap_or(usize::MAX),
            compare_headers,
            timeout: words.timeout.0,
            percent: words.percent,
            in_flight_max,
            permits: Arc::new(Semaphore::new(in_flight_max)),
        }
    }

    pub fn percent(&self) -> f64 {
        self.percent
    }

    /// Whether this request is one of those that are copied.
    pub fn sampled(&self) -> bool {
        self.percent >= 100.0 || fastrand::f64() * 100.0 < self.percent
    }

    /// Room for one more copy; given back when dropped. `None`: too many are under way.
    pub fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().ok()
    }

    /// Copies under way still count after a change, unless the bound itself has changed.
    pub(super) fn inherit(&mut self, previous: &Mirror) {
        if self.in_flight_max == previous.in_flight_max {
            self.permits = previous.permits.clone();
        }
    }
}

impl Binder<'_> {
    pub(super) fn destination(
        &mut self,
        words: &config::Route,
        at: &Path,
        reading: &mut Reading<'_>,
    ) -> Option<Destination> {
        let config::Route { upstream, split, split_by, redirect, respond, .. } = words;
        let there = [upstream.is_some(), split.is_some(), redirect.is_some(), respond.is_some()];
        match there.into_iter().filter(|is_there| *is_there).count() {
            0 => {
                let help = "write one of `upstream`, `split`, `redirect`, `respond`";
                reading.error(at, format!("route `{}` goes nowhere", words.name), help);
            }
            1 => {}
            _ => {
                let message = format!("route `{}` has more than one destination", words.name);
                reading.error(at, message, "keep one of `upstream`, `split`, `redirect`, `respond`");
            }
        }
        if split_by.is_some() && split.is_none() {
            reading.error(&at.at("split_by"), "`split_by` without `split`", "leave it out, or write `split`");
        }
        if let Some(name) = upstream {
            self.pool(name, &at.at("upstream"), reading).map(Destination::Upstream)
        } else if let Some(shares) = split {
            self.split(shares, split_by.as_ref(), at, reading).map(Destination::Split)
        } else if let Some(words) = redirect {
            Redirect::compile(words, &at.at("redirect"), reading).map(Destination::Redirect)
        } else {
            Respond::compile(respond.as_ref()?, &at.at("respond"), reading).map(Destination::Respond)
        }
    }

    pub(super) fn pool(&mut self, name: &str, at: &Path, reading: &mut Reading<'_>) -> Option<Arc<Pool>> {
        if let Some(named) = self.pools.get_mut(name) {
            named.used = true;
            return Some(named.pool.clone());
        }
        let help = match nearest(name, self.pools.keys().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write a block `[upstream.{name}]`"),
        };
        reading.error(at, format!("there is no upstream `{name}`"), help);
        None
    }

    fn split(
        &mut self,
        words: &[config::Share],
        by: Option<&config::SplitBy>,
        at: &Path,
        reading: &mut Reading<'_>,
    ) -> Option<Split> {
        let split_at = at.at("split");
        let mut shares: Vec<(Arc<Pool>, u32)> = Vec::with_capacity(words.len());
        for (index, config::Share { upstream, weight }) in words.iter().enumerate() {
            let at = split_at.at(index);
            if *weight > WEIGHT_MAX {
                reading.error(&at.at("weight"), format!("{weight} is too much"), format!("0 to {WEIGHT_MAX}"));
            }
            let Some(pool) = self.pool(upstream, &at.at("upstream"), reading) else { continue };
            if shares.iter().any(|(known, _)| known.name() == pool.name()) {
                reading.error(&at.at("upstream"), format!("`{upstream}` is there twice"), "add the weights up");
            }
            shares.push((pool, *weight));
        }
        let by = by.and_then(|words| split_by(words, &at.at("split_by"), reading));
        let complete = shares.len() == words.len();
        let split = Split::new(shares, by);
        if split.is_none() && complete {
            reading.error(&split_at, "no share has weight", "give at least one upstream a weight above 0");
        }
        split
    }

    pub(super) fn mirror(&mut self, words: &config::Mirror, at: &Path, reading: &mut Reading<'_>) -> Option<Mirror> {
        let config::Mirror { upstream, percent, body_max: _, compare_headers, timeout, in_flight } = words;
        if !(0.0..=100.0).contains(percent) {
            reading.error(&at.at("percent"), format!("{percent} is not a percentage"), "0 to 100");
        }
        check_span(Some(*timeout), &at.at("timeout"), reading.problems);
        if *in_flight == 0 {
            reading.error(&at.at("in_flight"), "nothing would be copied", "leave `mirror` out to copy nothing");
        }
        let compare = compare_headers.iter().enumerate();
        let compare = compare
            .filter_map(|(index, text)| headers::name(text, &at.at("compare_headers").at(index), reading))
            .collect();
        let pool = self.pool(upstream, &at.at("upstream"), reading)?;
        Some(Mirror::new(pool, words, compare, usize::try_from(*in_flight).ok()?))
    }
}

fn split_by(words: &config::SplitBy, at: &Path, reading: &mut Reading<'_>) -> Option<SplitBy> {
    match (&words.cookie, &words.fact) {
        (Some(cookie), None) => {
            let legal = http::HeaderName::from_bytes(cookie.as_bytes()).is_ok();
            if !legal {
                let help = "names are tokens (RFC 6265 4.1.1)";
                reading.error(&at.at("cookie"), format!("`{cookie}` is not the name of a cookie"), help);
            }
            legal.then(|| SplitBy::Cookie(cookie.as_str().into()))
        }
        (None, Some(fact)) => {
            // A fact is a template of nothing else: captures are checked the same way.
            let template = reading.template(&format!("{{{fact}}}"), &at.at("fact"), Presence::Sometimes)?;
            template.facts().next().cloned().map(SplitBy::Fact)
        }
        (Some(_), Some(_)) | (None, None) => {
            reading.error(at, "`split_by` is by one thing", "write either `cookie` or `fact`");
            None
        }
    }
}
