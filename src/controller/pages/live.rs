//! The living part of a page: made anew every two seconds, and sent as Datastar wants it (1.0.0-beta.11).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use maud::Markup;
use serde::Deserialize;

use super::{alerts, documents, fleet, routes, traffic};
use crate::admin::{self, Leaving};
use crate::controller::State;

/// As often as gateways tell their traffic.
const EVERY: Duration = Duration::from_secs(2);
/// A connection that died without a word is noticed by these.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Default, Deserialize)]
pub(super) struct Of {
    #[serde(default)]
    pub(super) name: String,
}

pub(super) async fn live(
    Extract(state): Extract<Arc<State>>,
    Path(page): Path<String>,
    Query(of): Query<Of>,
    leaving: Option<Extension<Leaving>>,
    headers: HeaderMap,
) -> Response {
    if content(&state, &page, &of.name).await.is_none() {
        return admin::problem(StatusCode::NOT_FOUND, "not_found", "there is no such page");
    }
    let by_cookie = state.access.knows(&headers);
    let frames = stream::unfold(Duration::ZERO, move |wait| {
        let (state, page, name, headers) = (state.clone(), page.clone(), of.name.clone(), headers.clone());
        async move {
            tokio::time::sleep(wait).await;
            // Who has logged out sees no more.
            if by_cookie && !state.access.knows(&headers) {
                return None;
            }
            let content = content(&state, &page, &name).await?;
            Some((Ok::<_, Infallible>(event(&content)), EVERY))
        }
    });
    let frames = futures_util::StreamExt::take_until(frames, async move {
        match leaving {
            Some(Extension(Leaving(leaving))) => leaving.cancelled().await,
            None => std::future::pending().await,
        }
    });
    Sse::new(frames).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// `data:` of each line begins with the name of an argument; axum makes a `data:` of each line.
fn event(content: &Markup) -> Event {
    let lines: Vec<String> = content.0.lines().map(|line| format!("fragments {line}")).collect();
    Event::default().event("datastar-merge-fragments").data(lines.join("\n"))
}

async fn content(state: &Arc<State>, page: &str, name: &str) -> Option<Markup> {
    Some(match page {
        "fleet" => fleet::content(state).await,
        "routes" => routes::content(state).await,
        "route" => routes::one_content(state, name).await,
        "upstreams" => traffic::upstreams_content(state),
        "limits" => traffic::limits_content(state).await,
        "certificates" => traffic::certificates_content(state),
        "alerts" => alerts::content(state),
        "documents" => documents::applied(state).await,
        _ => return None,
    })
}
