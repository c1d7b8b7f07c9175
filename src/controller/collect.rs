//! What comes from the bus into the store: events, request logs, traffic.
//!
//! A stream is read from where the last transaction ended, on every controller, active or not: whoever takes over has
//! everything already.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::State;
use super::store::{self, Incoming, Store, StoreError};
use crate::bus::{Bus, BusError, Kept};
use crate::fleet::Traffic;
use crate::ledger::{now_ms, unix_ms};
use crate::tasks::jittered;

/// Messages of one transaction.
const BATCH: usize = 1_000;
/// Pause after a failure, doubled up to the longer one.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often traffic is saved. The finest step of the charts.
pub(super) const SAVED_EVERY: u64 = 10;
/// How often what is too old is removed.
const PRUNED_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum CollectError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which of the two streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Events,
    Requests,
}

/// Makes what is missing on the bus, however long it takes to be reached.
pub(super) async fn make(state: Arc<State>) {
    let mut pause = PAUSE_MIN;
    let mut link = state.bus.link();
    loop {
        match state.fleet.make(&state.bus, state.ledger.bucket()).await {
            Ok(()) => {
                pause = PAUSE_MIN;
                // A server may come back without what it had.
                if link.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "buckets and streams cannot be made yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Reads a stream into the store, for as long as the process lives.
pub(super) async fn read(state: Arc<State>, what: What) {
    let stream = match what {
        What::Events => state.fleet.events(),
        What::Requests => state.fleet.requests(),
    };
    let line_max = state.settings.keep.line.0;
    let (mut pause, mut failing) = (PAUSE_MIN, false);
    loop {
        let mut progressed = false;
        let Err(error) = follow(&state.bus, &state.store, &stream, what, line_max, &mut progressed).await;
        if progressed {
            (pause, failing) = (PAUSE_MIN, false);
        }
        if !failing {
            tracing::info!(%error, stream, "reading stops; it is tried again");
            failing = true;
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Reads until it cannot go on.
async fn follow(
    bus: &Bus,
    memory: &Store,
    stream: &str,
    what: What,
    line_max: u64,
    progressed: &mut bool,
) -> Result<std::convert::Infallible, CollectError> {
    let name = stream.to_owned();
    let mut at = memory.read(move |connection| store::cursor(connection, &name)).await?;
    let mut messages = bus.read(stream, at).await?.ready_chunks(BATCH);
    while let Some(chunk) = messages.next().await {
        let mut batch = Vec::with_capacity(chunk.len());
        let (mut gone, mut broken) = (0, None);
        for kept in chunk {
            match kept {
                Ok(kept) => {
                    gone += missing(at, kept.sequence);
                    at = kept.sequence;
                    batch.push(incoming(kept));
                }
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        let name = stream.to_owned();
        if !batch.is_empty() {
            let added = memory.write(move |transaction| {
                let reason = match what {
                    What::Events => {
                        store::add_events(transaction, &name, &batch, line_max)?;
                        "event_gone_before_read"
                    }
                    What::Requests => {
                        store::add_requests(transaction, &name, &batch, line_max)?;
                        "request_gone_before_read"
                    }
                };
                store::count_lost(transaction, reason, gone)
            });
            added.await?;
            *progressed = true;
        }
        if let Some(error) = broken {
            return Err(error.into());
        }
    }
    Err(BusError::Failed("the reading ended".to_owned()).into())
}

/// Messages that the stream dropped, for their age or its size, before they were read. One that begins anew dropped none,
/// and of what was there before the very first reading nobody knows.
fn missing(before: u64, sequence: u64) -> u64 {
    if before == 0 { 0 } else { sequence.saturating_sub(before + 1) }
}

fn incoming(kept: Kept) -> Incoming {
    let Kept { message, sequence, at } = kept;
    Incoming { sequence, at_ms: unix_ms(at), subject: message.subject, payload: message.payload }
}

/// Hears what gateways tell of their traffic.
pub(super) async fn hear(state: Arc<State>) {
    let subject = state.fleet.traffics();
    let mut pause = PAUSE_MIN;
    loop {
        if let Ok(mut messages) = state.bus.subscribe(&subject).await {
            while let Some(message) = messages.next().await {
                pause = PAUSE_MIN;
                match serde_json::from_slice::<Traffic>(&message.payload) {
                    Ok(traffic) => state.meter.hear(traffic, now_ms()),
                    Err(error) => tracing::debug!(%error, subject = message.subject, "not traffic"),
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Saves traffic at every tenth second, for as long as the process lives.
pub(super) async fn save(state: Arc<State>) {
    loop {
        let step = SAVED_EVERY * 1000;
        tokio::time::sleep(Duration::from_millis(step - now_ms() % step)).await;
        save_now(&state).await;
    }
}

/// What was heard until now belongs to the step that has just ended.
pub(super) async fn save_now(state: &State) {
    let now = now_ms();
    let samples = state.meter.take(now);
    let (at, saved) = (now.saturating_sub(500) / 1000, samples.clone());
    if let Err(error) = state.store.write(move |transaction| store::add_samples(transaction, at, &saved)).await {
        tracing::error!(%error, "traffic cannot be saved; it is kept and tried again");
        state.meter.restore(samples);
    }
}

/// Removes what is too old or too much, for as long as the process lives.
pub(super) async fn prune(state: Arc<State>) {
    loop {
        let keep = state.settings.keep.clone();
        let now = now_ms();
        let before = move |age: Duration| now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let pruned = state.store.write(move |transaction| {
            store::prune(transaction, "event", before(keep.events.0), keep.events_number)?;
            store::prune(transaction, "request", before(keep.requests.0), keep.requests_number)
        });
        if let Err(error) = pruned.await {
            tracing::error!(%error, "what is old cannot be removed");
        }
        tokio::time::sleep(PRUNED_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_and_beginnings_are_none() {
        assert_eq!([missing(0, 17), missing(4, 5), missing(4, 8), missing(9, 1)], [0, 0, 3, 0]);
    }
}
