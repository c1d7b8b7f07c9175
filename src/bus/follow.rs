//! Following what stands in a bucket, whatever happens to the connection.

use crate::tasks::jittered;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use super::{Bus, BusError, Change, Entry, Link};

/// How long after a failure the bucket is asked again; doubled from one failure to the next, with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What a follower sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A reading begins anew: what is not told until `Current` is gone.
    Anew,
    Put(Entry),
    Removed(String),
    /// What was told since `Anew` is all there is.
    Current,
    /// The bucket cannot be read now; what was told last stays true as far as anybody knows. Once per failure.
    Lost(String),
}

/// A reading of a bucket that never ends. Every time the link comes back it begins anew: a server may have forgotten.
pub struct Follow {
    bus: Bus,
    bucket: String,
    keys: String,
    link: watch::Receiver<Link>,
    changes: Option<BoxStream<'static, Result<Change, BusError>>>,
    pause: Duration,
    /// When the next try is due.
    due: tokio::time::Instant,
}

impl Bus {
    /// Follows the keys of a bucket that match (a key, `a.*` or `a.>`).
    pub fn follow(&self, bucket: impl Into<String>, keys: impl Into<String>) -> Follow {
        Follow {
            bus: self.clone(),
            bucket: bucket.into(),
            keys: keys.into(),
            link: self.link(),
            changes: None,
            pause: PAUSE_MIN,
            due: tokio::time::Instant::now(),
        }
    }
}

impl Follow {
    /// What is seen next. May be dropped at any time without losing anything.
    pub async fn next(&mut self) -> Seen {
        loop {
            let Some(changes) = &mut self.changes else {
                tokio::time::sleep_until(self.due).await;
                match self.open().await {
                    Ok(changes) => {
                        self.changes = Some(changes);
                        return Seen::Anew;
                    }
                    Err(error) => return self.lost(&error),
                }
            };
            tokio::select! {
                biased;
                changed = self.link.changed() => {
                    // A bus that is dropped tells nothing more.
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    match *self.link.borrow_and_update() {
                        // The reading is of another life of the server, perhaps.
                        Link::Up => self.changes = None,
                        Link::Down { .. } => {
                            // What was read in part is no reading.
                            self.changes = None;
                            return Seen::Lost("the bus cannot be reached".to_owned());
                        }
                    }
                }
                change = changes.next() => match change {
                    Some(Ok(Change::Put(entry))) => return Seen::Put(entry),
                    Some(Ok(Change::Removed(key))) => return Seen::Removed(key),
                    Some(Ok(Change::Current)) => {
                        self.pause = PAUSE_MIN;
                        return Seen::Current;
                    }
                    Some(Err(error)) => return self.lost(&error),
                    None => return self.lost(&BusError::failed("the reading ended")),
                }
            }
        }
    }

    async fn open(&mut self) -> Result<BoxStream<'static, Result<Change, BusError>>, BusError> {
        self.link.mark_unchanged();
        self.bus.bucket(&self.bucket).await?.watch(&self.keys).await
    }

    fn lost(&mut self, error: &BusError) -> Seen {
        self.changes = None;
        self.due = tokio::time::Instant::now() + jittered(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Seen::Lost(error.to_string())
    }
}
