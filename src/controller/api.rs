//! The API: JSON of what the pages show, and of what operators do. Mistakes are `application/problem+json` with a `code`.

use std::sync::Arc;

use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::documents::{self, DocumentError, Saying};
use super::forget::{self, ForgetError};
use super::store::{self, EventQuery, RequestQuery, StoreError};
use super::views::{self, Shown};
use super::{State, canary};
use crate::admin;
use crate::ledger::{LedgerError, now_ms};
use crate::routes::Question;

/// Rows of a page.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 10_000;
/// Refusals that count for the top keys.
pub(super) const TOP_WITHIN_MS: u64 = 3_600_000;
pub(super) const TOP: usize = 20;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/status", get(status))
        .route("/nodes", get(nodes))
        .route("/nodes/{node}", delete(forget))
        .route("/routes", get(|Extract(state): Extract<Arc<State>>| async move { Json(views::routes(&state)) }))
        .route("/upstreams", get(|Extract(state): Extract<Arc<State>>| async move { Json(views::upstreams(&state)) }))
        .route("/limits", get(limits))
        .route("/certificates", get(certificates))
        .route("/series", get(series))
        .route("/events", get(events))
        .route("/logs", get(logs))
        .route("/alerts", get(alerts))
        .route("/history", get(history))
        .route("/documents", get(head))
        .route("/documents/{revision}", get(revision))
        .route("/documents/check", post(check))
        .route("/documents/diff", post(diff))
        .route("/documents/explain", post(explain))
        .route("/documents/push", post(push))
        .route("/documents/rollback", post(rollback))
}

/// What went wrong, as an answer.
struct Failed(StatusCode, &'static str, Value);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Failed(status, code, mut more) = self;
        let detail = more.get("detail").and_then(Value::as_str).unwrap_or_default().to_owned();
        let plain = admin::problem(status, code, &detail);
        let Some(more) = more.as_object_mut().filter(|more| more.len() > 1) else { return plain };
        more.insert("status".to_owned(), status.as_u16().into());
        more.insert("code".to_owned(), code.into());
        (status, [("content-type", "application/problem+json")], Value::Object(more.clone()).to_string())
            .into_response()
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Failed {
        let detail = json!({ "detail": error.to_string() });
        match error {
            StoreError::TooLong(_) => Failed(StatusCode::SERVICE_UNAVAILABLE, "search_too_long", detail),
            StoreError::Searched => Failed(StatusCode::SERVICE_UNAVAILABLE, "search_busy", detail),
            _ => {
                tracing::error!(%error, "the database cannot be read");
                Failed(StatusCode::INTERNAL_SERVER_ERROR, "store", detail)
            }
        }
    }
}

impl From<DocumentError> for Failed {
    fn from(error: DocumentError) -> Failed {
        let detail = error.to_string();
        match error {
            DocumentError::Bad(problems) => {
                Failed(StatusCode::UNPROCESSABLE_ENTITY, "invalid", json!({ "detail": detail, "problems": problems }))
            }
            DocumentError::Lost { diff, error } => {
                let now = match error {
                    LedgerError::Lost { now, .. } => now.map_or(0, |now| now.revision),
                    _ => 0,
                };
                Failed(StatusCode::CONFLICT, "lost", json!({ "detail": detail, "in_force": now, "diff": diff }))
            }
            DocumentError::Unread(_) => Failed(StatusCode::CONFLICT, "unread", json!({ "detail": detail })),
            DocumentError::Question(_) => Failed(StatusCode::BAD_REQUEST, "question", json!({ "detail": detail })),
            DocumentError::Ledger(LedgerError::NoRevision(_)) => {
                Failed(StatusCode::NOT_FOUND, "no_revision", json!({ "detail": detail }))
            }
            DocumentError::Ledger(_) => Failed(StatusCode::BAD_GATEWAY, "bus", json!({ "detail": detail })),
            DocumentError::Failed(_) => {
                Failed(StatusCode::INTERNAL_SERVER_ERROR, "failed", json!({ "detail": detail }))
            }
        }
    }
}

impl From<ForgetError> for Failed {
    fn from(error: ForgetError) -> Failed {
        let detail = json!({ "detail": error.to_string() });
        match error {
            ForgetError::Unknown(_) => Failed(StatusCode::NOT_FOUND, "no_node", detail),
            ForgetError::Lives(_) => Failed(StatusCode::CONFLICT, "node_lives", detail),
            ForgetError::Bus(_) => Failed(StatusCode::BAD_GATEWAY, "bus", detail),
        }
    }
}

type Answer<T> = Result<Json<T>, Failed>;

async fn status(Extract(state): Extract<Arc<State>>) -> Answer<Value> {
    let picture = state.picture.now(now_ms());
    let trial = match &picture.canary {
        Some((canary, _)) => {
            let (trial, elsewhere) = canary::sides(&state, canary).await?;
            Some(json!({ "canary": canary, "trial": trial, "elsewhere": elsewhere }))
        }
        None => None,
    };
    let lost: serde_json::Map<String, Value> =
        state.store.read(store::lost).await?.into_iter().map(|(reason, number)| (reason, number.into())).collect();
    Ok(Json(json!({
        "fleet": state.fleet.name(), "active": *state.active.borrow(), "bus_up": super::health::is_up(&state),
        "current": state.picture.is_current(), "head": picture.head, "trial": trial, "services": picture.services, "lost": lost,
    })))
}

async fn nodes(Extract(state): Extract<Arc<State>>) -> Json<Vec<views::NodeView>> {
    Json(views::nodes(&state, &state.picture.now(now_ms())))
}

async fn forget(Extract(state): Extract<Arc<State>>, Path(node): Path<String>) -> Answer<Value> {
    forget::forget(&state, &node).await?;
    Ok(Json(json!({ "forgotten": node })))
}

async fn certificates(Extract(state): Extract<Arc<State>>) -> Json<Vec<views::CertificateView>> {
    Json(views::certificates(&state.picture.now(now_ms())))
}

async fn limits(Extract(state): Extract<Arc<State>>) -> Answer<Value> {
    let since = now_ms().saturating_sub(TOP_WITHIN_MS);
    let top = state.store.read(move |connection| store::limited_clients(connection, since, TOP)).await?;
    let top: Vec<Value> = top
        .into_iter()
        .map(|(client, route, refused)| json!({ "client": client, "route": route, "refused": refused }))
        .collect();
    Ok(Json(json!({ "limits": views::limits(&state), "top_refused_in_the_last_hour": top })))
}

#[derive(Debug, Deserialize)]
struct SeriesQuery {
    #[serde(default)]
    route: String,
    #[serde(default)]
    span: Option<String>,
}

async fn series(Extract(state): Extract<Arc<State>>, Query(query): Query<SeriesQuery>) -> Answer<Vec<views::Point>> {
    let shown = match query.span.as_deref() {
        None | Some("15m") => Shown::QuarterHour,
        Some("24h") => Shown::Day,
        Some(_) => return Err(Failed(StatusCode::BAD_REQUEST, "span", json!({ "detail": "span is 15m or 24h" }))),
    };
    Ok(Json(views::series(&state, &query.route, shown).await?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    pub(super) trace_id: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) service: Option<String>,
    pub(super) event: Option<String>,
    pub(super) node: Option<String>,
    pub(super) route: Option<String>,
    /// `503` or `5xx`.
    pub(super) status: Option<String>,
    pub(super) before: Option<u64>,
    pub(super) limit: Option<usize>,
}

impl Search {
    fn rows(&self) -> usize {
        self.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX)
    }

    pub(super) fn events(&self) -> EventQuery {
        EventQuery {
            trace: self.trace_id.clone(),
            service: self.service.clone(),
            event: self.event.clone(),
            before: self.before,
            limit: self.rows(),
        }
    }

    pub(super) fn requests(&self) -> RequestQuery {
        let status = self.status.as_deref().and_then(|text| match text.strip_suffix("xx") {
            Some(class) => {
                class.parse::<u16>().ok().filter(|class| *class < 10).map(|class| (class * 100, class * 100 + 99))
            }
            None => text.parse().ok().map(|status| (status, status)),
        });
        RequestQuery {
            trace: self.trace_id.clone(),
            request: self.request_id.clone(),
            node: self.node.clone(),
            route: self.route.clone(),
            status,
            before: self.before,
            limit: self.rows(),
        }
    }
}

async fn events(
    Extract(state): Extract<Arc<State>>,
    Query(search): Query<Search>,
) -> Answer<store::Found<store::Event>> {
    let query = search.events();
    Ok(Json(state.store.search(move |connection| store::events(connection, &query)).await?))
}

async fn logs(Extract(state): Extract<Arc<State>>, Query(search): Query<Search>) -> Answer<store::Found<Value>> {
    let query = search.requests();
    Ok(Json(state.store.search(move |connection| store::requests(connection, &query)).await?))
}

async fn alerts(Extract(state): Extract<Arc<State>>) -> Json<Value> {
    let picture = state.picture.now(now_ms());
    let alerts: Vec<_> = picture.alerts.into_values().collect();
    Json(json!({ "alerts": alerts, "rules": *state.rules.now(), "problems": *state.rules.problems() }))
}

async fn history(Extract(state): Extract<Arc<State>>) -> Answer<Value> {
    let log = documents::log(&state).await?;
    let query = EventQuery { service: Some(super::SERVICE.to_owned()), limit: LIMIT_MAX, ..EventQuery::default() };
    let events = state.store.search(move |connection| store::events(connection, &query)).await?.found;
    let trials: Vec<_> = events.into_iter().filter(|event| event.event.starts_with("canary_")).collect();
    Ok(Json(json!({ "revisions": log, "trials": trials })))
}

async fn head(Extract(state): Extract<Arc<State>>) -> Answer<Value> {
    let Some(head) = documents::head(&state).await? else {
        return Err(Failed(StatusCode::NOT_FOUND, "nothing_pushed", json!({ "detail": "nothing was ever pushed" })));
    };
    let text = documents::text_of(&state, head.pointer.revision).await?;
    Ok(Json(json!({ "pointer": head.pointer, "text": text })))
}

async fn revision(Extract(state): Extract<Arc<State>>, Path(revision): Path<u64>) -> Answer<Value> {
    let pointer = state.ledger.revision(revision).await.map_err(DocumentError::from)?;
    let text = documents::text_of(&state, revision).await?;
    Ok(Json(json!({ "pointer": pointer, "text": text })))
}

#[derive(Debug, Deserialize)]
struct Text {
    text: Arc<str>,
}

async fn check(Json(Text { text }): Json<Text>) -> Answer<documents::Checked> {
    Ok(Json(documents::check(text).await?))
}

/// A revision (default: the one in force) against a text.
#[derive(Debug, Deserialize)]
struct Compared {
    #[serde(default)]
    revision: Option<u64>,
    text: Arc<str>,
}

async fn diff(Extract(state): Extract<Arc<State>>, Json(asked): Json<Compared>) -> Answer<Value> {
    let revision = match asked.revision {
        Some(revision) => revision,
        None => documents::head(&state).await?.map_or(0, |head| head.pointer.revision),
    };
    let diff = documents::diff(&state, revision, &asked.text).await?;
    Ok(Json(json!({ "revision": revision, "diff": diff })))
}

#[derive(Debug, Deserialize)]
struct Explained {
    /// Default: what is in force.
    #[serde(default)]
    text: Option<Arc<str>>,
    question: Question,
}

async fn explain(Extract(state): Extract<Arc<State>>, Json(asked): Json<Explained>) -> Answer<impl Serialize> {
    let text = match asked.text {
        Some(text) => text,
        None => {
            let revision = documents::head(&state).await?.map_or(0, |head| head.pointer.revision);
            documents::text_of(&state, revision).await?
        }
    };
    Ok(Json(documents::explain(text, asked.question).await?))
}

#[derive(Debug, Deserialize)]
struct Pushed {
    text: Arc<str>,
    parent: u64,
    #[serde(default = "api")]
    author: String,
    #[serde(default)]
    reason: String,
}

fn api() -> String {
    "api".to_owned()
}

async fn push(Extract(state): Extract<Arc<State>>, Json(asked): Json<Pushed>) -> Answer<impl Serialize> {
    let Pushed { text, parent, author, reason } = asked;
    Ok(Json(documents::push(&state, text, Saying { parent, author, reason }).await?))
}

#[derive(Debug, Deserialize)]
struct RolledBack {
    revision: u64,
    parent: u64,
    #[serde(default = "api")]
    author: String,
    #[serde(default)]
    reason: String,
}

async fn rollback(Extract(state): Extract<Arc<State>>, Json(asked): Json<RolledBack>) -> Answer<impl Serialize> {
    let RolledBack { revision, parent, author, reason } = asked;
    Ok(Json(documents::roll_back(&state, revision, Saying { parent, author, reason }).await?))
}
