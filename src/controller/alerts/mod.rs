//! Alerts: rules that are held against what was collected, and people who are told.
//!
//! ```text
//! rules (hot) + facts ─every second─▶ wrong ─▶ steps ─▶ bucket FLEET_shared, alert.NAME.. ─▶ told: event, webhooks
//! ```
//! Where alerts stand is on the bus and not in a controller's own database: then whoever takes the seat over goes on where the
//! other stopped, and nobody is told twice. Only who holds the seat writes. A webhook that answered just before its controller
//! died, too early for that to be written, is asked once more, with the same `id`.
//! Each of those who are told has a line of their own.

mod conditions;
mod line;
mod notify;
mod rules;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

pub(super) use rules::{Rules, follow as follow_rules};
pub(super) use steps::{Stage, Standing};

use self::conditions::{Facts, Wrong, by_route, windows, wrong};
use self::line::{Ended, Line, Message};
use self::notify::{Told, tell};
use self::steps::{Next, Spans};
use super::State;
use super::meter::ByRoute;
use super::store::{self, StoreError};
use crate::bus::names::level;
use crate::bus::{BusError, Expect, KeyValue};
use crate::ledger::{digest, now_ms};
use crate::settings::{Alert, Alerts};

/// How often rules are held against facts.
const EVERY: Duration = Duration::from_secs(1);
/// Whoever takes the seat waits for what it follows; so long at most it has no opinion.
const PAUSE: Duration = Duration::from_millis(200);
/// Alerts at once. A rule that is true of more is a rule about something else.
const ALERTS_MAX: usize = 1_000;
/// The line that leads to events on the bus.
const EVENT: &str = "";

#[derive(Debug, thiserror::Error)]
enum AlertError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a delivery ended: {0}")]
    Delivery(#[from] JoinError),
}

/// Where an alert stands, and the bucket's number for it.
struct Written {
    standing: Standing,
    revision: u64,
}

/// Evaluates and tells, for as long as this controller has the seat.
pub(super) async fn act(state: &Arc<State>) {
    loop {
        match watch(state).await {
            Ok(never) => match never {},
            Err(error) => tracing::warn!(%error, "alerts are not looked at now"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn watch(state: &Arc<State>) -> Result<std::convert::Infallible, AlertError> {
    let bucket = state.bus.bucket(&state.fleet.shared()).await?;
    let mut all = BTreeMap::new();
    for entry in state.bus.entries(&state.fleet.shared(), "alert.*").await? {
        if let Ok(standing) = serde_json::from_slice(&entry.value) {
            all.insert(entry.key, Written { standing, revision: entry.revision });
        }
    }
    let mut acting = Acting { state, bucket, all, telling: JoinSet::new(), lines: BTreeMap::new() };
    let mut looks = tokio::time::interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(told) = acting.telling.join_next() => acting.told(told?).await?,
            _ = looks.tick() => acting.look().await?,
        }
        acting.begin_telling();
    }
}

struct Acting<'a> {
    state: &'a Arc<State>,
    bucket: Arc<dyn KeyValue>,
    all: BTreeMap<String, Written>,
    /// What is being told, one for each line; dropped with the seat.
    telling: JoinSet<Told>,
    /// By who is told.
    lines: BTreeMap<String, Line>,
}

impl Acting<'_> {
    /// Holds the rules against what is known now.
    async fn look(&mut self) -> Result<(), AlertError> {
        // Without rules nothing is over that was begun with some.
        if !self.state.rules.are_known() {
            return Ok(());
        }
        let rules = self.state.rules.now();
        while !self.state.picture.is_current() {
            tokio::time::sleep(PAUSE).await;
        }
        let now = now_ms();
        let picture = self.state.picture.now(now);
        let mut traffic = BTreeMap::new();
        for seconds in windows(&rules) {
            traffic.insert(seconds, by_route(&since(self.state, now / 1000 - seconds).await?));
        }
        let found = wrong(&rules, &Facts { picture: &picture, windows: &traffic, now_ms: now });
        let mut found: BTreeMap<String, Wrong> =
            found.into_iter().map(|wrong| (key(&wrong.alert, &wrong.subject), wrong)).collect();
        for key in self.all.keys().cloned().collect::<Vec<_>>() {
            let seen = found.remove(&key);
            let Some(there) = self.all.get(&key) else { continue };
            // A rule that was taken out is no longer true of anything.
            let rule = rules.alert.iter().find(|rule| rule.name == there.standing.alert);
            let spans = rule.map_or(Spans { lasting_ms: 0, clear_ms: 0 }, spans);
            let named = rule.into_iter().flat_map(|rule| rule.notify.iter().cloned()).collect();
            let waiting = waiting(&rules, &there.standing);
            match there.standing.next(seen.as_ref().map(|wrong| wrong.text.as_str()), spans, waiting.is_empty(), now) {
                Next::Same => {}
                Next::Written(mut next) => {
                    if next.id != there.standing.id {
                        next.whom = self.concerned(&there.standing, named, next.stage);
                    }
                    self.write(&key, next).await?;
                }
                Next::Gone => self.remove(&key).await?,
            }
        }
        for (key, Wrong { alert, subject, text }) in found {
            let Some(rule) = rules.alert.iter().find(|rule| rule.name == alert) else { continue };
            if self.all.len() < ALERTS_MAX {
                let mut begun = Standing::begun(&alert, &subject, &text, spans(rule), now);
                begun.whom = rule.notify.iter().cloned().collect();
                self.write(&key, begun).await?;
            }
        }
        self.line_up(&rules);
        Ok(())
    }

    /// Whom the next stage concerns: those whom the rule names; of what is over all who know, or are about to hear, that it
    /// began.
    fn concerned(&self, before: &Standing, named: BTreeSet<String>, stage: Stage) -> BTreeSet<String> {
        if stage != Stage::Resolved {
            return named;
        }
        let hearing = self.lines.iter().filter(|(_, line)| line.holds(&before.id)).map(|(whom, _)| whom);
        let all = before.whom.iter().chain(&before.told).chain(hearing);
        all.filter(|whom| *whom != EVENT).cloned().collect()
    }

    /// Puts what is not told yet into the lines. Who is named no more loses theirs.
    fn line_up(&mut self, rules: &Alerts) {
        self.lines.retain(|whom, _| whom == EVENT || rules.notify.contains_key(whom));
        let now = Instant::now();
        for (key, Written { standing, .. }) in &self.all {
            for whom in waiting(rules, standing) {
                self.lines.entry(whom).or_default().add(key, standing, now);
            }
        }
    }

    fn begin_telling(&mut self) {
        let (rules, now) = (self.state.rules.now(), Instant::now());
        for (whom, line) in &mut self.lines {
            let webhook = rules.notify.get(whom).cloned();
            if webhook.is_none() && whom != EVENT {
                continue;
            }
            if let Some(message) = line.begin(now) {
                self.telling.spawn(tell(self.state.clone(), message, whom.clone(), webhook));
            }
        }
    }

    async fn told(&mut self, told: Told) -> Result<(), AlertError> {
        let Told { whom, id, went } = told;
        // A line that has gone and come back is not the one that began this.
        let line = self.lines.get_mut(&whom).filter(|line| line.tells(&id));
        let ended = line.and_then(|line| line.ended(went.is_ok(), Instant::now()));
        let error = went.err().unwrap_or_default();
        let message = match ended {
            None => return Ok(()),
            Some(Ended::Told(message)) => message,
            // The next stage is told again.
            Some(Ended::GivenUp(message)) => {
                tracing::error!(error, id, whom, "could not tell of an alert; given up");
                message
            }
            Some(Ended::Again) => {
                tracing::warn!(error, id, whom, "could not tell of an alert; tried again");
                return Ok(());
            }
        };
        let Some(there) = self.all.get(&message.key).filter(|there| there.standing.id == id) else { return Ok(()) };
        let mut standing = there.standing.clone();
        standing.told.insert(whom);
        self.write(&message.key, standing).await
    }

    async fn write(&mut self, key: &str, standing: Standing) -> Result<(), AlertError> {
        let value = Bytes::from(serde_json::to_vec(&standing).unwrap_or_default());
        let expect = self.all.get(key).map_or(Expect::Nothing, |there| Expect::Revision(there.revision));
        let revision = self.bucket.swap(key, value, expect).await?;
        self.all.insert(key.to_owned(), Written { standing, revision });
        Ok(())
    }

    async fn remove(&mut self, key: &str) -> Result<(), AlertError> {
        let revision = self.all.get(key).map(|there| there.revision);
        self.bucket.remove(key, revision).await?;
        self.all.remove(key);
        Ok(())
    }
}

/// Who has not been told of the stage an alert is in.
fn waiting(rules: &Alerts, standing: &Standing) -> Vec<String> {
    if standing.stage == Stage::Pending {
        return Vec::new();
    }
    // Whoever is named since it fired hears of it too; of what is over only whom it concerned.
    let rule = rules.alert.iter().find(|rule| rule.name == standing.alert && standing.stage == Stage::Firing);
    let named: BTreeSet<&String> = match rule {
        Some(rule) => rule.notify.iter().collect(),
        None => standing.whom.iter().collect(),
    };
    let known = named.into_iter().filter(|name| rules.notify.contains_key(*name)).cloned();
    known.chain([EVENT.to_owned()]).filter(|name| !standing.told.contains(name)).collect()
}

fn spans(rule: &Alert) -> Spans {
    let ms = |span: crate::scalar::Span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
    Spans { lasting_ms: ms(rule.lasting), clear_ms: ms(rule.clear) }
}

/// Two subjects may look the same once what a key may not hold is replaced.
fn key(alert: &str, subject: &str) -> String {
    let digest = digest(&format!("{alert}\n{subject}"));
    format!("alert.{}-{}", level(alert), digest.get(..12).unwrap_or_default())
}

/// What happened since a second, saved or not yet. What cannot be told from what was before is left out.
pub(super) async fn since(state: &State, from: u64) -> Result<ByRoute, StoreError> {
    let mut all = state.store.read(move |connection| store::since(connection, from)).await?;
    for (key, counted) in state.meter.unsaved_since(from * 1000).unwrap_or_default() {
        super::meter::add(all.entry(key).or_default(), &counted);
    }
    Ok(all)
}
