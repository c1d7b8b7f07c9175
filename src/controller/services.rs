//! Services that do not report by themselves: their `/ready` is asked again and again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use super::State;
use crate::fetch::{Trust, fetch};
use crate::ledger::now_ms;
use crate::settings;

/// A service that does not answer within this is not ready.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Asks one service, for as long as the process lives.
pub(super) async fn watch(state: Arc<State>, service: settings::Watch) {
    let trust = Trust::default();
    loop {
        let ready = ask(&service.url, &trust).await;
        state.picture.service(&service.name, ready, now_ms());
        tokio::time::sleep(service.every.0.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
    }
}

async fn ask(url: &str, trust: &Trust) -> Result<(), String> {
    let request = Request::get(url).body(Full::<Bytes>::default()).map_err(|error| error.to_string())?;
    match tokio::time::timeout(ANSWER_WITHIN, fetch(request, trust)).await {
        Ok(Ok(answer)) if answer.status.is_success() => Ok(()),
        Ok(Ok(answer)) => Err(format!("it answers {}", answer.status)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {ANSWER_WITHIN:?}")),
    }
}
