//! What is in force, as JSON: routes, upstreams, configuration, tasks.

use std::collections::BTreeMap;

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

/// Issuers and their keys, which themselves are not shown.
pub(super) async fn issuers(Extract(state): Extract<State>) -> Response {
    let table = state.live.load_full();
    let issuers: BTreeMap<&str, _> =
        table.issuers.iter().map(|issuer| (&**issuer.name(), issuer.ring().shown())).collect();
    uncached(Json(json!({ "issuers": issuers })))
}

pub(super) async fn limits(Extract(state): Extract<State>) -> Response {
    let table = state.live.load_full();
    let limits: Vec<_> = table.limits.iter().map(|limit| limit.reading()).collect();
    uncached(Json(json!({ "limits": limits })))
}

pub(super) async fn tasks(Extract(state): Extract<State>) -> Response {
    uncached(Json(json!({ "tasks": state.tasks.running() })))
}
