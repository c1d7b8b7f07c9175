//! Words of `[host."NAME"]`: what holds for everything under a name.
//!
//! Every field's comment is user documentation: it becomes the JSON Schema and `docs/reference.md`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Span;

/// What holds for a name, whatever is asked for under it. `*.example.com` stands for one label, as in a certificate; an exact name comes first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Which certificate the name shows: `internal` (a leaf of the local CA), `acme` (from the one `[ca.NAME]` of `edge.toml`) or `acme:NAME`, or the name of a `[certificate.NAME]` of `edge.toml`. Default: the listener's.
    #[serde(default)]
    pub certificate: Option<String>,
    /// Least TLS version, `1.2` or `1.3`. A client that cannot fails the handshake. Default `1.2`.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Send `Strict-Transport-Security` with every answer over https. Default: none.
    #[serde(default)]
    pub hsts: Option<Hsts>,
    /// What becomes of requests in the clear: `serve`, or `redirect` (308 to https, unless the route names the listener in `match.listen`). Default `serve`.
    #[serde(default)]
    pub http: Cleartext,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

/// `Strict-Transport-Security` (RFC 6797).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ max_age = \"365d\" }")]
pub struct Hsts {
    /// How long browsers ask by https only. Default 365d.
    #[serde(default = "year")]
    pub max_age: Span,
    /// Names below this one, too. Default false.
    #[serde(default)]
    pub include_subdomains: bool,
    /// Ask browsers to build the name in. Hard to take back. Default false.
    #[serde(default)]
    pub preload: bool,
}

/// What becomes of requests in the clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cleartext {
    /// They are routed like others.
    #[default]
    Serve,
    /// They are sent to https.
    Redirect,
}

fn year() -> Span {
    Span::from_secs(365 * 86_400)
}
