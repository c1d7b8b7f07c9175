//! The task that keeps the keys of an issuer fresh: fetched here, or heard of from another node of the fleet.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Fetched, KeyRing, Pace};
use crate::durable;
use crate::fetch::Failure;
use crate::ledger::now_ms;
use crate::policy::jwks::Remote;
use crate::policy::keys::Keys;
use crate::policy::shared_keys::{Right, Shelf, Told};

/// How long another node is waited for that has the right to fetch: while requests wait for keys, and while none do.
const OTHERS_PRESSED: Duration = Duration::from_millis(1_500);
const OTHERS: Duration = Duration::from_secs(11);
/// From what is told to what is heard.
const MOMENT: Duration = Duration::from_millis(10);
/// Rounds of waiting for others before a node fetches whoever has the right.
const ROUNDS: usize = 3;

pub(super) struct Fetching {
    pub(super) ring: Weak<KeyRing>,
    pub(super) remote: Remote,
    pub(super) kept: Option<PathBuf>,
    pub(super) shelf: Option<Shelf>,
    /// In a row.
    pub(super) failures: u32,
    /// When the fetch began that the keys are of, in milliseconds since 1970, by whoever's clock. 0: none of this process.
    pub(super) as_of_ms: u64,
    /// When the fleet was told of keys last, by this node or another.
    pub(super) told: Option<Instant>,
}

impl Fetching {
    pub(super) async fn run(mut self) {
        self.take_kept().await;
        let first = match &mut self.shelf {
            Some(shelf) => shelf.first().await,
            None => None,
        };
        let mut due = Instant::now();
        if let (Some(told), Some(ring)) = (first, self.ring.upgrade()) {
            due += self.hear(&ring, &told).await.unwrap_or_default();
        }
        loop {
            let Some(ring) = self.ring.upgrade() else { return };
            if due <= Instant::now() {
                let wait = self.round(&ring).await;
                due = Instant::now() + wait;
            }
            let cooled = Instant::now() + ring.pace().cooldown;
            // Held no longer than needed: the ring ends when nobody else holds it.
            tokio::select! {
                () = sleep_until(due) => {}
                // What another node tells meanwhile may be what is wanted.
                () = ring.wanted.notified() => due = due.min(cooled),
                told = news(&mut self.shelf) => {
                    if let Some(wait) = self.hear(&ring, &told).await {
                        let later = Instant::now() + wait;
                        due = if ring.is_content() { later } else { due.min(later) };
                    }
                }
                () = gone(&self.ring) => return,
            }
        }
    }

    /// Gets the keys once, and says when they are due again.
    async fn round(&mut self, ring: &Arc<KeyRing>) -> Duration {
        let number = ring.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let got = self.get(ring).await;
        let (Pace { cooldown, refresh }, good) = (ring.pace(), got.is_ok());
        let wait = match got {
            Ok(wait) => {
                self.failures = 0;
                wait
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                ring.failed(&self.remote, error.as_ref());
                cooldown.saturating_mul(2_u32.saturating_pow(self.failures.min(8) - 1)).min(refresh)
            }
        };
        ring.fetched.send_replace(Fetched { number, good });
        wait
    }

    /// From another node that fetches just now, else from the issuer.
    async fn get(&mut self, ring: &Arc<KeyRing>) -> Result<Duration, Failure> {
        let began_ms = now_ms();
        for _ in 0..ROUNDS {
            let patience = if ring.is_content() { OTHERS } else { OTHERS_PRESSED };
            let Some(shelf) = &mut self.shelf else { break };
            match shelf.right(patience).await {
                Right::Ours(held) => {
                    let lease = shelf.lease();
                    // What the one before has told may be on its way here.
                    if let Ok(told) = tokio::time::timeout(MOMENT, shelf.news()).await
                        && let Some(wait) = self.hear(ring, &told).await
                        && ring.is_content()
                    {
                        lease.during(held, async {}).await;
                        return Ok(wait);
                    }
                    match lease.during(held, self.fetch(ring)).await {
                        Some(done) => return done,
                        None => break,
                    }
                }
                Right::Others => {
                    let Ok(told) = tokio::time::timeout(patience, shelf.news()).await else { break };
                    let heard = self.hear(ring, &told).await;
                    // A fetch that began before this one was wanted may have missed what it was wanted for.
                    if let Some(wait) = heard.filter(|_| told.began_ms >= began_ms || ring.is_content()) {
                        return Ok(wait);
                    }
                }
                // Without the bus every node is alone.
                Right::Unknown => break,
            }
        }
        self.fetch(ring).await
    }

    async fn fetch(&mut self, ring: &Arc<KeyRing>) -> Result<Duration, Failure> {
        let began_ms = now_ms();
        let (text, max_age) = self.remote.fetch(&ring.trust).await?;
        let changed = ring.take(&self.remote, &text)?;
        self.as_of_ms = began_ms;
        let Pace { refresh, cooldown } = ring.pace();
        // A key that was taken back must not be believed for as long as its issuer once thought.
        let fresh = max_age.map_or(refresh, |age| age.min(refresh)).max(cooldown);
        // Strangers can make a node fetch, with keys that they make up: that alone is no reason to write or to tell.
        if changed {
            self.keep(&text).await;
        }
        if changed || self.told.is_none_or(|told| told.elapsed() >= fresh / 2) {
            self.told = Some(Instant::now());
            if let Some(shelf) = &mut self.shelf {
                shelf.tell(Told::new(text, began_ms, fresh)).await;
            }
        }
        Ok(fresh)
    }

    /// Takes up what another node tells. When keys are due here; nothing if what is here is no older, or theirs of no use.
    async fn hear(&mut self, ring: &Arc<KeyRing>, told: &Told) -> Option<Duration> {
        // A clock that is ahead must not make what it says the newest for long.
        let as_of_ms = told.began_ms.min(now_ms());
        if as_of_ms <= self.as_of_ms {
            return None;
        }
        match ring.take(&self.remote, &told.text) {
            Ok(true) => self.keep(&told.text).await,
            Ok(false) => {}
            Err(error) => {
                tracing::error!(issuer = self.remote.issuer, %error, "keys that another gateway told cannot be used");
                return None;
            }
        }
        (self.as_of_ms, self.told) = (as_of_ms, Some(Instant::now()));
        let age = Duration::from_millis(now_ms().saturating_sub(as_of_ms));
        Some(told.wait().min(ring.pace().refresh.mul_f64(1.3)).saturating_sub(age))
    }

    async fn take_kept(&mut self) {
        let (Some(path), Some(ring)) = (self.kept.clone(), self.ring.upgrade()) else { return };
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
        let Ok(Ok(text)) = read else { return };
        // Under the URL they were fetched from: another one is another issuer.
        let Some((url, text)) = text.split_once('\n') else { return };
        if let (true, Ok(keys)) = (url == self.remote.url, Keys::read(text)) {
            ring.keys.compare_and_swap(std::ptr::null::<Keys>(), Some(Arc::new(keys)));
        }
    }

    async fn keep(&mut self, text: &str) {
        let Some(path) = self.kept.clone() else { return };
        let text = format!("{}\n{text}", self.remote.url);
        let kept = tokio::task::spawn_blocking(move || write(&path, &text)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(issuer = self.remote.issuer, %error, "the issuer's keys are not kept for the next start");
        }
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), durable::directory)?;
    durable::replace(path, text.as_bytes())
}

async fn news(shelf: &mut Option<Shelf>) -> Told {
    match shelf {
        Some(shelf) => shelf.news().await,
        None => std::future::pending().await,
    }
}

async fn gone(ring: &Weak<KeyRing>) {
    // The task itself holds one.
    while ring.strong_count() > 1 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
