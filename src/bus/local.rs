//! The bus of a node that is alone: within the process, gone with it.
//!
//! A watcher keeps the revision it has seen and looks for newer ones when woken, so that no queue can grow: of many writes
//! to one key it sees the last.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{Notify, broadcast, watch};

use super::{Bucket, BusError, Change, Entry, Expect, Kept, KeyValue, Link, Message, Stream, Wire, fits, matches};

/// Messages that a slow listener may be behind.
const BEHIND_MAX: usize = 4096;
/// An id is remembered this long, as a NATS server does as it comes.
const TWICE: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Clone)]
pub struct Local(Arc<Inner>);

struct Inner {
    buckets: Mutex<BTreeMap<String, Arc<Table>>>,
    streams: Mutex<BTreeMap<String, Arc<Log>>>,
    live: broadcast::Sender<Message>,
    link: watch::Sender<Link>,
}

impl Default for Local {
    fn default() -> Local {
        Local(Arc::new(Inner {
            buckets: Mutex::default(),
            streams: Mutex::default(),
            live: broadcast::Sender::new(BEHIND_MAX),
            link: watch::Sender::new(Link::Up),
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bucket. What was removed stays as a mark, so that watchers learn of it.
struct Table {
    max_age: Duration,
    rows: Mutex<Rows>,
    /// The newest revision.
    written: watch::Sender<u64>,
}

#[derive(Default)]
struct Rows {
    newest: u64,
    by_key: BTreeMap<String, Row>,
}

struct Row {
    value: Option<Bytes>,
    revision: u64,
    at: SystemTime,
}

impl Table {
    fn is_old(&self, row: &Row) -> bool {
        self.max_age != Duration::ZERO && row.at.elapsed().is_ok_and(|age| age > self.max_age)
    }

    fn write(&self, key: &str, value: Option<Bytes>, allowed: impl Fn(Option<u64>) -> bool) -> Result<u64, BusError> {
        fits(key, value.as_ref().map_or(0, Bytes::len))?;
        let mut rows = lock(&self.rows);
        let there = rows.by_key.get(key).filter(|row| row.value.is_some() && !self.is_old(row));
        if !allowed(there.map(|row| row.revision)) {
            return Err(BusError::Lost { key: key.to_owned() });
        }
        rows.newest += 1;
        let revision = rows.newest;
        rows.by_key.insert(key.to_owned(), Row { value, revision, at: SystemTime::now() });
        self.written.send_replace(revision);
        Ok(revision)
    }

    /// What was written after a revision, oldest first.
    fn since(&self, seen: u64, keys: &str) -> (Vec<Change>, u64) {
        let rows = lock(&self.rows);
        let newer =
            rows.by_key.iter().filter(|(key, row)| row.revision > seen && matches(keys, key) && !self.is_old(row));
        let mut newer: Vec<(&String, &Row)> = newer.collect();
        newer.sort_by_key(|(_, row)| row.revision);
        let changes = newer.into_iter().map(|(key, row)| match &row.value {
            Some(value) => Change::Put(Entry { key: key.clone(), value: value.clone(), revision: row.revision }),
            None => Change::Removed(key.clone()),
        });
        (changes.collect(), rows.newest)
    }
}

/// A watcher's place in a bucket.
struct Watching {
    table: Arc<Table>,
    written: watch::Receiver<u64>,
    keys: String,
    seen: u64,
    told: VecDeque<Change>,
}

impl Watching {
    async fn next(mut self) -> Option<(Result<Change, BusError>, Watching)> {
        loop {
            if let Some(change) = self.told.pop_front() {
                return Some((Ok(change), self));
            }
            self.written.changed().await.ok()?;
            let (changes, seen) = self.table.since(self.seen, &self.keys);
            self.seen = seen;
            self.told.extend(changes);
        }
    }
}

#[async_trait]
impl KeyValue for Arc<Table> {
    async fn entry(&self, key: &str) -> Result<Option<Entry>, BusError> {
        let rows = lock(&self.rows);
        let row = rows.by_key.get(key).filter(|row| !self.is_old(row));
        let found = row.and_then(|row| row.value.clone().map(|value| (value, row.revision)));
        Ok(found.map(|(value, revision)| Entry { key: key.to_owned(), value, revision }))
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<u64, BusError> {
        self.write(key, Some(value), |_| true)
    }

    async fn swap(&self, key: &str, value: Bytes, expect: Expect) -> Result<u64, BusError> {
        self.write(key, Some(value), |there| match expect {
            Expect::Nothing => there.is_none(),
            Expect::Revision(revision) => there == Some(revision),
        })
    }

    async fn remove(&self, key: &str, expect: Option<u64>) -> Result<(), BusError> {
        self.write(key, None, |there| expect.is_none() || there == expect).map(drop)
    }

    async fn erase(&self, key: &str) -> Result<(), BusError> {
        lock(&self.rows).by_key.remove(key);
        Ok(())
    }

    async fn watch(&self, keys: &str) -> Result<BoxStream<'static, Result<Change, BusError>>, BusError> {
        let written = self.written.subscribe();
        let (changes, seen) = self.since(0, keys);
        let mut told: VecDeque<Change> =
            changes.into_iter().filter(|change| matches!(change, Change::Put(_))).collect();
        told.push_back(Change::Current);
        let watching = Watching { table: self.clone(), written, keys: keys.to_owned(), seen, told };
        Ok(stream::unfold(watching, Watching::next).boxed())
    }
}

/// A stream: its newest events, as many as its bound allows.
struct Log {
    spec: Mutex<Stream>,
    held: Mutex<Held>,
    added: Notify,
}

#[derive(Default)]
struct Held {
    last: u64,
    bytes: u64,
    events: VecDeque<Kept>,
    ids: VecDeque<(SystemTime, String)>,
}

impl Log {
    fn add(&self, message: &Message, id: Option<&str>) {
        let bound = lock(&self.spec).clone();
        let now = SystemTime::now();
        let mut held = lock(&self.held);
        let is_old = |at: SystemTime, age: Duration| now.duration_since(at).is_ok_and(|passed| passed > age);
        while held.ids.front().is_some_and(|(at, _)| is_old(*at, TWICE)) {
            held.ids.pop_front();
        }
        if let Some(id) = id {
            if held.ids.iter().any(|(_, known)| known == id) {
                return;
            }
            held.ids.push_back((now, id.to_owned()));
        }
        held.last += 1;
        held.bytes += message.payload.len() as u64;
        let kept = Kept { message: message.clone(), sequence: held.last, at: now };
        held.events.push_back(kept);
        while held.bytes > bound.max_bytes || held.events.front().is_some_and(|kept| is_old(kept.at, bound.max_age)) {
            let Some(gone) = held.events.pop_front() else { break };
            held.bytes -= gone.message.payload.len() as u64;
        }
        drop(held);
        self.added.notify_waiters();
    }

    fn after(&self, sequence: u64) -> Option<Kept> {
        let held = lock(&self.held);
        let first = held.events.front()?.sequence;
        let at = usize::try_from((sequence + 1).saturating_sub(first)).ok()?;
        held.events.get(at).cloned()
    }

    async fn next(log: Arc<Log>, seen: u64) -> Option<(Result<Kept, BusError>, (Arc<Log>, u64))> {
        let kept = loop {
            let added = log.added.notified();
            tokio::pin!(added);
            added.as_mut().enable();
            match log.after(seen) {
                Some(kept) => break kept,
                None => added.await,
            }
        };
        let sequence = kept.sequence;
        Some((Ok(kept), (log, sequence)))
    }
}

impl Local {
    /// Cuts the bus off or heals it, as seen by whoever asks for its link. For tests of what is done then.
    #[cfg(test)]
    pub(crate) fn set_link(&self, link: Link) {
        self.0.link.send_replace(link);
    }

    fn keep(&self, message: &Message, id: Option<&str>) -> bool {
        let streams: Vec<Arc<Log>> = lock(&self.0.streams).values().cloned().collect();
        let takes = |log: &&Arc<Log>| lock(&log.spec).subjects.iter().any(|one| matches(one, &message.subject));
        streams.iter().filter(takes).map(|log| log.add(message, id)).count() > 0
    }
}

#[async_trait]
impl Wire for Local {
    async fn bucket(&self, name: &str) -> Result<Arc<dyn KeyValue>, BusError> {
        let found = lock(&self.0.buckets).get(name).cloned();
        found.map(|table| Arc::new(table) as Arc<dyn KeyValue>).ok_or_else(|| BusError::Missing(name.to_owned()))
    }

    async fn make_bucket(&self, bucket: &Bucket) -> Result<(), BusError> {
        let Bucket { name, max_age } = bucket;
        let made = || Table { max_age: *max_age, rows: Mutex::default(), written: watch::Sender::new(0) };
        lock(&self.0.buckets).entry(name.clone()).or_insert_with(|| Arc::new(made()));
        Ok(())
    }

    async fn make_stream(&self, stream: &Stream) -> Result<(), BusError> {
        let mut streams = lock(&self.0.streams);
        match streams.get(&stream.name) {
            Some(log) => *lock(&log.spec) = stream.clone(),
            None => {
                let log = Log { spec: Mutex::new(stream.clone()), held: Mutex::default(), added: Notify::new() };
                streams.insert(stream.name.clone(), Arc::new(log));
            }
        }
        Ok(())
    }

    async fn publish(&self, message: Message) -> Result<(), BusError> {
        fits(&message.subject, message.payload.len())?;
        self.keep(&message, None);
        // An error says that nobody listens.
        let _ = self.0.live.send(message);
        Ok(())
    }

    async fn append(&self, message: Message, id: &str) -> Result<(), BusError> {
        fits(&message.subject, message.payload.len())?;
        if !self.keep(&message, Some(id)) {
            return Err(BusError::Missing(message.subject));
        }
        let _ = self.0.live.send(message);
        Ok(())
    }

    async fn subscribe(&self, subject: &str) -> Result<BoxStream<'static, Message>, BusError> {
        let start = (self.0.live.subscribe(), subject.to_owned());
        let next = |(mut live, subject): (broadcast::Receiver<Message>, String)| async move {
            loop {
                match live.recv().await {
                    Ok(message) if matches(&subject, &message.subject) => return Some((message, (live, subject))),
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        };
        Ok(stream::unfold(start, next).boxed())
    }

    async fn read(&self, stream: &str, after: u64) -> Result<BoxStream<'static, Result<Kept, BusError>>, BusError> {
        let log = lock(&self.0.streams).get(stream).cloned().ok_or_else(|| BusError::Missing(stream.to_owned()))?;
        Ok(stream::unfold((log, after), |(log, seen)| Log::next(log, seen)).boxed())
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.0.link.subscribe()
    }
}
