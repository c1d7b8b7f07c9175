//! Named background tasks: counted, stopped at shutdown, loud when they end without being told to.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns tasks and knows which are running. Clones share one set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// Stops its task when dropped.
#[derive(Debug)]
pub struct TaskGuard(CancellationToken);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Tasks {
    /// Runs a task until it ends, the guard is dropped, or everything stops. A panic in it is logged and ends only it.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> TaskGuard {
        let stop = self.stop.child_token();
        self.run(name, stop.clone(), work);
        TaskGuard(stop)
    }

    /// As `spawn`, for work that ends by itself.
    pub fn spawn_detached(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.run(name, self.stop.clone(), work);
    }

    /// As `spawn`, for a task that lives as long as the process.
    pub fn spawn_forever(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.run(name, self.stop.clone(), async move {
            work.await;
            tracing::error!(task = name, "a task that should not end has ended");
        });
    }

    fn run(&self, name: &'static str, stop: CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
        let counted = Counted::new(self.running.clone(), name);
        self.tracker.spawn(async move {
            // The whole of it moves into the task, not only the field that is written.
            let mut counted = counted;
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
            counted.ended_well = true;
        });
    }

    /// How many tasks of each name run now.
    pub fn running(&self) -> BTreeMap<&'static str, usize> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops all tasks and waits for them.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// A pause between two tries, a quarter shorter to a quarter longer: those that failed together do not come back together.
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// Work that takes long has failed: it panicked, or there is no thread for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work was given up")]
pub struct GivenUp;

/// How much work aside has to wait for requests, on a core that both want (setpriority(2): a tenth of the weight).
const NICE: i32 = 10;

/// Does work that takes long on a thread of its own, behind those that carry requests. (Threads of a pool would keep the
/// priority, and only root may raise it again.)
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, GivenUp> {
    let (done, wait) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("aside".to_owned()).spawn(move || {
        // On Linux of this thread alone.
        let _ = rustix::process::setpriority_process(None, NICE);
        let _ = done.send(work());
    });
    thread.map_err(|_| GivenUp)?;
    wait.await.map_err(|_| GivenUp)
}

struct Counted {
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    name: &'static str,
    ended_well: bool,
}

impl Counted {
    fn new(running: Arc<Mutex<BTreeMap<&'static str, usize>>>, name: &'static str) -> Counted {
        *running.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Counted { running, name, ended_well: false }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
        if !self.ended_well && std::thread::panicking() {
            tracing::error!(task = self.name, "a task panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_aside_waits_for_requests() {
        let own = rustix::process::getpriority_process(None).unwrap();
        let nice = aside(|| rustix::process::getpriority_process(None).unwrap()).await;
        assert_eq!(nice, Ok(NICE.max(own)));
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), own, "of that thread alone");
        assert_eq!(aside(|| panic!("on purpose")).await, Err::<(), _>(GivenUp));
    }

    #[tokio::test]
    async fn a_dropped_guard_stops_the_task() {
        let tasks = Tasks::default();
        let guard = tasks.spawn("waiting", std::future::pending());
        assert_eq!(tasks.running().get("waiting"), Some(&1));
        drop(guard);
        tasks.stop().await;
        assert!(tasks.running().is_empty());
    }
}
