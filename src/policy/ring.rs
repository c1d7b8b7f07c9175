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
use http::header::CACHE_CONTROL;
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::sync::{Notify, watch};

use super::keys::Keys;
use crate::bounded::Bounded;
use crate::durable;
use crate::fetch::{Answer, Failure, Trust, fetch};
use crate::tasks::{TaskGuard, Tasks};

/// A fetch is given this long.
const FETCH_WITHIN: Duration = Duration::from_secs(10);
/// Keys that were fetched are fetched again after this long at most, whatever their answer says.
const REFRESH_MAX: Duration = Duration::from_secs(86_400);
/// Unknown keys that are remembered as such, and those that requests wait for at a time.
const UNKNOWN_MAX: usize = 10_000;
const WAITING_MAX: usize = 256;
/// Requests that wait, over all keys.
const WAITERS_MAX: usize = 4096;
/// A request waits this long, and no longer than the cooldown and this.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) issuer: String,
    pub(super) url: String,
    /// The URL is that of an OpenID provider.
    pub(super) discovery: bool,
    pub(super) refresh: Duration,
    pub(super) cooldown: Duration,
    /// PEM of the only CAs trusted.
    pub(super) ca: Option<String>,
}

impl Remote {
    fn pace(&self) -> Pace {
        Pace { refresh: self.refresh.min(REFRESH_MAX), cooldown: self.cooldown }
    }

    /// Whether the keys are the same ones, fetched more or less often.
    pub(super) fn is_place_of(&self, other: &Remote) -> bool {
        (&self.url, self.discovery, &self.ca) == (&other.url, other.discovery, &other.ca)
    }
}

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
        let pace = remote.as_ref().map_or(Pace { refresh: REFRESH_MAX, cooldown: Duration::ZERO }, Remote::pace);
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
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = remote.pace();
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

    /// Begins to fetch, once. The task ends with the ring.
    pub fn start(self: &Arc<Self>, tasks: &Tasks, kept: Option<PathBuf>) {
        let Some(remote) = self.remote.clone().filter(|_| self.task.get().is_none()) else { return };
        let ring = Arc::downgrade(self);
        let guard = tasks.spawn("keys", async move {
            if let (Some(path), Some(ring)) = (&kept, ring.upgrade()) {
                ring.take_kept(path, &remote).await;
            }
            let mut failures = 0_u32;
            loop {
                let Some(now) = ring.upgrade() else { return };
                let number = now.begun.fetch_add(1, Ordering::AcqRel) + 1;
                let fetched = now.fetch(&remote).await;
                let (Pace { refresh, cooldown }, good) = (now.pace(), fetched.is_ok());
                let wait = match fetched {
                    Ok((text, max_age)) => {
                        failures = 0;
                        if let Some(path) = &kept {
                            keep(path, &remote, &text).await;
                        }
                        // A key that was taken back must not be believed for as long as its issuer once thought.
                        max_age.map_or(refresh, |age| age.min(refresh)).max(cooldown)
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        now.failed(&remote, error.as_ref());
                        cooldown.saturating_mul(2_u32.saturating_pow(failures.min(8) - 1)).min(refresh)
                    }
                };
                now.fetched.send_replace(Fetched { number, good });
                let cooled = tokio::time::Instant::now() + cooldown;
                // Held no longer than needed: the ring ends when nobody else holds it.
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = now.wanted.notified() => tokio::time::sleep_until(cooled).await,
                    () = gone(&ring) => return,
                }
            }
        });
        let _ = self.task.set(guard);
    }

    async fn fetch(&self, remote: &Remote) -> Result<(String, Option<Duration>), Failure> {
        let work = async {
            let url = match remote.discovery {
                true => self.discover(remote).await?,
                false => remote.url.clone(),
            };
            let answer = self.get(&url).await?;
            let text = String::from_utf8(answer.body.to_vec())?;
            Ok::<_, Failure>((text, max_age(&answer)))
        };
        let (text, max_age) = tokio::time::timeout(FETCH_WITHIN, work).await.map_err(|_| "it took too long")??;
        let keys = Keys::read(&text)?;
        let before = self.keys.swap(Some(Arc::new(keys.clone())));
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if before.is_none_or(|before| !before.are(&keys)) {
            tracing::info!(event = "issuer.keys", issuer = remote.issuer, keys = keys.len(), "keys taken up");
        }
        Ok((text, max_age))
    }

    /// OpenID Connect Discovery 1.0, section 4: the document must be that of its issuer.
    async fn discover(&self, remote: &Remote) -> Result<String, Failure> {
        let base = remote.url.trim_end_matches('/');
        let answer = self.get(&format!("{base}/.well-known/openid-configuration")).await?;
        let document: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let text = |name: &str| document.get(name).and_then(serde_json::Value::as_str);
        if text("issuer").map(|issuer| issuer.trim_end_matches('/')) != Some(base) {
            return Err("the provider's document names another issuer".into());
        }
        let url = text("jwks_uri").ok_or("the provider's document has no jwks_uri")?;
        if base.starts_with("https://") && !url.starts_with("https://") {
            return Err("the provider's keys are not behind https, it itself is".into());
        }
        Ok(url.to_owned())
    }

    async fn get(&self, url: &str) -> Result<Answer, Failure> {
        let request = http::Request::get(url)
            .header(http::header::ACCEPT, "application/json, application/jwk-set+json")
            .header(http::header::USER_AGENT, "tollgate")
            .body(Full::<Bytes>::default())?;
        let answer = fetch(request, &self.trust).await?;
        if answer.status != http::StatusCode::OK {
            return Err(format!("{} answered {}", bare(url), answer.status).into());
        }
        Ok(answer)
    }

    fn failed(&self, remote: &Remote, error: &dyn std::error::Error) {
        let error = error.to_string();
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if fault.as_ref() != Some(&error) {
            tracing::error!(issuer = remote.issuer, error, "keys cannot be fetched: those that are there stay");
        }
        *fault = Some(error);
    }

    async fn take_kept(&self, path: &std::path::Path, remote: &Remote) {
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
        let Ok(Ok(text)) = read else { return };
        // Under the URL they were fetched from: another one is another issuer.
        let Some((url, text)) = text.split_once('\n') else { return };
        if let (true, Ok(keys)) = (url == remote.url, Keys::read(text)) {
            self.keys.compare_and_swap(std::ptr::null::<Keys>(), Some(Arc::new(keys)));
        }
    }
}

/// A URL without what may be a secret in it.
fn bare(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

async fn gone(ring: &std::sync::Weak<KeyRing>) {
    // The task itself holds one.
    while ring.strong_count() > 1 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn keep(path: &std::path::Path, remote: &Remote, text: &str) {
    let (path, text) = (path.to_owned(), format!("{}\n{text}", remote.url));
    let write = move || {
        path.parent().map_or(Ok(()), durable::directory)?;
        durable::replace(&path, text.as_bytes())
    };
    let kept = tokio::task::spawn_blocking(write).await;
    if let Ok(Err(error)) = kept {
        tracing::warn!(issuer = remote.issuer, %error, "the issuer's keys are not kept for the next start");
    }
}

/// `max-age` of `Cache-Control` (RFC 9111 5.2.2.1).
fn max_age(answer: &Answer) -> Option<Duration> {
    let all = answer.headers.get(CACHE_CONTROL)?.to_str().ok()?;
    let seconds = all.split(',').find_map(|part| part.trim().strip_prefix("max-age="))?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}
