//! Upstreams, limits, certificates: what gateways tell of them.

use std::sync::Arc;

use axum::extract::State as Extract;
use maud::{Markup, html};

use super::failed;
use super::frame::{chip, frame};
use super::routes::encoded;
use crate::controller::State;
use crate::controller::api::{TOP, TOP_WITHIN_MS};
use crate::controller::chart::short;
use crate::controller::store;
use crate::controller::views::{self, CertificateView, LimitView, UpstreamView};
use crate::ledger::now_ms;

/// A certificate that ends within so many days is marked.
const SOON_DAYS: i64 = 14;

pub(super) async fn upstreams(Extract(state): Extract<Arc<State>>) -> Markup {
    frame(&state, "/upstreams", "Upstreams", Some("/live/upstreams"), &upstreams_content(&state))
}

pub(super) fn upstreams_content(state: &State) -> Markup {
    let all = views::upstreams(state);
    html! {
        div id="live" {
            @if all.is_empty() { p { "No gateway tells of upstreams now." } } @else {
                p { "Endpoints are counted as every gateway sees them: two gateways see each endpoint twice." }
                div class="scroll" { table {
                    thead { tr {
                        th scope="col" { "Upstream" } th scope="col" { "Endpoints" } th scope="col" class="number" { "In flight" }
                        th scope="col" class="number" { "Attempts/s" } th scope="col" class="number" { "Failures" } th scope="col" class="number" { "Gateways" }
                    } }
                    tbody { @for UpstreamView { name, nodes, in_flight, endpoints, attempts_per_second, failures } in &all {
                        tr {
                            th scope="row" { (name) }
                            td { @for (state, number) in endpoints { (chip(health(state), &format!("{number} {state}"))) " " } }
                            td class="number" { (in_flight) }
                            td class="number" { (short(*attempts_per_second)) }
                            td class={ "number" @if *failures > 0.0 { " bad" } } { (short(*failures)) " %" }
                            td class="number" { (nodes) }
                        }
                    } }
                } }
            }
        }
    }
}

fn health(state: &str) -> &'static str {
    match state {
        "healthy" => "ok",
        "ramping" => "warn",
        _ => "bad",
    }
}

pub(super) async fn limits(Extract(state): Extract<Arc<State>>) -> Markup {
    frame(&state, "/limits", "Limits", Some("/live/limits"), &limits_content(&state).await)
}

pub(super) async fn limits_content(state: &State) -> Markup {
    let all = views::limits(state);
    let since = now_ms().saturating_sub(TOP_WITHIN_MS);
    let top = state.store.read(move |connection| store::limited_clients(connection, since, TOP)).await;
    html! {
        div id="live" {
            @if all.is_empty() { p { "No gateway tells of limits now." } } @else {
                div class="scroll" { table {
                    thead { tr {
                        th scope="col" { "Limit" } th scope="col" class="number" { "Admitted/s" } th scope="col" class="number" { "Refused/s" }
                        th scope="col" class="number" { "Dry run/s" } th scope="col" class="number" { "Keys" } th scope="col" class="number" { "Evicted" }
                    } }
                    tbody { @for LimitView { name, nodes: _, allowed_per_second, limited_per_second, dry_run_per_second, keys, evicted } in &all {
                        tr {
                            th scope="row" { (name) }
                            td class="number" { (short(*allowed_per_second)) }
                            td class={ "number" @if *limited_per_second > 0.0 { " bad" } } { (short(*limited_per_second)) }
                            td class="number" { (short(*dry_run_per_second)) }
                            td class="number" { (keys) }
                            td class="number" { (evicted) }
                        }
                    } }
                } }
            }
            section {
                h2 { "Refused most often in the last hour" }
                @match top {
                    Err(error) => (failed(&error)),
                    Ok(top) if top.is_empty() => { p { "Nobody, as far as the request logs say." } }
                    Ok(top) => {
                        div class="scroll" { table {
                            thead { tr { th scope="col" { "Client" } th scope="col" { "Route" } th scope="col" class="number" { "Refused" } } }
                            tbody { @for (client, route, number) in &top {
                                tr { th scope="row" { (client) } td { a href={ "/logs?status=429&route=" (encoded(route)) } { (route) } } td class="number" { (number) } }
                            } }
                        } }
                    }
                }
            }
        }
    }
}

pub(super) async fn certificates(Extract(state): Extract<Arc<State>>) -> Markup {
    frame(&state, "/certificates", "Certificates", Some("/live/certificates"), &certificates_content(&state))
}

pub(super) fn certificates_content(state: &State) -> Markup {
    let all = views::certificates(&state.picture.now(now_ms()));
    html! {
        div id="live" {
            @if all.is_empty() { p { "No gateway tells of certificates now." } } @else {
                div class="scroll" { table {
                    thead { tr {
                        th scope="col" { "Certificate" } th scope="col" { "Gateway" } th scope="col" { "Source" } th scope="col" { "State" } th scope="col" class="number" { "Ends in" }
                    } }
                    tbody { @for one in &all { (certificate(one)) } }
                } }
            }
        }
    }
}

fn certificate(one: &CertificateView) -> Markup {
    let CertificateView { node, name, source, not_after_unix: _, days_left, failing } = one;
    html! {
        tr {
            th scope="row" { (name) }
            td { (node) }
            td { (source) }
            td {
                @match days_left {
                    None => (chip("warn", "none yet")),
                    Some(days) if *days < 0 => (chip("bad", "ended")),
                    Some(days) if *days < SOON_DAYS => (chip("warn", "ends soon")),
                    Some(_) => (chip("ok", "good")),
                }
                @if *failing { " " (chip("bad", "renewal fails")) }
            }
            td class="number" { (days_left.map_or("–".to_owned(), |days| format!("{days} days"))) }
        }
    }
}
