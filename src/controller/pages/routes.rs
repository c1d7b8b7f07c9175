//! Routes with what goes through them, and the charts of all or of one.

use std::sync::Arc;

use axum::extract::{Query, State as Extract};
use maud::{Markup, html};

use super::failed;
use super::frame::{chip, frame, rate_cells, rate_heads};
use super::live::Of;
use crate::controller::State;
use crate::controller::chart::{Chart, Line, short};
use crate::controller::views::{self, RouteView, Shown};
use crate::ledger::now_ms;

/// Rows of the table; the busiest come first.
const ROWS_MAX: usize = 500;

pub(super) async fn page(Extract(state): Extract<Arc<State>>) -> Markup {
    frame(&state, "/routes", "Routes", Some("/live/routes"), &content(&state).await)
}

pub(super) async fn content(state: &Arc<State>) -> Markup {
    let mut routes = views::routes(state);
    routes.retain(|route| !route.name.is_empty());
    routes.sort_by(|a, b| b.rate.per_second.total_cmp(&a.rate.per_second));
    let number = routes.len();
    routes.truncate(ROWS_MAX);
    html! {
        div id="live" {
            @if routes.is_empty() { p { "No traffic yet." } } @else {
                div class="scroll" { table {
                    thead { tr { th scope="col" { "Route" } (rate_heads()) th scope="col" { "Refused for" } } }
                    tbody { @for RouteView { name, rate, rejected_by } in &routes {
                        tr {
                            th scope="row" { a href={ "/route?name=" (encoded(name)) } { (name) } }
                            (rate_cells(rate))
                            td { @for (code, per_second) in rejected_by { (chip("", &format!("{code} {}/s", short(*per_second)))) " " } }
                        }
                    } }
                } }
                @if number > ROWS_MAX { p { "The " (ROWS_MAX) " busiest of " (number) "." } }
            }
        }
    }
}

pub(super) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

pub(super) async fn one(Extract(state): Extract<Arc<State>>, Query(Of { name }): Query<Of>) -> Markup {
    let live = format!("/live/route?name={}", encoded(&name));
    frame(&state, "/routes", &format!("Route {name}"), Some(&live), &one_content(&state, &name).await)
}

pub(super) async fn one_content(state: &Arc<State>, name: &str) -> Markup {
    let route = views::routes(state).into_iter().find(|route| route.name == name);
    html! {
        div id="live" {
            @if let Some(RouteView { rate, .. }) = &route {
                div class="scroll" { table { thead { tr { (rate_heads()) } } tbody { tr { (rate_cells(rate)) } } } }
            } @else { p { "No traffic now." } }
            (charts(state, name).await)
            p { a href={ "/logs?route=" (encoded(name)) } { "Request log of this route" } }
        }
    }
}

const RATES: [Line; 2] = [
    Line { name: "requests", class: "ok", value: |point| Some(point.rate.per_second) },
    Line { name: "5xx", class: "bad", value: |point| Some(point.rate.per_second * point.rate.server_errors / 100.0) },
];
const LATENCIES: [Line; 2] = [
    Line { name: "p99", class: "slow", value: |point| point.rate.p99_ms },
    Line { name: "p50", class: "ok", value: |point| point.rate.p50_ms },
];

/// Requests and latency, a quarter of an hour and a day.
pub(super) async fn charts(state: &Arc<State>, route: &str) -> Markup {
    let now = now_ms() / 1000;
    let mut drawn = Vec::new();
    for (shown, words) in [(Shown::QuarterHour, "15 minutes"), (Shown::Day, "24 hours")] {
        let points = match views::series(state, route, shown).await {
            Ok(points) => points,
            Err(error) => return failed(&error),
        };
        for (id, what, unit, lines) in [("rate", "Requests", "/s", &RATES), ("latency", "Latency", " ms", &LATENCIES)] {
            let id = format!("{id}-{}", shown.seconds());
            let title = format!("{what}, {words}");
            let chart = Chart { id: &id, title: &title, unit, lines, from: now - shown.seconds(), to: now };
            drawn.push(chart.draw(&points));
        }
    }
    html! { div class="charts" { @for chart in &drawn { (chart) } } }
}
