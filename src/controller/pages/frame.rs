//! What all pages have around them.

use maud::{DOCTYPE, Markup, html};

use crate::controller::State;
use crate::controller::alerts::Stage;
use crate::controller::chart::{clock, short};
use crate::controller::meter::Rate;
use crate::ledger::now_ms;

/// The pages of the navigation.
const PAGES: [(&str, &str); 9] = [
    ("/", "Fleet"),
    ("/routes", "Routes"),
    ("/upstreams", "Upstreams"),
    ("/limits", "Limits"),
    ("/certificates", "Certificates"),
    ("/events", "Events"),
    ("/logs", "Logs"),
    ("/alerts", "Alerts"),
    ("/documents", "Configuration"),
];

/// A page. `live` is where its living part comes from, if it has one: `<div id="live">` in the content.
pub(super) fn frame(state: &State, path: &str, title: &str, live: Option<&str>, content: &Markup) -> Markup {
    let firing = state.picture.now(now_ms()).alerts.values().filter(|alert| alert.stage == Stage::Firing).count();
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("{title} · {}", state.fleet.name())))
            body {
                a class="skip" href="#main" { "Skip to content" }
                header {
                    strong { "Tollgate" } span class="fleet" { (state.fleet.name()) }
                    @if !*state.active.borrow() { span class="chip" title="Another controller acts; this one shows" { "standby" } }
                    form method="post" action="/logout" { button class="plain" { "Log out" } }
                }
                nav aria-label="Pages" {
                    @for (to, name) in PAGES {
                        a href=(to) aria-current=[(to == path).then_some("page")] {
                            (name)
                            @if to == "/alerts" && firing > 0 { " " span class="count" { (firing) } }
                        }
                    }
                }
                main id="main" tabindex="-1" {
                    h1 { (title) }
                    @if let Some(live) = live { div id="source" data-on-load={ "@get('" (live) "')" } {} }
                    (content)
                }
            }
        }
    }
}

pub(super) fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) }
            link rel="icon" href="data:,";
            link rel="stylesheet" href="/assets/style.css";
            script type="module" src="/assets/datastar.js" {}
        }
    }
}

/// A state in one word. Its colour says no more than the word does.
pub(super) fn chip(class: &str, text: &str) -> Markup {
    html! { span class={ "chip " (class) } { (text) } }
}

/// The cells of a rate: requests, errors, latencies.
pub(super) fn rate_cells(rate: &Rate) -> Markup {
    let Rate { per_second, server_errors, client_errors: _, rejected, p50_ms, p99_ms } = rate;
    html! {
        td class="number" { (short(*per_second)) }
        td class={ "number" @if *server_errors > 0.0 { " bad" } } { (short(*server_errors)) " %" }
        td class="number" { (short(*rejected)) " %" }
        td class="number" { (milliseconds(*p50_ms)) }
        td class="number" { (milliseconds(*p99_ms)) }
    }
}

pub(super) fn rate_heads() -> Markup {
    html! {
        th scope="col" class="number" { "Requests/s" }
        th scope="col" class="number" { "5xx" }
        th scope="col" class="number" { "Refused" }
        th scope="col" class="number" { "p50" }
        th scope="col" class="number" { "p99" }
    }
}

pub(super) fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |ms| format!("{} ms", short(ms)))
}

/// How long ago, in the largest unit that says enough.
pub(super) fn ago(at_ms: u64) -> String {
    let seconds = now_ms().saturating_sub(at_ms) / 1000;
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6_000 => format!("{} min", seconds / 60),
        6_000..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A moment: the time if it is of today, else the date with it. UTC.
pub(super) fn moment(at_ms: u64) -> Markup {
    let text = crate::telemetry::access::rfc3339(std::time::UNIX_EPOCH + std::time::Duration::from_millis(at_ms));
    let today = at_ms / 86_400_000 == now_ms() / 86_400_000;
    let seconds = format!("{}:{:02}", clock(at_ms / 1000), at_ms / 1000 % 60);
    let shown = if today { seconds } else { format!("{} {seconds}", text.get(..10).unwrap_or_default()) };
    html! { time datetime=(text) title=(text) { (shown) } }
}
