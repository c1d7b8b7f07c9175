//! What a node tells without waiting: a bounded box of events and telemetry, sent by a task of its own.
//!
//! At its bound (a number, and 16 MiB) the oldest telemetry goes first, then the oldest event; both are counted. Events are sent until the bus
//! keeps them, under one id, so that a second try is no second event; one that it will never keep is dropped and counted, or
//! it would hold up all behind it. Telemetry is sent once, or never.

use crate::tasks::jittered;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Bus, Link, Message};

/// Bytes that wait at most, whatever their number.
const BYTES_MAX: usize = 16 << 20;
/// A try to have an event kept is given up after this long, and made again.
const TRY: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The sending end. Clones share it.
#[derive(Clone, Debug)]
pub struct Post(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bound: usize,
    waiting: Mutex<Waiting>,
    event_added: Notify,
    /// One that was waiting is kept, or lost.
    event_gone: Notify,
    telemetry_added: Notify,
    events_lost: AtomicU64,
    telemetry_lost: AtomicU64,
    sent: AtomicU64,
    /// Makes ids unique from one life of the process to the next.
    life: String,
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: usize,
    events: VecDeque<(Message, String)>,
    telemetry: VecDeque<Message>,
}

/// How many were sent and how many lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    pub sent: u64,
    pub events_lost: u64,
    pub telemetry_lost: u64,
    pub waiting: usize,
}

impl Post {
    /// `bound` is how many wait at most, events and telemetry together.
    pub fn new(bound: usize) -> Post {
        let life = format!("{:016x}", fastrand::u64(..));
        Post(Arc::new(Inner {
            bound: bound.max(1),
            waiting: Mutex::default(),
            event_added: Notify::new(),
            event_gone: Notify::new(),
            telemetry_added: Notify::new(),
            events_lost: AtomicU64::new(0),
            telemetry_lost: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            life,
            count: AtomicU64::new(0),
        }))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event: what somebody will ask for later.
    pub fn event(&self, message: Message) {
        let id = format!("{}-{}", self.0.life, self.0.count.fetch_add(1, Ordering::Relaxed));
        self.add(|waiting| {
            waiting.bytes += message.payload.len();
            waiting.events.push_back((message, id));
        });
        self.0.event_added.notify_one();
    }

    /// Telemetry: what is worth something now.
    pub fn telemetry(&self, message: Message) {
        self.add(|waiting| {
            waiting.bytes += message.payload.len();
            waiting.telemetry.push_back(message);
        });
        self.0.telemetry_added.notify_one();
    }

    fn add(&self, add: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting();
        add(&mut waiting);
        while waiting.bytes > BYTES_MAX || waiting.events.len() + waiting.telemetry.len() > self.0.bound {
            if let Some(message) = waiting.telemetry.pop_front() {
                waiting.bytes -= message.payload.len();
                self.0.telemetry_lost.fetch_add(1, Ordering::Relaxed);
            } else if let Some((message, _)) = waiting.events.pop_front() {
                waiting.bytes -= message.payload.len();
                self.0.event_gone.notify_one();
                self.0.events_lost.fetch_add(1, Ordering::Relaxed);
            } else {
                break;
            }
        }
    }

    pub fn posted(&self) -> Posted {
        let waiting = self.waiting();
        Posted {
            sent: self.0.sent.load(Ordering::Relaxed),
            events_lost: self.0.events_lost.load(Ordering::Relaxed),
            telemetry_lost: self.0.telemetry_lost.load(Ordering::Relaxed),
            waiting: waiting.events.len() + waiting.telemetry.len(),
        }
    }

    /// Returns when every event is kept by the bus, or lost.
    pub async fn told(&self) {
        while !self.waiting().events.is_empty() {
            self.0.event_gone.notified().await;
        }
    }

    /// Sends what is added, for as long as the process lives.
    pub async fn run(self, bus: Bus) {
        tokio::join!(self.send_events(&bus), self.send_telemetry(&bus));
    }

    async fn send_events(&self, bus: &Bus) {
        let mut pause = PAUSE_MIN;
        // Until one is kept again, nobody learns more from being told again.
        let mut refusing = false;
        loop {
            let Some((message, id)) = self.waiting().events.front().cloned() else {
                self.0.event_added.notified().await;
                continue;
            };
            match tokio::time::timeout(TRY, bus.append(message, &id)).await {
                Ok(Ok(())) => {
                    (pause, refusing) = (PAUSE_MIN, false);
                    if self.done_with(&id) {
                        self.0.sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Err(error)) if error.is_final() => {
                    if !refusing {
                        tracing::warn!(%error, "an event is lost");
                        refusing = true;
                    }
                    if self.done_with(&id) {
                        self.0.events_lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Err(_)) | Err(_) => {
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Takes an event out, unless it was pushed out at the bound and is counted as lost already.
    fn done_with(&self, id: &str) -> bool {
        let mut waiting = self.waiting();
        if waiting.events.front().is_none_or(|(_, first)| first != id) {
            return false;
        }
        if let Some((message, _)) = waiting.events.pop_front() {
            waiting.bytes -= message.payload.len();
        }
        self.0.event_gone.notify_one();
        true
    }

    fn next(&self) -> Option<Message> {
        let mut waiting = self.waiting();
        let message = waiting.telemetry.pop_front()?;
        waiting.bytes -= message.payload.len();
        Some(message)
    }

    async fn send_telemetry(&self, bus: &Bus) {
        let mut link = bus.link();
        loop {
            // While nobody can be reached it waits, and the oldest goes.
            if link.wait_for(|link| *link == Link::Up).await.is_err() {
                return std::future::pending().await;
            }
            let Some(message) = self.next() else {
                self.0.telemetry_added.notified().await;
                continue;
            };
            let count = match bus.publish(message).await {
                Ok(()) => &self.0.sent,
                Err(_) => &self.0.telemetry_lost,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
