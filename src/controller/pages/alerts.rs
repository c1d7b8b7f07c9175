//! Alerts: what fires, what is about to, what is over, and the rules.

use std::sync::Arc;

use axum::extract::State as Extract;
use maud::{Markup, html};

use super::frame::{ago, chip, frame, moment};
use crate::controller::State;
use crate::controller::alerts::{Stage, Standing};
use crate::ledger::now_ms;

pub(super) async fn page(Extract(state): Extract<Arc<State>>) -> Markup {
    frame(&state, "/alerts", "Alerts", Some("/live/alerts"), &content(&state))
}

pub(super) fn content(state: &State) -> Markup {
    let mut alerts: Vec<Standing> = state.picture.now(now_ms()).alerts.into_values().collect();
    let order = |stage: Stage| match stage {
        Stage::Firing => 0,
        Stage::Pending => 1,
        Stage::Resolved => 2,
    };
    alerts.sort_by_key(|alert| (order(alert.stage), std::cmp::Reverse(alert.since_ms)));
    let (rules, problems) = (state.rules.now(), state.rules.problems());
    html! {
        div id="live" {
            @if !problems.is_empty() {
                div class="problem" role="alert" {
                    p { "The newest rules are not in force:" }
                    ul { @for problem in problems.iter() { li { (problem.file) ":" (problem.line) ":" (problem.column) ": " (problem.message) } } }
                }
            }
            @if alerts.is_empty() { p { "Nothing is wrong that the rules know of." } } @else {
                div class="scroll" { table {
                    thead { tr { th scope="col" { "Alert" } th scope="col" { "Of" } th scope="col" { "State" } th scope="col" { "Since" } th scope="col" { "What was seen" } } }
                    tbody { @for Standing { alert, subject, stage, since_ms, text, .. } in &alerts {
                        tr {
                            th scope="row" { (alert) }
                            td { (subject) }
                            td { (chip(class(*stage), stage.name())) }
                            td { (moment(*since_ms)) " (" (ago(*since_ms)) ")" }
                            td { (text) }
                        }
                    } }
                } }
            }
            section {
                h2 { "Rules" }
                @if rules.alert.is_empty() { p { "There are none." } } @else {
                    ul class="plain" { @for rule in &rules.alert {
                        li { strong { (rule.name) } " for " (rule.lasting.to_string()) ", clear " (rule.clear.to_string())
                            @if !rule.notify.is_empty() { ", told: " (rule.notify.0.join(", ")) } }
                    } }
                }
                p { a href="/events?service=controller" { "What was told, as events" } }
            }
        }
    }
}

fn class(stage: Stage) -> &'static str {
    match stage {
        Stage::Firing => "bad",
        Stage::Pending => "warn",
        Stage::Resolved => "ok",
    }
}
