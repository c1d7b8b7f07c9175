//! The one loop that changes a gateway, and how it is told to leave.
//!
//! ```text
//! source ─▶ same as now? ─▶ parse, compile, [[test]]   off the request threads
//!                 │                 │ an error: nothing changes, everybody is told
//!                 ▼                 ▼
//!              nothing            warm new names (2 s at most) ─▶ adopt pools ─▶ swap ─▶ announce ─▶ keep as last good
//! ```
//! Pools get their specs before the swap, so that no request sees a route whose pool is empty for want of it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

pub mod compile;
mod difference;
pub mod drain;
mod force;
pub mod last_good;
pub mod proposal;
mod referred;
pub mod signals;
pub mod status;

pub use compile::{Compiled, Refused, Text, compile};
pub use status::{Serving, Status};

use crate::config::References;
use crate::routes::{self, Live};
use crate::source::{Reread, Source, SourceError};
use crate::telemetry::Metrics;
use crate::upstream::Pools;
use force::Force;
use last_good::{LastGood, LastGoodError};

/// What the loop works with.
pub struct Setup {
    pub source: Source,
    pub pools: Arc<Pools>,
    pub env: routes::Env,
    pub metrics: Metrics,
    /// Without a state directory nothing is kept.
    pub last_good: Option<LastGood>,
    /// How references are read, made anew for every document.
    pub references: Arc<dyn Fn() -> References + Send + Sync>,
    /// A document of this machine, served at start when neither the source nor `last_good` has one.
    pub fallback: Option<Fallback>,
    /// Told of every table before requests see it: what beside routes a document speaks of.
    pub applying: Applying,
}

/// See `Setup::fallback`.
pub struct Fallback {
    pub path: PathBuf,
    /// Of a document of this machine, whatever those of the source may refer to.
    pub references: Arc<dyn Fn() -> References + Send + Sync>,
}

/// See `Setup::applying`.
pub type Applying = Arc<dyn Fn(&routes::Table) + Send + Sync>;

/// Why a gateway has nothing to serve.
#[derive(Debug, thiserror::Error)]
#[error("{fault}{kept}")]
pub struct BootError {
    pub fault: Fault,
    pub kept: Kept,
}

/// Why what a source yielded is not in force.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("no document: {0}")]
    NoSource(SourceError),
    #[error("the document is invalid\n\n{report}", report = .0.report())]
    Refused(Refused),
}

/// Why the last good document did not help either.
#[derive(Debug, thiserror::Error)]
pub enum Kept {
    #[error("")]
    NoState,
    #[error("\nno last good document is kept yet")]
    None,
    #[error("\nthe last good document cannot be used: {0}")]
    Unusable(#[from] LastGoodError),
    #[error("\nthe last good document is not valid here any more\n\n{0}")]
    Refused(String),
    #[error("\nthe fallback document cannot be used: {0}")]
    Fallback(String),
}

/// The loop. Dropping it ends changes; what is in force stays.
pub struct Control {
    source: Source,
    force: Force,
    shared: Arc<Shared>,
}

/// What the rest of the gateway sees of the loop.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

type Hook = Box<dyn Fn() + Send + Sync>;

struct Shared {
    live: Arc<Live>,
    status: watch::Sender<Arc<Status>>,
    reload: Notify,
    reread: Reread,
    hooks: Mutex<Vec<Arc<Hook>>>,
}

/// Puts a first document in force: what the source holds, or else the last good one, loudly.
pub async fn boot(setup: Setup) -> Result<(Control, Handle), BootError> {
    let (mut force, mut source) =
        Force::new(setup).map_err(|refused| BootError { fault: Fault::Refused(refused), kept: Kept::NoState })?;
    if let Err(fault) = force.take(source.next().await).await
        && let Err(kept) = force.fall_back().await
    {
        return Err(BootError { fault, kept });
    }
    let shared = Arc::new(Shared {
        live: force.live.clone(),
        status: force.told(),
        reload: Notify::new(),
        reread: source.rereader(),
        hooks: Mutex::default(),
    });
    Ok((Control { source, force, shared: shared.clone() }, Handle(shared)))
}

impl Control {
    /// Follows the source for as long as the process lives.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                () = self.force.referred.changed() => self.shared.reread.ask(),
                () = self.shared.reload.notified() => self.reload().await,
                next = self.source.next() => {
                    // What is wrong stands in the status and in the log.
                    let _ = self.force.take(next).await;
                }
            }
        }
    }

    async fn reload(&self) {
        let hooks = self.shared.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let run = move || hooks.iter().for_each(|hook| hook());
        if let Err(error) = tokio::task::spawn_blocking(run).await {
            tracing::error!(%error, "reloading failed in part");
        }
        self.shared.reread.ask();
    }
}

impl Handle {
    pub fn live(&self) -> &Arc<Live> {
        &self.0.live
    }

    pub fn status(&self) -> Arc<Status> {
        self.0.status.borrow().clone()
    }

    /// The status as it changes: after every document that was looked at, whatever became of it.
    pub fn watch(&self) -> watch::Receiver<Arc<Status>> {
        self.0.status.subscribe()
    }

    /// Reads the document, what it refers to and what the hooks look after again. Returns at once.
    pub fn reload(&self) {
        self.0.reload.notify_one();
    }

    /// Runs at every reload, on a thread that may block.
    pub fn on_reload(&self, hook: Hook) {
        self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(hook));
    }
}

#[cfg(test)]
mod tests;
