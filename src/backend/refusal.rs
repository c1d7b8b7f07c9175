//! Why a request is refused: each cause once, with its status and its stable code. `answer` is the one place that writes them.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::store::StoreError;

/// What a client is told, and what the log says beyond it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The request makes no sense; the text says where.
    #[error("{0}")]
    Malformed(String),
    #[error("filter: {0}")]
    Filter(String),
    /// A field holds what it may not hold.
    #[error("{field}: {message}")]
    Invalid { field: String, message: String },
    #[error("a token is needed: Authorization: Bearer ..")]
    Anonymous,
    #[error("the token is wrong or has ended")]
    Token,
    /// A refresh token came twice: somebody has stolen it.
    #[error("the refresh token was used before: the session is ended")]
    Reused,
    #[error("the address or the password is wrong")]
    Credentials,
    #[error("this is not for you")]
    Forbidden,
    #[error("there is no such thing here")]
    NotFound,
    #[error("the page takes another method")]
    Method,
    #[error("the request took too long to arrive")]
    Timeout,
    #[error("there is one of this name already")]
    Taken,
    #[error("it has changed since: read it again")]
    Changed,
    #[error("more than {0} bytes are not taken")]
    TooLarge(u64),
    #[error("the body is to be {0}")]
    Type(&'static str),
    #[error("too many wrong passwords: wait")]
    Failures(Duration),
    #[error("too much is asked at once: come again")]
    Busy,
    /// The text says what is full, by the word of the settings that bounds it.
    #[error("there is no room left: {0}")]
    Full(&'static str),
    /// The text is for the log.
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    pub(super) fn invalid(field: &str, message: impl Into<String>) -> Refusal {
        Refusal::Invalid { field: field.to_owned(), message: message.into() }
    }

    pub(super) fn internal(error: impl std::fmt::Display) -> Refusal {
        Refusal::Internal(error.to_string())
    }

    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Refusal::Malformed(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Refusal::Filter(_) => (StatusCode::BAD_REQUEST, "bad_filter"),
            Refusal::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid"),
            Refusal::Anonymous => (StatusCode::UNAUTHORIZED, "auth_required"),
            Refusal::Token => (StatusCode::UNAUTHORIZED, "auth_token"),
            Refusal::Reused => (StatusCode::UNAUTHORIZED, "token_reused"),
            Refusal::Credentials => (StatusCode::UNAUTHORIZED, "wrong_credentials"),
            Refusal::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            Refusal::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Refusal::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Refusal::Timeout => (StatusCode::REQUEST_TIMEOUT, "timeout"),
            Refusal::Taken => (StatusCode::CONFLICT, "taken"),
            Refusal::Changed => (StatusCode::PRECONDITION_FAILED, "changed"),
            Refusal::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Refusal::Type(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_type"),
            Refusal::Failures(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_failures"),
            Refusal::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Refusal::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, "storage_full"),
            Refusal::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    /// The answer (RFC 9457).
    pub(super) fn answer(&self, request_id: &str) -> Response {
        let (status, code) = self.status_and_code();
        let detail = match self {
            Refusal::Internal(_) => "something went wrong here; the log says what".to_owned(),
            other => other.to_string(),
        };
        let mut body = json!({
            "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(),
            "code": code, "detail": detail, "request_id": request_id,
        });
        if let (Refusal::Invalid { field, .. }, Some(body)) = (self, body.as_object_mut()) {
            body.insert("field".to_owned(), field.as_str().into());
        }
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let again = match self {
            Refusal::Failures(wait) => Some(wait.as_secs().max(1)),
            Refusal::Busy => Some(1),
            _ => None,
        };
        if let Some(seconds) = again {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The cause travels with the response; `serve::finish` writes what the client sees.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status_and_code().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        match error {
            StoreError::Busy => Refusal::Busy,
            StoreError::Sql(error) => error.into(),
            other => Refusal::internal(other),
        }
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Refusal {
        match &error {
            rusqlite::Error::QueryReturnedNoRows => Refusal::NotFound,
            _ if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => Refusal::Full("the disk is full"),
            _ if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => Refusal::Busy,
            _ => Refusal::internal(error),
        }
    }
}
