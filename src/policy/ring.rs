//! The keys of an issuer as they change: fetched in the background, kept when it is away.
//!
//! A token with an unknown key makes them be fetched again: once for all who wait, at most once per cooldown, and a few
//! wait only.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::header::CACHE_CONTROL;
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::sync::{Notify, Semaphore, watch};

use super::keys::Keys;
use crate::bounded::Bounded;
use crate::durable;
use crate::fetch::{Answer, Failure, Trust, fetch};
use crate::tasks::{TaskGuard, Tasks};

/// A fetch is given this long.
const FETCH_WITHIN: Duration = Duration::from_secs(10);
/// Keys that were fetched are fetched again after this long at most, whatever their answer says.
const REFRESH_MAX: Duration = Duration::from_secs(86_400);
/// Unknown keys that are remembered as such, and requests that wait for a fetch.
const UNKNOWN_MAX: usize = 10_000;
const WAITING_MAX: usize = 256;

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

/// The keys of an issuer as they change.
#[derive(Debug)]
pub struct KeyRing {
    remote: Option<Remote>,
    trust: Trust,
    keys: ArcSwapOption<Keys>,
    /// Somebody wants them fetched.
    wanted: Notify,
    /// Counts fetches that are over.
    fetched: watch::Sender<u64>,
    unknown: Bounded<Instant>,
    waiting: Semaphore,
    fault: Mutex<Option<String>>,
    task: OnceLock<TaskGuard>,
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
        KeyRing {
            remote,
            trust,
            keys: ArcSwapOption::new(keys),
            wanted: Notify::new(),
            fetched: watch::Sender::new(0),
            unknown: Bounded::new(UNKNOWN_MAX),
            waiting: Semaphore::new(WAITING_MAX),
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
            fetches: *self.fetched.borrow(),
            last_error: self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Whether a key of this name is there; if not, after the keys were fetched once more.
    pub(super) async fn learn(&self, kid: &str) -> bool {
        let knows = || self.keys().is_some_and(|keys| keys.knows(kid));
        let Some(remote) = self.remote.as_ref().filter(|_| !knows()) else { return knows() };
        let key = self.unknown.key(kid);
        if self.unknown.get(key).is_some_and(|at| at.elapsed() < remote.cooldown) {
            return false;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else { return false };
        let mut fetched = self.fetched.subscribe();
        fetched.mark_unchanged();
        self.wanted.notify_one();
        let _ = tokio::time::timeout(remote.cooldown + FETCH_WITHIN, fetched.changed()).await;
        let known = knows();
        if !known {
            self.unknown.put(key, Instant::now());
        }
        known
    }

    /// Waits until there are keys, or a first fetch has failed.
    pub async fn warmed(&self) {
        let mut fetched = self.fetched.subscribe();
        while self.remote.is_some() && self.keys().is_none() && *fetched.borrow_and_update() == 0 {
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
                let wait = match now.fetch(&remote).await {
                    Ok((text, max_age)) => {
                        failures = 0;
                        if let Some(path) = &kept {
                            keep(path, &remote, &text).await;
                        }
                        max_age.unwrap_or(remote.refresh).clamp(remote.cooldown, REFRESH_MAX)
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        now.failed(&remote, error.as_ref());
                        remote.cooldown.saturating_mul(2_u32.saturating_pow(failures.min(8) - 1)).min(remote.refresh)
                    }
                };
                now.fetched.send_modify(|count| *count += 1);
                let cooled = tokio::time::Instant::now() + remote.cooldown;
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
        Ok(text("jwks_uri").ok_or("the provider's document has no jwks_uri")?.to_owned())
    }

    async fn get(&self, url: &str) -> Result<Answer, Failure> {
        let request = http::Request::get(url)
            .header(http::header::ACCEPT, "application/json, application/jwk-set+json")
            .header(http::header::USER_AGENT, "tollgate")
            .body(Full::<Bytes>::default())?;
        let answer = fetch(request, &self.trust).await?;
        if answer.status != http::StatusCode::OK {
            return Err(format!("{url} answered {}", answer.status).into());
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
