//! Telling of an alert: an event on the bus, a POST to a webhook. Tried again for an hour.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use serde_json::json;
use tokio::time::Instant;

use super::{EVENT, Standing};
use crate::controller::State;
use crate::fetch::{Trust, fetch};
use crate::settings::Notify;
use crate::tasks::jittered;
use crate::telemetry::access::rfc3339;

/// Pauses between tries, doubled up to the longer one, with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Who does not answer for so long is not told of this stage.
const GIVEN_UP: Duration = Duration::from_secs(3600);

/// How it went. Given up counts as done: the next stage is told again.
pub(super) struct Told {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) whom: String,
    pub(super) done: bool,
}

/// Tells one of one stage.
pub(super) async fn tell(
    state: Arc<State>,
    key: String,
    standing: Standing,
    whom: String,
    webhook: Option<Notify>,
) -> Told {
    let began = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let told = match (&webhook, whom.as_str()) {
            (_, EVENT) => event(&state, &standing).await,
            (Some(webhook), _) => post(&state, webhook, &standing).await,
            // The rules changed: whoever is named there now is told.
            (None, _) => return Told { key, id: standing.id, whom, done: false },
        };
        match told {
            Ok(()) => return Told { key, id: standing.id, whom, done: true },
            Err(error) if began.elapsed() >= GIVEN_UP => {
                tracing::error!(%error, alert = standing.alert, whom, "could not tell of an alert; given up");
                return Told { key, id: standing.id, whom, done: true };
            }
            Err(error) => {
                tracing::warn!(%error, alert = standing.alert, whom, "could not tell of an alert; tried again")
            }
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
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
    let request = Request::post(webhook.webhook.as_str())
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
