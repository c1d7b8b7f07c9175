//! Words of `[routes]`: where the document comes from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Settings;
use crate::scalar::{OneOrMany, Span};

/// Where the document comes from.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Routes {
    /// Path of the document, watched for changes. Relative to the working directory. Exactly one of `file` and `nats`.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The document comes from the bus.
    #[serde(default)]
    pub nats: Option<RoutesOnBus>,
    /// Path of a document to serve when the bus has none at start and none is kept in `state.dir`. Needs `nats`. Default: none.
    #[serde(default)]
    pub fallback: Option<PathBuf>,
}

/// A document on the bus, as `tollgate push` writes it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ bucket = \"tollgate\" }")]
pub struct RoutesOnBus {
    /// Bucket that holds the documents. Default: the name of the fleet.
    #[serde(default)]
    pub bucket: Option<String>,
    /// Ed25519 public keys (PEM, or 32 bytes in base64) of which one has signed every document that is taken. Default: unsigned ones are taken.
    #[serde(default)]
    pub signed_by: OneOrMany<String>,
    /// How long a start waits for the bus before it serves what is kept. Default 3s.
    #[serde(default = "wait")]
    pub wait: Span,
}

fn wait() -> Span {
    Span::from_secs(3)
}

impl Routes {
    /// From the bus, and from a file when it has none.
    pub fn on_bus(fallback: PathBuf) -> Routes {
        let nats = RoutesOnBus { bucket: None, signed_by: OneOrMany::default(), wait: wait() };
        Routes { file: None, nats: Some(nats), fallback: Some(fallback) }
    }
}

impl Settings {
    /// The bucket that documents come from, if they come from the bus.
    pub fn bucket(&self) -> Option<String> {
        let nats = self.routes.nats.as_ref()?;
        Some(nats.bucket.clone().unwrap_or_else(|| self.bus.clone().unwrap_or_default().fleet))
    }
}
