//! Sources: where documents come from.
//!
//! A source yields whole texts and knows nothing of what they mean. It holds at most one text that nobody has taken yet:
//! a newer one replaces it, because only the newest matters. Trouble (a file that vanished) is yielded too, so that it is
//! reported, and changes nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

pub mod bus;
pub mod file;
pub mod floor;

/// A text as a source holds it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub text: Arc<str>,
    /// Where it comes from, as printed before line and column.
    pub name: String,
    pub trigger: Trigger,
    /// Its number on the bus, if it comes from there.
    pub revision: Option<u64>,
}

/// Why a text was yielded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// It is new, or may be.
    Noticed,
    /// Somebody asked for it (SIGHUP) and expects to be told what came of it, also when that is nothing.
    Asked,
}

/// Why there is no text. One variant per cause an operator can act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("{0}: no such file")]
    Missing(PathBuf),
    #[error("{0}: not a regular file")]
    NotAFile(PathBuf),
    #[error("{path}: {message}")]
    Unreadable { path: PathBuf, message: String },
    #[error("{0}: longer than {max} MiB", max = file::TEXT_MAX >> 20)]
    TooLong(PathBuf),
    #[error("{path}: not UTF-8 at byte {at}")]
    NotText { path: PathBuf, at: usize },
    #[error("the bus: {0}")]
    Bus(String),
    #[error("nothing was ever pushed to bucket `{0}`: `tollgate push FILE` does")]
    NothingPushed(String),
    #[error("revision {revision} bears no signature of a key under routes.nats.signed_by")]
    Unsigned { revision: u64 },
    #[error("revision {revision} is older than revision {highest}, which was followed already")]
    Older { revision: u64, highest: u64 },
    #[error("revision {revision} uses words that this gateway does not read: {words}; it needs a newer one")]
    Newer { revision: u64, words: String },
}

impl SourceError {
    /// The revision on the bus that is not taken, if that is what is wrong.
    pub fn refuses(&self) -> Option<u64> {
        match self {
            SourceError::Unsigned { revision }
            | SourceError::Older { revision, .. }
            | SourceError::Newer { revision, .. } => Some(*revision),
            SourceError::Missing(_)
            | SourceError::NotAFile(_)
            | SourceError::Unreadable { .. }
            | SourceError::TooLong(_)
            | SourceError::NotText { .. }
            | SourceError::Bus(_)
            | SourceError::NothingPushed(_) => None,
        }
    }
}

/// What a source yields.
pub type Yield = Result<Update, SourceError>;

/// The receiving end of a source.
#[derive(Debug)]
pub struct Source(Arc<Shared>);

/// The sending end: what watches a file or a bus holds it.
#[derive(Debug)]
pub struct Publisher(Arc<Shared>);

/// Asks a source to look again.
#[derive(Clone, Debug)]
pub struct Reread(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    newest: Mutex<Option<Yield>>,
    published: Notify,
    asked: Notify,
}

/// A source and what feeds it.
pub fn channel() -> (Publisher, Source) {
    let shared = Arc::new(Shared::default());
    (Publisher(shared.clone()), Source(shared))
}

impl Source {
    /// The newest text not yet taken; waits for one. May be dropped at any time without losing one.
    pub async fn next(&mut self) -> Yield {
        loop {
            let published = self.0.published.notified();
            if let Some(newest) = self.0.newest.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return newest;
            }
            published.await;
        }
    }

    pub fn rereader(&self) -> Reread {
        Reread(self.0.clone())
    }
}

impl Publisher {
    /// Replaces what nobody has taken yet. That somebody asked is not forgotten by it.
    pub fn publish(&self, mut next: Yield) {
        {
            let mut newest = self.0.newest.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(Ok(Update { trigger: Trigger::Asked, .. })), Ok(update)) = (&*newest, &mut next) {
                update.trigger = Trigger::Asked;
            }
            *newest = Some(next);
        }
        self.0.published.notify_one();
    }

    /// Returns when somebody asked for another look.
    pub async fn asked(&self) {
        self.0.asked.notified().await;
    }
}

impl Reread {
    pub fn ask(&self) {
        self.0.asked.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(text: &str, trigger: Trigger) -> Update {
        Update { text: text.into(), name: "here".to_owned(), trigger, revision: None }
    }

    #[tokio::test]
    async fn only_the_newest_is_kept() {
        let (publisher, mut source) = channel();
        publisher.publish(Ok(update("1", Trigger::Asked)));
        publisher.publish(Ok(update("2", Trigger::Noticed)));
        assert_eq!(source.next().await, Ok(update("2", Trigger::Asked)));
        publisher.publish(Ok(update("3", Trigger::Noticed)));
        assert_eq!(source.next().await, Ok(update("3", Trigger::Noticed)));
    }

    #[tokio::test]
    async fn a_dropped_wait_loses_nothing() {
        let (publisher, mut source) = channel();
        {
            let waiting = source.next();
            tokio::pin!(waiting);
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
            publisher.publish(Ok(update("1", Trigger::Noticed)));
        }
        assert_eq!(source.next().await, Ok(update("1", Trigger::Noticed)));
    }
}
