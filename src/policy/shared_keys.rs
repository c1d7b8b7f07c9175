//! Keys of issuers in a fleet: one node fetches them, all have them.
//!
//! Whoever can write keys can make tokens, so they stand on the bus sealed with the fleet's key, each set bound to the place
//! it was fetched from. The right to fetch is a lease; a node that can reach neither the bus nor who fetches does it itself.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::jwks::Remote;
use crate::bus::{Bus, Entry, Follow, Held, Lease, Link, Seen, Sighting};
use crate::scalar::hex;
use crate::seal::Seal;

/// How long others wait for a node that died while it fetched.
const TERM: Duration = Duration::from_secs(15);
/// How long a start waits for what stands on the bus.
const READ: Duration = Duration::from_secs(1);
/// Nobody believes longer in keys, whoever says so.
const FRESH_MAX_S: u64 = 86_400;
/// Telling takes no longer, or is given up.
const TELL: Duration = Duration::from_secs(5);

/// What a fleet shares of issuers' keys. Clones share it.
#[derive(Clone)]
pub struct SharedKeys(Arc<Inner>);

struct Inner {
    bus: Bus,
    bucket: String,
    seal: Seal,
    /// Unique to this process.
    holder: String,
}

impl SharedKeys {
    /// In the fleet's bucket of what is sealed.
    pub fn new(bus: Bus, bucket: String, seal: Seal, node: &str) -> SharedKeys {
        let holder = format!("{node}-{:016x}", fastrand::u64(..));
        SharedKeys(Arc::new(Inner { bus, bucket, seal, holder }))
    }

    /// The place of one issuer.
    pub(super) fn of(&self, remote: &Remote) -> Shelf {
        let Inner { bus, bucket, holder, .. } = &*self.0;
        let place = format!("{}\n{}\n{}", remote.url, remote.discovery, remote.ca.as_deref().unwrap_or_default());
        let name = hex(digest::digest(&digest::SHA256, place.as_bytes()).as_ref());
        Shelf {
            key: format!("keys.{name}"),
            lease: Lease::new(bus.clone(), bucket.clone(), &format!("keys.{name}"), holder.clone(), TERM),
            follow: bus.follow(bucket.clone(), format!("keys.{name}")),
            seen: Sighting::default(),
            own: 0,
            shared: self.clone(),
        }
    }
}

/// A set of keys as a node tells it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    /// A JWKS.
    pub(super) text: String,
    /// When the fetch began, in milliseconds since 1970: what is older never takes the place of what is newer.
    pub(super) began_ms: u64,
    /// Seconds for which whoever fetched it believes in it.
    fresh_s: u64,
}

/// Whose right it is to fetch.
pub(super) enum Right {
    Ours(Held),
    Others,
    /// The bus does not say.
    Unknown,
}

impl Told {
    pub(super) fn new(text: String, began_ms: u64, fresh: Duration) -> Told {
        Told { text, began_ms, fresh_s: fresh.as_secs().max(1) }
    }

    /// When those who only heard of it fetch themselves: later than who fetched it, and not all at once.
    pub(super) fn wait(&self) -> Duration {
        Duration::from_secs(self.fresh_s.min(FRESH_MAX_S)).mul_f64(1.1 + fastrand::f64() / 5.0)
    }
}

/// Where the keys of one issuer stand.
pub(super) struct Shelf {
    shared: SharedKeys,
    key: String,
    lease: Lease,
    follow: Follow,
    seen: Sighting,
    /// The revision that this node told last: no news to it.
    own: u64,
}

impl Shelf {
    /// What stands there, if the bus says so soon.
    pub(super) async fn first(&mut self) -> Option<Told> {
        let reading = async {
            let mut found = None;
            loop {
                match self.follow.next().await {
                    Seen::Put(entry) => found = self.read(&entry),
                    Seen::Current => return found,
                    Seen::Lost(_) => return None,
                    Seen::Anew | Seen::Removed(_) => {}
                }
            }
        };
        timeout(READ, reading).await.ok().flatten()
    }

    /// What another node tells next. May be dropped at any time without losing anything.
    pub(super) async fn news(&mut self) -> Told {
        loop {
            if let Seen::Put(entry) = self.follow.next().await
                && entry.revision != self.own
                && let Some(told) = self.read(&entry)
            {
                return told;
            }
        }
    }

    /// Whose right it is to fetch now. A bus that is away, or slow, is not waited for.
    pub(super) async fn right(&mut self, patience: Duration) -> Right {
        if *self.shared.0.bus.link().borrow() != Link::Up {
            return Right::Unknown;
        }
        match timeout(patience, self.lease.attempt(&mut self.seen)).await {
            Ok(Ok(Some(held))) => Right::Ours(held),
            Ok(Ok(None)) => Right::Others,
            Ok(Err(_)) | Err(_) => Right::Unknown,
        }
    }

    pub(super) fn lease(&self) -> Lease {
        self.lease.clone()
    }

    pub(super) async fn tell(&mut self, told: Told) {
        let Inner { bus, bucket, seal, .. } = &*self.shared.0;
        let telling = async {
            let value = serde_json::to_vec(&told).map_err(|error| error.to_string())?;
            let sealed = seal.seal(&self.key, &value).map_err(|error| error.to_string())?;
            let bucket = bus.bucket(bucket).await.map_err(|error| error.to_string())?;
            bucket.put(&self.key, sealed).await.map_err(|error| error.to_string())
        };
        match timeout(TELL, telling).await {
            Ok(Ok(revision)) => self.own = revision,
            Ok(Err(error)) => tracing::warn!(error, "other gateways are not told an issuer's keys"),
            Err(_) => tracing::warn!("other gateways are not told an issuer's keys in time"),
        }
    }

    fn read(&self, entry: &Entry) -> Option<Told> {
        let opened = self.shared.0.seal.open(&entry.key, &entry.value).map_err(|error| error.to_string());
        match opened.and_then(|value| serde_json::from_slice(&value).map_err(|error| error.to_string())) {
            Ok(told) => Some(told),
            Err(error) => {
                tracing::error!(key = entry.key, error, "an issuer's keys on the bus cannot be used");
                None
            }
        }
    }
}
