//! The fleet at a glance: what goes through it, who is in it, what everybody runs.

use std::sync::Arc;

use axum::extract::{Form, State as Extract};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::failed;
use super::frame::{ago, chip, frame, rate_cells, rate_heads};
use super::routes::charts;
use crate::controller::State;
use crate::controller::forget;
use crate::controller::picture::{Inner, Stand};
use crate::controller::views::{self, NodeView};
use crate::ledger::now_ms;

pub(super) async fn page(Extract(state): Extract<Arc<State>>) -> Markup {
    frame(&state, "/", "Fleet", Some("/live/fleet"), &content(&state).await)
}

#[derive(Debug, Deserialize)]
pub(super) struct Gone {
    node: String,
}

pub(super) async fn forget(Extract(state): Extract<Arc<State>>, Form(Gone { node }): Form<Gone>) -> Response {
    match forget::forget(&state, &node).await {
        Ok(()) => Redirect::to("/").into_response(),
        Err(error) => frame(&state, "/", "Fleet", None, &failed(&error)).into_response(),
    }
}

pub(super) async fn content(state: &Arc<State>) -> Markup {
    let picture = state.picture.now(now_ms());
    let nodes = views::nodes(state, &picture);
    html! {
        div id="live" {
            (summary(state, &picture, &nodes))
            (charts(state, "").await)
            section {
                h2 { "Gateways" }
                (table(&nodes))
            }
            @if !picture.services.is_empty() {
                section {
                    h2 { "Services" }
                    div class="scroll" { table {
                        thead { tr { th scope="col" { "Service" } th scope="col" { "State" } th scope="col" { "Since" } th scope="col" { "Why" } } }
                        tbody { @for (name, service) in &picture.services {
                            tr {
                                th scope="row" { (name) }
                                td { (if service.ready { chip("ok", "ready") } else { chip("bad", "not ready") }) }
                                td { (ago(service.since_ms)) }
                                td { (service.problem.as_deref().unwrap_or_default()) }
                            }
                        } }
                    } }
                }
            }
        }
    }
}

/// What is in force, how many run it, and what is amiss.
pub(super) fn summary(state: &State, picture: &Inner, nodes: &[NodeView]) -> Markup {
    let live: Vec<&NodeView> = nodes.iter().filter(|node| !matches!(node.stand, Stand::Silent | Stand::Left)).collect();
    let current = live.iter().filter(|node| matches!(node.stand, Stand::Current | Stand::Trial)).count();
    let silent = nodes.iter().filter(|node| node.stand == Stand::Silent).count();
    let drift = nodes.iter().filter(|node| node.drift).count();
    html! {
        p class="summary" {
            @match &picture.head {
                Some(head) => { "Revision " strong id="head" { (head.revision) } " by " (head.author) ", " (ago(head.at_ms)) " ago. " }
                None => { "Nothing was ever pushed. " }
            }
            strong id="applied" { (current) " of " (live.len()) } " gateways run what they should. "
            @if drift > 0 { (chip("warn", &format!("{drift} behind"))) " " }
            @if silent > 0 { (chip("bad", &format!("{silent} silent"))) " " }
            @if let Some((canary, _)) = &picture.canary {
                (chip("trial", &format!("revision {} on trial on {}", canary.pointer.revision, canary.nodes.len())))
            }
        }
        @if let Some(lost) = &picture.lost { p class="problem" role="alert" { "What is shown may be old: " (lost) } }
        @if !super::super::health::is_up(state) { p class="problem" role="alert" { "The bus cannot be reached." } }
    }
}

fn table(nodes: &[NodeView]) -> Markup {
    if nodes.is_empty() {
        return html! { p { "No gateway has reported yet." } };
    }
    html! {
        div class="scroll" { table {
            thead { tr {
                th scope="col" { "Node" } th scope="col" { "Region" } th scope="col" { "Version" }
                th scope="col" class="number" { "Revision" } th scope="col" { "State" } (rate_heads())
                th scope="col" class="number" { "Connections" } th scope="col" class="number" { "Up" }
            } }
            tbody { @for node in nodes { (row(node)) } }
        } }
    }
}

fn row(node: &NodeView) -> Markup {
    let NodeView { report, stand, rate, connections, .. } = node;
    let class = match stand {
        Stand::Current | Stand::OwnDocument => "ok",
        Stand::Trial => "trial",
        Stand::Behind | Stand::Draining => "warn",
        Stand::Silent => "bad",
        Stand::Left => "",
    };
    html! {
        tr {
            th scope="row" { (report.who.node) }
            td { (report.who.region.as_deref().unwrap_or("–")) }
            td { (report.who.version) }
            td class="number" { (report.revision.map_or("–".to_owned(), |number| number.to_string())) }
            td {
                (chip(class, stand.name()))
                @if report.serving != "source" { " " (chip("warn", &report.serving.replace('_', " "))) }
                @if matches!(stand, Stand::Silent | Stand::Left) {
                    " " form class="inline" method="post" action="/nodes/forget" {
                        button class="plain" name="node" value=(report.who.node) aria-label={ "Forget " (report.who.node) } { "Forget" }
                    }
                }
                @if !report.ready && *stand != Stand::Left { " " (chip("bad", "not ready")) }
                // No <details>: patching would shut it again every two seconds.
                @if let Some(problem) = &report.problem { div class="long" { (problem) } }
            }
            @match rate { Some(rate) => (rate_cells(rate)), None => { td class="number" colspan="5" { "–" } } }
            td class="number" { (connections.map_or("–".to_owned(), |number| number.to_string())) }
            td class="number" { (ago(report.who.started_at_ms)) }
        }
    }
}
