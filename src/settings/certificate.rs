//! Where the certificate of a listener comes from.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::scalar::{OneOrMany, Secret, Span};

/// Where a listener's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Certificate {
    /// `"internal"`: a leaf per name from a CA of our own.
    Internal(Internal),
    /// `"acme"` or `"acme:NAME"`: for every host of the routes one from a `[ca.NAME]`.
    Acme(AcmeOf),
    /// PEM files.
    Files(CertificateFiles),
}

/// `"acme"`, or `"acme:NAME"` where there are several CAs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct AcmeOf(#[schemars(regex(pattern = "^acme(:.+)?$"))] pub String);

impl AcmeOf {
    /// The CA that is named, if one is.
    pub fn ca(&self) -> Option<&str> {
        self.0.strip_prefix("acme:")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Internal {
    Internal,
}

/// PEM files of a certificate. Read again when they change; a broken one is reported, and the old one stays.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// Certificate chain, leaf first.
    pub chain: PathBuf,
    /// Private key (PKCS#8, SEC1 or PKCS#1).
    pub key: PathBuf,
}

/// Whose certificates clients may show. PEM files, read again when they change; broken ones are reported, and what was read
/// before stays in force.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ roots = \"clients.pem\" }")]
pub struct ClientCa {
    /// Certificates that a client's chain must end in.
    pub roots: PathBuf,
    /// Revocation lists (CRL). With them a client is let in only if a list of its issuer is there, has not run out, and does
    /// not name its certificate. Default: nothing is revoked.
    #[serde(default)]
    pub revoked: Option<PathBuf>,
}

/// A certificate authority that speaks ACME (RFC 8555). To name one is to agree to its terms of service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ directory = \"https://..\" }")]
pub struct Ca {
    /// URL of its directory, such as `https://acme-v02.api.letsencrypt.org/directory`.
    pub directory: String,
    /// Where it may write to about the account, such as `mailto:ops@example.com`. Default: nowhere.
    #[serde(default)]
    pub contact: OneOrMany<String>,
    /// PEM file of the root that the directory's own certificate is verified against. Default: the system's roots.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// Wait after the first failed order for a name; five times longer after each further one, up to 6h. Default 1m.
    #[serde(default = "retry")]
    pub retry: Span,
    /// Key that binds our account to one that the CA knows already (external account binding).
    #[serde(default)]
    pub external_account: Option<ExternalAccount>,
    /// Profile of the certificates, one of those that the CA's directory lists, such as `shortlived`. Default: the CA's own.
    #[serde(default)]
    pub profile: Option<String>,
    /// Prove names by TXT records (DNS-01). Needed for wildcards, and where the CA cannot reach this gateway. Default: by HTTP-01 and TLS-ALPN-01.
    #[serde(default)]
    pub dns: Option<DnsProof>,
    /// Name of another `[ca.NAME]` that is asked after two failures here; after two failures there it is this one's turn again.
    #[serde(default)]
    pub fallback: Option<String>,
}

/// A key that the CA gave out for accounts (RFC 8555 7.3.4).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ id = \"kid-1\", key = \"${file:/run/secrets/eab}\" }")]
pub struct ExternalAccount {
    /// Its identifier.
    pub id: String,
    /// The key in base64url, usually by `${file:..}`.
    pub key: Secret,
}

/// How TXT records are written: exactly one of `command` and `server`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ command = [\"/usr/local/bin/dns-hook\"] }")]
pub struct DnsProof {
    /// Program and arguments. It is run with `set NAME VALUE` added, and later with `clear NAME VALUE`: a name may have several values at once. It succeeds by exiting with 0.
    #[serde(default)]
    pub command: OneOrMany<String>,
    /// Name server that takes updates (RFC 2136) over TCP, `address:port`.
    #[serde(default)]
    pub server: Option<String>,
    /// With `server`: the key that updates are signed with (TSIG, RFC 8945).
    #[serde(default)]
    pub key: Option<TsigKey>,
    /// With `server`: the zone of the records. Default: the server is asked.
    #[serde(default)]
    pub zone: Option<String>,
    /// With `server`: time to live of the records. Default 1m.
    #[serde(default = "retry")]
    pub ttl: Span,
    /// The CA is told this long after the records were written, for all servers of the zone to have them. Default 0s.
    #[serde(default = "no_time")]
    pub settle: Span,
    /// A command or an update that takes longer has failed. Default 30s.
    #[serde(default = "dns_timeout")]
    pub timeout: Span,
}

/// A key of TSIG.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ name = \"tollgate\", secret = \"${file:/run/secrets/tsig}\" }")]
pub struct TsigKey {
    /// Its name, as the server knows it.
    pub name: String,
    /// `hmac-sha256`, `hmac-sha384` or `hmac-sha512`. Default `hmac-sha256`.
    #[serde(default)]
    pub algorithm: TsigAlgorithm,
    /// The secret in base64, usually by `${file:..}`.
    pub secret: Secret,
}

/// An algorithm of TSIG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TsigAlgorithm {
    #[default]
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

/// Certificates for names that no document lists: ordered when a client asks for one. At least one of `allow` and `ask`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "{ allow = [\"*.customers.example.com\"] }")]
pub struct OnDemand {
    /// Name of the `[ca.NAME]` that is asked. Default: the one there is.
    #[serde(default)]
    pub ca: Option<String>,
    /// Names that may have one: `shop.example.com`, `*.customers.example.com` (exactly one label), `**.example.com` (one or more).
    #[serde(default)]
    pub allow: OneOrMany<String>,
    /// URL (http) that is asked with `?domain=NAME` about every other name: 200 allows, anything else refuses.
    #[serde(default)]
    pub ask: Option<String>,
    /// Most names at once. Default 1000.
    #[serde(default = "names")]
    pub names: usize,
    /// Most new names a minute. Default 10.
    #[serde(default = "per_minute")]
    pub per_minute: u32,
}

fn no_time() -> Span {
    Span::from_secs(0)
}

fn dns_timeout() -> Span {
    Span::from_secs(30)
}

fn names() -> usize {
    1_000
}

fn per_minute() -> u32 {
    10
}

fn retry() -> Span {
    Span::from_secs(60)
}

impl<'de> Deserialize<'de> for Certificate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Certificate, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Certificate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"internal\", \"acme\" or { chain = \"cert.pem\", key = \"key.pem\" }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Certificate, E> {
                match text {
                    "internal" => Ok(Certificate::Internal(Internal::Internal)),
                    _ if text == "acme" || text.starts_with("acme:") => Ok(Certificate::Acme(AcmeOf(text.to_owned()))),
                    _ => Err(E::custom(format_args!(
                        "`{text}` is no source of certificates; write \"internal\", \"acme\" or {{ chain = \"cert.pem\", key = \"key.pem\" }}"
                    ))),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Certificate, A::Error> {
                CertificateFiles::deserialize(MapAccessDeserializer::new(map)).map(Certificate::Files)
            }
        }
        deserializer.deserialize_any(Shape)
    }
}
