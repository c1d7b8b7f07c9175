//! Words of who may pass: issuers of tokens, API keys, users, services that decide, and what a route asks.
//!
//! Every field's comment is user documentation: it becomes the JSON Schema and `docs/reference.md`.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::scalar::{OneOrMany, Secret, Size, Span};

/// Who gives out tokens (JWT, RFC 7519), and the keys they are verified with: exactly one of `jwks`, `discovery`, `keys`, `secret`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ issuer = \"https://..\", jwks = \"https://..\" }")]
pub struct Issuer {
    /// The claim `iss` of its tokens. Default: `discovery`.
    #[serde(default)]
    pub issuer: Option<String>,
    /// A token must be for one of these (`aud`). Default: `aud` is not looked at, which `check` warns of.
    #[serde(default)]
    pub audience: OneOrMany<String>,
    /// URL of its keys (JWKS, RFC 7517). They are fetched in the background, kept when it is away, also over a restart.
    #[serde(default)]
    pub jwks: Option<String>,
    /// URL of an OpenID provider: its `/.well-known/openid-configuration` says where the keys are.
    #[serde(default)]
    pub discovery: Option<String>,
    /// The keys themselves: a JWKS, or public keys in PEM; usually by `${file:..}`.
    #[serde(default)]
    pub keys: Option<String>,
    /// A shared secret (HMAC), usually by `${file:..}`: at least 32 bytes. Whoever verifies with it can also sign.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// Algorithms, of those that fit the keys. Default: all that do; with `secret` `HS256`.
    #[serde(default)]
    pub algorithms: OneOrMany<Algorithm>,
    /// The type that tokens must have (`typ`), such as `at+jwt`. Default: any.
    #[serde(default, rename = "type")]
    pub token_type: Option<String>,
    /// How far clocks may be apart; 5m at most. Default 30s.
    #[serde(default = "leeway")]
    pub leeway: Span,
    /// Longest token. Default 8KiB.
    #[serde(default = "token_max")]
    pub token_max: Size,
    /// Keys are fetched again after this long, or sooner if their `Cache-Control` says so. Default 5m.
    #[serde(default = "refresh")]
    pub refresh: Span,
    /// A token with an unknown key makes the keys be fetched again, at most once in this time; 1m at most. Default 5s.
    #[serde(default = "cooldown")]
    pub cooldown: Span,
    /// PEM of the only CAs trusted for `jwks` and `discovery`, usually by `${file:..}`. Default: the system's roots.
    #[serde(default)]
    pub ca: Option<String>,
}

/// A signature algorithm (RFC 7518 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
    HS256,
    HS384,
    HS512,
}

/// API keys, of which only digests are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ keys = [{ name = \"a\", sha256 = \"..\" }] }")]
pub struct ApiKeys {
    /// Header that the key is in. Default `x-api-key`, unless `query` or `basic` is set.
    #[serde(default)]
    pub header: Option<String>,
    /// Query parameter that the key is in. It is removed before the upstream sees it.
    #[serde(default)]
    pub query: Option<String>,
    /// The key is the password of Basic authentication, its name the user. Default false.
    #[serde(default)]
    pub basic: bool,
    /// The keys.
    pub keys: Vec<ApiKey>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ name = \"a\", sha256 = \"..\" }")]
pub struct ApiKey {
    /// Name, for logs and `{subject.name}`.
    pub name: String,
    /// SHA-256 of the key in hex; `tollgate hash-password --api-key` makes one.
    pub sha256: String,
    /// Whose it is, for `{subject.owner}`.
    #[serde(default)]
    pub owner: Option<String>,
    /// Not good after this moment: `2027-01-31T00:00:00Z`. Default: good until it is taken out.
    #[serde(default)]
    pub expires: Option<String>,
    /// Names of limits that hold for it beside those of the route.
    #[serde(default)]
    pub limits: OneOrMany<String>,
    /// Claims that it has, for `require` and `{claim.NAME}`: `{ scope = "read", plan = "pro" }`.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
}

/// Users with passwords, for Basic authentication (RFC 7617).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ users = { alice = \"$argon2id$..\" } }")]
pub struct Users {
    /// What browsers show when they ask. Default: the name of the block.
    #[serde(default)]
    pub realm: Option<String>,
    /// Hashes of passwords by user: argon2id or bcrypt, as `tollgate hash-password` prints them; usually by `${file:..}`.
    pub users: BTreeMap<String, Secret>,
}

/// A service that decides. It is asked with the method, target and some headers of each request; 2xx lets it pass.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ upstream = \"auth\" }")]
pub struct ForwardAuth {
    /// Name of an upstream.
    pub upstream: String,
    /// Path that is asked for. Default `/`.
    #[serde(default = "root")]
    pub path: String,
    /// Request headers that it sees, beside `x-forwarded-method`, `-proto`, `-host`, `-uri` and `-for`. Default `["authorization", "cookie"]`.
    #[serde(default = "sent")]
    pub send: OneOrMany<String>,
    /// Headers of its answer that go upstream. Clients cannot send them.
    #[serde(default)]
    pub take: OneOrMany<String>,
    /// It is given this long. Default 2s.
    #[serde(default = "forward_timeout")]
    pub timeout: Span,
    /// What becomes of requests when it does not answer, or with 5xx: `deny` (503) or `allow`. Default `deny`.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// What becomes of requests that nobody decided about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// 503.
    #[default]
    Deny,
    /// They pass.
    Allow,
}

/// Who may pass. `"none"` stands above the block of `[defaults]`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Auth {
    /// `"none"`: anybody.
    None(NoAuth),
    /// Whoever can prove who it is.
    Some(Box<Access>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoAuth {
    None,
}

/// What a request must prove, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ any = [{ jwt = \"accounts\" }] }")]
pub struct Access {
    /// Proofs, any of which will do. The first whose credentials are there decides; if they are bad, the next is tried.
    pub any: Vec<Proof>,
    /// What must be known of the subject, all of it; else 403 `auth_forbidden`.
    #[serde(default)]
    pub require: OneOrMany<Requirement>,
    /// Headers for the upstream: templates such as `{claim.sub}`. Clients cannot send them, on any route.
    #[serde(default)]
    pub pass: BTreeMap<String, String>,
    /// API keys, passwords and tokens in headers go upstream, too. Without it only the token in `Authorization` does, if it is what has proven who asks. Default false.
    #[serde(default)]
    pub forward_credentials: bool,
}

/// A proof: exactly one of `jwt`, `api_key`, `basic`, `client_certificate`, `forward`, `anonymous`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ jwt = \"accounts\" }")]
pub struct Proof {
    /// A token of one of these issuers.
    #[serde(default)]
    pub jwt: OneOrMany<String>,
    /// With `jwt`: where the token is. Default: `Authorization: Bearer ..`.
    #[serde(default)]
    pub token: OneOrMany<TokenPlace>,
    /// An API key of one of these `[api_keys.NAME]`.
    #[serde(default)]
    pub api_key: OneOrMany<String>,
    /// A user of this `[users.NAME]`.
    #[serde(default)]
    pub basic: Option<String>,
    /// True: a client certificate was shown and verified (`[host."..."]` `client_certificate`).
    #[serde(default)]
    pub client_certificate: bool,
    /// The word of this `[forward_auth.NAME]`.
    #[serde(default)]
    pub forward: Option<String>,
    /// True: whoever shows no credentials passes, as nobody. Bad credentials do not.
    #[serde(default)]
    pub anonymous: bool,
}

/// Where a token is: exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ cookie = \"session\" }")]
pub struct TokenPlace {
    /// A header: `authorization` with `Bearer` before the token, others with the token alone.
    #[serde(default)]
    pub header: Option<String>,
    /// A cookie. It is removed before the upstream sees it.
    #[serde(default)]
    pub cookie: Option<String>,
    /// A query parameter. It is removed before the upstream sees it.
    #[serde(default)]
    pub query: Option<String>,
}

/// What must be known of a subject: a claim or a fact, and at most one of `equals`, `contains`, `one_of`. With none of them it must be there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ claim = \"scope\", contains = \"read\" }")]
pub struct Requirement {
    /// Name of a claim; `a.b` looks into objects.
    #[serde(default)]
    pub claim: Option<String>,
    /// A fact instead, such as `subject.name` or `tls.client.san`.
    #[serde(default)]
    pub fact: Option<String>,
    /// It is this.
    #[serde(default)]
    pub equals: Option<String>,
    /// This is one of its words, or of its items.
    #[serde(default)]
    pub contains: Option<String>,
    /// It is one of these.
    #[serde(default)]
    pub one_of: OneOrMany<String>,
}

fn leeway() -> Span {
    Span::from_secs(30)
}
fn token_max() -> Size {
    Size(8 << 10)
}
fn refresh() -> Span {
    Span::from_secs(300)
}
fn cooldown() -> Span {
    Span::from_secs(5)
}
fn root() -> String {
    "/".to_owned()
}
fn sent() -> OneOrMany<String> {
    OneOrMany(["authorization", "cookie"].map(str::to_owned).to_vec())
}
fn forward_timeout() -> Span {
    Span::from_secs(2)
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Auth, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Auth;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"none\" or { any = [{ jwt = \"accounts\" }] }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Auth, E> {
                match text {
                    "none" => Ok(Auth::None(NoAuth::None)),
                    _ => Err(E::custom(format_args!(
                        "`{text}` is no way to prove anything; write \"none\" or {{ any = [{{ jwt = \"accounts\" }}] }}"
                    ))),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Auth, A::Error> {
                Access::deserialize(MapAccessDeserializer::new(map)).map(|access| Auth::Some(Box::new(access)))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}
