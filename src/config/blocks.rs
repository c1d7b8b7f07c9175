//! Words of the blocks that a route may have and `[defaults]` may give: edits and limits.
//!
//! Every field's comment is user documentation: it becomes the JSON Schema and `docs/reference.md`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{OneOrMany, Size, Span};

/// Changes of the target that goes upstream. At most one of `strip_prefix`, `replace_prefix`, `path`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ strip_prefix = \"/api\" }")]
pub struct Rewrite {
    /// Removed from the front of the path, at a segment border: `/api` makes `/api/x` into `/x`.
    #[serde(default)]
    pub strip_prefix: Option<String>,
    /// What the pattern matched before its `*` is replaced: `{ from = "/api", to = "/v2" }`.
    #[serde(default)]
    pub replace_prefix: Option<ReplacePrefix>,
    /// The whole path: a template, such as `/users/{path.id}`.
    #[serde(default)]
    pub path: Option<String>,
    /// The Host header (and `:authority`): a template. Default: as asked for.
    #[serde(default)]
    pub host: Option<String>,
    /// Edits of the query.
    #[serde(default)]
    pub query: Option<QueryEdits>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ from = \"/a\", to = \"/b\" }")]
pub struct ReplacePrefix {
    /// Prefix, ending at a segment border.
    pub from: String,
    /// What stands there instead.
    pub to: String,
}

/// Edits of the query: first `remove`, then `set`, then `add`. Values are templates, percent-encoded as needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ set = { name = \"value\" } }")]
pub struct QueryEdits {
    /// Replaces every parameter of the name.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Adds a parameter beside others of the name.
    #[serde(default)]
    pub add: BTreeMap<String, String>,
    /// Removes every parameter of the name.
    #[serde(default)]
    pub remove: OneOrMany<String>,
}

/// Edits of headers: first `remove`, then `set`, then `add`. Values are templates over facts; a value whose facts are missing is not written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ set = { name = \"value\" } }")]
pub struct HeaderEdits {
    /// Replaces every field of the name. A request header that any route sets is removed from what clients send, on every route.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Adds a field beside others of the name.
    #[serde(default)]
    pub add: BTreeMap<String, String>,
    /// Removes every field of the name.
    #[serde(default)]
    pub remove: OneOrMany<String>,
}

/// Time limits by phase. Streams and upgrades live by `idle`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ connect = \"2s\", head = \"30s\", idle = \"60s\" }")]
pub struct Timeout {
    /// Opening a connection to an endpoint, TLS included. Default 2s.
    #[serde(default)]
    pub connect: Option<Span>,
    /// From the last byte of the request to the head of the answer. Default 30s.
    #[serde(default)]
    pub head: Option<Span>,
    /// Between two pieces of a body, in either direction, and on upgraded connections. Default 60s.
    #[serde(default)]
    pub idle: Option<Span>,
    /// The request as a whole, streams included. Default: no bound.
    #[serde(default)]
    pub request: Option<Span>,
}

/// Retries. Connect failures are retried for any method, other failures only for idempotent requests whose body can be replayed (64 KiB).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ attempts = 2 }")]
pub struct Retry {
    /// Tries in all, the first one counts; 1 to 10. Default 2.
    #[serde(default = "attempts")]
    pub attempts: u8,
}

/// Limits on the request body.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ max = \"10MiB\" }")]
pub struct Body {
    /// Longest request body; beyond it 413 `body_too_large`. Upgraded connections are not counted. `0B` means none at all. Without a `body` block the bound is 10MiB.
    pub max: Size,
}

/// What becomes of upgrades and streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ max_age = \"1h\", on_remove = \"drain\" }")]
pub struct Stream {
    /// An upgraded connection, or an answer without a length (a stream), is ended after this long. Default: no bound.
    #[serde(default)]
    pub max_age: Option<Span>,
    /// When the route is removed: `keep` lets its upgraded connections and streams live, `drain` ends them. Default `keep`.
    #[serde(default)]
    pub on_remove: OnRemove,
    /// When the proof of who asks ends (a token's `exp`) or is revoked: `close` ends the upgraded connections and streams that it was given for, `keep` lets them live. Default `close`.
    #[serde(default)]
    pub on_expiry: OnExpiry,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// They are closed.
    #[default]
    Close,
    /// They live on.
    Keep,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRemove {
    /// They live on.
    #[default]
    Keep,
    /// They are closed.
    Drain,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlash {
    /// `%2F` and `%5C` in the path are answered 400 `bad_request`.
    #[default]
    Refuse,
    /// They stay as they are, inside their segment.
    Keep,
}

fn attempts() -> u8 {
    2
}
