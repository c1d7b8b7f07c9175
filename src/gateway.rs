//! Assembly: one running gateway out of its parts, and its end.
//!
//! ```text
//! settings ─▶ sockets ─▶ document (control) ─▶ proxy ─▶ accept ─▶ ready ··· drain ─▶ last request ─▶ exit
//! ```
//! Sockets come before the document: a port that is taken is told at once. Accepting comes last: whoever connects is served.

mod handing;
mod identities;
mod joining;
mod leaving;
mod listeners;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::bus::{Bus, ConnectError, Post};
use crate::control::drain::Drain;
use crate::control::last_good::LastGood;
use crate::control::{self, BootError, Handle};
use crate::fleet::Membership;
use crate::front::admission::Admission;
use crate::front::handover::{HandoverError, Inherited, Offer, Successor};
use crate::ledger::KeyError;
use crate::overload::Overload;
use crate::policy::{Revocations, unix_now};
use crate::proxy::{Proxy, Surroundings};
use crate::routes::{Env, Table};
use crate::settings::{self, Settings};
use crate::tasks::Tasks;
use crate::telemetry::{Telemetry, TelemetryError};
use crate::tls::CertificateError;
use crate::upstream::{Discovery, Pools};
use identities::Identities;
pub use leaving::Ended;
use listeners::Bound;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("listener `{name}`: `{address}` is no address")]
    Address { name: String, address: String },
    #[error("listener `{name}` cannot listen on {address}: {source}")]
    Listen { name: String, address: String, source: io::Error },
    #[error("listener `{name}`: {source}")]
    Certificate { name: String, source: CertificateError },
    #[error("certificate `{name}`: {source}")]
    NamedCertificate { name: String, source: CertificateError },
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("names cannot be resolved: {0}")]
    Dns(String),
    #[error("state directory {path}: {source}")]
    State { path: PathBuf, source: io::Error },
    #[error("what was revoked cannot be read from {path}: {source}")]
    Revocations { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Document(#[from] BootError),
    #[error(transparent)]
    Bus(#[from] ConnectError),
    #[error("routes.nats: no server of the bus is named (bus.urls), and there is no routes.fallback")]
    NoBus,
    #[error("routes.nats.signed_by: {0}")]
    Key(#[from] KeyError),
    #[error("admin: {0}")]
    Admin(#[from] admin::GuardError),
    #[error(transparent)]
    HandOver(#[from] HandoverError),
    #[error("cannot write {path}: {source}")]
    Ports { path: PathBuf, source: io::Error },
}

/// What starting needs beside the settings.
#[derive(Default)]
pub struct Options {
    /// Sockets of the process this one replaces, and the way to tell it that this one serves.
    pub inherited: Inherited,
    pub successor: Option<Successor>,
    /// Where the bound addresses are written as JSON, by listener name, once everything listens.
    pub ports_file: Option<PathBuf>,
    /// A bus within the process, in the place of the one that the settings name.
    pub bus: Option<Bus>,
}

/// A running gateway.
pub struct Gateway {
    settings: Settings,
    tasks: Tasks,
    telemetry: Arc<Telemetry>,
    drain: Drain,
    control: Handle,
    identities: Arc<Identities>,
    acceptors: TaskTracker,
    connections: TaskTracker,
    /// The health and admin listeners, and what ends them.
    operators: TaskTracker,
    operators_stop: CancellationToken,
    shutdown: tokio::sync::watch::Sender<bool>,
    /// Duplicates of the listening sockets by name, for a successor.
    sockets: Vec<(String, std::os::fd::OwnedFd)>,
    offer: Option<Offer>,
    /// What the fleet is told.
    post: Option<Post>,
}

/// Another process may revoke, too, while one takes over from the other.
async fn look_again(revocations: Arc<Revocations>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let looking = revocations.clone();
        let looked = tokio::task::spawn_blocking(move || looking.look_again(unix_now())).await;
        if let Ok(Err(error)) = looked {
            tracing::error!(%error, "what was revoked cannot be read again: what is known stays revoked");
        }
    }
}

impl Gateway {
    /// Starts everything. When it returns, every listener accepts.
    pub async fn start(settings: Settings, options: Options) -> Result<Gateway, StartError> {
        let Options { mut inherited, successor, ports_file, bus } = options;
        let tasks = Tasks::default();
        let (telemetry, sending) = Telemetry::open(&settings)?;
        if let Some(sending) = sending {
            tasks.spawn_forever("traces", sending);
        }
        let telemetry = Arc::new(telemetry);
        let bound = Bound::open(&settings, &mut inherited)?;
        let sockets = bound.duplicates();

        let membership = joining::join(&settings, bus, &tasks).await?;
        let local = settings.bus.as_ref().is_none_or(settings::Bus::is_local);
        let discovery = membership.as_ref().map(|Membership { bus, fleet, .. }| Discovery {
            bus: bus.clone(),
            bucket: fleet.found(),
            local,
        });
        let env = Env { on_bus: Some(discovery.is_some()), ..Env::of(&settings) };
        let pools = Pools::discovering(&settings.dns, tasks.clone(), discovery);
        let pools = Arc::new(pools.map_err(|error| StartError::Dns(error.to_string()))?);
        let last_good = match &settings.state.dir {
            Some(dir) => Some(LastGood::open(dir).map_err(|source| StartError::State { path: dir.clone(), source })?),
            None => None,
        };
        let revocations = match &settings.state.dir {
            Some(dir) => Revocations::open(dir, unix_now())
                .map_err(|source| StartError::Revocations { path: dir.clone(), source })?,
            None => Revocations::default(),
        };
        let revocations = Arc::new(revocations);
        tasks.spawn_forever("revocations", look_again(revocations.clone()));
        let shared = joining::sealed(&settings, membership.as_ref(), &tasks).await?;
        let identities = Arc::new(Identities::open(&settings, shared.as_ref())?);
        if let (Some(shared), Some(acme)) = (&shared, identities.acme()) {
            tasks.spawn_forever("fleet.certificates", joining::take_up(shared.changes(), acme.clone()));
        }
        let joining::Documents { source, references, fallback } =
            joining::documents(&settings, membership.as_ref(), &tasks)?;
        let keys = joining::keys(&settings, membership.as_ref());
        let (control, handle) = control::boot(control::Setup {
            source,
            pools: pools.clone(),
            env,
            metrics: telemetry.metrics.clone(),
            last_good,
            references,
            fallback,
            applying: {
                let (identities, tasks, revocations) = (identities.clone(), tasks.clone(), revocations.clone());
                let kept = settings.state.dir.as_ref().map(|dir| dir.join("keys"));
                Arc::new(move |table: &Table| {
                    // First: what comes after may fail, and then the table is in force all the same.
                    table.revoke_by(&revocations);
                    for issuer in &table.issuers {
                        let path = kept.as_ref().map(|folder| folder.join(format!("{}.json", issuer.name())));
                        issuer.ring().start(&tasks, path, keys.as_ref());
                    }
                    identities.apply(table);
                })
            },
        })
        .await?;

        let drain = Drain::default();
        let (shutdown, shutdown_watch) = tokio::sync::watch::channel(false);
        let overload = Arc::new(Overload::new(&settings.overload));
        tasks.spawn_forever("overload", overload.clone().run());
        let around = Surroundings {
            live: handle.live().clone(),
            telemetry: telemetry.clone(),
            challenges: identities.challenges(),
            overload: overload.clone(),
            shutdown: shutdown_watch.clone(),
        };
        let proxy = Arc::new(Proxy::new(&settings, &tasks, around));
        let admission = Arc::new(Admission::new(settings.limits.connections, settings.limits.connections_per_address));
        let gateway = Gateway {
            offer: None,
            post: membership.as_ref().map(|membership| membership.post.clone()),
            acceptors: TaskTracker::new(),
            connections: TaskTracker::new(),
            operators: TaskTracker::new(),
            operators_stop: CancellationToken::new(),
            control: handle,
            identities,
            tasks,
            telemetry,
            drain,
            shutdown,
            sockets,
            settings,
        };
        let addresses = bound.addresses();
        let state = admin::State {
            metrics: gateway.telemetry.metrics.clone(),
            access: gateway.telemetry.access.clone(),
            tasks: gateway.tasks.clone(),
            pools: pools.clone(),
            live: gateway.control.live().clone(),
            status: gateway.control.watch(),
            drain: gateway.drain.clone(),
            revocations: revocations.clone(),
            overload,
            membership: membership.clone(),
            certificates: {
                let identities = gateway.identities.clone();
                Arc::new(move || identities.shown())
            },
            listening: Arc::default(),
        };
        let listening = state.listening.clone();
        if let Some(membership) = &membership {
            let telling = joining::Telling {
                status: gateway.control.watch(),
                drain: gateway.drain.clone(),
                listening: listening.clone(),
                metrics: gateway.telemetry.metrics.clone(),
                pools,
                live: gateway.control.live().clone(),
                access: gateway.telemetry.access.clone(),
                revocations,
                requests_per_second: gateway.settings.fleet.requests_per_second,
                certificates: state.certificates.clone(),
            };
            joining::tell(membership, telling, &gateway.tasks);
        }
        gateway.accept(bound, proxy, admission, state, shutdown_watch)?;
        gateway.look_after_certificates();
        listening.store(true, Ordering::Release);
        gateway.tasks.spawn_forever("control", control.run());
        if let Some(path) = ports_file {
            listeners::write_ports(&path, &addresses).map_err(|source| StartError::Ports { path, source })?;
        }
        let mut gateway = gateway;
        if let Err(error) = gateway.succeed(successor).await {
            // What was accepted meanwhile is served before this process gives up.
            gateway.leave(Duration::ZERO);
            let ended = gateway.drained().await;
            gateway.end(ended).await;
            return Err(error);
        }
        tracing::info!(event = "gateway.serving", version = env!("CARGO_PKG_VERSION"), listeners = ?addresses, "serving");
        Ok(gateway)
    }
}
