//! `/health`, `/ready`, `/metrics` of the controller itself.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::State;
use super::alerts::Stage;
use super::store::{self, EventQuery};
use crate::admin::uncached;
use crate::bus::Link;
use crate::ledger::now_ms;

pub(super) async fn health() -> Response {
    uncached(Json(json!({ "status": "ok" })))
}

/// It serves until it leaves. That the bus is away is told and changes nothing: the dashboard is wanted then more than ever.
pub(super) async fn ready(Extract(state): Extract<Arc<State>>) -> Response {
    let ready = !state.leaving.is_cancelled();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let answer = json!({
        "ready": ready, "draining": !ready, "active": *state.active.borrow(), "bus": if is_up(&state) { "up" } else { "down" },
        "current": state.picture.is_current(),
    });
    uncached((status, Json(answer)))
}

pub(super) fn is_up(state: &State) -> bool {
    *state.bus.link().borrow() == Link::Up
}

pub(super) async fn metrics(Extract(state): Extract<Arc<State>>) -> Response {
    let newest = EventQuery { limit: 1, ..EventQuery::default() };
    let read = state.store.read(move |connection| {
        let events = store::events(connection, &newest)?.found.first().map_or(0, |event| event.id);
        Ok((events, store::lost(connection)?))
    });
    let (events, lost) = match read.await {
        Ok(read) => read,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, series: Vec<(String, u64)>| {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in series {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let one = |value: bool| vec![(String::new(), u64::from(value))];
    family("tollgate_controller_active", "gauge", "This controller has the seat.", one(*state.active.borrow()));
    family("tollgate_controller_bus_up", "gauge", "The bus can be reached.", one(is_up(&state)));
    family("tollgate_controller_events_total", "counter", "Events kept.", vec![(String::new(), events)]);
    let lost = lost.into_iter().map(|(reason, number)| (format!("{{reason=\"{reason}\"}}"), number)).collect();
    family("tollgate_controller_lost_total", "counter", "Events and request lines that did not come in.", lost);
    let picture = state.picture.now(now_ms());
    let stages = [Stage::Pending, Stage::Firing, Stage::Resolved].map(|stage| {
        let number = picture.alerts.values().filter(|alert| alert.stage == stage).count() as u64;
        (format!("{{stage=\"{}\"}}", stage.name()), number)
    });
    family("tollgate_controller_alerts", "gauge", "Alerts by stage.", stages.to_vec());
    let nodes = vec![(String::new(), picture.nodes.len() as u64)];
    family("tollgate_controller_nodes", "gauge", "Gateways that have reported within a day.", nodes);
    uncached(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out))
}
