//! Words of `[limit.NAME]`, and of what a route lets through: addresses, cross-origin requests.
//!
//! Every field's comment is user documentation: it becomes the JSON Schema and `docs/reference.md`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{OneOrMany, Rate, Span};

/// How much somebody may do: exactly one of `rate` and `concurrent`. What was used is kept under the name across changes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ rate = \"100/s\" }")]
pub struct Limit {
    /// `100/s`, `600/1m`: within any time `w` at most `burst + rate * w` pass.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// With `rate`: what may be used at once. Default: what the rate gives in a second, and one more.
    #[serde(default)]
    pub burst: Option<u32>,
    /// Requests under way at once.
    #[serde(default)]
    pub concurrent: Option<u32>,
    /// Who is counted together: alternatives, of which the first that has all its facts decides: `[["claim.sub"], ["client.ip"]]`; `[["client.ip", "path.id"]]` is both together. IPv6 clients are counted by /64. Default `["client.ip"]`; `[]` counts everybody together.
    #[serde(default)]
    pub key: Option<OneOrMany<OneOrMany<String>>>,
    /// What becomes of requests that have no key: `one_bucket` counts them together, `deny` refuses them, `skip` does not count them. Default `one_bucket`.
    #[serde(default)]
    pub missing: Missing,
    /// What a request costs. Default: 1.
    #[serde(default)]
    pub cost: Option<Cost>,
    /// Who counts together: `node`, every gateway for itself, or `fleet`, all of them. Then over a time `w` at most `burst + rate * w` pass, and once `(gateways - 1) * (burst + rate * 0.3s)` more. Default `node`.
    #[serde(default)]
    pub scope: Scope,
    /// With `scope = "fleet"`: what becomes of requests while the bus is lost. Default `local_share`.
    #[serde(default)]
    pub on_loss: Option<OnLoss>,
    /// Nothing is refused; what would be is counted and logged. Default false.
    #[serde(default)]
    pub dry_run: bool,
    /// Most keys that are remembered (about 70 bytes each); at the bound the one idle longest is forgotten. Default 100000.
    #[serde(default = "keys")]
    pub keys: usize,
}

/// Who counts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Every gateway for itself.
    #[default]
    Node,
    /// All gateways of the fleet.
    Fleet,
}

/// What a limit of the fleet does on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// Every gateway gives its share: what there is, by the number of gateways seen last.
    #[default]
    LocalShare,
    /// Nothing is refused.
    Allow,
    /// Everything is refused.
    Deny,
}

/// What becomes of requests without a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// They are counted together.
    #[default]
    OneBucket,
    /// They are refused.
    Deny,
    /// They are not counted.
    Skip,
}

/// What a request costs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ method = { POST = 5 } }")]
pub struct Cost {
    /// By method. Default 1.
    #[serde(default)]
    pub method: BTreeMap<String, u32>,
    /// A request header with a number; it counts where it is more than the method's.
    #[serde(default)]
    pub header: Option<String>,
}

/// Which clients may ask at all. `deny` comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ allow = [\"10.0.0.0/8\"] }")]
pub struct Addresses {
    /// Only these networks. Default: all.
    #[serde(default)]
    pub allow: OneOrMany<String>,
    /// Not these networks.
    #[serde(default)]
    pub deny: OneOrMany<String>,
}

/// Cross-origin requests (Fetch, CORS). Preflights are answered by the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ origins = \"https://app.example.com\" }")]
pub struct Cors {
    /// Origins that may ask: `https://app.example.com`, `https://*.example.com` (one or more labels), or `*`.
    pub origins: OneOrMany<String>,
    /// Methods they may use beside GET, HEAD and POST. Default: those that the route takes, or all of `["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]`.
    #[serde(default)]
    pub methods: OneOrMany<String>,
    /// Request headers they may send. Default: those they ask for, without credentials; none with them.
    #[serde(default)]
    pub headers: OneOrMany<String>,
    /// Answer headers they may read.
    #[serde(default)]
    pub expose: OneOrMany<String>,
    /// They may send cookies and the like. Not with `origins = "*"`. Default false.
    #[serde(default)]
    pub credentials: bool,
    /// How long a preflight may be remembered. Default 10m.
    #[serde(default = "max_age")]
    pub max_age: Span,
}

/// Failed authentications of a client, over all routes: beyond it 429, and only credentials that its network has shown before are looked at.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ rate = \"60/1m\" }")]
pub struct AuthFailures {
    /// Default `60/1m`.
    #[serde(default = "failures")]
    pub rate: Rate,
    /// Default 30.
    #[serde(default = "failures_burst")]
    pub burst: u32,
}

impl Default for AuthFailures {
    fn default() -> AuthFailures {
        AuthFailures { rate: failures(), burst: failures_burst() }
    }
}

fn keys() -> usize {
    100_000
}
fn max_age() -> Span {
    Span::from_secs(600)
}
fn failures() -> Rate {
    Rate { count: 60, per: std::time::Duration::from_secs(60) }
}
fn failures_burst() -> u32 {
    30
}
