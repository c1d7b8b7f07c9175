//! The access log: one JSON line per request.
//!
//! A request writes its line into a buffer of its thread and appends it to one bounded queue; a thread of its own writes
//! batches. A full queue drops the newest line and counts it: the log never holds up a request.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::broadcast;

use super::metrics::Count;
use crate::settings;

mod date;
mod entry;
mod json;
mod queue;
mod redact;
mod sink;

pub use entry::{Durations, Entry};
use queue::Queue;
pub use redact::Redact;
use sink::Sink;

/// The access log. Clones share it; the last one gone ends its thread.
#[derive(Clone, Debug)]
pub struct AccessLog(Arc<Log>);

#[derive(Debug)]
struct Log {
    /// `None`: `access = "off"`.
    queue: Option<Arc<Queue>>,
    redact: Redact,
    taps: broadcast::Sender<Arc<TapLine>>,
    /// Read before every line; the channel's own count takes a lock.
    listeners: Arc<AtomicUsize>,
}

/// A line as those who listen get it.
#[derive(Debug)]
pub struct TapLine {
    pub route: String,
    pub status: u16,
    /// Without the line feed.
    pub json: String,
}

/// Lines that a listener may lag behind before it misses some.
const TAP_LINES: usize = 256;

/// A buffer that a long line has grown beyond this is given back.
const LINE_BUFFER_MAX: usize = 64 << 10;

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl AccessLog {
    /// Opens what `settings.access` names. Lines lost are counted in `dropped`.
    pub fn open(settings: &settings::Log, dropped: Count) -> io::Result<AccessLog> {
        let queue = match Sink::open(&settings.access)? {
            Some(sink) => Some(Queue::start(sink, dropped)?),
            None => None,
        };
        Ok(AccessLog(Arc::new(Log {
            queue,
            redact: Redact::new(settings.redact_query.0.iter().map(String::as_str)),
            taps: broadcast::Sender::new(TAP_LINES),
            listeners: Arc::default(),
        })))
    }

    /// Writes the line of a request that has ended.
    pub fn record(&self, entry: &Entry<'_>) {
        let listened = self.0.listeners.load(Ordering::Relaxed) > 0;
        if self.0.queue.is_none() && !listened {
            return;
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            entry.write(&self.0.redact, line);
            if let Some(queue) = &self.0.queue {
                queue.push(line);
            }
            if listened {
                self.tell(entry, line);
            }
            line.shrink_to(LINE_BUFFER_MAX);
        });
    }

    /// Names whose values are kept out of logs; span attributes use the same.
    pub fn redact(&self) -> &Redact {
        &self.0.redact
    }

    /// Lines from now on, for one who listens. Costs nothing while nobody does.
    pub fn subscribe(&self) -> Tap {
        self.0.listeners.fetch_add(1, Ordering::Relaxed);
        Tap { lines: self.0.taps.subscribe(), listeners: self.0.listeners.clone() }
    }

    /// Opens the file again, under its name of now: after rotation, on USR1.
    pub fn reopen(&self) {
        if let Some(queue) = &self.0.queue {
            queue.reopen();
        }
    }

    /// Blocks until all lines recorded so far are written, or the time is over. `false`: the time was over.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.0.queue.as_ref().is_none_or(|queue| queue.flush(timeout))
    }

    fn tell(&self, entry: &Entry<'_>, line: &[u8]) {
        let json = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        // An error means that the last listener has just left.
        let _ = self.0.taps.send(Arc::new(TapLine { route: entry.route.to_owned(), status: entry.status, json }));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
    }
}

/// One who listens to lines as they are written.
#[derive(Debug)]
pub struct Tap {
    lines: broadcast::Receiver<Arc<TapLine>>,
    listeners: Arc<AtomicUsize>,
}

/// What a listener gets.
#[derive(Debug)]
pub enum Tapped {
    Line(Arc<TapLine>),
    /// The listener was too slow and missed this many lines.
    Missed(u64),
}

impl Tap {
    /// The next line; `None` when the log is gone. May be dropped at any await.
    pub async fn next(&mut self) -> Option<Tapped> {
        match self.lines.recv().await {
            Ok(line) => Some(Tapped::Line(line)),
            Err(broadcast::error::RecvError::Lagged(lines)) => Some(Tapped::Missed(lines)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A time as log lines have it.
pub fn rfc3339(at: std::time::SystemTime) -> String {
    let mut out = Vec::with_capacity(24);
    date::push(&mut out, at);
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests;
