//! Words of `[upstream.NAME]`: a named destination and how it is used.
//!
//! Every field's comment is user documentation: it becomes the JSON Schema and `docs/reference.md`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{OneOrMany, Span};

/// A named destination: one or more endpoints and how to use them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `host:port` or a list of targets. A name stands for every AAAA and A record it has, followed by TTL. Either `address`
    /// or `discover`. Default: none.
    #[serde(default)]
    pub address: Option<Address>,
    /// `bus:SERVICE`: the endpoints that register themselves on the bus of the fleet under this name, used like the addresses
    /// of a name (docs/discovery.md). Default: none.
    #[serde(default)]
    pub discover: Option<String>,
    /// How an endpoint is chosen. Default `least_requests`.
    #[serde(default)]
    pub balance: Balance,
    /// With `balance = "hash"`: the fact that is hashed (consistent: losing one of n endpoints moves 1/n of the keys).
    /// A request without the fact is balanced at random. Default `client.ip`.
    #[serde(default)]
    pub hash_by: Option<String>,
    /// Keeps a client on the endpoint it was first given, by a cookie. Stands above `balance`.
    #[serde(default)]
    pub sticky: Option<StickyCookie>,
    /// Protocol spoken to the endpoints. Default `h1`. `h2` without `tls` is prior knowledge (gRPC servers).
    #[serde(default)]
    pub protocol: Protocol,
    /// Speak TLS to the endpoints. `{}` verifies the name of the address against the system's roots.
    #[serde(default)]
    pub tls: Option<UpstreamTls>,
    /// Begin every connection with a PROXY header that names the client, `v1` or `v2`. Each client then has connections of
    /// its own. Default: none.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyVersion>,
    /// Limits on connections to each endpoint.
    #[serde(default)]
    pub connections: Connections,
    /// Active health checks. Without them every endpoint counts as healthy until it is ejected.
    #[serde(default)]
    pub health: Option<Health>,
    /// Passive ejection: endpoints that fail live requests are left out for a while.
    #[serde(default)]
    pub eject: Option<Eject>,
    /// Circuit breaker on requests in flight.
    #[serde(default)]
    pub breaker: Option<Breaker>,
    /// Percentage of healthy endpoints below which health is ignored and all are used. 0 to 100. Default 50.
    #[serde(default = "panic_percent")]
    pub panic_percent: u8,
    /// How much of the pool's traffic may be retries.
    #[serde(default)]
    pub retry_budget: RetryBudget,
}

#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Address {
    /// `host:port`.
    One(String),
    /// Targets with weights and tiers.
    Many(Vec<Target>),
}

/// One target of an upstream.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ to = \"host:port\" }")]
pub struct Target {
    /// `host:port`, `1.2.3.4:80` or `[fdaa::3]:80`.
    pub to: String,
    /// Share of traffic within the tier, 0 to 1000. 0 gets none. Default 1.
    #[serde(default = "weight")]
    pub weight: u16,
    /// Lower tiers are used first; the next one takes over when a tier has no healthy endpoint. Default 1.
    #[serde(default = "tier")]
    pub tier: u8,
    /// Region of the target. Targets of the gateway's own `node.region` come before all others of their tier.
    #[serde(default)]
    pub region: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each endpoint in turn, by weight.
    RoundRobin,
    /// Of two endpoints drawn at random, the one with fewer requests in flight for its weight.
    #[default]
    LeastRequests,
    /// Any endpoint, by weight.
    Random,
    /// The same key goes to the same endpoint (`hash_by`).
    Hash,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// A cookie that keeps a client on one endpoint.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ cookie = \"name\" }")]
pub struct StickyCookie {
    /// Name of the cookie. Its value says nothing about the endpoint's address.
    pub cookie: String,
    /// Lifetime of the cookie. Default: until the browser closes.
    #[serde(default)]
    pub max_age: Option<Span>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge without.
    H2,
    /// HTTP/2 where the endpoint offers it by ALPN, else HTTP/1.1. Needs `tls`.
    Auto,
}

/// TLS towards the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ server_name = \"a.internal\" }")]
pub struct UpstreamTls {
    /// Name sent as SNI and verified. Default: the host of the address; required when that is an IP address.
    #[serde(default)]
    pub server_name: Option<String>,
    /// PEM of the only CAs trusted, usually `"${file:/run/secrets/ca.pem}"`. Default: the system's roots.
    #[serde(default)]
    #[schemars(extend("writeOnly" = true))]
    pub ca: Option<String>,
    /// PEM of the client certificate chain, usually by `${file:..}`. Needs `client_key`.
    #[serde(default)]
    #[schemars(extend("writeOnly" = true))]
    pub client_certificate: Option<String>,
    /// PEM of the client key, usually by `${file:..}`.
    #[serde(default)]
    #[schemars(extend("writeOnly" = true))]
    pub client_key: Option<String>,
    /// `false` accepts any certificate: for tests only, `check` warns. Default true.
    #[serde(default = "yes")]
    pub verify: bool,
}

/// Connections to each endpoint.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ max = 100 }")]
pub struct Connections {
    /// Most connections open to one endpoint, 0 = no limit. At the limit another endpoint is tried, then 503. Default 0.
    #[serde(default)]
    pub max: u32,
    /// An idle connection is closed after this long. Keep it below the endpoint's own keep-alive. Default 50s.
    #[serde(default = "connection_idle")]
    pub idle: Span,
    /// A connection is not used for new requests after this long, so that a moved name is followed. Default 10m.
    #[serde(default = "connection_age")]
    pub max_age: Span,
    /// Most requests at once on one HTTP/2 connection. Default 100.
    #[serde(default = "streams")]
    pub streams: u32,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections { max: 0, idle: connection_idle(), max_age: connection_age(), streams: streams() }
    }
}

/// An active health check, shared by upstreams that check the same target in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ path = \"/health\", every = \"5s\" }")]
pub struct Health {
    /// What is tried. Default `http`.
    #[serde(default)]
    pub kind: HealthKind,
    /// Path asked for by `http`. Default `/health`.
    #[serde(default = "health_path")]
    pub path: String,
    /// Host header of `http` and `:authority` of `grpc`. Default: the host of the address.
    #[serde(default)]
    pub host: Option<String>,
    /// Service name asked for by `grpc` (grpc.health.v1). Default: the server as a whole.
    #[serde(default)]
    pub service: Option<String>,
    /// Statuses that count as healthy. Default: 200 to 299.
    #[serde(default)]
    pub expect: OneOrMany<u16>,
    /// Time between two checks (with a tenth of jitter). Default 5s.
    #[serde(default = "health_every")]
    pub every: Span,
    /// A check that takes longer has failed. Default 2s.
    #[serde(default = "health_timeout")]
    pub timeout: Span,
    /// Good checks in a row that bring an endpoint back. Default 2.
    #[serde(default = "health_rise")]
    pub rise: u32,
    /// Bad checks in a row that take an endpoint out. Default 3.
    #[serde(default = "health_fall")]
    pub fall: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthKind {
    /// GET `path`, an expected status.
    #[default]
    Http,
    /// A connection opens.
    Tcp,
    /// grpc.health.v1.Health/Check answers SERVING.
    Grpc,
}

/// Passive ejection. Counts connect failures, resets, timeouts and answers 502 to 504. Never the last endpoint, at most half the pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ errors = 5, within = \"10s\", for = \"30s\" }")]
pub struct Eject {
    /// Failures within the window that eject. Default 5.
    #[serde(default = "eject_errors")]
    pub errors: u32,
    /// The window. Default 10s.
    #[serde(default = "eject_within")]
    pub within: Span,
    /// How long the endpoint stays out; then its weight ramps back over the same time. Default 30s.
    #[serde(default = "eject_for", rename = "for")]
    pub period: Span,
}

/// Circuit breaker: beyond its bound a request is answered 503 `breaker_open` at once, with Retry-After.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ in_flight = 1000 }")]
pub struct Breaker {
    /// Most requests in flight to the upstream, at least 1.
    pub in_flight: u32,
}

/// Retries in flight never exceed max(`min`, `percent` of the pool's live requests).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ percent = 20 }")]
pub struct RetryBudget {
    /// Percentage of the live requests. Default 20.
    #[serde(default = "budget_percent")]
    pub percent: u32,
    /// Retries always allowed at once. Default 3.
    #[serde(default = "budget_min")]
    pub min: u32,
}

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        RetryBudget { percent: budget_percent(), min: budget_min() }
    }
}

fn panic_percent() -> u8 {
    50
}

fn weight() -> u16 {
    1
}

fn tier() -> u8 {
    1
}

fn yes() -> bool {
    true
}

fn connection_idle() -> Span {
    Span::from_secs(50)
}

fn connection_age() -> Span {
    Span::from_secs(600)
}

fn streams() -> u32 {
    100
}

fn health_path() -> String {
    "/health".to_owned()
}

fn health_every() -> Span {
    Span::from_secs(5)
}

fn health_timeout() -> Span {
    Span::from_secs(2)
}

fn health_rise() -> u32 {
    2
}

fn health_fall() -> u32 {
    3
}

fn eject_errors() -> u32 {
    5
}

fn eject_within() -> Span {
    Span::from_secs(10)
}

fn eject_for() -> Span {
    Span::from_secs(30)
}

fn budget_percent() -> u32 {
    20
}

fn budget_min() -> u32 {
    3
}
