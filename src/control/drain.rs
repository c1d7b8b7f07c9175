//! Leaving without losing a request: one phase that everybody reads, two tokens that end things.
//!
//! ```text
//! Serving ──begin──▶ Draining ──delay──▶ stop_accepting ──grace or a second INT──▶ force
//!                    /ready says 503     listeners close                           what is left is cut off
//! ```
//! The process ends as soon as the last request is done; `force` only bounds the wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::tasks::{TaskGuard, Tasks};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// Not ready any more; requests in flight may finish until the deadline.
    Draining {
        deadline: Instant,
    },
    /// The last request is done.
    Done,
}

/// The phase of this process. Clones share it.
#[derive(Clone, Debug)]
pub struct Drain(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    phase: watch::Sender<Phase>,
    stop_accepting: CancellationToken,
    force: CancellationToken,
    countdown: Mutex<Option<TaskGuard>>,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain(Arc::new(Shared {
            phase: watch::Sender::new(Phase::Serving),
            stop_accepting: CancellationToken::new(),
            force: CancellationToken::new(),
            countdown: Mutex::default(),
        }))
    }
}

impl Drain {
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    pub fn is_serving(&self) -> bool {
        self.phase() == Phase::Serving
    }

    /// The phase as it changes.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// Returns when the process no longer serves, at once if it does not already.
    pub async fn begun(&self) {
        let mut phase = self.watch();
        // The sender lives in `self`: the wait cannot fail.
        let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
    }

    /// Cancelled when listeners must accept no more.
    pub fn stop_accepting(&self) -> &CancellationToken {
        &self.0.stop_accepting
    }

    /// Cancelled when what is left must be cut off.
    pub fn force(&self) -> &CancellationToken {
        &self.0.force
    }

    /// Not ready from now on; listeners stop after `delay`, and `grace` later what is left is cut off. Once begun, another
    /// call changes nothing.
    pub fn begin(&self, tasks: &Tasks, grace: Duration, delay: Duration) {
        let deadline = Instant::now() + delay + grace;
        let begun = self.0.phase.send_if_modified(|phase| {
            let serving = *phase == Phase::Serving;
            if serving {
                *phase = Phase::Draining { deadline };
            }
            serving
        });
        if !begun {
            return;
        }
        tracing::info!(
            event = "gateway.leaving",
            grace_seconds = grace.as_secs_f64(),
            delay_seconds = delay.as_secs_f64(),
            "draining: not ready any more"
        );
        // Cancelled here and not in the task: with no delay there is no moment in which one more is accepted.
        if delay.is_zero() {
            self.0.stop_accepting.cancel();
        }
        let (stop_accepting, force) = (self.0.stop_accepting.clone(), self.0.force.clone());
        let countdown = tasks.spawn("drain", async move {
            sleep(delay).await;
            stop_accepting.cancel();
            sleep_until(deadline).await;
            force.cancel();
        });
        *self.0.countdown.lock().unwrap_or_else(PoisonError::into_inner) = Some(countdown);
    }

    /// Cuts off what is left, now: the second INT.
    pub fn force_now(&self) {
        self.0.stop_accepting.cancel();
        self.0.force.cancel();
    }

    /// The last request is done.
    pub fn done(&self) {
        self.0.phase.send_replace(Phase::Done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn stops_accepting_after_the_delay_and_cuts_off_after_the_grace() {
        let (drain, tasks) = (Drain::default(), Tasks::default());
        assert!(drain.is_serving());
        let start = Instant::now();
        drain.begin(&tasks, GRACE, Duration::from_secs(5));
        assert_eq!(drain.phase(), Phase::Draining { deadline: start + Duration::from_secs(35) });
        assert!(!drain.stop_accepting().is_cancelled());
        drain.stop_accepting().cancelled().await;
        assert_eq!(start.elapsed().as_secs(), 5);
        assert!(!drain.force().is_cancelled());
        drain.force().cancelled().await;
        assert_eq!(start.elapsed().as_secs(), 35);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_delay_stops_accepting_at_once() {
        let (drain, tasks) = (Drain::default(), Tasks::default());
        drain.begin(&tasks, GRACE, Duration::ZERO);
        assert!(drain.stop_accepting().is_cancelled());
        assert!(!drain.force().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_begin_does_not_prolong() {
        let (drain, tasks) = (Drain::default(), Tasks::default());
        drain.begin(&tasks, GRACE, Duration::ZERO);
        let phase = drain.phase();
        tokio::time::advance(Duration::from_secs(10)).await;
        drain.begin(&tasks, GRACE, Duration::ZERO);
        assert_eq!(drain.phase(), phase);
    }

    #[tokio::test]
    async fn a_second_signal_cuts_off_at_once() {
        let (drain, tasks) = (Drain::default(), Tasks::default());
        drain.begin(&tasks, GRACE, GRACE);
        drain.force_now();
        assert!(drain.stop_accepting().is_cancelled() && drain.force().is_cancelled());
    }

    #[tokio::test]
    async fn tells_those_who_wait() {
        let (drain, tasks) = (Drain::default(), Tasks::default());
        let begun = drain.begun();
        tokio::pin!(begun);
        assert!(futures_util::poll!(begun.as_mut()).is_pending());
        drain.begin(&tasks, GRACE, Duration::ZERO);
        begun.await;
        drain.done();
        assert_eq!(drain.phase(), Phase::Done);
        drain.begun().await;
    }
}
