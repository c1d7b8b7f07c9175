//! `/health`, `/ready`, `/metrics`: what orchestrators, load balancers and Prometheus ask.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::State;
use crate::telemetry::metrics;

/// Whether traffic should come here, and why not.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Readiness {
    /// All listeners accept.
    listening: bool,
    draining: bool,
    /// Of the document applied.
    revision: Arc<str>,
    /// The newest document is the one applied. Says nothing about readiness: the last good one serves.
    last_change_ok: bool,
    /// `source`, or what is served in its place: `last_good`, `fallback`.
    serving: &'static str,
    /// `up` or `down`; of a node that is alone nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    bus: Option<&'static str>,
}

impl Readiness {
    fn of(state: &State) -> Readiness {
        let status = state.status.borrow();
        Readiness {
            listening: state.listening.load(Ordering::Acquire),
            draining: !state.drain.is_serving(),
            revision: status.revision.clone(),
            last_change_ok: status.is_current(),
            serving: status.serving.name(),
            bus: state.membership.as_ref().map(|member| if super::is_up(member) { "up" } else { "down" }),
        }
    }

    /// A document is always in force by the time anybody can ask.
    fn is_ready(&self) -> bool {
        self.listening && !self.draining
    }
}

/// The process answers.
pub(super) async fn health() -> Response {
    uncached(Json(json!({ "status": "ok" })))
}

pub(super) async fn ready(Extract(state): Extract<State>) -> Response {
    #[derive(Serialize)]
    struct Answer {
        ready: bool,
        #[serde(flatten)]
        readiness: Readiness,
    }
    let readiness = Readiness::of(&state);
    let ready = readiness.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    uncached((status, Json(Answer { ready, readiness })))
}

pub(super) async fn metrics(Extract(state): Extract<State>) -> Response {
    let text = state.metrics.render(&state.readings());
    uncached(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

pub fn uncached(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}
