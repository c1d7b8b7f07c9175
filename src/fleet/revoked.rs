//! Revocations of the whole fleet: what is revoked on one node is revoked on all of them.
//!
//! One value per revocation under `revoked.ID` of the shared bucket. One that was taken back stays as a mark for a while, so
//! that a node that was away does not bring it back. What was done here while the bus was lost is written once it is there
//! again; a node that forgot (a restart without `state.dir`) learns all of it from the bus.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Membership;
use crate::bus::{BusError, Seen};
use crate::policy::{Revocation, Revocations, unix_now};

/// A mark of what was taken back is kept this long.
const MARK: u64 = 30 * 86_400;
/// What could not be written is tried again after this long.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Revoked(Revocation),
    /// When, in seconds since 1970.
    TakenBack {
        at: u64,
    },
}

struct Sharing {
    membership: Membership,
    revocations: Arc<Revocations>,
    /// What stands on the bus, as far as this node was told.
    bus: BTreeMap<String, Told>,
    /// What was done here and does not stand on the bus yet.
    pending: BTreeMap<String, Told>,
    /// What was in force here when it was last looked.
    known: BTreeMap<String, Revocation>,
}

/// Keeps both sides alike, for as long as the process lives.
pub async fn share(membership: Membership, revocations: Arc<Revocations>) {
    let mut follow = membership.bus.follow(membership.fleet.shared(), "revoked.*");
    let mut changed = revocations.changes();
    let known = BTreeMap::new();
    let mut sharing = Sharing { membership, revocations, bus: BTreeMap::new(), pending: BTreeMap::new(), known };
    // Before the first reading nobody knows what was taken back meanwhile.
    let (mut current, mut ever) = (false, false);
    let mut told = BTreeSet::new();
    loop {
        tokio::select! {
            seen = follow.next() => match seen {
                Seen::Anew => told.clear(),
                Seen::Put(entry) => {
                    if let Some(id) = entry.key.strip_prefix("revoked.")
                        && let Ok(one) = serde_json::from_slice(&entry.value)
                    {
                        told.insert(id.to_owned());
                        sharing.take(id, one).await;
                    }
                }
                Seen::Removed(key) => drop(sharing.bus.remove(key.trim_start_matches("revoked."))),
                Seen::Current => {
                    (current, ever) = (true, true);
                    sharing.bus.retain(|id, _| told.contains(id));
                    sharing.look();
                }
                Seen::Lost(_) => current = false,
            },
            changed = changed.changed() => {
                if changed.is_err() {
                    return;
                }
                if ever {
                    sharing.look();
                }
            }
            () = tokio::time::sleep(AGAIN), if current && !sharing.pending.is_empty() => {}
        }
        if current {
            sharing.write().await;
        }
    }
}

impl Sharing {
    /// Does here what another node has done. What was done here meanwhile comes later and wins.
    async fn take(&mut self, id: &str, told: Told) {
        if self.pending.contains_key(id) {
            self.bus.insert(id.to_owned(), told);
            return;
        }
        self.bus.insert(id.to_owned(), told.clone());
        let (revocations, id, now) = (self.revocations.clone(), id.to_owned(), unix_now());
        if let Told::TakenBack { .. } = &told {
            self.known.remove(&id);
        }
        // It may wait for the disk.
        let work = tokio::task::spawn_blocking(move || match told {
            Told::Revoked(one) if one.is_over(now) => Ok(None),
            Told::Revoked(one) => match revocations.all(now).remove(&id) {
                Some(here) if !one.outlasts(&here) => Ok(None),
                Some(_) | None => revocations.add(one.clone(), now).map(|_| Some((id, one))),
            },
            Told::TakenBack { .. } => revocations.remove(&id, now).map(|_| None),
        });
        match work.await {
            // What could not be taken up is not known here: its absence says nothing to the others.
            Ok(Ok(taken)) => self.known.extend(taken),
            Ok(Err(error)) => tracing::error!(%error, "what another node revoked or took back"),
            Err(error) => tracing::error!(%error, "what another node revoked or took back"),
        }
    }

    /// Finds what was done here since it was last looked.
    fn look(&mut self) {
        let now = unix_now();
        let here = self.revocations.all(now);
        for (id, one) in &here {
            let stands = matches!(self.bus.get(id), Some(Told::Revoked(there)) if !one.outlasts(there));
            let is_new = self.known.get(id).is_none_or(|known| one.outlasts(known));
            // Taken back elsewhere while this node was away: the mark has been followed, or will be.
            let is_marked = matches!(self.bus.get(id), Some(Told::TakenBack { .. }));
            if !stands && (is_new || !is_marked) {
                self.pending.insert(id.clone(), Told::Revoked(one.clone()));
            }
        }
        for (id, one) in &self.known {
            if !here.contains_key(id) && !one.is_over(now) {
                self.pending.insert(id.clone(), Told::TakenBack { at: now });
            }
        }
        self.known = here;
    }

    async fn write(&mut self) {
        if let Err(error) = self.try_write().await {
            tracing::warn!(%error, waiting = self.pending.len(), "the fleet does not know yet what was revoked here");
        }
    }

    async fn try_write(&mut self) -> Result<(), BusError> {
        let over = |told: &Told, now: u64| match told {
            Told::Revoked(one) => one.is_over(now),
            Told::TakenBack { at } => at.saturating_add(MARK) < now,
        };
        let now = unix_now();
        let old: Vec<String> = self.bus.iter().filter(|(_, told)| over(told, now)).map(|(id, _)| id.clone()).collect();
        if self.pending.is_empty() && old.is_empty() {
            return Ok(());
        }
        let bucket = self.membership.bus.bucket(&self.membership.fleet.shared()).await?;
        while let Some((id, told)) = self.pending.first_key_value().map(|(id, told)| (id.clone(), told.clone())) {
            let value = serde_json::to_vec(&told).unwrap_or_default();
            bucket.put(&format!("revoked.{id}"), value.into()).await?;
            self.bus.insert(id.clone(), told);
            self.pending.remove(&id);
        }
        for id in old {
            // Every node lets go of it by itself.
            bucket.erase(&format!("revoked.{id}")).await?;
            self.bus.remove(&id);
        }
        Ok(())
    }
}
