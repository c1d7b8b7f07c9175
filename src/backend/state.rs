//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::files::Shelf;
use super::keys::{Ring, Times};
use super::metrics::Metrics;
use super::moment;
use super::passwords::Passwords;
use super::refusal::Refusal;
use super::store::{self, Store};
use super::throttle::Throttle;
use crate::settings::backend::Backend;

/// A handle on it. Clones share it.
pub(super) type State = Arc<Shared>;

pub(super) struct Shared {
    pub(super) words: Backend,
    pub(super) store: Store,
    pub(super) ring: ArcSwap<Ring>,
    pub(super) passwords: Passwords,
    pub(super) throttle: Throttle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shelf: Shelf,
    /// Uploads at once.
    pub(super) uploads: Semaphore,
    /// Whether events are told anywhere.
    pub(super) has_bus: bool,
    pub(super) leaving: AtomicBool,
}

impl Shared {
    pub(super) fn times(&self) -> Times {
        Times { rotate: self.words.token.rotate.0, access: self.words.token.access.0 }
    }

    /// Makes the key that is due, and lets go of those that have ended.
    pub(super) async fn turn_keys(&self) -> Result<(), Refusal> {
        let times = self.times();
        let ring = self.store.write(move |connection| Ring::turn(connection, times, moment::now())).await?;
        ring.adopt(&self.ring);
        Ok(())
    }

    /// Whether something may be added to the database.
    pub(super) fn has_room(&self, connection: &Connection) -> Result<(), Refusal> {
        let full = store::used(connection)? >= self.words.limits.database.0;
        if full { Err(Refusal::Full("the database reaches limits.database")) } else { Ok(()) }
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.leaving.load(Ordering::Relaxed) && self.store.is_writable()
    }
}
