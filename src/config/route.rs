//! Words of `[[route]]`: which requests, and where they go.
//!
//! Every field's comment is user documentation: it becomes the JSON Schema and `docs/reference.md`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Addresses, Auth, Body, CacheControl, Compression, Cors, EncodedSlash, ErrorPage, HeaderEdits, Importance, Retry,
    Rewrite, SecurityHeaders, Stream, Timeout,
};
use crate::scalar::{OneOrMany, Size, Span};

/// Which requests, and what becomes of them. Exactly one of `upstream`, `split`, `redirect`, `respond`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Name, unique in the document: in logs, metrics, `explain`. Letters, digits, `-`, `_`, `.`; 64 at most.
    pub name: String,
    /// Which requests. Empty matches all.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// Decides between two routes that could not be told apart otherwise: higher wins. Default 0.
    #[serde(default)]
    pub priority: i32,
    /// Destination: the upstream of this name.
    #[serde(default)]
    pub upstream: Option<String>,
    /// Destination: upstreams by weight.
    #[serde(default)]
    pub split: Option<Vec<Share>>,
    /// With `split`: keeps a client on its share, by a cookie or a fact.
    #[serde(default)]
    pub split_by: Option<SplitBy>,
    /// Destination: a redirect.
    #[serde(default)]
    pub redirect: Option<Redirect>,
    /// Destination: a fixed answer.
    #[serde(default)]
    pub respond: Option<Respond>,
    /// A copy of each request (or some) goes to another upstream; its answer is compared and thrown away.
    #[serde(default)]
    pub mirror: Option<Mirror>,
    /// What the upstream sees instead of the path, host and query that were asked for.
    #[serde(default)]
    pub rewrite: Option<Rewrite>,
    /// Edits of the headers that go upstream. Values are templates.
    #[serde(default)]
    pub request_headers: Option<HeaderEdits>,
    /// Edits of the headers of the answer. Values are templates.
    #[serde(default)]
    pub response_headers: Option<HeaderEdits>,
    /// Which client addresses may ask; others get 403 `address_denied`.
    #[serde(default)]
    pub addresses: Option<Addresses>,
    /// Cross-origin requests.
    #[serde(default)]
    pub cors: Option<Cors>,
    /// Who may pass: `"none"`, or what must be proven.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// Names of limits, all of which must let a request through; else 429 `limit`.
    #[serde(default)]
    pub limits: Option<OneOrMany<String>>,
    /// Time limits by phase.
    #[serde(default)]
    pub timeout: Option<Timeout>,
    /// When a request may be tried again on another endpoint.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// Limits on the request body.
    #[serde(default)]
    pub body: Option<Body>,
    /// Edits of `Cache-Control`. The first that fits an answer holds.
    #[serde(default)]
    pub cache_control: Option<OneOrMany<CacheControl>>,
    /// Presets of headers that make browsers careful. Default `none`.
    #[serde(default)]
    pub security_headers: Option<SecurityHeaders>,
    /// Tells clients in `Server-Timing` how long the gateway and the upstream took. Default false.
    #[serde(default)]
    pub server_timing: Option<bool>,
    /// Compression of answers. Default: none.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// What stands in the place of errors. Default: a plain page for browsers, problem details (RFC 9457) for others.
    #[serde(default)]
    pub error_pages: Option<OneOrMany<ErrorPage>>,
    /// Who is turned away first under overload (503 `overload`). Default: `normal` for whoever is proven, `sheddable` for others.
    #[serde(default)]
    pub importance: Option<Importance>,
    /// What becomes of long-lived requests (upgrades and streams).
    #[serde(default)]
    pub stream: Option<Stream>,
    /// What becomes of `%2F`, `%5C` in the path. Default `refuse`.
    #[serde(default)]
    pub encoded_slash: Option<EncodedSlash>,
}

/// Conditions, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ host = \"a.example.com\", path = \"/api/*\" }")]
pub struct Match {
    /// `a.example.com`, `*.example.com` (exactly one label), `**.example.com` (one or more). Default: any host.
    #[serde(default)]
    pub host: OneOrMany<String>,
    /// `/exact`, `/users/{id}` (one segment), `/api/*` (`/api` and everything below). Default `/*`.
    #[serde(default)]
    pub path: OneOrMany<String>,
    /// Methods. `GET` includes `HEAD`. Default: any.
    #[serde(default)]
    pub method: OneOrMany<String>,
    /// Request headers by name.
    #[serde(default)]
    pub header: BTreeMap<String, Condition>,
    /// Query parameters by name (percent-decoded).
    #[serde(default)]
    pub query: BTreeMap<String, Condition>,
    /// Cookies by name.
    #[serde(default)]
    pub cookie: BTreeMap<String, Condition>,
    /// What the client's certificate says (`[host."..."]` `client_certificate`). `{}`: there is one.
    #[serde(default)]
    pub client_certificate: Option<CertificateMatch>,
    /// Client networks: `203.0.113.0/24`, `2001:db8::/32`, or single addresses.
    #[serde(default)]
    pub from: OneOrMany<String>,
    /// Names of listeners. Default: every listener that is `public`.
    #[serde(default)]
    pub listen: OneOrMany<String>,
}

/// Conditions on the client's certificate, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ subject = \"CN=a\" }")]
pub struct CertificateMatch {
    /// Subject, as RFC 4514 writes it: `CN=builder,O=Example`.
    #[serde(default)]
    pub subject: Option<Condition>,
    /// Subject alternative names, one of which must do: `dns:a.example.com`, `uri:spiffe://example/builder`, `email:a@example.com`, `ip:192.0.2.1`.
    #[serde(default)]
    pub san: Option<Condition>,
    /// SHA-256 of the certificate, 64 hex digits in lower case.
    #[serde(default)]
    pub fingerprint: Option<Condition>,
}

/// A condition on one value: the text it must equal, or `{ prefix = ".." }`, or `{ present = true }` (false: absent).
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Condition {
    /// Equals this.
    Exact(String),
    /// Begins with this.
    Prefix(PrefixCondition),
    /// Is there (true) or is not there (false).
    Present(PresentCondition),
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixCondition {
    /// What the value begins with.
    pub prefix: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PresentCondition {
    /// True: there with any value. False: not there.
    pub present: bool,
}

/// One share of a split.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ upstream = \"a\", weight = 1 }")]
pub struct Share {
    /// Name of an upstream.
    pub upstream: String,
    /// Weight against the other shares, 0 to 10000. 0 gets nothing.
    pub weight: u32,
}

/// What keeps a client on its share. Exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ cookie = \"name\" }")]
pub struct SplitBy {
    /// A cookie, set on the first answer.
    #[serde(default)]
    pub cookie: Option<String>,
    /// A fact, such as `header.x-user` or `client.ip`. Requests without it are split at random.
    #[serde(default)]
    pub fact: Option<String>,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ to = \"/new\" }")]
pub struct Redirect {
    /// Where to: a template, such as `https://{request.host}{request.path_and_query}` or `/new/{path.id}`.
    pub to: String,
    /// 301, 302, 303, 307 or 308. Default 308.
    #[serde(default = "redirect_status")]
    pub status: u16,
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ status = 200 }")]
pub struct Respond {
    /// Status, 200 to 599. Default 200.
    #[serde(default = "respond_status")]
    pub status: u16,
    /// Body: a template. Default empty.
    #[serde(default)]
    pub body: String,
    /// Content type of the body. Default `text/plain; charset=utf-8`.
    #[serde(default = "content_type")]
    pub content_type: String,
}

/// A copy of requests for another upstream. Never slows or fails the request itself.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ upstream = \"a\" }")]
pub struct Mirror {
    /// Name of an upstream.
    pub upstream: String,
    /// Percentage of the requests that are copied, 0 to 100. Default 100.
    #[serde(default = "percent")]
    pub percent: f64,
    /// A request with a longer body is not copied; of the answers this much is compared. Default 64KiB.
    #[serde(default = "mirror_body")]
    pub body_max: Size,
    /// Response headers that are compared, beside the status and a hash of the body.
    #[serde(default)]
    pub compare_headers: OneOrMany<String>,
    /// The copy is given up after this long. Default 10s.
    #[serde(default = "mirror_timeout")]
    pub timeout: Span,
    /// Copies in flight; beyond it requests are not copied. Default 100.
    #[serde(default = "mirror_in_flight")]
    pub in_flight: u32,
}

fn redirect_status() -> u16 {
    308
}

fn respond_status() -> u16 {
    200
}

fn content_type() -> String {
    "text/plain; charset=utf-8".to_owned()
}

fn percent() -> f64 {
    100.0
}

fn mirror_body() -> Size {
    Size(64 << 10)
}

fn mirror_timeout() -> Span {
    Span::from_secs(10)
}

fn mirror_in_flight() -> u32 {
    100
}
