//! The minimal backend: accounts, records and files over HTTP, kept in SQLite, told on the bus.
//!
//! ```text
//! request ─▶ serve (time, trace, refusals) ─▶ who asks ─▶ rules ─▶ store ─▶ answer
//!                                                                    └─ outbox, in the same transaction ─▶ bus
//! ```
//! It is what a gateway needs behind it for real, and no more: sign-in over other providers, one-time codes and several
//! writers are what PocketBase is for, and the gateway stands in front of that as well.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::bus::names::Fleet;
use crate::bus::{self, Bus, ConnectError, Role};
use crate::settings;
use crate::tasks::Tasks;
use keys::Ring;
use metrics::Metrics;
use outbox::Sender;
use passwords::Passwords;
use state::{Shared, State};
use store::Store;
pub use store::StoreError;
use throttle::Throttle;

mod accounts;
pub mod backup;
mod collections;
mod files;
mod filter;
mod first;
mod keys;
mod listing;
mod metrics;
mod moment;
mod outbox;
mod pages;
mod passwords;
mod records;
mod refusal;
mod rules;
mod seeing;
mod serve;
mod sessions;
mod stall;
mod state;
mod store;
mod throttle;
mod tokens;
mod who;

/// Uploads at once: each holds a file open.
const UPLOADS_MAX: usize = 16;
/// How often what has ended is swept.
const SWEEP: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("`{0}` is no address")]
    Address(String),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error("data: {0}")]
    Store(#[from] StoreError),
    #[error("data: {path}: {source}")]
    Files { path: PathBuf, source: io::Error },
    #[error("bus: {0}")]
    Bus(#[from] ConnectError),
    #[error("admin: {0}")]
    Admin(String),
    #[error("{0}")]
    Failed(String),
}

impl From<refusal::Refusal> for StartError {
    fn from(refusal: refusal::Refusal) -> StartError {
        StartError::Failed(refusal.to_string())
    }
}

/// A running backend.
pub struct Backend {
    address: SocketAddr,
    state: State,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<usize>,
}

impl Backend {
    /// Opens everything, and serves from when this returns. Events go to `bus`, else to the one the words name, if any.
    pub async fn start(
        words: settings::backend::Backend,
        bus: Option<Bus>,
        tasks: &Tasks,
    ) -> Result<Backend, StartError> {
        let address: SocketAddr = words.listen.parse().map_err(|_| StartError::Address(words.listen.clone()))?;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| StartError::Listen { address: words.listen.clone(), source })?;
        let address = listener.local_addr().map_err(|error| StartError::Failed(error.to_string()))?;
        let data = words.data.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&data)).await;
        let store = opened.map_err(|error| StartError::Failed(error.to_string()))??;
        let shelf = files::Shelf::open(&words.data);
        let shelf = shelf.map_err(|source| StartError::Files { path: files::directory(&words.data), source })?;
        let bus = match bus {
            Some(bus) => Some(bus),
            None if words.bus.servers().is_empty() => None,
            None => Some(bus::open(&words.bus, outbox::SERVICE, Role::Service).await?),
        };
        let metrics = Metrics::new().map_err(|error| StartError::Failed(error.to_string()))?;
        let state: State = Arc::new(Shared {
            store,
            ring: ArcSwap::default(),
            passwords: Passwords::new(words.limits.passwords).map_err(StartError::Failed)?,
            throttle: Throttle::new(words.limits.failures),
            metrics: Arc::new(metrics),
            shelf,
            uploads: Semaphore::new(UPLOADS_MAX),
            has_bus: bus.is_some(),
            leaving: AtomicBool::new(false),
            words,
        });
        let shared = state.clone();
        state.store.read(move |connection| shared.shelf.sweep(connection)).await?;
        state.turn_keys().await?;
        first::admin(&state).await.map_err(|refusal| StartError::Admin(refusal.to_string()))?;
        run_tasks(&state, bus, tasks);
        let stop = CancellationToken::new();
        let limits = &state.words.limits;
        let (router, grace) = (serve::router(state.clone()), state.words.drain.grace.0);
        let bounds = serve::Bounds { connections: limits.connections, write_idle: limits.write_idle.0, grace };
        let serving = tokio::spawn(serve::serve(listener, router, bounds, stop.clone()));
        tracing::info!(%address, data = %state.words.data.display(), bus = state.has_bus, "the backend serves");
        Ok(Backend { address, state, stop, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leaves: not ready at once, requests under way are finished, the database is closed whole.
    pub async fn stop(self, tasks: &Tasks) {
        self.state.leaving.store(true, Ordering::Relaxed);
        tokio::time::sleep(self.state.words.drain.delay.0).await;
        self.stop.cancel();
        match self.serving.await {
            Ok(0) => tracing::info!("every request is done"),
            Ok(cut_off) => tracing::warn!(cut_off, "the grace period is over: requests were cut off"),
            Err(error) => tracing::error!(%error, "serving has failed"),
        }
        tasks.stop().await;
        self.state.store.close().await;
    }
}

fn run_tasks(state: &State, bus: Option<Bus>, tasks: &Tasks) {
    if let Some(bus) = bus {
        let fleet = Fleet::new(&state.words.bus.fleet);
        let sender = Sender { store: state.store.clone(), bus, fleet, metrics: state.metrics.clone() };
        tasks.spawn_forever("backend_outbox", sender.run(state.store.told()));
    }
    let turning = state.clone();
    tasks.spawn_forever("backend_keys", async move {
        loop {
            tokio::time::sleep(turning.times().look()).await;
            let known: Arc<Ring> = turning.ring.load_full();
            if keys::is_due(&known, turning.times(), moment::now())
                && let Err(error) = turning.turn_keys().await
            {
                tracing::error!(%error, "the signing keys cannot be turned; the old ones sign on");
            }
        }
    });
    let sweeping = state.clone();
    tasks.spawn_forever("backend_sweep", async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            let shared = sweeping.clone();
            let swept = sweeping.store.write(move |connection| {
                let now = moment::now();
                sessions::sweep(connection, now)?;
                shared.shelf.clear(connection, now)
            });
            if let Err(error) = swept.await {
                tracing::warn!(%error, "what has ended cannot be swept");
            }
        }
    });
}
