//! `/revocations`: tokens that are taken no longer.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::health::uncached;
use super::{State, problem};
use crate::policy::{Revocation, RevocationError, unix_now};
use crate::problem::nearest;

pub(super) async fn list(Extract(state): Extract<State>) -> Response {
    uncached(Json(json!({ "revocations": state.revocations.all(unix_now()) })))
}

pub(super) async fn add(Extract(state): Extract<State>, asked: Result<Json<Revocation>, JsonRejection>) -> Response {
    let revocation = match asked {
        Ok(Json(revocation)) => revocation,
        Err(rejection) => return problem::answer(rejection.status(), "bad_revocation", &rejection.body_text()),
    };
    let mut revocation = revocation;
    if let Some(name) = &revocation.issuer {
        // A name that is written wrong would revoke nothing, and nobody would notice. Kept is what tokens say: blocks may be
        // called otherwise tomorrow.
        let table = state.live.load_full();
        let known = || table.issuers.iter().map(|issuer| &**issuer.name());
        let Some(issuer) = table.issuers.iter().find(|one| **one.name() == **name || *one.iss() == **name) else {
            let near = nearest(name, known()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let detail = format!("there is no `[issuer.{name}]`{near}");
            return problem::answer(StatusCode::UNPROCESSABLE_ENTITY, "unknown_issuer", &detail);
        };
        revocation.issuer = Some(issuer.iss().to_owned());
    }
    let kept = state.revocations.are_kept();
    let told = revocation.clone();
    let revocations = state.revocations.clone();
    match tokio::task::spawn_blocking(move || revocations.add(revocation, unix_now())).await {
        Ok(Ok(id)) => {
            tracing::warn!(
                event = "revocation.added",
                revocation = id,
                issuer = told.issuer,
                reason = told.reason,
                "tokens revoked"
            );
            (StatusCode::CREATED, uncached(Json(json!({ "id": id, "kept": kept })))).into_response()
        }
        Ok(Err(error)) => failed(&error),
        Err(error) => problem::answer(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
    }
}

pub(super) async fn remove(Extract(state): Extract<State>, Path(id): Path<String>) -> Response {
    let (revocations, of) = (state.revocations.clone(), id.clone());
    match tokio::task::spawn_blocking(move || revocations.remove(&of, unix_now())).await {
        Ok(Ok(true)) => {
            tracing::warn!(event = "revocation.removed", revocation = id, "tokens are taken again");
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(Ok(false)) => problem::answer(StatusCode::NOT_FOUND, "not_found", "there is no such revocation"),
        Ok(Err(error)) => failed(&error),
        Err(error) => problem::answer(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
    }
}

fn failed(error: &RevocationError) -> Response {
    let status = match error {
        RevocationError::Nothing | RevocationError::Text | RevocationError::Over => StatusCode::UNPROCESSABLE_ENTITY,
        RevocationError::Full => StatusCode::INSUFFICIENT_STORAGE,
        RevocationError::Kept(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let code = if matches!(error, RevocationError::Kept(_)) { "not_kept" } else { "not_revoked" };
    problem::answer(status, code, &error.to_string())
}
