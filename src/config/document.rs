//! The words of a document (`routes.toml`): what may change while traffic flows.
//!
//! Every field's comment is user documentation: it becomes the JSON Schema and `docs/reference.md`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Addresses, ApiKeys, Auth, AuthFailures, Body, CacheControl, Compression, Cors, EncodedSlash, ErrorPage,
    ForwardAuth, HeaderEdits, Host, Importance, Issuer, Limit, Retry, Route, SecurityHeaders, Stream, Timeout,
    Upstream, Users,
};
use crate::scalar::OneOrMany;

/// Routes and everything they name. Hot: a change is applied without a restart.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Version of the format. Must be 1.
    #[schemars(extend("const" = 1))]
    pub format: u32,
    /// Destinations by name. Health, counts and connections are kept under the name across changes.
    #[serde(default)]
    pub upstream: BTreeMap<String, Upstream>,
    /// What holds for a name: certificate, TLS, HSTS, http.
    #[serde(default)]
    pub host: BTreeMap<String, Host>,
    /// Who gives out tokens.
    #[serde(default)]
    pub issuer: BTreeMap<String, Issuer>,
    /// API keys by the name of their set.
    #[serde(default)]
    pub api_keys: BTreeMap<String, ApiKeys>,
    /// Users with passwords by the name of their set.
    #[serde(default)]
    pub users: BTreeMap<String, Users>,
    /// Services that decide who may pass.
    #[serde(default)]
    pub forward_auth: BTreeMap<String, ForwardAuth>,
    /// How much somebody may do.
    #[serde(default)]
    pub limit: BTreeMap<String, Limit>,
    /// Failed authentications of a client, over all routes.
    #[serde(default)]
    pub auth_failures: AuthFailures,
    /// Blocks that a route without the same block gets. A route's own block replaces the default block whole.
    #[serde(default)]
    pub defaults: Defaults,
    /// Where requests go. The order of routes means nothing: the most specific match wins.
    #[serde(default)]
    pub route: Vec<Route>,
    /// Requests and what must become of them, run by `tollgate test` and before every change is applied.
    #[serde(default)]
    pub test: Vec<TestCase>,
}

/// Blocks for routes that do not have their own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// See `route.timeout`.
    #[serde(default)]
    pub timeout: Option<Timeout>,
    /// See `route.retry`.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// See `route.body`.
    #[serde(default)]
    pub body: Option<Body>,
    /// See `route.request_headers`.
    #[serde(default)]
    pub request_headers: Option<HeaderEdits>,
    /// See `route.response_headers`. Applied to every answer, also those the gateway gives by itself, also without a route.
    #[serde(default)]
    pub response_headers: Option<HeaderEdits>,
    /// See `route.stream`.
    #[serde(default)]
    pub stream: Option<Stream>,
    /// See `route.encoded_slash`.
    #[serde(default)]
    pub encoded_slash: Option<EncodedSlash>,
    /// See `route.auth`.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// See `route.limits`.
    #[serde(default)]
    pub limits: Option<OneOrMany<String>>,
    /// See `route.addresses`.
    #[serde(default)]
    pub addresses: Option<Addresses>,
    /// See `route.cors`.
    #[serde(default)]
    pub cors: Option<Cors>,
    /// See `route.cache_control`.
    #[serde(default)]
    pub cache_control: Option<OneOrMany<CacheControl>>,
    /// See `route.security_headers`.
    #[serde(default)]
    pub security_headers: Option<SecurityHeaders>,
    /// See `route.server_timing`.
    #[serde(default)]
    pub server_timing: Option<bool>,
    /// See `route.compression`.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// See `route.error_pages`.
    #[serde(default)]
    pub error_pages: Option<OneOrMany<ErrorPage>>,
    /// See `route.importance`.
    #[serde(default)]
    pub importance: Option<Importance>,
}

/// A request and what must become of it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestCase {
    /// `METHOD URL`, such as `GET https://example.com/api/x?y=1`.
    pub request: String,
    /// What is known beside the request line.
    #[serde(default)]
    pub given: Given,
    /// What must become of it. At least one field.
    pub expect: Expect,
}

/// What is known of a request beside its first line.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ from = \"203.0.113.7\" }")]
pub struct Given {
    /// Client address. Default `127.0.0.1`.
    #[serde(default)]
    pub from: Option<String>,
    /// Name of the listener. Default: any public one.
    #[serde(default)]
    pub listen: Option<String>,
    /// Request headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The certificate that the client showed. Default: none.
    #[serde(default)]
    pub client_certificate: Option<GivenCertificate>,
    /// Claims of whoever is proven to ask: `{ sub = "u1" }`. Default: nobody shows credentials.
    #[serde(default)]
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What a client's certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ subject = \"CN=a\" }")]
pub struct GivenCertificate {
    /// Subject.
    #[serde(default)]
    pub subject: String,
    /// Subject alternative names: `dns:..`, `uri:..`, `email:..`, `ip:..`.
    #[serde(default)]
    pub san: OneOrMany<String>,
    /// SHA-256, 64 hex digits.
    #[serde(default)]
    pub fingerprint: String,
    /// Issuer.
    #[serde(default)]
    pub issuer: String,
    /// Serial number in hex.
    #[serde(default)]
    pub serial: String,
}

/// What must become of a request. What is left out may be anything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ route = \"name\" }")]
pub struct Expect {
    /// Name of the route, or `none`.
    #[serde(default)]
    pub route: Option<String>,
    /// Name of the upstream; for a split, one of those with weight.
    #[serde(default)]
    pub upstream: Option<String>,
    /// Status of an answer the gateway gives by itself.
    #[serde(default)]
    pub status: Option<u16>,
    /// Code of a rejection, such as `no_route`.
    #[serde(default)]
    pub code: Option<String>,
    /// Path and query the upstream sees.
    #[serde(default)]
    pub path: Option<String>,
    /// Host the upstream sees.
    #[serde(default)]
    pub host: Option<String>,
    /// `Location` of a redirect.
    #[serde(default)]
    pub location: Option<String>,
}
