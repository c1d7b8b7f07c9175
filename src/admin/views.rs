//! What is in force, as JSON: routes, upstreams, configuration, tasks.

use axum::Json;
use axum::extract::State as Extract;
use axum::response::Response;
use serde_json::json;

use super::State;
use super::health::uncached;

pub(super) async fn routes(Extract(state): Extract<State>) -> Response {
    let table = state.live.load_full();
    uncached(Json(json!({ "revision": &*table.revision, "routes": table.listing() })))
}

pub(super) async fn upstreams(Extract(state): Extract<State>) -> Response {
    let upstreams: Vec<_> = state.pools.adopted().iter().map(|pool| pool.snapshot()).collect();
    uncached(Json(json!({ "upstreams": upstreams })))
}

pub(super) async fn config(Extract(state): Extract<State>) -> Response {
    let status = state.status.borrow().clone();
    uncached(Json(&*status))
}

pub(super) async fn certs(Extract(state): Extract<State>) -> Response {
    uncached(Json(json!({ "certificates": (state.certificates)() })))
}

pub(super) async fn tasks(Extract(state): Extract<State>) -> Response {
    uncached(Json(json!({ "tasks": state.tasks.running() })))
}
