//! The way in.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Form, Query, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;

use super::frame::head;
use crate::admin::Peer;
use crate::controller::State;
use crate::controller::access::{self, Shown};

#[derive(Debug, Deserialize)]
pub(super) struct Shows {
    #[serde(default)]
    token: String,
    #[serde(default)]
    to: String,
}

pub(super) async fn page(Query(Shows { to, .. }): Query<Shows>) -> Markup {
    form(&to, None)
}

pub(super) async fn log_in(
    Extract(state): Extract<Arc<State>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Form(Shows { token, to }): Form<Shows>,
) -> Response {
    let peer = peer.map(|Extension(peer)| peer).unwrap_or_default();
    match access::log_in(&state, &token, &to, &headers, peer) {
        Ok(answer) => answer,
        Err(Shown::NotNow) => {
            (StatusCode::TOO_MANY_REQUESTS, form(&to, Some("Too many wrong tokens. Wait a minute."))).into_response()
        }
        Err(_) => (StatusCode::UNAUTHORIZED, form(&to, Some("This is not the token."))).into_response(),
    }
}

pub(super) async fn log_out(Extract(state): Extract<Arc<State>>, headers: HeaderMap) -> Response {
    access::log_out(&state, &headers)
}

fn form(to: &str, problem: Option<&str>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head("Log in · Tollgate"))
            body class="login" {
                main {
                    h1 { "Tollgate" }
                    @if let Some(problem) = problem { p class="problem" role="alert" { (problem) } }
                    form method="post" action="/login" {
                        input type="hidden" name="to" value=(to);
                        label for="token" { "Token" }
                        input id="token" name="token" type="password" autocomplete="current-password" required autofocus;
                        button { "Log in" }
                    }
                }
            }
        }
    }
}
