//! A gateway's part in its fleet: the bus, where its document comes from, what it tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::StartError;
use crate::bus::names::Fleet;
use crate::bus::{self, Bus, Post, Role};
use crate::config::{References, Secrets};
use crate::control::drain::Drain;
use crate::control::{Fallback, Status};
use crate::fleet::{self, CertificateReport, Counted, Membership, Reporter, RouteTraffic, Traffic, UpstreamTraffic};
use crate::ledger::{Ledger, Verifier, now_ms};
use crate::policy::{Revocations, SharedKeys};
use crate::routes::Live;
use crate::seal::Seal;
use crate::settings::{RoutesOnBus, Settings};
use crate::source::{self, Source};
use crate::tasks::Tasks;
use crate::telemetry::metrics::{BOUNDS_US, RouteMetrics};
use crate::telemetry::{self, AccessLog, Metrics};
use crate::tls::{Acme, Shared, Shown};
use crate::upstream::{EndpointState, Pools};

/// How long a start waits for what the fleet keeps.
const READ: Duration = Duration::from_secs(3);

/// Joins the fleet that the settings name, if they name one. That no server of the bus answers yet is no failure.
pub(super) async fn join(
    settings: &Settings,
    within: Option<Bus>,
    tasks: &Tasks,
) -> Result<Option<Membership>, StartError> {
    let node = settings.node_id();
    let words = settings.bus.clone().unwrap_or_default();
    let bus = match within {
        Some(bus) => bus,
        None if words.servers().is_empty() => return Ok(None),
        None => bus::open(&words, &format!("tollgate gateway {node}"), Role::Gateway).await?,
    };
    let post = Post::new(words.buffer);
    tasks.spawn_forever("bus.post", post.clone().run(bus.clone()));
    let region = settings.node.region.clone().filter(|region| !region.is_empty());
    let membership = Membership { bus, fleet: Fleet::new(words.fleet.clone()), node: node.into(), region, post };
    let teller = membership.clone();
    telemetry::listen(move |happened| teller.tell(happened));
    Ok(Some(membership))
}

/// What the fleet keeps sealed, if the settings say how. Waits a moment for it: what is there is not ordered again.
pub(super) async fn sealed(
    settings: &Settings,
    membership: Option<&Membership>,
    tasks: &Tasks,
) -> Result<Option<Shared>, StartError> {
    let (Some(membership), Some(seal)) = (membership, settings.seal().and_then(Seal::new)) else { return Ok(None) };
    let Membership { bus, fleet, node, .. } = membership;
    let dir = settings.state.dir.as_deref();
    let failed = |source| StartError::State { path: dir.map(Into::into).unwrap_or_default(), source };
    let shared = Shared::new(bus.clone(), fleet.sealed(), seal, node, dir).map_err(failed)?;
    let mut changes = shared.changes();
    tasks.spawn_forever("fleet.sealed", shared.clone().follow());
    if tokio::time::timeout(READ, changes.changed()).await.is_err() {
        tracing::warn!("what the fleet keeps sealed cannot be read yet: no certificate is ordered until it can");
    }
    Ok(Some(shared))
}

/// Where keys of issuers are had from others and told to them. Only under a seal: whoever can write keys can make tokens.
pub(super) fn keys(settings: &Settings, membership: Option<&Membership>) -> Option<SharedKeys> {
    let (membership, seal) = (membership?, settings.seal().and_then(Seal::new)?);
    let Membership { bus, fleet, node, .. } = membership;
    Some(SharedKeys::new(bus.clone(), fleet.sealed(), seal, node))
}

/// Takes up what other gateways obtain, for as long as the process lives.
pub(super) async fn take_up(mut changes: watch::Receiver<u64>, acme: Arc<Acme>) {
    while changes.changed().await.is_ok() {
        let acme = acme.clone();
        if tokio::task::spawn_blocking(move || acme.look_at_store()).await.is_err() {
            tracing::error!("what another gateway obtained is not taken up");
        }
    }
}

/// Where documents come from and what they may refer to.
pub(super) struct Documents {
    pub(super) source: Source,
    pub(super) references: Arc<dyn Fn() -> References + Send + Sync>,
    pub(super) fallback: Option<Fallback>,
}

pub(super) fn documents(
    settings: &Settings,
    membership: Option<&Membership>,
    tasks: &Tasks,
) -> Result<Documents, StartError> {
    let secrets: Secrets = Arc::new(settings.secrets.clone());
    let local = {
        let secrets = secrets.clone();
        Arc::new(move || References::resolve().with_secrets(secrets.clone()))
    };
    let (nats, membership) = match (&settings.routes.file, &settings.routes.nats, membership) {
        (Some(file), _, _) => {
            let source = source::file::follow(file.clone(), tasks);
            return Ok(Documents { source, references: local, fallback: None });
        }
        (None, Some(nats), Some(membership)) => (nats, membership),
        // `${NATS_URL:-}` may be empty: then there is no bus, and with a fallback that is a way to run.
        (None, _, _) => match &settings.routes.fallback {
            Some(file) => {
                let source = source::file::follow(file.clone(), tasks);
                return Ok(Documents { source, references: local, fallback: None });
            }
            None => return Err(StartError::NoBus),
        },
    };
    let RoutesOnBus { bucket: _, signed_by, wait } = nats;
    let bucket = settings.bucket().unwrap_or_default();
    let follow = source::bus::Follow {
        ledger: Ledger::new(membership.bus.clone(), bucket.clone()),
        verifier: Verifier::new(signed_by.iter())?,
        node: membership.node.to_string(),
        wait: wait.0,
        floor: match &settings.state.dir {
            Some(dir) => source::floor::Floor::open(dir, &bucket)
                .map_err(|source| StartError::State { path: dir.clone(), source })?,
            None => source::floor::Floor::default(),
        },
    };
    Ok(Documents {
        source: source::bus::follow(follow, tasks),
        references: Arc::new(move || References::without_environment().with_secrets(secrets.clone()).foreign()),
        fallback: settings.routes.fallback.clone().map(|path| Fallback { path, references: local }),
    })
}

/// What a member tells of itself, and has in common with the others.
pub(super) struct Telling {
    pub(super) status: watch::Receiver<Arc<Status>>,
    pub(super) drain: Drain,
    pub(super) listening: Arc<AtomicBool>,
    pub(super) metrics: Metrics,
    pub(super) pools: Arc<Pools>,
    pub(super) live: Arc<Live>,
    pub(super) access: AccessLog,
    pub(super) revocations: Arc<Revocations>,
    pub(super) requests_per_second: u32,
    pub(super) certificates: Arc<dyn Fn() -> Vec<Shown> + Send + Sync>,
}

pub(super) fn tell(membership: &Membership, telling: Telling, tasks: &Tasks) {
    let Telling {
        status,
        drain,
        listening,
        metrics,
        pools,
        live,
        access,
        revocations,
        requests_per_second,
        certificates,
    } = telling;
    let ready = Arc::new(move || listening.load(Ordering::Acquire));
    let certificates = Arc::new(move || certificates().into_iter().map(certificate).collect());
    let reporter = Reporter { membership: membership.clone(), status, drain, ready, certificates };
    tasks.spawn_forever("fleet.report", reporter.run());
    tasks.spawn_forever("fleet.revocations", fleet::share_revocations(membership.clone(), revocations));
    tasks.spawn_forever("fleet.usage", fleet::share_usage(membership.clone(), live.clone()));
    tasks.spawn_forever("fleet.tail", fleet::answer(membership.clone(), access.clone()));
    if requests_per_second > 0 {
        let metrics = metrics.clone();
        let ended = move || {
            let routes = metrics.all_routes();
            let all = routes.iter().map(|(_, route)| route).chain([metrics.unrouted()]);
            all.map(|route| route.by_class().iter().sum::<u64>()).sum()
        };
        let shipping = fleet::ship(membership.clone(), access, requests_per_second, ended);
        tasks.spawn_forever("fleet.requests", shipping);
    }
    let (node, region, started_at_ms) = (membership.node.to_string(), membership.region.clone(), now_ms());
    let read = move || {
        let routes: Vec<RouteTraffic> = metrics
            .all_routes()
            .into_iter()
            .map(|(name, route)| RouteTraffic { name: name.to_string(), counted: counted(&route) })
            .collect();
        Traffic {
            node: node.clone(),
            region: region.clone(),
            started_at_ms,
            at_ms: now_ms(),
            bounds_us: BOUNDS_US.to_vec(),
            all: sum(routes.iter().map(|route| &route.counted).chain([&counted(metrics.unrouted())])),
            routes: routes.into_iter().filter(|route| route.counted.requests() > 0).collect(),
            upstreams: pools.adopted().iter().map(|pool| upstream(pool, &metrics)).collect(),
            limits: live.load_full().limits.iter().map(|limit| limit.reading()).collect(),
            connections: metrics.front.open.value(),
        }
    };
    tasks.spawn_forever("fleet.traffic", fleet::tell(membership.clone(), read));
}

fn certificate(shown: Shown) -> CertificateReport {
    let Shown { name, source, not_after_unix, last_error, .. } = shown;
    CertificateReport { name, source, not_after_unix, failing: last_error.is_some() }
}

fn counted(route: &RouteMetrics) -> Counted {
    let (bytes_in, bytes_out) = route.bytes();
    let rejected = route.by_code().map(|(code, number)| (code.to_owned(), number)).collect();
    Counted { classes: route.by_class(), rejected, took: route.took(), bytes_in, bytes_out }
}

fn sum<'a>(all: impl Iterator<Item = &'a Counted>) -> Counted {
    let add = |to: &mut u64, more: &u64| *to += more;
    all.fold(Counted::default(), |mut total, Counted { classes, rejected, took, bytes_in, bytes_out }| {
        total.classes.iter_mut().zip(classes).for_each(|(to, more)| add(to, more));
        total.took.resize(took.len().max(total.took.len()), 0);
        total.took.iter_mut().zip(took).for_each(|(to, more)| add(to, more));
        for (code, number) in rejected {
            *total.rejected.entry(code.clone()).or_default() += number;
        }
        total.bytes_in += bytes_in;
        total.bytes_out += bytes_out;
        total
    })
}

fn upstream(pool: &crate::upstream::Pool, metrics: &Metrics) -> UpstreamTraffic {
    let snapshot = pool.snapshot();
    let mut endpoints = std::collections::BTreeMap::new();
    for endpoint in &snapshot.endpoints {
        let state = match endpoint.state {
            EndpointState::Healthy => "healthy",
            EndpointState::Ramping => "ramping",
            EndpointState::Ejected => "ejected",
            EndpointState::Unhealthy => "unhealthy",
        };
        *endpoints.entry(state.to_owned()).or_default() += 1;
    }
    let counted = metrics.upstream(&snapshot.name);
    UpstreamTraffic {
        name: snapshot.name,
        in_flight: snapshot.in_flight,
        endpoints,
        attempts: counted.attempts(),
        failures: counted.all_failures(),
    }
}
