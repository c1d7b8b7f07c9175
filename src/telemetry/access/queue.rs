//! The queue between requests and the thread that writes lines.
//!
//! Two buffers change places: requests append to one while the other is written. The thread gathers for a moment before
//! it writes, so that under load there is one wake-up and one write for many lines.

use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::sink::Sink;
use crate::telemetry::metrics::Count;

/// Bytes of lines that wait to be written.
pub(super) const QUEUE_MAX: usize = 4 << 20;
/// A batch of this size is not kept waiting.
const BATCH: usize = 256 << 10;
/// How long a line may wait for others to be written with.
const GATHER: Duration = Duration::from_millis(20);
/// A sink that fails is complained about once in this time.
const COMPLAINT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Wakes the thread.
    work: Condvar,
    /// Wakes those who wait for lines to be written.
    done: Condvar,
    dropped: Count,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Lines ever accepted, and of these, written or lost.
    accepted: u64,
    settled: u64,
    writer: Writer,
    reopen: bool,
    /// Somebody waits: do not gather.
    hurry: bool,
    closing: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writer {
    /// Sleeps until there is something.
    Parked,
    /// Sleeps until there is enough, or for `GATHER`.
    Gathering,
    #[default]
    Busy,
}

impl Queue {
    pub(super) fn start(sink: Sink, dropped: Count) -> io::Result<Arc<Queue>> {
        let queue = Arc::new(Queue { state: Mutex::default(), work: Condvar::new(), done: Condvar::new(), dropped });
        let writer = queue.clone();
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(sink))?;
        Ok(queue)
    }

    /// Appends a line, or counts it as dropped when the queue is full.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.closing || state.lines.len() + line.len() > QUEUE_MAX {
            drop(state);
            return self.dropped.inc();
        }
        state.lines.extend_from_slice(line);
        state.accepted += 1;
        let wake = match state.writer {
            Writer::Parked => true,
            Writer::Gathering => state.lines.len() >= BATCH,
            Writer::Busy => false,
        };
        if wake {
            state.writer = Writer::Busy;
        }
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.work.notify_one();
    }

    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let mut state = self.lock();
        let accepted = state.accepted;
        state.hurry = true;
        self.work.notify_one();
        let waited = self.done.wait_timeout_while(state, timeout, |state| state.settled < accepted);
        waited.unwrap_or_else(PoisonError::into_inner).0.settled >= accepted
    }

    /// What is queued is still written; nothing more is taken.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    fn run(&self, mut sink: Sink) {
        let mut batch = Vec::new();
        let mut complained: Option<Instant> = None;
        loop {
            let mut state = self.next();
            let (accepted, closing) = (state.accepted, state.closing);
            let (reopen, lines) = (mem::take(&mut state.reopen), state.accepted - state.settled);
            mem::swap(&mut state.lines, &mut batch);
            drop(state);

            if reopen {
                sink.reopen();
            }
            if let Err(error) = sink.write(&batch) {
                self.dropped.add(lines);
                if complained.is_none_or(|at| at.elapsed() > COMPLAINT) {
                    complained = Some(Instant::now());
                    tracing::error!(%error, lines, "the access log cannot be written");
                }
            }
            batch.clear();
            self.lock().settled = accepted;
            self.done.notify_all();
            if closing {
                return;
            }
        }
    }

    /// Waits for something to do, then for more of it.
    fn next(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.lines.is_empty() && !state.reopen && !state.closing {
            state.hurry = false;
            state.writer = Writer::Parked;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writer = Writer::Gathering;
        let gather = |state: &mut State| state.lines.len() < BATCH && !state.closing && !state.hurry && !state.reopen;
        let waited = self.work.wait_timeout_while(state, GATHER, gather);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.writer = Writer::Busy;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
