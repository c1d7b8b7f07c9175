//! The keys of an issuer as they change: fetched in the background, kept when it is away.
//!
//! A token with an unknown key makes them be fetched again: once for all who wait, at most once per cooldown, and a few
//! wait only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};

use super::jwks::Remote;
use super::keys::Keys;
use super::shared_keys::SharedKeys;
use crate::bounded::Bounded;
use crate::fetch::{Failure, Trust};
use crate::tasks::{TaskGuard, Tasks};
use fetching::Fetching;

mod fetching;

/// Keys that were fetched are fetched again after this long at most, whatever their answer says.
const REFRESH_MAX: Duration = Duration::from_secs(86_400);
/// Unknown keys that are remembered as such, and those that requests wait for at a time.
const UNKNOWN_MAX: usize = 10_000;
const WAITING_MAX: usize = 256;
/// Requests that wait, over all keys.
const WAITERS_MAX: usize = 4096;
/// A request waits this long, and no longer than the cooldown and this.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The keys of an issuer as they change.
#[derive(Debug)]
pub struct KeyRing {
    remote: Option<Remote>,
    trust: Trust,
    keys: ArcSwapOption<Keys>,
    /// As the document in force says.
    pace: Mutex<Pace>,
    /// Somebody wants them fetched.
    wanted: Notify,
    /// Fetches that have begun, and the last that is over with what came of it.
    begun: AtomicU64,
    fetched: watch::Sender<Fetched>,
    unknown: Bounded<Instant>,
    waiting: Mutex<BTreeMap<String, usize>>,
    fault: Mutex<Option<String>>,
    task: OnceLock<TaskGuard>,
}

/// How often keys are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    refresh: Duration,
    cooldown: Duration,
}

impl Pace {
    fn of(remote: &Remote) -> Pace {
        Pace { refresh: remote.refresh.min(REFRESH_MAX), cooldown: remote.cooldown }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Fetched {
    number: u64,
    good: bool,
}

/// What is known of a key after it was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    Known,
    Unknown,
    /// It cannot be told now.
    Unsure,
}

/// One who waits for a key.
struct Waiting<'r> {
    ring: &'r KeyRing,
    kid: &'r str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.ring.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(self.kid) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(self.kid);
            }
        }
    }
}

/// How the keys of an issuer stand, for operators.
#[derive(Clone, Debug, serde::Serialize)]
pub struct KeysShown {
    pub keys: usize,
    pub fetches: u64,
    pub last_error: Option<String>,
}

impl KeyRing {
    pub(super) fn fixed(keys: Keys) -> KeyRing {
        KeyRing::new(None, Trust::default(), Some(Arc::new(keys)))
    }

    pub(super) fn remote(remote: Remote, trust: Trust) -> KeyRing {
        KeyRing::new(Some(remote), trust, None)
    }

    fn new(remote: Option<Remote>, trust: Trust, keys: Option<Arc<Keys>>) -> KeyRing {
        let pace = remote.as_ref().map_or(Pace { refresh: REFRESH_MAX, cooldown: Duration::ZERO }, Pace::of);
        KeyRing {
            remote,
            trust,
            keys: ArcSwapOption::new(keys),
            pace: Mutex::new(pace),
            wanted: Notify::new(),
            begun: AtomicU64::new(0),
            fetched: watch::Sender::new(Fetched::default()),
            unknown: Bounded::new(UNKNOWN_MAX),
            waiting: Mutex::default(),
            fault: Mutex::default(),
            task: OnceLock::new(),
        }
    }

    /// `None` until the first were fetched.
    pub fn keys(&self) -> Option<Arc<Keys>> {
        self.keys.load_full()
    }

    pub fn shown(&self) -> KeysShown {
        KeysShown {
            keys: self.keys().map_or(0, |keys| keys.len()),
            fetches: self.fetched.borrow().number,
            last_error: self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Another document may want them fetched more often.
    pub(super) fn keep_pace(&self, remote: &Remote) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = Pace::of(remote);
    }

    fn pace(&self) -> Pace {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a key of this name is there; if not, after the keys were fetched once more.
    pub(super) async fn learn(&self, kid: &str) -> Learned {
        let knows = || self.keys().is_some_and(|keys| keys.knows(kid));
        if knows() {
            return Learned::Known;
        }
        if self.remote.is_none() {
            return Learned::Unknown;
        }
        let (key, cooldown) = (self.unknown.key(kid), self.pace().cooldown);
        if self.unknown.get(key).is_some_and(|at| at.elapsed() < cooldown) {
            return Learned::Unknown;
        }
        let Some(_waiting) = self.wait_for(kid) else { return Learned::Unsure };
        // One that has begun already may have been answered before the key was published.
        let next = self.begun.load(Ordering::Acquire) + 1;
        let mut fetched = self.fetched.subscribe();
        self.wanted.notify_one();
        let over =
            tokio::time::timeout(cooldown + WAIT_MAX, fetched.wait_for(|fetched| fetched.number >= next || knows()))
                .await;
        if knows() {
            return Learned::Known;
        }
        match over {
            Ok(Ok(fetched)) if fetched.good => {
                self.unknown.put(key, Instant::now());
                Learned::Unknown
            }
            _ => Learned::Unsure,
        }
    }

    /// All who wait for one key are one.
    fn wait_for<'r>(&'r self, kid: &'r str) -> Option<Waiting<'r>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = waiting.values().sum();
        if all >= WAITERS_MAX || (!waiting.contains_key(kid) && waiting.len() >= WAITING_MAX) {
            return None;
        }
        *waiting.entry(kid.to_owned()).or_default() += 1;
        Some(Waiting { ring: self, kid })
    }

    /// Waits until there are keys, or a first fetch has failed.
    pub async fn warmed(&self) {
        let mut fetched = self.fetched.subscribe();
        while self.remote.is_some() && self.keys().is_none() && fetched.borrow_and_update().number == 0 {
            if fetched.changed().await.is_err() {
                return;
            }
        }
    }

    /// Begins to fetch, once. The task ends with the ring. `kept` is where the keys outlive the process, `shared` where other
    /// nodes have them from.
    pub fn start(self: &Arc<Self>, tasks: &Tasks, kept: Option<PathBuf>, shared: Option<&SharedKeys>) {
        let Some(remote) = self.remote.clone().filter(|_| self.task.get().is_none()) else { return };
        let shelf = shared.map(|shared| shared.of(&remote));
        let ring = Arc::downgrade(self);
        let fetching = Fetching { ring, remote, kept, shelf, failures: 0, as_of_ms: 0, told: None };
        let _ = self.task.set(tasks.spawn("keys", fetching.run()));
    }

    /// Whether they are others than before. Whoever waits for a key looks again.
    fn take(&self, remote: &Remote, text: &str) -> Result<bool, Failure> {
        let keys = Keys::read(text)?;
        let before = self.keys.swap(Some(Arc::new(keys.clone())));
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let changed = before.is_none_or(|before| !before.are(&keys));
        if changed {
            tracing::info!(event = "issuer.keys", issuer = remote.issuer, keys = keys.len(), "keys taken up");
            self.fetched.send_modify(|_| {});
        }
        Ok(changed)
    }

    /// Nobody waits for a key that is not there.
    fn is_content(&self) -> bool {
        let Some(keys) = self.keys() else { return false };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).keys().all(|kid| keys.knows(kid))
    }

    fn failed(&self, remote: &Remote, error: &dyn std::error::Error) {
        let error = error.to_string();
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if fault.as_ref() != Some(&error) {
            tracing::error!(issuer = remote.issuer, error, "keys cannot be fetched: those that are there stay");
        }
        *fault = Some(error);
    }
}
