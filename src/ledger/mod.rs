//! Documents on the bus, and which of them is in force.
//!
//! ```text
//! head.fleet           ─▶ pointer of the document in force          compare-and-set: the one moment of a change
//! head.canary          ─▶ a trial on some nodes, until it is decided
//! revision.N           ─▶ the pointer that was head as number N     history, kept by us
//! document.DIGEST      ─▶ how long it is, in how many pieces
//! document.DIGEST.I    ─▶ the pieces, zstd
//! ```
//! A document is there before a pointer says so, and before a new head is written the old one is in the history: whoever
//! dies in between leaves nothing half. The ledger knows nothing of what documents mean.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, BusError, Entry, Expect, KeyValue};
use crate::scalar::hex;

mod canary;
mod signature;
#[cfg(test)]
mod tests;

pub use canary::{Canary, Judged};
pub use signature::{KeyError, Signer, Verifier};

/// Bytes of a document. As for a file.
pub const TEXT_MAX: usize = 64 << 20;
/// Bytes of a piece, well below what a NATS server takes in one message.
const PIECE: usize = 512 << 10;
/// Pointers kept. Older ones go, with documents that no other pointer names.
pub const KEPT: u64 = 1000;
/// The pointer in force for the whole fleet.
pub const HEAD: &str = "head.fleet";
/// The trial that runs, if one does.
pub const CANARY: &str = "head.canary";
/// Both.
pub const HEADS: &str = "head.*";
/// What was head before.
const HISTORY: &str = "revision.*";

/// Which document is in force, and who said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// From 1, by one from head to head.
    pub revision: u64,
    /// SHA-256 of the text, in hex.
    pub digest: String,
    /// The revision before it; 0: there was none.
    pub parent: u64,
    pub author: String,
    pub reason: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Words of the text: a gateway that does not read one of them cannot take it.
    #[serde(default)]
    pub requires: BTreeSet<String>,
    /// The revision whose text this is again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
    /// Ed25519 over bucket, digest, revision and parent, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// What is to be put in force.
#[derive(Clone, Debug)]
pub struct Draft {
    pub text: Arc<str>,
    pub author: String,
    pub reason: String,
    pub requires: BTreeSet<String>,
    pub rollback_of: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Somebody else was faster.
    #[error("revision {} is in force, by {}; this was made from revision {expected}", .now.as_ref().map_or(0, |now| now.revision), .now.as_ref().map_or("nobody", |now| &now.author))]
    Lost { now: Option<Box<Pointer>>, expected: u64 },
    #[error("revision {0} is not in the history (the last {KEPT} are kept)")]
    NoRevision(u64),
    #[error("document {digest}: {message}")]
    Damaged { digest: String, message: String },
    /// `entry` is the bucket's own number for what stands there: by it something better takes its place.
    #[error("{key} cannot be read: {why}")]
    Unreadable { key: String, entry: u64, why: serde_json::Error },
    #[error("revision {0} was not signed with this key: it is not signed again unseen; push its text instead")]
    NotSigned(u64),
    #[error("{0} bytes are more than a document may have ({TEXT_MAX})")]
    TooLong(usize),
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    bytes: usize,
    pieces: usize,
}

/// The documents of one bucket.
#[derive(Clone, Debug)]
pub struct Ledger {
    bus: Bus,
    bucket: String,
}

/// The pointer in force and the bucket's own number for it.
#[derive(Clone, Debug)]
pub struct Head {
    pub pointer: Pointer,
    entry: u64,
}

/// SHA-256 in hex.
pub fn digest(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hex(digest.as_ref())
}

/// What a value says.
fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, LedgerError> {
    let Entry { key, value, revision } = entry;
    serde_json::from_slice(value).map_err(|why| LedgerError::Unreadable { key: key.clone(), entry: *revision, why })
}

impl Pointer {
    pub fn parse(entry: &Entry) -> Result<Pointer, LedgerError> {
        read(entry)
    }

    fn bytes(&self) -> Bytes {
        // Texts and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    fn key(&self) -> String {
        format!("revision.{}", self.revision)
    }
}

impl Ledger {
    pub fn new(bus: Bus, bucket: impl Into<String>) -> Ledger {
        Ledger { bus, bucket: bucket.into() }
    }

    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    async fn open(&self) -> Result<Arc<dyn KeyValue>, LedgerError> {
        Ok(self.bus.bucket(&self.bucket).await?)
    }

    /// What is in force. `None`: nothing was ever pushed. Where something stands that cannot be read, gateways keep what they
    /// have: that is the newest of the history, and the next push takes the place of what stands there.
    pub async fn head(&self) -> Result<Option<Head>, LedgerError> {
        let Some(entry) = self.open().await?.entry(HEAD).await? else { return Ok(None) };
        let pointer = match Pointer::parse(&entry) {
            Ok(pointer) => pointer,
            Err(error) => self.history().await?.pop_last().map(|(_, pointer)| pointer).ok_or(error)?,
        };
        Ok(Some(Head { pointer, entry: entry.revision }))
    }

    async fn history(&self) -> Result<BTreeMap<u64, Pointer>, LedgerError> {
        let mut found = BTreeMap::new();
        for entry in self.bus.entries(&self.bucket, HISTORY).await? {
            match Pointer::parse(&entry) {
                Ok(pointer) => drop(found.insert(pointer.revision, pointer)),
                Err(error) => tracing::warn!(%error, "left out of the history"),
            }
        }
        Ok(found)
    }

    /// The history, newest first; the head is its first. What cannot be read is left out, and the log says so.
    pub async fn log(&self) -> Result<Vec<Pointer>, LedgerError> {
        let mut found = self.history().await?;
        if let Some(head) = self.head().await? {
            found.insert(head.pointer.revision, head.pointer);
        }
        Ok(found.into_values().rev().collect())
    }

    /// The pointer of a revision.
    pub async fn revision(&self, number: u64) -> Result<Pointer, LedgerError> {
        if let Some(head) = self.head().await?
            && head.pointer.revision == number
        {
            return Ok(head.pointer);
        }
        match self.open().await?.entry(&format!("revision.{number}")).await? {
            Some(entry) => Pointer::parse(&entry),
            None => Err(LedgerError::NoRevision(number)),
        }
    }

    /// What going back to a revision takes: its pointer and its text. Whoever signs signs nothing that was not signed before.
    pub async fn before(&self, number: u64, signer: Option<&Signer>) -> Result<(Pointer, Arc<str>), LedgerError> {
        let pointer = self.revision(number).await?;
        if let Some(signer) = signer
            && !(pointer.revision == number && signer.verifier().accepts(&self.bucket, &pointer))
        {
            return Err(LedgerError::NotSigned(number));
        }
        let text = self.text(&pointer.digest).await?;
        Ok((pointer, text))
    }

    /// The text of a digest, byte for byte as it was pushed.
    pub async fn text(&self, wanted: &str) -> Result<Arc<str>, LedgerError> {
        let damaged = |message: String| LedgerError::Damaged { digest: wanted.to_owned(), message };
        if wanted.len() != 64 || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(damaged("this is no digest".to_owned()));
        }
        let bucket = self.open().await?;
        let key = format!("document.{wanted}");
        let entry = bucket.entry(&key).await?.ok_or_else(|| damaged("there is no such document".to_owned()))?;
        let Manifest { bytes, pieces } = read(&entry)?;
        if bytes > TEXT_MAX {
            return Err(LedgerError::TooLong(bytes));
        }
        if pieces > TEXT_MAX / PIECE + 1 {
            return Err(damaged(format!("{pieces} pieces are more than a document has")));
        }
        let mut packed = BytesMut::new();
        for piece in 0..pieces {
            let entry = bucket.entry(&format!("{key}.{piece}")).await?;
            let entry = entry.ok_or_else(|| damaged(format!("piece {piece} of {pieces} is missing")))?;
            packed.extend_from_slice(&entry.value);
        }
        let unpacked = unpack(&packed, bytes).map_err(|error| damaged(error.to_string()))?;
        let text = String::from_utf8(unpacked).map_err(|_| damaged("not text".to_owned()))?;
        if digest(&text) != wanted {
            return Err(damaged("not what the digest says".to_owned()));
        }
        Ok(text.into())
    }

    async fn keep(&self, text: &str) -> Result<String, LedgerError> {
        if text.len() > TEXT_MAX {
            return Err(LedgerError::TooLong(text.len()));
        }
        let digest = digest(text);
        let bucket = self.open().await?;
        let key = format!("document.{digest}");
        if bucket.entry(&key).await?.is_some() {
            return Ok(digest);
        }
        let packed = zstd::bulk::compress(text.as_bytes(), 3).map_err(BusError::failed)?;
        let pieces = packed.chunks(PIECE);
        let manifest = Manifest { bytes: text.len(), pieces: pieces.len() };
        for (number, piece) in pieces.enumerate() {
            bucket.put(&format!("{key}.{number}"), Bytes::copy_from_slice(piece)).await?;
        }
        let manifest = serde_json::to_vec(&manifest).unwrap_or_default();
        bucket.put(&key, manifest.into()).await?;
        Ok(digest)
    }

    /// Puts a document in force in the place of `head`, which the author has seen, or of nothing.
    ///
    /// # Errors
    /// `Lost` if something else is in force meanwhile: nothing has changed then.
    pub async fn push(
        &self,
        draft: Draft,
        head: Option<&Head>,
        signer: Option<&Signer>,
    ) -> Result<Pointer, LedgerError> {
        let pointer = self.pointer(draft, head, signer).await?;
        self.enforce(pointer, head).await
    }

    /// Keeps a document and makes the pointer to it that could take the place of `head`.
    async fn pointer(
        &self,
        draft: Draft,
        head: Option<&Head>,
        signer: Option<&Signer>,
    ) -> Result<Pointer, LedgerError> {
        let Draft { text, author, reason, requires, rollback_of } = draft;
        let parent = head.map_or(0, |head| head.pointer.revision);
        let digest = self.keep(&text).await?;
        let (revision, at_ms, signature) = (parent + 1, now_ms(), None);
        let mut pointer = Pointer { revision, digest, parent, author, reason, at_ms, requires, rollback_of, signature };
        pointer.signature = signer.map(|signer| signer.sign(&self.bucket, &pointer));
        Ok(pointer)
    }

    async fn enforce(&self, pointer: Pointer, head: Option<&Head>) -> Result<Pointer, LedgerError> {
        let bucket = self.open().await?;
        let expect = match head {
            Some(Head { pointer: old, entry }) => {
                bucket.put(&old.key(), old.bytes()).await?;
                Expect::Revision(*entry)
            }
            None => Expect::Nothing,
        };
        match bucket.swap(HEAD, pointer.bytes(), expect).await {
            Ok(_) => {}
            Err(BusError::Lost { .. }) => {
                let now = self.head().await?.map(|head| Box::new(head.pointer));
                return Err(LedgerError::Lost { now, expected: pointer.parent });
            }
            Err(error) => return Err(error.into()),
        }
        // The next push would write it, too.
        let _ = bucket.put(&pointer.key(), pointer.bytes()).await;
        if let Err(error) = self.clear_trial().await {
            tracing::warn!(%error, "what stands in the place of a trial stays a while longer");
        }
        if let Some(limit) = pointer.revision.checked_sub(KEPT)
            && let Err(error) = self.prune(limit, &*bucket).await
        {
            tracing::warn!(%error, "old revisions stay a while longer");
        }
        Ok(pointer)
    }

    /// Removes revisions up to a number, and documents that nothing else names. What cannot be read names nothing.
    async fn prune(&self, limit: u64, bucket: &dyn KeyValue) -> Result<(), LedgerError> {
        let head = self.head().await?.map(|head| head.pointer);
        let trial = match self.canary().await {
            Ok(found) => found.map(|(canary, _)| canary.pointer),
            Err(LedgerError::Unreadable { .. }) => None,
            Err(error) => return Err(error),
        };
        let is_old = |entry: &Entry| number(&entry.key).is_some_and(|number| number <= limit);
        let (old, kept): (Vec<Entry>, Vec<Entry>) =
            self.bus.entries(&self.bucket, HISTORY).await?.into_iter().partition(is_old);
        let kept = kept.iter().filter_map(|entry| Pointer::parse(entry).ok());
        let needed: BTreeSet<String> = kept.chain(head).chain(trial).map(|pointer| pointer.digest).collect();
        for entry in &old {
            if let Ok(pointer) = Pointer::parse(entry)
                && !needed.contains(&pointer.digest)
            {
                let key = format!("document.{}", pointer.digest);
                // First what says that it is there.
                bucket.erase(&key).await?;
                for entry in self.bus.entries(&self.bucket, &format!("{key}.*")).await? {
                    bucket.erase(&entry.key).await?;
                }
            }
            bucket.erase(&entry.key).await?;
        }
        Ok(())
    }
}

/// The number of an entry of the history.
fn number(key: &str) -> Option<u64> {
    key.strip_prefix("revision.")?.parse().ok()
}

fn unpack(packed: &[u8], bytes: usize) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(bytes);
    // No more than was promised, whatever the pieces hold.
    zstd::Decoder::new(packed)?.take(bytes as u64 + 1).read_to_end(&mut text)?;
    if text.len() != bytes {
        return Err(std::io::Error::other(format!("{} bytes where {bytes} were promised", text.len())));
    }
    Ok(text)
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}

/// A moment in milliseconds since 1970.
pub fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
