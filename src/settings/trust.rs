//! Words of `[trust]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::OneOrMany;

/// Whose word about the client is believed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Networks whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are believed. The client is the right-most hop not among them. Default: none.
    #[serde(default)]
    pub forwarded_from: OneOrMany<String>,
}
