//! Forgetting a gateway that is gone for good, before its day is over. One that lives would be back with its next report.

use super::State;
use crate::bus::BusError;
use crate::bus::names::level;
use crate::fleet::Report;
use crate::ledger::now_ms;

#[derive(Debug, thiserror::Error)]
pub(super) enum ForgetError {
    #[error("there is no gateway `{0}`")]
    Unknown(String),
    #[error("the gateway `{0}` still reports: stop it first, and wait until it is silent")]
    Lives(String),
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Removes what a gateway last reported. Every controller sees it go.
pub(super) async fn forget(state: &State, node: &str) -> Result<(), ForgetError> {
    let (bucket, key) = (state.bus.bucket(&state.fleet.status()).await?, format!("node.{}", level(node)));
    let entry = bucket.entry(&key).await?.ok_or_else(|| ForgetError::Unknown(node.to_owned()))?;
    // What a newer version writes may look different: nobody can say whether it lives.
    let silent = serde_json::from_slice::<Report>(&entry.value).is_ok_and(|report| report.is_silent(now_ms()));
    if !silent {
        return Err(ForgetError::Lives(node.to_owned()));
    }
    match bucket.remove(&key, Some(entry.revision)).await {
        Err(BusError::Lost { .. }) => Err(ForgetError::Lives(node.to_owned())),
        done => {
            done?;
            tracing::info!(node, "forgotten");
            Ok(())
        }
    }
}
