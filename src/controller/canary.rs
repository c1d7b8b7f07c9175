//! Trials: watched while they run, decided by whoever has the seat.
//!
//! Both sides are measured over the steps of ten seconds that began after the trial did: they are in every controller's
//! store, so that a restart or a switch does not begin anew. While the bus cannot be reached nothing is decided.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::State;
use super::collect::SAVED_EVERY;
use super::meter::{ByRoute, add};
use super::verdict::{Side, Verdict, judge};
use crate::bus::{BusError, Link};
use crate::fetch::Failure;
use crate::fleet::Counted;
use crate::ledger::{Canary, LedgerError, now_ms};

/// How often a trial is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Decides trials, for as long as this controller has the seat.
pub(super) async fn act(state: &Arc<State>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if *state.bus.link().borrow() != Link::Up || !state.picture.is_current() {
            continue;
        }
        let looked = match pending(state).await {
            Ok(Some(decision)) => finish(state, decision).await,
            Ok(None) => match state.picture.now(now_ms()).canary {
                Some((canary, entry)) => look(state, &canary, entry).await,
                None => Ok(()),
            },
            Err(error) => Err(error.into()),
        };
        if let Err(error) = looked {
            tracing::warn!(%error, "the trial cannot be decided now");
        }
    }
}

/// Until nodes run it, and what they told before is heard.
const BEGUN_MS: u64 = 3_000;

/// The two sides since the trial began.
pub(super) async fn sides(state: &State, canary: &Canary) -> Result<(Side, Side), super::store::StoreError> {
    // What began before the trial did is no part of it.
    let from = ((canary.started_at_ms + BEGUN_MS) / 1000).div_ceil(SAVED_EVERY) * SAVED_EVERY;
    let traffic = super::alerts::since(state, from).await?;
    let picture = state.picture.now(now_ms());
    let live = |node: &str| {
        picture.nodes.values().any(|report| report.who.node == node && !report.is_silent(now_ms()) && !report.draining)
    };
    Ok((
        side(&traffic, |node| canary.nodes.contains(node)),
        side(&traffic, |node| !canary.nodes.contains(node) && live(node)),
    ))
}

fn side(traffic: &ByRoute, meant: impl Fn(&str) -> bool) -> Side {
    let mut total = Counted::default();
    for ((node, route), counted) in traffic {
        if route.is_empty() && meant(node) {
            add(&mut total, counted);
        }
    }
    Side::of(&total)
}

async fn look(state: &State, canary: &Canary, entry: u64) -> Result<(), Failure> {
    let ran_ms = now_ms().saturating_sub(canary.started_at_ms);
    let (trial, control) = sides(state, canary).await?;
    let verdict = match refusing(state, canary) {
        Some(why) => Verdict::TakeBack(why),
        None => judge(&canary.judged, &trial, &control, ran_ms),
    };
    let promote = match &verdict {
        Verdict::Wait => return Ok(()),
        Verdict::Promote => true,
        Verdict::TakeBack(_) => false,
    };
    let why = match verdict {
        Verdict::TakeBack(why) => why,
        _ => "no worse than what runs elsewhere".to_owned(),
    };
    let decision =
        Decision { canary: canary.clone(), entry, promote, why, trial, elsewhere: control, ran_s: ran_ms / 1000 };
    // First said, then done: whoever takes the seat over in between does it, and tells of it.
    let value = serde_json::to_vec(&decision).unwrap_or_default();
    let bucket = state.bus.bucket(&state.fleet.shared()).await?;
    bucket.put(DECISION, value.into()).await?;
    finish(state, decision).await
}

/// Where a decision stands until it is carried out and told.
const DECISION: &str = "canary.decision";

#[derive(Debug, Serialize, Deserialize)]
struct Decision {
    canary: Canary,
    entry: u64,
    promote: bool,
    why: String,
    trial: Side,
    elsewhere: Side,
    ran_s: u64,
}

/// A decision that somebody else did not get to the end of.
async fn pending(state: &State) -> Result<Option<Decision>, BusError> {
    let entry = state.bus.bucket(&state.fleet.shared()).await?.entry(DECISION).await?;
    Ok(entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()))
}

/// Carries a decision out and tells of it. A second time it changes nothing: the trial is gone, the event is known by its id.
async fn finish(state: &State, decision: Decision) -> Result<(), Failure> {
    let Decision { canary, entry, promote, mut why, trial, elsewhere, ran_s } = decision;
    let pointer = &canary.pointer;
    let mut outcome = "canary_taken_back";
    if promote {
        match state.ledger.promote(&canary, entry).await {
            Ok(_) => outcome = "canary_promoted",
            // It may be what is in force: then an earlier try got that far.
            Err(LedgerError::Lost { now: Some(now), .. })
                if now.digest == pointer.digest && now.revision == pointer.revision =>
            {
                outcome = "canary_promoted";
            }
            Err(LedgerError::Lost { .. }) => why = "something else was put in force meanwhile".to_owned(),
            Err(error) => return Err(error.into()),
        }
    } else {
        state.ledger.take_back(entry).await?;
    }
    tracing::info!(revision = pointer.revision, outcome, why, "a trial is decided");
    let more = json!({
        "revision": pointer.revision, "digest": pointer.digest, "author": pointer.author, "nodes": canary.nodes,
        "why": why, "trial": trial, "elsewhere": elsewhere, "ran_s": ran_s,
    });
    let id = format!("canary/{}/{}", canary.started_at_ms, pointer.digest);
    state.event(outcome, &id, more).await?;
    state.bus.bucket(&state.fleet.shared()).await?.remove(DECISION, None).await?;
    Ok(())
}

/// A node on trial that does not take the document ends it: the rest would not take it either.
fn refusing(state: &State, canary: &Canary) -> Option<String> {
    let picture = state.picture.now(now_ms());
    let refusing = picture.nodes.values().find(|report| {
        canary.nodes.contains(&report.who.node)
            && report.problem.is_some()
            && report.at_ms > canary.started_at_ms + REFUSED_AFTER_MS
            && !report.runs(&canary.pointer.digest)
    })?;
    Some(format!("{} does not take it: {}", refusing.who.node, refusing.problem.as_deref().unwrap_or_default()))
}

/// What a node says within this after the beginning may be about what it had before.
const REFUSED_AFTER_MS: u64 = 2_000;
