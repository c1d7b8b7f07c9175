//! Telling of an alert: an event on the bus, a POST to a webhook. One try; `line.rs` knows when the next is due.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use serde_json::json;

use super::{Message, Standing};
use crate::controller::State;
use crate::fetch::{Trust, fetch};
use crate::settings::Notify;
use crate::telemetry::access::rfc3339;

/// How a try went.
pub(super) struct Told {
    /// Who was to be told.
    pub(super) whom: String,
    /// Of which stage.
    pub(super) id: String,
    pub(super) went: Result<(), String>,
}

/// Tells one of one stage: a webhook, or all by an event.
pub(super) async fn tell(state: Arc<State>, message: Message, whom: String, webhook: Option<Notify>) -> Told {
    let Message { standing, .. } = message;
    let went = match &webhook {
        Some(webhook) => post(&state, webhook, &standing).await,
        None => event(&state, &standing).await,
    };
    Told { whom, id: standing.id, went }
}

async fn event(state: &State, standing: &Standing) -> Result<(), String> {
    let Standing { alert, subject, stage, text, id, .. } = standing;
    let more = json!({ "alert": alert, "subject": subject, "text": text, "stage": stage });
    state.event(&format!("alert_{}", stage.name()), id, more).await.map_err(|error| error.to_string())
}

async fn post(state: &State, webhook: &Notify, standing: &Standing) -> Result<(), String> {
    let Standing { alert, subject, stage, since_ms, text, id, .. } = standing;
    let since = rfc3339(std::time::UNIX_EPOCH + Duration::from_millis(*since_ms));
    let body = json!({
        "id": id, "fleet": state.fleet.name(), "alert": alert, "subject": subject, "state": stage, "since": since, "text": text,
    });
    let request = Request::post(webhook.webhook.expose())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(webhook.timeout.0, fetch(request, &Trust::default())).await {
        Ok(Ok(answer)) if answer.status.is_success() => Ok(()),
        Ok(Ok(answer)) => Err(format!("it answers {}", answer.status)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {}", webhook.timeout)),
    }
}
