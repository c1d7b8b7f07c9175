//! Boot settings (`edge.toml`; `backend.toml` in `backend`): what only a restart changes.
//!
//! Addresses of listeners, files, secrets and whatever could run a program or read a file stand here and never in a
//! document. Every field's comment is user documentation: it becomes the schema and `docs/reference.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{OneOrMany, Secret, Span};

mod alerts;
pub mod backend;
mod bus;
mod certificate;
mod certificates;
mod check;
mod controller;
mod fleet;
mod limits;
mod overload;
mod source;
mod trust;
pub use alerts::{Alert, Alerts, Bad, Drift, Expiry, Latency, Notify, Rate, Silence, When};
pub use bus::Bus;
pub(crate) use bus::is_fleet_name;
pub use certificate::{
    AcmeOf, Ca, Certificate, CertificateFiles, ClientCa, DnsProof, ExternalAccount, Internal, OnDemand, TsigAlgorithm,
    TsigKey,
};
pub use check::network;
pub use controller::{Controller, Desk, Documents, Keep, OwnLog, Watch};
pub use fleet::Fleet;
pub use limits::{Http2, Limits};
pub use overload::Overload;
pub use source::{Routes, RoutesOnBus};
pub use trust::Trust;

/// Boot settings. A change needs a restart.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Version of the format. Must be 1.
    #[schemars(extend("const" = 1))]
    pub format: u32,
    /// Who this gateway is.
    #[serde(default)]
    pub node: Node,
    /// What is kept across restarts.
    #[serde(default)]
    pub state: State,
    /// Addresses that clients connect to. At least one.
    pub listen: Vec<Listen>,
    /// Health, readiness and metrics for the private network.
    #[serde(default)]
    pub health: Option<Health>,
    /// Everything an operator asks a running gateway.
    #[serde(default)]
    pub admin: Option<Admin>,
    /// Certificates by name, for `[host."..."]` of the document to refer to.
    #[serde(default)]
    pub certificate: BTreeMap<String, CertificateFiles>,
    /// Certificate authorities that speak ACME, for `[host."..."]` of the document to refer to. What they give is kept in `state.dir`.
    #[serde(default)]
    pub ca: BTreeMap<String, Ca>,
    /// Certificates for names that no document lists.
    #[serde(default)]
    pub on_demand: Option<OnDemand>,
    /// Whose certificates clients may show, for `[host."..."]` of the document to refer to.
    #[serde(default)]
    pub client_ca: BTreeMap<String, ClientCa>,
    /// Where the document comes from.
    pub routes: Routes,
    /// The bus of the fleet. Default: the gateway is alone.
    #[serde(default)]
    pub bus: Option<Bus>,
    /// What the gateway has in common with the others of its fleet.
    #[serde(default)]
    pub fleet: Fleet,
    /// Secrets by name, for documents to refer to as `${secret:NAME}` where a secret belongs. A document from the bus may use no other reference.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// Whose word about the client's address is believed.
    #[serde(default)]
    pub trust: Trust,
    /// Bounds on what clients may do.
    #[serde(default)]
    pub limits: Limits,
    /// What is turned away when there is more than the gateway can do.
    #[serde(default)]
    pub overload: Overload,
    /// How names of upstreams are resolved.
    #[serde(default)]
    pub dns: Dns,
    /// The access log and the gateway's own log.
    #[serde(default)]
    pub log: Log,
    /// Traces.
    #[serde(default)]
    pub traces: Option<Traces>,
    /// Leaving.
    #[serde(default)]
    pub drain: Drain,
}

/// Who this gateway is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Name in logs, `Via` and `Proxy-Status`. Default `tollgate`.
    #[serde(default)]
    pub name: Option<String>,
    /// Name in the fleet, unique in it. Default: the host name.
    #[serde(default)]
    pub id: Option<String>,
    /// Region; upstream targets of the same region come first. Default: none.
    #[serde(default)]
    pub region: Option<String>,
    /// Threads that carry requests. 0 = one per core. Default 0.
    #[serde(default)]
    pub threads: usize,
}

/// What is kept across restarts.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Directory of the last good document and the local CA. Without it nothing is kept.
    #[serde(default)]
    pub dir: Option<PathBuf>,
}

/// An address that clients connect to.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Name, unique: in logs, metrics and `match.listen`.
    pub name: String,
    /// `address:port`, such as `[::]:443` (both families) or `127.0.0.1:8080`.
    pub address: String,
    /// `https` ends TLS here, `http` is cleartext.
    pub protocol: ListenProtocol,
    /// HTTP versions. Default `["h1", "h2"]` on https, `["h1"]` on http, where `h2` is prior knowledge.
    #[serde(default)]
    pub versions: Option<Vec<HttpVersion>>,
    /// Routes without `match.listen` answer here. Default true.
    #[serde(default = "yes")]
    pub public: bool,
    /// With https, what names show that have no `[host."..."]` of their own to say otherwise: `"acme"` or `"acme:NAME"`, for every host of the routes one from that CA; `"internal"`, a leaf of the local CA; or `{ chain = "cert.pem", key = "key.pem" }`. Default `"acme"` where there is a `[ca.NAME]`, else `"internal"`.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// With https: what a client gets that names no `[host."..."]` of the document: `default`, the listener's own certificate, or `refuse`, a failed handshake. Default `default`.
    #[serde(default)]
    pub unknown_names: UnknownNames,
    /// With http: requests are sent to https at this port (308), unless their name (`http`) or route (`match.listen`) says
    /// otherwise. 0: they are served. Default on port 80, where there is an https listener: 443, or its port if none has that.
    #[serde(default)]
    pub https_port: Option<u16>,
    /// Load balancers in front that begin every connection with a PROXY header (version 1 or 2), and nobody else. Default: none.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// What a client gets that asks for a name nobody speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownNames {
    /// The listener's own certificate.
    #[default]
    Default,
    /// A failed handshake.
    Refuse,
}

/// Whose PROXY headers are believed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ from = [\"172.16.0.0/12\"] }")]
pub struct ProxyProtocol {
    /// Networks that begin every connection with a PROXY header; without a whole one their connection is closed. From
    /// anywhere else none is expected, and one that comes is a malformed request.
    pub from: OneOrMany<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListenProtocol {
    Http,
    Https,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpVersion {
    H1,
    H2,
}

/// `/health`, `/ready`, `/metrics` and nothing else.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// `address:port` on the private network.
    pub address: String,
}

/// The admin listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// `127.0.0.1:9090` or `unix:/run/tollgate/admin.sock`. Another address needs `token`.
    pub address: String,
    /// Bearer token that every request must carry. Usually `"${file:/run/secrets/admin}"`.
    #[serde(default)]
    pub token: Option<String>,
    /// Host names, beside loopback ones, under which the admin listener is asked (it refuses others against DNS rebinding).
    #[serde(default)]
    pub hosts: OneOrMany<String>,
}

/// How names of upstreams are resolved.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Name servers, `address:port`. Default: those of the system (`/etc/resolv.conf`), and its hosts file.
    #[serde(default)]
    pub servers: OneOrMany<String>,
    /// A query is given up after this long. Default 2s.
    #[serde(default = "dns_timeout")]
    pub timeout: Span,
    /// A shorter TTL is read as this. Default 1s.
    #[serde(default = "dns_ttl_min")]
    pub ttl_min: Span,
    /// A longer TTL is read as this. Default 1m.
    #[serde(default = "dns_ttl_max")]
    pub ttl_max: Span,
}

/// Logs. Both are JSON lines.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Where access lines go: `stdout`, `stderr`, `off` or a file (reopened on USR1). Default `stdout`.
    #[serde(default = "access")]
    pub access: String,
    /// Level of the gateway's own log on stderr: `error`, `warn`, `info`, `debug`, or a filter such as `info,tollgate::upstream=debug`. Default `info`.
    #[serde(default = "level")]
    pub level: String,
    /// `json` or `text` for the gateway's own log. Default `json`.
    #[serde(default)]
    pub format: LogFormat,
    /// Query parameters whose values are written as `***` in the access log. Default `["access_token", "token", "key", "signature", "password"]`.
    #[serde(default = "redact_query")]
    pub redact_query: OneOrMany<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Json,
    Text,
}

/// Traces, sent by OTLP over HTTP (protobuf).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// URL of the collector, such as `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: String,
    /// Percentage of the requests without a sampling decision of their own that are traced, 0 to 100. Default 1.
    #[serde(default = "sample_percent")]
    pub sample_percent: f64,
}

/// Leaving: TERM, INT, and QUIT after a hand-over.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Requests in flight (WebSockets too) may take this long to finish. Default 30s.
    #[serde(default = "grace")]
    pub grace: Span,
    /// `/ready` says 503 this long before the listeners stop, so that load balancers notice. Default 0s.
    #[serde(default = "delay")]
    pub delay: Span,
    /// Socket over which a new binary (`run --upgrade`) takes the listeners. Default: none, QUIT then drains.
    #[serde(default)]
    pub handover: Option<PathBuf>,
    /// How long the new binary may take to come up during a hand-over. Default 30s.
    #[serde(default = "grace")]
    pub handover_timeout: Span,
}

fn yes() -> bool {
    true
}
fn dns_timeout() -> Span {
    Span::from_secs(2)
}
fn dns_ttl_min() -> Span {
    Span::from_secs(1)
}
fn dns_ttl_max() -> Span {
    Span::from_secs(60)
}
fn access() -> String {
    "stdout".to_owned()
}
fn level() -> String {
    "info".to_owned()
}
fn redact_query() -> OneOrMany<String> {
    OneOrMany(["access_token", "token", "key", "signature", "password"].map(str::to_owned).to_vec())
}
fn sample_percent() -> f64 {
    1.0
}
fn grace() -> Span {
    Span::from_secs(30)
}
fn delay() -> Span {
    Span::from_secs(0)
}

impl Default for Dns {
    fn default() -> Dns {
        Dns { servers: OneOrMany::default(), timeout: dns_timeout(), ttl_min: dns_ttl_min(), ttl_max: dns_ttl_max() }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { access: access(), level: level(), format: LogFormat::default(), redact_query: redact_query() }
    }
}

impl Default for Drain {
    fn default() -> Drain {
        Drain { grace: grace(), delay: delay(), handover: None, handover_timeout: grace() }
    }
}

impl Settings {
    /// Threads that carry requests.
    pub fn threads(&self) -> usize {
        match self.node.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        }
    }

    /// Where requests in the clear are sent to that come in here.
    pub fn https_port(&self, listen: &Listen) -> Option<u16> {
        let port = |listen: &Listen| listen.address.parse::<SocketAddr>().ok().map(|address| address.port());
        match (listen.protocol, listen.https_port) {
            (ListenProtocol::Https, _) | (ListenProtocol::Http, Some(0)) => None,
            (ListenProtocol::Http, Some(port)) => Some(port),
            (ListenProtocol::Http, None) if port(listen) != Some(80) => None,
            (ListenProtocol::Http, None) => {
                let encrypted = self.listen.iter().filter(|one| one.public && one.protocol == ListenProtocol::Https);
                let ports: Vec<u16> = encrypted.filter_map(port).collect();
                ports.iter().find(|port| **port == 443).or(ports.first()).copied()
            }
        }
    }

    /// What the fleet's certificates are sealed with, if they are kept on the bus.
    pub fn seal(&self) -> Option<&Secret> {
        self.fleet.seal.as_ref().filter(|_| self.bus.as_ref().is_some_and(|bus| !bus.urls.is_empty()))
    }

    /// Name in the fleet.
    pub fn node_id(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.node.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(host)
    }

    /// Name in logs, `Via` and `Proxy-Status`.
    pub fn node_name(&self) -> &str {
        self.node.name.as_deref().unwrap_or("tollgate")
    }
}

impl Listen {
    /// The HTTP versions spoken here, the default of the protocol filled in.
    pub fn speaks(&self, version: HttpVersion) -> bool {
        match (&self.versions, self.protocol) {
            (Some(versions), _) => versions.contains(&version),
            (None, ListenProtocol::Https) => true,
            (None, ListenProtocol::Http) => version == HttpVersion::H1,
        }
    }
}
