//! A trial: a document that part of the fleet runs, until somebody decides.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{CANARY, Draft, Head, Ledger, LedgerError, Pointer, Signer, now_ms};
use crate::bus::{BusError, Entry, Expect};

/// What runs where, and by what it is judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// What becomes the head if the trial goes well: its parent is the head it was made from.
    pub pointer: Pointer,
    /// The nodes that run it.
    pub nodes: BTreeSet<String>,
    pub started_at_ms: u64,
    pub judged: Judged,
}

/// When a trial is decided, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Requests that both sides have answered before anything is compared.
    pub sample: u64,
    /// Seconds after which it is taken back if it has not been decided.
    pub deadline_s: u64,
    /// Shares of 5xx, of 4xx and of requests the gateway refused may be this many thousandths higher than the control's.
    pub worse_per_mille: u64,
    /// The 99th percentile may be this many percent longer.
    pub slower_percent: u64,
}

impl Default for Judged {
    fn default() -> Judged {
        Judged { sample: 500, deadline_s: 600, worse_per_mille: 10, slower_percent: 50 }
    }
}

impl Canary {
    pub fn parse(entry: &Entry) -> Result<Canary, LedgerError> {
        super::read(entry)
    }
}

impl Ledger {
    /// The trial that runs, and the bucket's own number for it.
    pub async fn canary(&self) -> Result<Option<(Canary, u64)>, LedgerError> {
        let Some(entry) = self.open().await?.entry(CANARY).await? else { return Ok(None) };
        Ok(Some((Canary::parse(&entry)?, entry.revision)))
    }

    /// Begins a trial on some nodes. What stands there and cannot be read is no trial: nobody could decide it.
    ///
    /// # Errors
    /// `BusError::Lost` if one runs already.
    pub async fn begin(
        &self,
        draft: Draft,
        head: &Head,
        nodes: BTreeSet<String>,
        judged: Judged,
        signer: Option<&Signer>,
    ) -> Result<Canary, LedgerError> {
        let pointer = self.pointer(draft, Some(head), signer).await?;
        let canary = Canary { pointer, nodes, started_at_ms: now_ms(), judged };
        let value = Bytes::from(serde_json::to_vec(&canary).unwrap_or_default());
        let expect = match self.canary().await {
            Ok(_) => Expect::Nothing,
            Err(LedgerError::Unreadable { entry, .. }) => Expect::Revision(entry),
            Err(error) => return Err(error),
        };
        self.open().await?.swap(CANARY, value, expect).await?;
        Ok(canary)
    }

    /// Makes the trial's document the head of all, if the head is still the one it was made from. One decision: whoever
    /// comes second finds the trial gone.
    pub async fn promote(&self, canary: &Canary, entry: u64) -> Result<Pointer, LedgerError> {
        let head = self.head().await?;
        let parent = canary.pointer.parent;
        let Some(head) = head.filter(|head| head.pointer.revision == parent) else {
            self.take_back(entry).await?;
            return Err(LedgerError::Lost {
                now: self.head().await?.map(|head| Box::new(head.pointer)),
                expected: parent,
            });
        };
        let pointer = self.enforce(canary.pointer.clone(), Some(&head)).await?;
        self.take_back(entry).await?;
        Ok(pointer)
    }

    /// Ends the trial: its nodes go back to the head.
    pub async fn take_back(&self, entry: u64) -> Result<(), LedgerError> {
        match self.open().await?.remove(CANARY, Some(entry)).await {
            Ok(()) | Err(BusError::Lost { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what stands in the place of a trial and cannot be read. A trial that runs stays.
    pub async fn clear_trial(&self) -> Result<(), LedgerError> {
        match self.canary().await {
            Err(error @ LedgerError::Unreadable { entry, .. }) => {
                self.take_back(entry).await?;
                tracing::warn!(%error, "it is no trial, and was removed");
                Ok(())
            }
            found => found.map(drop),
        }
    }
}
