//! What a handler wants to know of a request: who asks, within which trace, and what stands in the body.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use rusqlite::Connection;
use serde::de::DeserializeOwned;

use super::moment;
use super::outbox::Teller;
use super::refusal::Refusal;
use super::sessions::{self, Session};
use super::state::State;
use super::tokens::{self, Role};
use crate::telemetry::TraceContext;

/// Who asks. A token that is wrong is refused, also where none is needed.
#[derive(Clone, Debug)]
pub(super) enum Who {
    Anyone,
    User(Session),
}

impl Who {
    /// Whoever has proven who it is.
    pub(super) fn user(&self) -> Result<&Session, Refusal> {
        match self {
            Who::Anyone => Err(Refusal::Anonymous),
            Who::User(session) => Ok(session),
        }
    }

    pub(super) fn admin(&self) -> Result<&Session, Refusal> {
        self.user().and_then(|user| if user.role == Role::Admin { Ok(user) } else { Err(Refusal::Forbidden) })
    }

    /// Who asks, as the database knows it now: since the request began the session may have ended, or the account gone. For
    /// the change itself: what is asked there nothing can overtake.
    pub(super) fn still(self, connection: &Connection) -> Result<Who, Refusal> {
        let Who::User(session) = self else { return Ok(Who::Anyone) };
        sessions::find(connection, &session.id, moment::now())?.map(Who::User).ok_or(Refusal::Token)
    }

    pub(super) fn is_admin(&self) -> bool {
        self.admin().is_ok()
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.user().ok().map(|user| user.user.as_str())
    }
}

/// The token of `Authorization: Bearer ..`.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refusal::Token)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(token.trim())) } else { Err(Refusal::Token) }
}

impl FromRequestParts<State> for Who {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Who, Refusal> {
        let Some(token) = bearer(&parts.headers)? else { return Ok(Who::Anyone) };
        let claims = tokens::verify(&state.ring.load(), &state.words.token, token)?;
        // The role is that of now, and who has logged out is out: the token alone does not know.
        let found = state.store.read(move |connection| sessions::find(connection, &claims.sid, moment::now())).await?;
        found.map(Who::User).ok_or(Refusal::Token)
    }
}

/// Where this request stands in a trace (W3C `traceparent`): a span of its own, in the caller's trace if there is one.
pub(super) fn trace(headers: &HeaderMap) -> TraceContext {
    let told = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(TraceContext::parse);
    told.map_or_else(|| TraceContext::begin(false), |told| told.child())
}

impl FromRequestParts<State> for Teller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Teller, Refusal> {
        let trace = parts.extensions.get().copied().unwrap_or_else(|| trace(&parts.headers));
        Ok(Teller { trace, bound: state.words.bus.buffer })
    }
}

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<State> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &State) -> Result<Body<T>, Refusal> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Body(body)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Refusal::Type("application/json")),
            Err(JsonRejection::BytesRejection(rejected)) => match rejected.status() {
                axum::http::StatusCode::PAYLOAD_TOO_LARGE => Err(Refusal::TooLarge(state.words.limits.body.0)),
                _ => Err(Refusal::Malformed(rejected.body_text())),
            },
            Err(other) => Err(Refusal::Malformed(other.body_text())),
        }
    }
}

/// What stands behind the `?`.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<State> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Asked<T>, Refusal> {
        let asked = Query::from_request_parts(parts, state).await;
        asked.map(|Query(asked)| Asked(asked)).map_err(|error| Refusal::Malformed(error.body_text()))
    }
}
