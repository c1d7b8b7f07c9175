//! What machines and administrators ask of the service itself: health, metrics, keys, state.

use axum::Json;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::keys::{self, Ring};
use super::moment;
use super::outbox::{self, Lag};
use super::refusal::Refusal;
use super::state::State;
use super::store::StoreError;
use super::who::Who;
use crate::migrations;

/// The process lives.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Requests are taken, and what they change can be written.
pub(super) async fn ready(Shared(state): Shared<State>) -> Response {
    let leaving = state.leaving.load(std::sync::atomic::Ordering::Relaxed);
    let ready = state.is_ready() && version(&state).await.is_ok();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": ready, "writable": state.store.is_writable(), "leaving": leaving });
    (status, Json(body)).into_response()
}

async fn version(state: &State) -> Result<i64, StoreError> {
    state.store.read(|connection| Ok(migrations::version(connection)?)).await
}

async fn lag(state: &State) -> Result<Lag, StoreError> {
    state.store.read(|connection| Ok(outbox::lag(connection)?)).await
}

pub(super) async fn metrics(Shared(state): Shared<State>) -> Response {
    let text = state.metrics.text(lag(&state).await.ok(), state.is_ready());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Keys that tokens are verified by. Whoever keeps them has the next one before it signs.
pub(super) async fn jwks(Shared(state): Shared<State>) -> Response {
    let age = (state.times().lead().as_secs() / 2).min(300);
    let cached = [(header::CACHE_CONTROL, format!("public, max-age={age}"))];
    (cached, Json(state.ring.load().jwks())).into_response()
}

/// As OpenID providers describe themselves, as far as verifying tokens needs it.
pub(super) async fn configuration(Shared(state): Shared<State>, headers: HeaderMap) -> Json<Value> {
    // Behind a gateway the address that was asked is the one that works.
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scheme = if text("x-forwarded-proto") == "https" { "https" } else { "http" };
    let base = format!("{scheme}://{}", text("host"));
    Json(json!({
        "issuer": state.words.token.issuer,
        "jwks_uri": format!("{base}/.well-known/jwks.json"),
        "token_endpoint": format!("{base}/api/auth/login"),
        "id_token_signing_alg_values_supported": ["ES256"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
    }))
}

/// What the admin page shows on top.
pub(super) async fn status(Shared(state): Shared<State>, who: Who) -> Result<Json<Value>, Refusal> {
    who.admin()?;
    let asked = state.store.read(|connection| {
        let number = |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
        let counts: [i64; 4] = [number("users")?, number("collections")?, number("records")?, number("files")?];
        let bytes: i64 = connection.query_row("SELECT coalesce(sum(size), 0) FROM files", [], |row| row.get(0))?;
        Ok::<_, Refusal>((counts, bytes, outbox::lag(connection)?, migrations::version(connection)?))
    });
    let ([users, collections, records, files], bytes, lag, schema) = asked.await?;
    let age_ms = lag.oldest.map_or(0, |oldest| (moment::now() - oldest).max(0));
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"), "schema": schema,
        "users": users, "collections": collections, "records": records, "files": files, "file_bytes": bytes,
        "outbox": { "bus": state.has_bus, "waiting": lag.waiting, "age_ms": age_ms, "sent": lag.sent, "lost": lag.lost },
        "keys": keys::outlook(&state.ring.load(), state.times()),
    })))
}

/// For keys that others know: a new one signs, and no token of the old ones is right any more. Refresh tokens stay.
pub(super) async fn replace_keys(Shared(state): Shared<State>, who: Who) -> Result<StatusCode, Refusal> {
    who.admin()?;
    let replaced = state.store.write(move |connection| {
        who.still(connection)?.admin()?;
        Ring::replace(connection, moment::now())
    });
    let ring = replaced.await?;
    ring.adopt(&state.ring);
    tracing::warn!("the signing keys were replaced: tokens given before are not taken any more");
    Ok(StatusCode::NO_CONTENT)
}
