//! What the fleet looks like now: what nodes report, what is in force, what is on trial, which services are ready.
//!
//! Followed from buckets, so that a page or a rule never waits for the bus.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::State;
use super::alerts::Standing;
use crate::bus::{Entry, Seen};
use crate::fleet::Report;
use crate::ledger::{self, Canary, Pointer, now_ms};

/// A node that has not written for so long is no part of the fleet any more.
const FORGOTTEN_MS: u64 = 24 * 3600 * 1000;

/// Nodes are back and have reported so long after the bus is.
const SETTLES_MS: u64 = 15_000;

#[derive(Debug, Default)]
pub(super) struct Picture(Mutex<Inner>);

#[derive(Clone, Debug, Default)]
pub(super) struct Inner {
    pub(super) nodes: BTreeMap<String, Report>,
    pub(super) head: Option<Pointer>,
    /// The trial that runs, and the bucket's own number for it.
    pub(super) canary: Option<(Canary, u64)>,
    pub(super) services: BTreeMap<String, Service>,
    /// By key of the bucket.
    pub(super) alerts: BTreeMap<String, Standing>,
    /// Everything that is followed has been seen whole at least once.
    pub(super) seen: [bool; 3],
    /// Why the bus cannot be read now.
    pub(super) lost: Option<String>,
    /// Parts that have not been read since they were lost.
    pub(super) stale: [bool; 3],
    /// Until then a node may look silent only because the bus was away.
    pub(super) settled_at_ms: u64,
}

/// A service whose readiness is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Service {
    pub(super) ready: bool,
    /// When it became what it is.
    pub(super) since_ms: u64,
    /// Why it is not ready.
    pub(super) problem: Option<String>,
}

/// How a node stands to what it should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stand {
    Current,
    /// It runs the document on trial, as it should.
    Trial,
    Behind,
    Draining,
    /// It said that it leaves, and has left.
    Left,
    Silent,
    /// Its document does not come from the bus.
    OwnDocument,
}

impl Stand {
    pub(super) fn name(self) -> &'static str {
        match self {
            Stand::Current => "current",
            Stand::Trial => "on trial",
            Stand::Behind => "behind",
            Stand::Draining => "draining",
            Stand::Left => "left",
            Stand::Silent => "silent",
            Stand::OwnDocument => "own document",
        }
    }
}

impl Inner {
    /// How a node stands to what it should run.
    pub(super) fn stand(&self, report: &Report, now_ms: u64) -> Stand {
        let trial = self
            .canary
            .as_ref()
            .is_some_and(|(canary, _)| canary.nodes.contains(&report.who.node) && report.runs(&canary.pointer.digest));
        match (&self.head, report.is_silent(now_ms)) {
            (_, true) if report.draining => Stand::Left,
            (_, true) => Stand::Silent,
            _ if report.draining => Stand::Draining,
            _ if trial => Stand::Trial,
            (Some(head), false) if report.runs(&head.digest) => Stand::Current,
            (_, false) if report.revision.is_none() && report.serving == "source" => Stand::OwnDocument,
            (None, false) => Stand::OwnDocument,
            (Some(_), false) => Stand::Behind,
        }
    }
}

impl Picture {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is seen now, with the nodes that were heard of within a day.
    pub(super) fn now(&self, now_ms: u64) -> Inner {
        let mut inner = self.inner().clone();
        inner.nodes.retain(|_, report| now_ms.saturating_sub(report.at_ms) < FORGOTTEN_MS);
        inner
    }

    /// Everything has been read once, and can be read now.
    pub(super) fn is_current(&self) -> bool {
        let inner = self.inner();
        inner.seen == [true; 3] && inner.stale == [false; 3]
    }

    pub(super) fn service(&self, name: &str, ready: Result<(), String>, now_ms: u64) {
        let mut inner = self.inner();
        let (ready, problem) = (ready.is_ok(), ready.err());
        let since_ms = inner.services.get(name).filter(|before| before.ready == ready).map_or(now_ms, |it| it.since_ms);
        inner.services.insert(name.to_owned(), Service { ready, since_ms, problem });
    }
}

/// What is followed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Nodes,
    Documents,
    Alerts,
}

impl Part {
    pub(super) const ALL: [Part; 3] = [Part::Nodes, Part::Documents, Part::Alerts];
}

/// Follows a part, for as long as the process lives.
pub(super) async fn follow(state: Arc<State>, part: Part) {
    let (bucket, keys) = match part {
        Part::Nodes => (state.fleet.status(), "node.*"),
        Part::Documents => (state.ledger.bucket().to_owned(), ledger::HEADS),
        Part::Alerts => (state.fleet.shared(), "alert.*"),
    };
    let mut follow = state.bus.follow(bucket, keys);
    // Told since a reading began anew; it replaces what was known once it is whole.
    let mut whole: Option<BTreeMap<String, Entry>> = None;
    loop {
        match follow.next().await {
            Seen::Anew => whole = Some(BTreeMap::new()),
            Seen::Put(entry) => match &mut whole {
                Some(whole) => drop(whole.insert(entry.key.clone(), entry)),
                None => state.picture.put(part, &entry),
            },
            Seen::Removed(key) => match &mut whole {
                Some(whole) => drop(whole.remove(&key)),
                None => state.picture.remove(part, &key),
            },
            Seen::Current => state.picture.replace(part, whole.take().unwrap_or_default()),
            Seen::Lost(reason) => {
                whole = None;
                let mut inner = state.picture.inner();
                inner.lost = Some(reason);
                if let Some(stale) = inner.stale.get_mut(part as usize) {
                    *stale = true;
                }
            }
        }
    }
}

impl Picture {
    fn replace(&self, part: Part, entries: BTreeMap<String, Entry>) {
        let mut inner = self.inner();
        match part {
            Part::Nodes => {
                inner.nodes.clear();
                if inner.seen.get(part as usize) == Some(&true) {
                    inner.settled_at_ms = now_ms() + SETTLES_MS;
                }
            }
            Part::Documents => (inner.head, inner.canary) = (None, None),
            Part::Alerts => inner.alerts.clear(),
        }
        for entry in entries.values() {
            inner.put(part, entry);
        }
        if let Some(seen) = inner.seen.get_mut(part as usize) {
            *seen = true;
        }
        if let Some(stale) = inner.stale.get_mut(part as usize) {
            *stale = false;
        }
        if inner.stale == [false; 3] {
            inner.lost = None;
        }
    }

    fn put(&self, part: Part, entry: &Entry) {
        self.inner().put(part, entry);
    }

    fn remove(&self, part: Part, key: &str) {
        let mut inner = self.inner();
        match part {
            Part::Nodes => drop(inner.nodes.remove(key)),
            Part::Alerts => drop(inner.alerts.remove(key)),
            Part::Documents if key == ledger::HEAD => inner.head = None,
            Part::Documents => inner.canary = None,
        }
    }
}

impl Inner {
    /// What a newer version writes may look different: it is left out.
    fn put(&mut self, part: Part, entry: &Entry) {
        match part {
            Part::Nodes => {
                if let Ok(report) = serde_json::from_slice(&entry.value) {
                    self.nodes.insert(entry.key.clone(), report);
                }
            }
            Part::Alerts => {
                if let Ok(standing) = serde_json::from_slice(&entry.value) {
                    self.alerts.insert(entry.key.clone(), standing);
                }
            }
            Part::Documents if entry.key == ledger::HEAD => self.head = Pointer::parse(entry).ok(),
            Part::Documents if entry.key == ledger::CANARY => {
                self.canary = Canary::parse(entry).ok().map(|canary| (canary, entry.revision));
            }
            Part::Documents => {}
        }
    }
}
