//! The controller: control plane and dashboard of a fleet.
//!
//! ```text
//!            ┌─ picture   nodes, documents, alerts: followed from buckets ─┐
//! bus ───────┼─ store     events, request logs: read from streams ────────┼─▶ API, pages ─▶ operators
//!            └─ meter     traffic: heard, saved every 10 s ────────────────┘        │ push, roll back
//!                              │                                                    ▼
//!            seat (a lease) ─▶ alerts, trials: decided by one of several          ledger
//! ```
//! It is on no request's way: without it gateways serve on. Every controller collects and shows; one acts.

mod access;
mod alerts;
mod api;
mod canary;
mod chart;
mod collect;
mod documents;
mod forget;
mod health;
mod meter;
mod pages;
mod picture;
mod seat;
mod services;
mod store;
mod tls;
mod verdict;
mod views;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use store::StoreError;
pub use tls::TlsError;

use crate::admin;
use crate::bus::names::Fleet;
use crate::bus::{Bus, BusError, Message};
use crate::ledger::{KeyError, Ledger, Signer, now_ms};
use crate::settings;
use crate::tasks::Tasks;
use crate::telemetry::access::rfc3339;

/// For the seat to be given back, so that another controller need not wait for its term to end.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// Who speaks, in events.
const SERVICE: &str = "controller";

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("there is neither a token nor a client_ca: anybody could push documents")]
    Open,
    #[error("`{0}` is no address to listen on")]
    Address(String),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error("{path}: {source}")]
    Store { path: PathBuf, source: StoreError },
    #[error("documents.sign: {0}")]
    Key(#[from] KeyError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What everything here works with.
struct State {
    settings: settings::Controller,
    bus: Bus,
    fleet: Fleet,
    ledger: Ledger,
    signer: Option<Signer>,
    store: store::Store,
    picture: picture::Picture,
    meter: meter::Meter,
    rules: Arc<alerts::Rules>,
    access: access::Access,
    /// Whether this controller has the seat.
    active: watch::Sender<bool>,
    leaving: CancellationToken,
    gave_back: CancellationToken,
}

impl State {
    /// Writes an event. A second one of the same id is the first.
    async fn event(&self, event: &str, id: &str, more: Json) -> Result<(), BusError> {
        let mut body = json!({
            "id": id, "trace_id": hex::<16>(), "span_id": hex::<8>(), "service": SERVICE, "event": event,
            "timestamp": rfc3339(std::time::UNIX_EPOCH + Duration::from_millis(now_ms())),
        });
        if let (Some(body), Json::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        let message = Message { subject: self.fleet.event(SERVICE, event), payload: Bytes::from(body.to_string()) };
        let append = self.bus.append(message, id);
        tokio::time::timeout(APPEND, append).await.unwrap_or(Err(BusError::Timeout(APPEND)))
    }
}

/// How long the bus may take to keep an event.
const APPEND: Duration = Duration::from_secs(5);

fn hex<const N: usize>() -> String {
    (0..N).map(|_| format!("{:02x}", fastrand::u8(..))).collect()
}

/// A running controller.
pub struct Controller {
    state: Arc<State>,
    address: SocketAddr,
    tasks: Tasks,
    serving: TaskTracker,
}

impl Controller {
    /// Starts everything. When it returns the dashboard accepts; that the bus cannot be reached yet is no failure.
    pub async fn start(settings: settings::Controller, bus: Bus, tasks: Tasks) -> Result<Controller, StartError> {
        if settings.token.as_ref().is_none_or(|token| token.expose().trim().is_empty()) && settings.client_ca.is_none()
        {
            return Err(StartError::Open);
        }
        let wanted = &settings.listen.address;
        let address: SocketAddr = wanted.parse().map_err(|_| StartError::Address(wanted.clone()))?;
        let failed = |source| StartError::Listen { address: wanted.clone(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let listener = match tls::config(&settings)? {
            Some(config) => admin::Listener::Tls(listener, config),
            None => admin::Listener::Tcp(listener),
        };
        let signer = settings.documents.sign.as_ref().map(Signer::new).transpose()?;
        let store = store::Store::open(&settings.data)
            .map_err(|source| StartError::Store { path: settings.data.clone(), source })?;
        let state = Arc::new(State {
            fleet: Fleet::new(settings.bus.fleet.clone()),
            ledger: Ledger::new(bus.clone(), settings.bucket()),
            signer,
            store,
            picture: picture::Picture::default(),
            meter: meter::Meter::default(),
            rules: Arc::default(),
            access: access::Access::new(settings.token.as_ref()),
            active: watch::Sender::new(false),
            leaving: CancellationToken::new(),
            gave_back: CancellationToken::new(),
            settings,
            bus,
        });
        begin(&state, &tasks);
        let serving = TaskTracker::new();
        let stopped = state.leaving.clone();
        serving.spawn(admin::serve(listener, pages::router(state.clone()), stopped));
        Ok(Controller { state, address, tasks, serving })
    }

    /// Where the dashboard is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it: answers under way are finished, the seat is given back, what was heard is saved.
    pub async fn leave(self) {
        self.state.leaving.cancel();
        self.serving.close();
        self.serving.wait().await;
        if *self.state.active.borrow() {
            let _ = tokio::time::timeout(GIVE_BACK, self.state.gave_back.cancelled()).await;
        }
        collect::save_now(&self.state).await;
        self.tasks.stop().await;
    }
}

fn begin(state: &Arc<State>, tasks: &Tasks) {
    tasks.spawn_forever("controller.make", collect::make(state.clone()));
    tasks.spawn_forever("controller.events", collect::read(state.clone(), collect::What::Events));
    tasks.spawn_forever("controller.requests", collect::read(state.clone(), collect::What::Requests));
    tasks.spawn_forever("controller.traffic", collect::hear(state.clone()));
    tasks.spawn_forever("controller.save", collect::save(state.clone()));
    tasks.spawn_forever("controller.prune", collect::prune(state.clone()));
    for part in picture::Part::ALL {
        tasks.spawn_forever("controller.follow", picture::follow(state.clone(), part));
    }
    for service in &state.settings.watch {
        tasks.spawn_forever("controller.watch", services::watch(state.clone(), service.clone()));
    }
    let rules = alerts::follow_rules(state.rules.clone(), state.settings.alerts.clone());
    tasks.spawn_forever("controller.rules", rules);
    tasks.spawn_forever("controller.seat", seat::hold(state.clone()));
}
