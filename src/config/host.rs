//! Words of `[host."NAME"]`: what holds for everything under a name.
//!
//! Every field's comment is user documentation: it becomes the JSON Schema and `docs/reference.md`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{OneOrMany, Span};
use crate::settings::HttpVersion;

/// What holds for a name, whatever is asked for under it. `*.example.com` stands for one label, as in a certificate; an exact name comes first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Further names that all of this holds for: `["www.example.com", "*.example.com"]`. With `acme` they stand in the same certificate.
    #[serde(default)]
    pub also: OneOrMany<String>,
    /// Which certificate the name shows: `internal` (a leaf of the local CA), `acme` (from the one `[ca.NAME]` of `edge.toml`) or `acme:NAME`, or the name of a `[certificate.NAME]` of `edge.toml`. Default: the listener's.
    #[serde(default)]
    pub certificate: Option<String>,
    /// Least TLS version, `1.2` or `1.3`. A client that cannot fails the handshake. Default `1.2`.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// HTTP versions that are offered over TLS (ALPN), of those that the listener speaks: `["h1"]`, `["h2"]`. Default: all of them.
    #[serde(default)]
    pub versions: Option<Vec<HttpVersion>>,
    /// Ask clients for a certificate. Default: nobody is asked.
    #[serde(default)]
    pub client_certificate: Option<ClientCertificate>,
    /// Send `Strict-Transport-Security` with every answer over https. Default: none.
    #[serde(default)]
    pub hsts: Option<Hsts>,
    /// What becomes of requests in the clear: `serve`, or `redirect` (308 to https, unless the route names the listener in `match.listen`). Default: as the listener says (`https_port`); `redirect` where clients must show a certificate.
    #[serde(default)]
    pub http: Option<Cleartext>,
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

/// Clients are asked for a certificate in the handshake. One that is shown must be good; what it says is known as the facts
/// `tls.client.*`. A session that was not asked in this way is not good for the name (421).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ ca = \"partners\" }")]
pub struct ClientCertificate {
    /// Name of a `[client_ca.NAME]` of `edge.toml`.
    pub ca: String,
    /// `require`: without a certificate the handshake fails. `request`: it goes on, and routes tell by the facts. Default `require`.
    #[serde(default)]
    pub mode: ClientCertificateMode,
}

/// What becomes of clients without a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificateMode {
    /// They are let in.
    Request,
    /// Their handshake fails.
    #[default]
    Require,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cleartext {
    /// They are routed like others.
    Serve,
    /// They are sent to https.
    Redirect,
}

fn year() -> Span {
    Span::from_secs(365 * 86_400)
}
