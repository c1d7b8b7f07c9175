//! The bus: what a fleet shares. Keys with values that are compared and set, events that are kept, messages that are not.
//!
//! Two kinds behind one interface: NATS with JetStream, and one within the process for a node that is alone. The bus knows
//! nothing of documents, limits or certificates; whoever stores something here gives it a form and a bound.
//!
//! A request never waits for the bus: what it has to say goes through a `Post`, which is bounded and drops.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::scalar::Secret;
use crate::settings;

mod follow;
pub mod found;
mod lease;
mod local;
pub mod names;
mod nats;
mod post;
#[cfg(test)]
mod tests;

pub use follow::{Follow, Seen};
pub use lease::{Held, Lease, Sighting};
pub use local::Local;
pub use nats::{Auth, ConnectError, Nats, Options, Role};
pub use post::{Post, Posted};

/// The longest value or message. A NATS server takes 1 MiB as it comes; the rest is for its headers.
pub const VALUE_MAX: usize = 1000 << 10;

/// Why the bus did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Somebody else wrote first. Read again and decide again.
    #[error("{key}: somebody else has written it meanwhile")]
    Lost { key: String },
    #[error("{0}: there is no such bucket or stream on the bus yet")]
    Missing(String),
    #[error("{key}: {size} bytes are more than a value may have ({VALUE_MAX})")]
    TooLong { key: String, size: usize },
    /// The server has bounds of its own, and this is beyond them.
    #[error("{subject}: the bus does not take it: {why}")]
    Refused { subject: String, why: String },
    #[error("no answer from the bus within {0:?}")]
    Timeout(Duration),
    /// The connection, the server or the permissions.
    #[error("{0}")]
    Failed(String),
}

impl BusError {
    pub(crate) fn failed(error: impl std::fmt::Display) -> BusError {
        BusError::Failed(error.to_string())
    }

    /// Whether the same would be refused again, however often it is tried.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, BusError::TooLong { .. } | BusError::Refused { .. })
    }
}

/// A value as the bus holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
    /// Grows with every write to the bucket; what `Expect` compares.
    pub revision: u64,
}

/// What a writer believes to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Nothing,
    Revision(u64),
}

/// What happened in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Entry),
    Removed(String),
    /// Everything that stood when the watch began has been told.
    Current,
}

/// What a bucket is like, for whoever makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub name: String,
    /// Values older than this are gone; nobody is told. Zero: they stay.
    pub max_age: Duration,
}

/// What a stream of events is like, for whoever makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    pub name: String,
    /// What is kept in it: `a.b.*` or `a.b.>`.
    pub subjects: Vec<String>,
    pub max_age: Duration,
    /// Bytes. At this bound the oldest go.
    pub max_bytes: u64,
}

/// An event or a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub subject: String,
    pub payload: Bytes,
}

/// An event as a stream holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub message: Message,
    /// Its place in the stream, from 1.
    pub sequence: u64,
    pub at: SystemTime,
}

/// Whether the bus can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Up,
    Down { since: SystemTime },
}

/// A bucket of keys and values. Keys are words of `[-/_=.a-zA-Z0-9]`, levels apart by dots.
#[async_trait]
pub trait KeyValue: Send + Sync {
    async fn entry(&self, key: &str) -> Result<Option<Entry>, BusError>;

    /// Writes whatever was there before. Returns the revision.
    async fn put(&self, key: &str, value: Bytes) -> Result<u64, BusError>;

    /// Writes if the bucket holds what the writer believes, else `BusError::Lost`. Returns the revision.
    async fn swap(&self, key: &str, value: Bytes, expect: Expect) -> Result<u64, BusError>;

    /// Removes; with a revision only if that is what is there. A mark stays, a hundred bytes, so that whoever follows is told.
    async fn remove(&self, key: &str, expect: Option<u64>) -> Result<(), BusError>;

    /// Removes without a trace and tells nobody: for keys without end that nobody follows.
    async fn erase(&self, key: &str) -> Result<(), BusError>;

    /// What matches now (a key, `a.*` or `a.>`), `Change::Current`, and what changes from then on. Of several writes to one
    /// key the last is told. Ends with an error when it cannot go on; `Follow` goes on.
    async fn watch(&self, keys: &str) -> Result<BoxStream<'static, Result<Change, BusError>>, BusError>;
}

/// What a bus can do. `Bus` is how everybody holds one.
#[async_trait]
pub trait Wire: Send + Sync {
    /// A bucket that exists; `BusError::Missing` if it does not.
    async fn bucket(&self, name: &str) -> Result<Arc<dyn KeyValue>, BusError>;
    /// Makes a bucket, or leaves the one that is there as it is.
    async fn make_bucket(&self, bucket: &Bucket) -> Result<(), BusError>;
    /// Makes a stream, or gives the one that is there these bounds.
    async fn make_stream(&self, stream: &Stream) -> Result<(), BusError>;

    /// Sends to whoever listens now. An `Ok` is no promise.
    async fn publish(&self, message: Message) -> Result<(), BusError>;
    /// Adds an event to the stream of its subject. When this returns it is kept; the same id within two minutes is kept once.
    async fn append(&self, message: Message, id: &str) -> Result<(), BusError>;
    /// Messages as they come. Who does not keep up loses the newest.
    async fn subscribe(&self, subject: &str) -> Result<BoxStream<'static, Message>, BusError>;
    /// Events of a stream after a place in it (0: from its oldest), as they come. Ends with an error when it cannot go on.
    async fn read(&self, stream: &str, after: u64) -> Result<BoxStream<'static, Result<Kept, BusError>>, BusError>;

    fn link(&self) -> watch::Receiver<Link>;
}

/// A handle on the bus. Clones share it.
#[derive(Clone)]
pub struct Bus(Arc<dyn Wire>);

/// The bus that settings name: NATS, or without any server one within the process. That no server answers is no failure.
pub async fn open(words: &settings::Bus, name: &str, role: Role) -> Result<Bus, ConnectError> {
    let urls = words.servers();
    if urls.is_empty() {
        return Ok(Bus::new(Local::default()));
    }
    let secret = |secret: &Secret| secret.expose().trim().to_owned();
    let auth = match (&words.credentials, &words.nkey, &words.token, &words.user) {
        (Some(path), ..) => Auth::Credentials(path.clone()),
        (_, Some(seed), ..) => Auth::Nkey(secret(seed)),
        (_, _, Some(token), _) => Auth::Token(secret(token)),
        (.., Some(user)) => {
            let password = words.password.as_ref().map(secret).unwrap_or_default();
            Auth::Password { user: user.clone(), password }
        }
        (None, None, None, None) => Auth::None,
    };
    let options = Options {
        urls,
        auth,
        ca: words.ca.clone(),
        client_certificate: words.certificate.as_ref().map(|files| (files.chain.clone(), files.key.clone())),
        domain: words.domain.clone(),
        replicas: words.replicas,
        name: name.to_owned(),
    };
    Ok(Bus::new(Nats::connect(&options, role).await?))
}

impl Bus {
    pub fn new(wire: impl Wire + 'static) -> Bus {
        Bus(Arc::new(wire))
    }

    /// Values that match (a key, `a.*` or `a.>`), in the order of their keys.
    pub async fn entries(&self, bucket: &str, keys: &str) -> Result<Vec<Entry>, BusError> {
        use futures_util::StreamExt as _;
        let reading = async {
            let mut changes = self.bucket(bucket).await?.watch(keys).await?;
            let mut found = std::collections::BTreeMap::new();
            while let Some(change) = changes.next().await {
                match change? {
                    Change::Put(entry) => drop(found.insert(entry.key.clone(), entry)),
                    Change::Removed(key) => drop(found.remove(&key)),
                    Change::Current => break,
                }
            }
            Ok(found.into_values().collect())
        };
        within(READ, reading).await
    }
}

fn fits(key: &str, size: usize) -> Result<(), BusError> {
    if size > VALUE_MAX {
        return Err(BusError::TooLong { key: key.to_owned(), size });
    }
    Ok(())
}

/// How long reading what a bucket holds may take.
const READ: Duration = Duration::from_secs(20);

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(BusError::Timeout(limit)))
}

impl std::ops::Deref for Bus {
    type Target = dyn Wire;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bus")
    }
}

/// Whether a subject or key is among those a pattern means: `*` is one level, a last `>` all that follow.
pub fn matches(pattern: &str, subject: &str) -> bool {
    let (mut wanted, mut levels) = (pattern.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), levels.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(want), Some(level)) if want == level => {}
            _ => return false,
        }
    }
}
