//! Events and request logs, found by trace, service, route, status.

use std::sync::Arc;

use axum::extract::{Query, State as Extract};
use maud::{Markup, html};
use serde_json::Value;

use super::failed;
use super::frame::{frame, moment};
use super::routes::encoded;
use crate::controller::State;
use crate::controller::api::Search;
use crate::controller::store::{self, Event, Found, StoreError};

pub(super) async fn events(Extract(state): Extract<Arc<State>>, Query(search): Query<Search>) -> Markup {
    let query = search.events();
    let found = state.store.search(move |connection| store::events(connection, &query)).await;
    let fields = [
        ("trace_id", "Trace", &search.trace_id),
        ("service", "Service", &search.service),
        ("event", "Event", &search.event),
    ];
    let content = html! {
        (form("/events", &fields))
        (event_table(found, &older("/events", &fields)))
        @if let Some(trace) = filled(search.trace_id.as_ref()) {
            section {
                h2 { "Requests of this trace" }
                (of_trace(&state, trace).await)
            }
        }
        (lost(&state).await)
    };
    frame(&state, "/events", "Events", None, &content)
}

pub(super) async fn logs(Extract(state): Extract<Arc<State>>, Query(search): Query<Search>) -> Markup {
    let query = search.requests();
    let found = state.store.search(move |connection| store::requests(connection, &query)).await;
    let fields = [
        ("trace_id", "Trace", &search.trace_id),
        ("request_id", "Request", &search.request_id),
        ("route", "Route", &search.route),
        ("status", "Status", &search.status),
        ("node", "Gateway", &search.node),
    ];
    let trace = filled(search.trace_id.as_ref()).map(str::to_owned);
    let content = html! {
        (form("/logs", &fields))
        (request_table(found, &older("/logs", &fields)))
        @if let Some(trace) = trace {
            section {
                h2 { "Events of this trace" }
                @let query = Search { trace_id: Some(trace), ..Search::default() }.events();
                (event_table(state.store.search(move |connection| store::events(connection, &query)).await, ""))
            }
        }
        (lost(&state).await)
    };
    frame(&state, "/logs", "Request logs", None, &content)
}

fn filled(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

async fn of_trace(state: &State, trace: &str) -> Markup {
    let query = Search { trace_id: Some(trace.to_owned()), ..Search::default() }.requests();
    request_table(state.store.search(move |connection| store::requests(connection, &query)).await, "")
}

type Field<'a> = (&'static str, &'static str, &'a Option<String>);

fn form(action: &str, fields: &[Field<'_>]) -> Markup {
    html! {
        form class="search" method="get" action=(action) role="search" {
            @for (name, label, value) in fields {
                label { (label) input name=(name) value=(filled(value.as_ref()).unwrap_or_default()); }
            }
            button { "Search" }
        }
    }
}

/// Where older ones are, up to the id that comes last.
fn older(path: &str, fields: &[Field<'_>]) -> String {
    let mut query = String::new();
    for (name, _, value) in fields {
        if let Some(value) = filled(value.as_ref()) {
            query.push_str(&format!("{name}={}&", encoded(value)));
        }
    }
    format!("{path}?{query}before=")
}

fn pager(older: &str, before: Option<u64>) -> Markup {
    html! { @if let Some(before) = before.filter(|_| !older.is_empty()) { p { a href={ (older) (before) } { "Older" } } } }
}

fn event_table(found: Result<Found<Event>, StoreError>, older: &str) -> Markup {
    let Found { found, before } = match found {
        Ok(found) => found,
        Err(error) => return failed(&error),
    };
    html! {
        @if found.is_empty() { p { "No events." } } @else {
            div class="scroll" { table {
                thead { tr { th scope="col" { "Time (UTC)" } th scope="col" { "Service" } th scope="col" { "Event" } th scope="col" { "Trace" } th scope="col" { "All of it" } } }
                tbody { @for Event { at_ms, service, event, trace_id, body, .. } in &found {
                    tr {
                        td { (moment(*at_ms)) }
                        td { (service) }
                        td { (event) }
                        td { (trace_link("/events", trace_id.as_deref())) }
                        td { details { summary { (gist(body)) } pre { (serde_json::to_string_pretty(body).unwrap_or_default()) } } }
                    }
                } }
            } }
            (pager(older, before))
        }
    }
}

/// What an event says beside what every one says.
fn gist(body: &Value) -> String {
    let usual = ["id", "trace_id", "span_id", "service", "event", "timestamp"];
    let more = body.as_object().into_iter().flatten().filter(|(key, _)| !usual.contains(&key.as_str()));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let gist = more.map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(" ");
    let mut short: String = gist.chars().take(120).collect();
    if short.len() < gist.len() {
        short.push('…');
    }
    if short.is_empty() { "–".to_owned() } else { short }
}

fn trace_link(path: &str, trace: Option<&str>) -> Markup {
    match trace {
        Some(trace) => {
            html! { a href={ (path) "?trace_id=" (encoded(trace)) } title=(trace) { (trace.get(..8).unwrap_or(trace)) } }
        }
        None => html! { "–" },
    }
}

fn request_table(found: Result<Found<Value>, StoreError>, older: &str) -> Markup {
    let Found { found, before } = match found {
        Ok(found) => found,
        Err(error) => return failed(&error),
    };
    let text = |line: &Value, key: &str| line.get(key).and_then(Value::as_str).unwrap_or("–").to_owned();
    html! {
        @if found.is_empty() { p { "No lines." } } @else {
            div class="scroll" { table {
                thead { tr {
                    th scope="col" { "Time (UTC)" } th scope="col" { "Gateway" } th scope="col" { "Route" } th scope="col" { "Request" }
                    th scope="col" class="number" { "Status" } th scope="col" class="number" { "Took" } th scope="col" { "Client" } th scope="col" { "Trace" } th scope="col" { "All of it" }
                } }
                tbody { @for line in &found {
                    @let status = line.get("status").and_then(Value::as_u64).unwrap_or_default();
                    tr {
                        td { (text(line, "time").get(11..19).unwrap_or("–")) }
                        td { (text(line, "node")) }
                        td { (text(line, "route")) }
                        td class="long" { (text(line, "method")) " " (text(line, "host")) (text(line, "path")) }
                        td class={ "number" @if status >= 500 { " bad" } } { (status) @if let Some(code) = line.get("code").and_then(Value::as_str) { " " (code) } }
                        td class="number" { (line.get("total_ms").and_then(Value::as_f64).map_or("–".to_owned(), |ms| format!("{ms:.1} ms"))) }
                        td { (text(line, "client")) }
                        td { (trace_link("/logs", line.get("trace_id").and_then(Value::as_str))) }
                        td { details { summary { "line" } pre { (serde_json::to_string_pretty(line).unwrap_or_default()) } } }
                    }
                } }
            } }
            (pager(older, before))
        }
    }
}

/// Nothing goes missing silently.
async fn lost(state: &State) -> Markup {
    match state.store.read(store::lost).await {
        Ok(lost) if lost.is_empty() => html! {},
        Ok(lost) => html! {
            p class="note" { "Did not come in so far: " @for (reason, number) in &lost { (number) " " (reason.replace('_', " ")) ". " } }
        },
        Err(error) => failed(&error),
    }
}
