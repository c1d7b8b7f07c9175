//! The dashboard: pages that are made here and patched while they are looked at.
//!
//! Every page works without a program in the browser; Datastar replaces its living part every two seconds. Nothing on a page
//! comes from elsewhere, and everything that is inserted is escaped (maud).

mod alerts;
mod documents;
mod editor;
mod fleet;
mod frame;
mod live;
mod login;
mod routes;
mod search;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use maud::{Markup, html};

use super::{State, access, api, health};
use crate::admin;
use crate::ledger::TEXT_MAX;

/// Bytes of a question: a document as a form or as JSON, with room for what has to be escaped.
const BODY_MAX: usize = TEXT_MAX + (16 << 20);
/// Bytes of what anybody may send, before it is known who.
const FORM_MAX: usize = 8 << 10;
/// Time to read a question and begin the answer. A large document takes its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

const DATASTAR: &str = include_str!("../assets/datastar.js");
const STYLE: &str = include_str!("../assets/style.css");

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/", get(fleet::page))
        .route("/nodes/forget", post(fleet::forget))
        .route("/routes", get(routes::page))
        .route("/route", get(routes::one))
        .route("/upstreams", get(traffic::upstreams))
        .route("/limits", get(traffic::limits))
        .route("/certificates", get(traffic::certificates))
        .route("/events", get(search::events))
        .route("/logs", get(search::logs))
        .route("/alerts", get(alerts::page))
        .route("/documents", get(documents::page).post(documents::act))
        .route("/live/{page}", get(live::live))
        .route("/login", get(login::page).post(login::log_in).layer(DefaultBodyLimit::max(FORM_MAX)))
        .route("/logout", post(login::log_out))
        .route("/assets/{name}", get(asset))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .nest("/api", api::routes())
        .fallback(|| async { admin::problem(StatusCode::NOT_FOUND, "not_found", "there is no such page") })
        .method_not_allowed_fallback(|| async {
            admin::problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the page takes another method")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn_with_state(state.clone(), access::check))
        .with_state(state)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => admin::problem(StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long"),
    }
}

async fn asset(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "datastar.js" => ("text/javascript; charset=utf-8", DATASTAR),
        "style.css" => ("text/css; charset=utf-8", STYLE),
        _ => return admin::problem(StatusCode::NOT_FOUND, "not_found", "there is no such file"),
    };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

/// What is shown where something cannot be read.
fn failed(error: &dyn std::fmt::Display) -> Markup {
    html! { p class="problem" role="alert" { (error.to_string()) } }
}
