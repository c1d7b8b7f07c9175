//! `POST /explain`: which route a request takes and why every other one lost, asked of the table in force.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State as Extract;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::health::uncached;
use super::{State, problem};
use crate::facts::ClientCertificate;
use crate::routes::Question;
use crate::scalar::OneOrMany;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Default `GET`.
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, OneOrMany<String>>,
    /// Client address. Default `127.0.0.1`.
    #[serde(default)]
    from: Option<String>,
    /// Name of the listener. Default: the first that is public.
    #[serde(default)]
    listen: Option<String>,
    /// The certificate that the client showed.
    #[serde(default)]
    client_certificate: Option<ClientCertificate>,
    /// Claims of whoever is proven to ask.
    #[serde(default)]
    claims: Option<serde_json::Map<String, serde_json::Value>>,
}

fn get() -> String {
    "GET".to_owned()
}

pub(super) async fn explain(Extract(state): Extract<State>, asked: Result<Json<Asked>, JsonRejection>) -> Response {
    let Asked { method, url, headers, from, listen, client_certificate, claims } = match asked {
        Ok(Json(asked)) => asked,
        Err(rejection) => return problem::answer(rejection.status(), "bad_question", &rejection.body_text()),
    };
    let each = |(name, values): (String, OneOrMany<String>)| {
        values.0.into_iter().map(move |value| (name.clone(), value)).collect::<Vec<_>>()
    };
    let headers = headers.into_iter().flat_map(each).collect();
    let question = Question { request: format!("{method} {url}"), headers, from, listen, client_certificate, claims };
    match state.live.load_full().answer(&question) {
        Ok(explanation) => uncached(Json(explanation)),
        Err(error) => problem::answer(StatusCode::BAD_REQUEST, "bad_question", &error.to_string()),
    }
}
