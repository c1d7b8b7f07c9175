//! Leases: work that one of many does, and another takes over when it dies.
//!
//! No clock is compared with another's. Who holds a lease writes it again and again; who wants it watches that: a lease
//! that was not written for its whole term, by the watcher's own clock, is taken by compare-and-set. A holder that could
//! not write for two thirds of the term stops its work, so that at most one works.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::{Bus, BusError, Expect};

/// A lease that may be held.
#[derive(Clone, Debug)]
pub struct Lease {
    bus: Bus,
    bucket: String,
    key: String,
    holder: String,
    term: Duration,
}

/// What a node has seen of another's lease.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sighting(Option<(u64, Instant)>);

/// Proof that a lease was taken: the revision of what was written.
#[derive(Debug)]
pub struct Held {
    revision: u64,
    renewed: Instant,
}

impl Lease {
    /// `holder` is unique among those who may want it; `term` is how long others wait for one that died.
    pub fn new(bus: Bus, bucket: impl Into<String>, name: &str, holder: impl Into<String>, term: Duration) -> Lease {
        Lease { bus, bucket: bucket.into(), key: format!("lease.{name}"), holder: holder.into(), term }
    }

    /// Waits until the lease is this holder's.
    pub async fn take(&self) -> Held {
        // What was seen last, and since when it stands.
        let mut seen = Sighting::default();
        loop {
            if let Ok(Some(held)) = self.attempt(&mut seen).await {
                return held;
            }
            sleep(self.term.div_f64(5.0 + fastrand::f64())).await;
        }
    }

    /// Takes the lease if nobody has it now, or if this holder had it before (and forgot, in a crash).
    pub async fn take_now(&self) -> Result<Option<Held>, BusError> {
        self.attempt(&mut Sighting::default()).await
    }

    /// As `take_now`; and if the one who has it has not been heard of for a term, by what was seen before.
    pub async fn attempt(&self, Sighting(seen): &mut Sighting) -> Result<Option<Held>, BusError> {
        let trying = async {
            let bucket = self.bus.bucket(&self.bucket).await?;
            let there = bucket.entry(&self.key).await?;
            let expect = match &there {
                None => Expect::Nothing,
                Some(entry) if entry.value == self.holder.as_bytes() => Expect::Revision(entry.revision),
                Some(entry) => {
                    let since = match *seen {
                        Some((revision, since)) if revision == entry.revision => since,
                        _ => seen.insert((entry.revision, Instant::now())).1,
                    };
                    if since.elapsed() < self.term {
                        return Ok(None);
                    }
                    Expect::Revision(entry.revision)
                }
            };
            let renewed = Instant::now();
            match bucket.swap(&self.key, Bytes::from(self.holder.clone()), expect).await {
                Ok(revision) => Ok(Some(Held { revision, renewed })),
                Err(BusError::Lost { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        timeout(self.term, trying).await.unwrap_or(Err(BusError::Timeout(self.term)))
    }

    /// Does work for as long as the lease is held, and gives it back. `None`: it was lost before the work was done.
    pub async fn during<T>(&self, held: Held, work: impl Future<Output = T>) -> Option<T> {
        let mut held = held;
        let done = tokio::select! {
            () = self.keep(&mut held) => return None,
            done = work => done,
        };
        let giving_back = async { self.bus.bucket(&self.bucket).await?.remove(&self.key, Some(held.revision)).await };
        // Else it ends with its term.
        let _ = timeout(self.term / 3, giving_back).await;
        Some(done)
    }

    async fn still(&self) -> Option<u64> {
        let reading = async { self.bus.bucket(&self.bucket).await?.entry(&self.key).await };
        let entry = timeout(self.term / 5, reading).await.ok()?.ok()??;
        (entry.value == self.holder.as_bytes()).then_some(entry.revision)
    }

    /// Returns when the lease is not this holder's any more.
    async fn keep(&self, held: &mut Held) {
        loop {
            sleep(self.term / 5).await;
            let renewed = Instant::now();
            let writing = async {
                let bucket = self.bus.bucket(&self.bucket).await?;
                let value = Bytes::from(self.holder.clone());
                bucket.swap(&self.key, value, Expect::Revision(held.revision)).await
            };
            let left = (self.term * 2 / 3).saturating_sub(held.renewed.elapsed());
            match timeout(left, writing).await {
                Ok(Ok(revision)) => *held = Held { revision, renewed },
                // What was written late, though its answer did not come, is this holder's all the same.
                Ok(Err(BusError::Lost { .. })) => match self.still().await {
                    Some(revision) => *held = Held { revision, renewed: held.renewed },
                    None => return,
                },
                Err(_) => return,
                Ok(Err(_)) if held.renewed.elapsed() >= self.term * 2 / 3 => return,
                Ok(Err(_)) => {}
            }
        }
    }
}
