//! A document in a file, followed.
//!
//! The directory is watched, not the file: editors write a new file and rename it, Kubernetes swaps a symbolic link. A
//! slow poll backs the events up (network file systems have none, and a watch can be lost). A burst of events is waited
//! out: 50 ms of quiet, 500 ms at most while somebody still writes. A file that is read half-written is a bad document,
//! which changes nothing; the next event reads it again.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Publisher, Source, SourceError, Trigger, Update, Yield, channel};
use crate::stamp::Stamp;
use crate::tasks::Tasks;

/// Longest text that is read: 100,000 routes take a quarter of it.
pub const TEXT_MAX: u64 = 64 << 20;

const QUIET: Duration = Duration::from_millis(50);
const QUIET_AT_MOST: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_secs(2);

/// Follows a file. The first thing yielded is what it holds now.
pub fn follow(path: PathBuf, tasks: &Tasks) -> Source {
    let (publisher, source) = channel();
    tasks.spawn_forever("source.file", Follower::new(path, publisher).run());
    source
}

/// The whole text of a file, bounded.
pub fn read(path: &Path) -> Result<Arc<str>, SourceError> {
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(SourceError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(TEXT_MAX)).unwrap_or_default());
    file.take(TEXT_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > TEXT_MAX {
        return Err(SourceError::TooLong(path.to_owned()));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| SourceError::NotText { path: path.to_owned(), at: error.utf8_error().valid_up_to() })?;
    Ok(text.into())
}

fn unreadable(path: &Path, error: &io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::NotFound => SourceError::Missing(path.to_owned()),
        _ => SourceError::Unreadable { path: path.to_owned(), message: error.to_string() },
    }
}

/// What the watcher's own thread tells the task.
#[derive(Default)]
struct Signs {
    something: Notify,
    /// The file itself was named by an event: it is read whatever its stamp says.
    named: AtomicBool,
    /// Somebody writes and has not closed the file.
    writing: AtomicBool,
}

impl Signs {
    fn see(&self, event: &notify::Event, file: &OsStr) {
        let named = event.need_rescan() || event.paths.iter().any(|path| path.file_name() == Some(file));
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) if named => {
                self.writing.store(false, Ordering::Relaxed);
            }
            // Reading makes these; answering them by reading would never end.
            EventKind::Access(_) => return,
            EventKind::Modify(notify::event::ModifyKind::Data(_)) if named => {
                self.writing.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
        if named {
            self.named.store(true, Ordering::Relaxed);
        }
        self.something.notify_one();
    }
}

struct Follower {
    path: PathBuf,
    publisher: Publisher,
    signs: Arc<Signs>,
    stamp: Option<Stamp>,
    /// The trouble that was yielded last: it is yielded once, not at every poll.
    trouble: Option<SourceError>,
}

impl Follower {
    fn new(path: PathBuf, publisher: Publisher) -> Follower {
        Follower { path, publisher, signs: Arc::default(), stamp: None, trouble: None }
    }

    async fn run(mut self) {
        // Watching begins before the first look, so that no change falls between the two.
        let mut watcher = self.watch();
        self.look(Trigger::Noticed).await;
        loop {
            let poll = Instant::now() + POLL;
            let trigger = tokio::select! {
                () = self.publisher.asked() => Trigger::Asked,
                () = self.signs.something.notified() => self.settle().await,
                () = sleep_until(poll) => Trigger::Noticed,
            };
            let named = self.signs.named.swap(false, Ordering::Relaxed);
            if watcher.is_none() {
                watcher = self.watch();
            }
            if named || trigger == Trigger::Asked || Stamp::of(&self.path) != self.stamp {
                self.look(trigger).await;
            }
        }
    }

    /// Waits out a burst of events, unless somebody asks: who asks means now.
    async fn settle(&self) -> Trigger {
        let latest = Instant::now() + QUIET_AT_MOST;
        let trigger = loop {
            let quiet = if self.signs.writing.load(Ordering::Relaxed) { latest } else { Instant::now() + QUIET };
            tokio::select! {
                () = self.publisher.asked() => break Trigger::Asked,
                more = timeout_at(quiet.min(latest), self.signs.something.notified()) => {
                    if more.is_err() || Instant::now() >= latest {
                        break Trigger::Noticed;
                    }
                }
            }
        };
        self.signs.writing.store(false, Ordering::Relaxed);
        trigger
    }

    async fn look(&mut self, trigger: Trigger) {
        // Taken before the text: a change while it is read shows at the next poll even if its event is lost.
        self.stamp = Stamp::of(&self.path);
        let path = self.path.clone();
        let text = match tokio::task::spawn_blocking(move || read(&path)).await {
            Ok(text) => text,
            Err(error) => Err(SourceError::Unreadable { path: self.path.clone(), message: error.to_string() }),
        };
        let next: Yield =
            text.map(|text| Update { text, name: self.path.display().to_string(), trigger, revision: None });
        let trouble = next.as_ref().err().cloned();
        let same_trouble = trouble.is_some() && trouble == self.trouble && trigger == Trigger::Noticed;
        self.trouble = trouble;
        if !same_trouble {
            self.publisher.publish(next);
        }
    }

    fn watch(&self) -> Option<notify::RecommendedWatcher> {
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = self.path.file_name().unwrap_or_default().to_owned();
        let signs = self.signs.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            Ok(event) => signs.see(&event, &file),
            Err(_) => signs.something.notify_one(),
        })
        .and_then(|mut watcher| watcher.watch(directory, RecursiveMode::NonRecursive).map(|()| watcher));
        match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::debug!(directory = %directory.display(), %error, "no file events; the file is polled");
                None
            }
        }
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
