//! The clock of a request: which phase it is in, since when, and what ends it.
//!
//! Pingora bounds single reads; it does not tell the head of an answer from its body and knows no bound for a request as
//! a whole, nor any for HTTP/2 bodies. Each request has a `Flow` of atomics; one `Reaper` per gateway looks at all of
//! them ten times a second, so that the request path arms no timer. What ran out of time is ended by breaking the
//! connection to the upstream, which lets the proxy answer in its usual way; if it does not move within `MERCY`, the
//! request is dropped where it stands.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio_util::sync::CancellationToken;

use super::peer::Wire;
use crate::front::conn::{Connection, clock};
use crate::policy::Watched;

/// How often the flows are looked at; deadlines are this exact.
const TICK: Duration = Duration::from_millis(100);

/// From breaking the upstream connection to dropping the request.
const MERCY: Duration = Duration::from_secs(2);

const SHARDS: usize = 16;

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nothing that this clock bounds (the front and the connector have their own bounds).
    Elsewhere = 0,
    /// The body of the request: the client's turn.
    Body = 1,
    /// The head of the answer.
    Head = 2,
    /// The body of the answer, or bytes of an upgraded connection.
    Stream = 3,
}

/// Why a request was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Expired {
    Body = 1,
    Head = 2,
    Idle = 3,
    Request = 4,
    MaxAge = 5,
    RouteRemoved = 6,
    Revoked = 7,
}

/// Bounds of a request, from its route.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) body: Option<Duration>,
    pub(crate) head: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) request: Option<Duration>,
    /// Of an upgraded connection or a stream.
    pub(crate) max_age: Option<Duration>,
    pub(crate) removed: Option<CancellationToken>,
    /// Who it was opened for, where that may be revoked.
    pub(crate) subject: Option<Arc<Watched>>,
    /// Over HTTP/1 the connection tells when the client last took bytes of the answer.
    pub(crate) client: Option<Arc<Connection>>,
}

tokio::task_local! {
    static FLOW: Arc<Flow>;
}

/// The flow of the request that runs on this task; a new one where there is none.
pub(crate) fn current() -> Arc<Flow> {
    FLOW.try_with(Arc::clone).unwrap_or_else(|_| Arc::new(Flow::new()))
}

/// The clock of one request.
#[derive(Debug)]
pub(crate) struct Flow {
    /// All times in milliseconds of `clock`.
    begun: AtomicU64,
    phase: AtomicU8,
    upgraded: AtomicBool,
    /// An upgraded connection or a stream: its age is bounded.
    lasting: AtomicBool,
    progress: AtomicU64,
    expired: AtomicU8,
    expired_at: AtomicU64,
    /// When it expired, the client was waited for.
    client_stood: AtomicBool,
    bounds: Mutex<Bounds>,
    upstream: Mutex<Option<Arc<Wire>>>,
    dropped: AtomicBool,
    waker: AtomicWaker,
    watched: AtomicBool,
}

impl Flow {
    pub(crate) fn new() -> Flow {
        Flow {
            begun: AtomicU64::new(clock()),
            phase: AtomicU8::new(Phase::Elsewhere as u8),
            upgraded: AtomicBool::new(false),
            lasting: AtomicBool::new(false),
            progress: AtomicU64::new(0),
            expired: AtomicU8::new(0),
            expired_at: AtomicU64::new(0),
            client_stood: AtomicBool::new(false),
            bounds: Mutex::default(),
            upstream: Mutex::default(),
            dropped: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            watched: AtomicBool::new(false),
        }
    }

    /// The head of the request is here: its time begins.
    pub(crate) fn begin(&self) {
        self.begun.store(clock(), Ordering::Relaxed);
    }

    pub(crate) fn bound(&self, bounds: Bounds) {
        *self.bounds.lock().unwrap_or_else(PoisonError::into_inner) = bounds;
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.progress.store(clock(), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// A piece of a body moved.
    pub(crate) fn progressed(&self) {
        self.progress.store(clock(), Ordering::Relaxed);
    }

    pub(crate) fn upgraded(&self) {
        self.upgraded.store(true, Ordering::Relaxed);
        self.enter(Phase::Stream);
    }

    /// What comes now may last: it is bounded in age, and by what becomes of its route and of who has asked for it.
    pub(crate) fn lasts(&self, subject: Option<Arc<Watched>>) {
        self.lasting.store(true, Ordering::Relaxed);
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner).subject = subject;
    }

    /// The HTTP/1 connection this request has to itself: breaking it wakes the proxy. `None` when it is given back.
    pub(crate) fn hold_upstream(&self, wire: Option<Arc<Wire>>) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = wire;
    }

    /// The upstream's connection may be shared: it is not broken, and the head gets the time that Pingora gives it.
    pub(crate) fn share_upstream(&self) {
        let mut bounds = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(head), Some(idle)) = (bounds.head, bounds.idle) {
            bounds.head = Some(head.max(idle) + TICK);
        }
    }

    pub(crate) fn expired(&self) -> Option<Expired> {
        Some(match self.expired.load(Ordering::Acquire) {
            1 => Expired::Body,
            2 => Expired::Head,
            3 => Expired::Idle,
            4 => Expired::Request,
            5 => Expired::MaxAge,
            6 => Expired::RouteRemoved,
            7 => Expired::Revoked,
            _ => return None,
        })
    }

    /// Whether the upstream is to blame for what has run out.
    pub(crate) fn expired_by_upstream(&self) -> bool {
        matches!(self.expired(), Some(Expired::Head | Expired::Idle | Expired::Request))
            && !self.client_stood.load(Ordering::Relaxed)
    }

    /// Whether the proxy waits for the client: for its body, or for it to take the answer. Over HTTP/1 the stream knows; over
    /// HTTP/2 bytes of the upstream that nobody fetches are the sign. Both have bounds of their own.
    fn waits_for_client(&self, bounds: &Bounds) -> bool {
        let unread =
            || self.upstream.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|w| w.has_unread());
        match self.phase.load(Ordering::Acquire) {
            p if p == Phase::Body as u8 => true,
            p if p == Phase::Stream as u8 => match &bounds.client {
                Some(client) => client.is_write_waiting(),
                None => unread(),
            },
            _ => false,
        }
    }

    /// What is left of the bound on the whole request.
    pub(crate) fn left(&self) -> Option<Duration> {
        let bound = self.bounds.lock().unwrap_or_else(PoisonError::into_inner).request?;
        Some(bound.saturating_sub(Duration::from_millis(clock().saturating_sub(self.begun.load(Ordering::Relaxed)))))
    }

    /// For the next request of an HTTP/1 connection, whose requests never overlap.
    fn reset(&self) {
        let _ticks_wait = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        self.phase.store(Phase::Elsewhere as u8, Ordering::Relaxed);
        self.upgraded.store(false, Ordering::Relaxed);
        self.lasting.store(false, Ordering::Relaxed);
        self.expired.store(0, Ordering::Relaxed);
        self.dropped.store(false, Ordering::Relaxed);
        self.begin();
    }

    /// Runs a request, where `current` finds this flow, until it is done or dropped.
    pub(crate) async fn run<T>(self: Arc<Self>, work: impl Future<Output = Option<T>>) -> Option<T> {
        self.reset();
        let ended = Ended(self.clone());
        let done = FLOW.scope(self.clone(), self.race(work)).await;
        drop(ended);
        done
    }

    async fn race<T>(&self, work: impl Future<Output = Option<T>>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx: &mut Context<'_>| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            self.waker.register(cx.waker());
            if self.dropped.load(Ordering::Acquire) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// What has run out at `now`.
    fn overdue(&self, bounds: &Bounds, now: u64) -> Option<Expired> {
        let over = |bound: Option<Duration>, since: u64| {
            bound.is_some_and(|bound| u128::from(now.saturating_sub(since)) >= bound.as_millis())
        };
        let begun = self.begun.load(Ordering::Relaxed);
        let progress = self.progress.load(Ordering::Relaxed);
        let phase = self.phase.load(Ordering::Acquire);
        let upgraded = self.upgraded.load(Ordering::Relaxed);
        if over(bounds.request, begun) && !upgraded {
            return Some(Expired::Request);
        }
        if self.lasting.load(Ordering::Relaxed) {
            if over(bounds.max_age, begun) {
                return Some(Expired::MaxAge);
            }
            if bounds.removed.as_ref().is_some_and(CancellationToken::is_cancelled) {
                return Some(Expired::RouteRemoved);
            }
            if bounds.subject.as_ref().is_some_and(|subject| subject.is_revoked()) {
                return Some(Expired::Revoked);
            }
        }
        match phase {
            p if p == Phase::Body as u8 && over(bounds.body, progress) => Some(Expired::Body),
            p if p == Phase::Head as u8 && over(bounds.head, progress) => Some(Expired::Head),
            p if p == Phase::Stream as u8 => {
                let written = bounds.client.as_ref().map_or(0, |client| client.last_written());
                let idle = over(bounds.idle, progress.max(written)) && !self.waits_for_client(bounds);
                idle.then_some(Expired::Idle)
            }
            _ => None,
        }
    }

    fn tick(&self) {
        let now = clock();
        // Held throughout: what is found out about one request is not held against the next (`reset`).
        let bounds = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        if self.expired.load(Ordering::Acquire) != 0 {
            if now.saturating_sub(self.expired_at.load(Ordering::Relaxed)) >= MERCY.as_millis() as u64 {
                self.dropped.store(true, Ordering::Release);
                self.waker.wake();
            }
            return;
        }
        let Some(why) = self.overdue(&bounds, now) else { return };
        self.expired_at.store(now, Ordering::Relaxed);
        self.client_stood.store(self.waits_for_client(&bounds), Ordering::Relaxed);
        self.expired.store(why as u8, Ordering::Release);
        let wire = self.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        match (wire.as_ref(), &bounds.client) {
            (Some(wire), _) => wire.break_off(),
            (None, Some(client)) => {
                client.give_up();
                self.waker.wake();
            }
            (None, None) => {}
        }
    }
}

/// Lets go of what a request held: the flow may stay with its connection.
struct Ended(Arc<Flow>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.phase.store(Phase::Elsewhere as u8, Ordering::Release);
        let mut bounds = self.0.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = std::mem::take(&mut *bounds).client {
            client.take_given_up();
        }
        drop(bounds);
        self.0.hold_upstream(None);
    }
}

/// Looks at every flow, ten times a second.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    shards: [Mutex<Vec<Weak<Flow>>>; SHARDS],
    next: AtomicU64,
}

impl Reaper {
    pub(crate) fn watch(&self, flow: &Arc<Flow>) {
        if flow.watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed) as usize % SHARDS;
        if let Some(shard) = self.shards.get(index) {
            shard.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(flow));
        }
    }

    pub(crate) async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for shard in &self.shards {
                shard.lock().unwrap_or_else(PoisonError::into_inner).retain(|weak| {
                    let Some(flow) = weak.upgrade() else { return false };
                    flow.tick();
                    true
                });
            }
        }
    }
}
