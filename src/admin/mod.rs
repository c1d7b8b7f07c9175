//! What operators and machines ask a running gateway, on listeners of their own.
//!
//! The health listener answers `/health`, `/ready` and `/metrics` and nothing else; the admin listener answers those and
//! what an operator asks, behind a `Guard`. Nearly everything here reads; what is revoked is revoked here.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get, post};
use tokio::sync::{Semaphore, watch};

use crate::bus::{Link, Posted};
use crate::control::Status;
use crate::control::drain::Drain;
use crate::fleet::Membership;
use crate::overload::Overload;
use crate::policy::Revocations;
use crate::routes::Live;
use crate::tasks::Tasks;
use crate::telemetry::metrics::{BusReading, CertificateReading, PoolReading, Readings};
use crate::telemetry::{AccessLog, Metrics};
use crate::tls::Shown;
use crate::upstream::{EndpointState, Pools};

mod explain;
mod guard;
mod health;
mod problem;
mod revocations;
mod serve;
mod tap;
mod views;

pub use guard::{Guard, GuardError};
pub use guard::{authority, same_origin};
pub use health::uncached;
pub use problem::answer as problem;
pub use serve::{Leaving, Listener, Peer, serve};

/// Bytes of a question.
const BODY_MAX: usize = 64 << 10;
/// Time to read a question and begin the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Taps open at once: each one costs every request a copy of its line.
const TAPS_MAX: usize = 8;

/// What is asked about. Clones share it.
#[derive(Clone)]
pub struct State {
    pub metrics: Metrics,
    pub access: AccessLog,
    pub tasks: Tasks,
    pub pools: Arc<Pools>,
    pub live: Arc<Live>,
    pub status: watch::Receiver<Arc<Status>>,
    pub drain: Drain,
    pub revocations: Arc<Revocations>,
    pub overload: Arc<Overload>,
    /// The fleet, if the node belongs to one.
    pub membership: Option<Membership>,
    /// What the gateway shows as its own.
    pub certificates: Arc<dyn Fn() -> Vec<Shown> + Send + Sync>,
    /// Set once all listeners accept.
    pub listening: Arc<AtomicBool>,
}

/// The pages of the health listener. No guard: probes ask by whatever name or address they know.
pub fn health_router(state: State) -> Router {
    finish(health_pages()).with_state(state)
}

/// The pages of the admin listener.
pub fn admin_router(state: State, guard: Guard) -> Router {
    let pages = health_pages()
        .route("/routes", get(views::routes))
        .route("/upstreams", get(views::upstreams))
        .route("/config", get(views::config))
        .route("/certs", get(views::certs))
        .route("/issuers", get(views::issuers))
        .route("/limits", get(views::limits))
        .route("/revocations", get(revocations::list).post(revocations::add))
        .route("/revocations/{id}", delete(revocations::remove))
        .route("/tasks", get(views::tasks))
        .route("/explain", post(explain::explain))
        .route("/tap", get(tap::tap))
        .layer(axum::Extension(tap::Places(Arc::new(Semaphore::new(TAPS_MAX)))));
    finish(pages).layer(middleware::from_fn_with_state(Arc::new(guard), guard::check)).with_state(state)
}

fn health_pages() -> Router<State> {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
}

fn finish(pages: Router<State>) -> Router<State> {
    pages
        .fallback(|| async { problem::answer(StatusCode::NOT_FOUND, "not_found", "there is no such page") })
        .method_not_allowed_fallback(|| async {
            problem::answer(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the page takes another method")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(in_time))
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => problem::answer(StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long to arrive"),
    }
}

impl State {
    fn readings(&self) -> Readings {
        let pools = self.pools.adopted().into_iter().map(|pool| {
            let snapshot = pool.snapshot();
            let counts = snapshot.counts;
            let states = [
                ("healthy", EndpointState::Healthy),
                ("ramping", EndpointState::Ramping),
                ("ejected", EndpointState::Ejected),
                ("unhealthy", EndpointState::Unhealthy),
            ];
            let number = |state| snapshot.endpoints.iter().filter(|endpoint| endpoint.state == state).count() as u64;
            PoolReading {
                upstream: pool.name().clone(),
                in_flight: snapshot.in_flight as u64,
                endpoints: states.map(|(name, state)| (name, number(state))).to_vec(),
                ejections: counts.ejections,
                resolutions: [counts.resolved, counts.resolved_empty, counts.resolve_failures],
                retries_refused: counts.retries_refused,
                panics: counts.panic_picks,
            }
        });
        let certificates = (self.certificates)().into_iter();
        let certificates = certificates.map(|one| CertificateReading {
            name: one.name,
            source: one.source,
            ends: one.not_after_unix.unwrap_or_default(),
            next_order: one.next_order_unix,
            failing: one.last_error.is_some(),
        });
        let limits = self.live.load_full().limits.iter().map(|limit| limit.reading()).collect();
        Readings {
            pools: pools.collect(),
            tasks: self.tasks.running(),
            certificates: certificates.collect(),
            limits,
            overload: self.overload.reading(),
            serving: self.status.borrow().serving.name(),
            bus: self.membership.as_ref().map(bus),
            compressing: crate::policy::compressing(),
        }
    }
}

fn bus(membership: &Membership) -> BusReading {
    let Posted { sent, events_lost, telemetry_lost, waiting } = membership.post.posted();
    BusReading { up: is_up(membership), sent, events_lost, telemetry_lost, waiting: waiting as u64 }
}

fn is_up(membership: &Membership) -> bool {
    *membership.bus.link().borrow() == Link::Up
}

#[cfg(test)]
mod tests;
