//! The outbox: what happened is written in the transaction that made it happen, and told on the bus afterwards.
//!
//! An event is on the bus once: it is sent under an id of its own until the bus keeps it, also after a crash in between, and
//! the bus takes the same id once within two minutes. Events go in the order of their commits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::metrics::Metrics;
use super::moment::{self, Ms};
use super::store::{Store, StoreError};
use crate::bus::names::Fleet;
use crate::bus::{Bus, BusError, Message};
use crate::tasks::jittered;
use crate::telemetry::TraceContext;

/// The name under which this service tells events.
pub(super) const SERVICE: &str = "backend";
/// Events that are read at once.
const BATCH: usize = 100;
/// A try to have an event kept is given up after this long, and made again.
const TRY: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often the outbox is looked at though nobody said anything.
const LOOK: Duration = Duration::from_secs(30);

/// Who asked for a change, as far as an event tells, and how many events may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Teller {
    pub(super) trace: TraceContext,
    pub(super) bound: usize,
}

impl Teller {
    /// Writes an event beside the change that it tells of. At the bound the oldest go, and are counted.
    pub(super) fn tell(
        &self,
        connection: &Connection,
        event: &'static str,
        fields: Map<String, Value>,
    ) -> Result<(), rusqlite::Error> {
        let (id, now) = (moment::new_id(), moment::now());
        let traceparent = self.trace.header_value();
        let mut parts = traceparent.split('-').skip(1);
        let mut payload = Map::new();
        payload.insert("id".to_owned(), id.as_str().into());
        payload.insert("trace_id".to_owned(), parts.next().into());
        payload.insert("span_id".to_owned(), parts.next().into());
        payload.insert("service".to_owned(), SERVICE.into());
        payload.insert("event".to_owned(), event.into());
        payload.insert("timestamp".to_owned(), moment::rfc3339(now).into());
        payload.extend(fields);
        connection.execute(
            "INSERT INTO outbox (id, event, payload, created) VALUES (?1, ?2, ?3, ?4)",
            params![id, event, Value::from(payload).to_string(), now],
        )?;
        let bound = i64::try_from(self.bound).unwrap_or(i64::MAX);
        // Rows leave at the front only, so that their numbers tell how many there are.
        let newest = connection.last_insert_rowid();
        let lost = connection.execute("DELETE FROM outbox WHERE sequence <= ?1", [newest.saturating_sub(bound)])?;
        if lost > 0 { count(connection, LOST, lost) } else { Ok(()) }
    }
}

const LOST: &str = "events_lost";
const SENT: &str = "events_sent";

fn count(connection: &Connection, name: &str, more: usize) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO counts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = value + excluded.value";
    connection.execute(sql, params![name, more as i64]).map(drop)
}

/// How far the bus is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Lag {
    pub(super) waiting: i64,
    /// When the oldest that waits was written.
    pub(super) oldest: Option<Ms>,
    pub(super) sent: i64,
    /// At the bound.
    pub(super) lost: i64,
}

pub(super) fn lag(connection: &Connection) -> Result<Lag, rusqlite::Error> {
    let waiting = "SELECT coalesce(max(sequence) - min(sequence) + 1, 0) FROM outbox";
    let oldest = "SELECT created FROM outbox ORDER BY sequence LIMIT 1";
    let counted = |name: &str| {
        let value = connection.query_row("SELECT value FROM counts WHERE name = ?1", [name], |row| row.get(0));
        value.optional().map(Option::unwrap_or_default)
    };
    Ok(Lag {
        waiting: connection.query_row(waiting, [], |row| row.get(0))?,
        oldest: connection.query_row(oldest, [], |row| row.get(0)).optional()?,
        sent: counted(SENT)?,
        lost: counted(LOST)?,
    })
}

struct Waiting {
    sequence: i64,
    id: String,
    event: String,
    payload: String,
}

/// Sends what is written, for as long as the process lives.
pub(super) struct Sender {
    pub(super) store: Store,
    pub(super) bus: Bus,
    pub(super) fleet: Fleet,
    pub(super) metrics: Arc<Metrics>,
}

impl Sender {
    pub(super) async fn run(self, written: Arc<Notify>) {
        let mut pause = PAUSE_MIN;
        loop {
            match self.send().await {
                Ok(0) => {
                    pause = PAUSE_MIN;
                    let _ = tokio::time::timeout(LOOK, written.notified()).await;
                }
                Ok(_) => pause = PAUSE_MIN,
                Err(why) => {
                    self.metrics.outbox_failures.inc();
                    tracing::warn!(error = why, "events cannot be told; they wait in the outbox");
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Sends the oldest, and takes out what the bus has kept, even if it did not keep all. What it will never keep goes, too.
    async fn send(&self) -> Result<usize, String> {
        let batch = self.store.read(oldest).await.map_err(|error: StoreError| error.to_string())?;
        let (mut done, mut failed) = (None, None);
        let (mut number, mut lost) = (0, 0);
        for Waiting { sequence, id, event, payload } in batch {
            let message = Message { subject: self.fleet.event(SERVICE, &event), payload: Bytes::from(payload) };
            match self.append(message, &id).await {
                Ok(()) => {
                    done = Some(sequence);
                    number += 1;
                }
                Err(error) if error.is_final() => {
                    tracing::warn!(%error, "an event is lost");
                    done = Some(sequence);
                    lost += 1;
                }
                Err(error) => {
                    failed = Some(error.to_string());
                    break;
                }
            }
        }
        if let Some(done) = done {
            let removed = self.store.write(move |connection| {
                let gone = connection.execute("DELETE FROM outbox WHERE sequence <= ?1", [done])?;
                count(connection, SENT, gone.saturating_sub(lost))?;
                count(connection, LOST, lost)?;
                Ok::<_, StoreError>(())
            });
            removed.await.map_err(|error| error.to_string())?;
        }
        failed.map_or(Ok(number + lost), Err)
    }

    async fn append(&self, message: Message, id: &str) -> Result<(), BusError> {
        let sending = || async {
            let sent = tokio::time::timeout(TRY, self.bus.append(message.clone(), id)).await;
            sent.unwrap_or(Err(BusError::Timeout(TRY)))
        };
        match sending().await {
            // Usually the controller or `push` has made it. Who is alone makes it, if that is allowed.
            Err(BusError::Missing(_)) => {
                for stream in self.fleet.streams().iter().filter(|stream| stream.name == self.fleet.events()) {
                    self.bus.make_stream(stream).await?;
                }
                sending().await
            }
            sent => sent,
        }
    }
}

fn oldest(connection: &Connection) -> Result<Vec<Waiting>, StoreError> {
    let mut query = connection.prepare("SELECT sequence, id, event, payload FROM outbox ORDER BY sequence LIMIT ?1")?;
    let rows = query.query_map([BATCH as i64], |row| {
        Ok(Waiting { sequence: row.get(0)?, id: row.get(1)?, event: row.get(2)?, payload: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Kept, Local};
    use futures_util::StreamExt as _;

    fn teller(bound: usize) -> Teller {
        Teller { trace: TraceContext::begin(false), bound }
    }

    async fn tell(store: &Store, bound: usize, event: &'static str) {
        let told =
            store.write(move |connection| Ok::<_, StoreError>(teller(bound).tell(connection, event, Map::new())?));
        told.await.unwrap();
    }

    async fn lag_of(store: &Store) -> Lag {
        store.read(|connection| Ok::<_, StoreError>(lag(connection)?)).await.unwrap()
    }

    #[tokio::test]
    async fn at_the_bound_the_oldest_go_and_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        for _ in 0..5 {
            tell(&store, 3, "a.b").await;
        }
        let lag = lag_of(&store).await;
        assert_eq!((lag.waiting, lag.lost, lag.sent), (3, 2, 0));
        assert!(lag.oldest.is_some());
    }

    #[tokio::test]
    async fn events_are_told_in_order_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (bus, fleet) = (Bus::new(Local::default()), Fleet::new("test"));
        for event in ["a.one", "a.two"] {
            tell(&store, 10, event).await;
        }
        let metrics = Arc::new(Metrics::new().unwrap());
        let sender = Sender { store: store.clone(), bus: bus.clone(), fleet: fleet.clone(), metrics };
        assert_eq!(sender.send().await, Ok(2), "it has made the stream");
        assert_eq!(sender.send().await, Ok(0));
        let lag = lag_of(&store).await;
        assert_eq!((lag.waiting, lag.sent, lag.oldest), (0, 2, None));
        let kept: Vec<Kept> =
            bus.read(&fleet.events(), 0).await.unwrap().take(2).map(|kept| kept.unwrap()).collect().await;
        let subjects: Vec<_> = kept.iter().map(|kept| kept.message.subject.as_str()).collect();
        assert_eq!(subjects, ["test.event.backend.a_one", "test.event.backend.a_two"]);
        let event: Value = serde_json::from_slice(&kept[0].message.payload).unwrap();
        assert_eq!((&event["service"], &event["event"]), (&"backend".into(), &"a.one".into()));
        assert_eq!((event["trace_id"].as_str().unwrap().len(), event["span_id"].as_str().unwrap().len()), (32, 16));
    }

    #[tokio::test]
    async fn an_event_that_the_bus_never_takes_holds_up_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (bus, fleet) = (Bus::new(Local::default()), Fleet::new("test"));
        let long = Map::from_iter([("text".to_owned(), "x".repeat(crate::bus::VALUE_MAX).into())]);
        let telling = store.write(move |connection| Ok::<_, StoreError>(teller(10).tell(connection, "a.long", long)?));
        telling.await.unwrap();
        tell(&store, 10, "a.short").await;
        let metrics = Arc::new(Metrics::new().unwrap());
        let sender = Sender { store: store.clone(), bus: bus.clone(), fleet: fleet.clone(), metrics };
        assert_eq!(sender.send().await, Ok(2));
        let lag = lag_of(&store).await;
        assert_eq!((lag.waiting, lag.sent, lag.lost), (0, 1, 1));
        let kept = bus.read(&fleet.events(), 0).await.unwrap().next().await.unwrap().unwrap();
        assert!(kept.message.subject.ends_with("a_short"), "{kept:?}");
    }

    /// As after a crash between telling and taking out.
    #[tokio::test]
    async fn what_is_sent_twice_is_kept_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (bus, fleet) = (Bus::new(Local::default()), Fleet::new("test"));
        tell(&store, 10, "a.one").await;
        let metrics = Arc::new(Metrics::new().unwrap());
        let sender = Sender { store: store.clone(), bus: bus.clone(), fleet: fleet.clone(), metrics };
        let first = store.read(oldest).await.unwrap().pop().unwrap();
        let message = Message { subject: fleet.event(SERVICE, &first.event), payload: first.payload.into() };
        sender.append(message, &first.id).await.unwrap();
        assert_eq!(sender.send().await, Ok(1));
        tell(&store, 10, "a.two").await;
        assert_eq!(sender.send().await, Ok(1));
        let kept: Vec<Kept> =
            bus.read(&fleet.events(), 0).await.unwrap().take(2).map(|kept| kept.unwrap()).collect().await;
        assert!(kept[1].message.subject.ends_with("a_two"), "{kept:?}");
    }
}
