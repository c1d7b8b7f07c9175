//! Where the certificate of a listener comes from.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::scalar::{OneOrMany, Span};

/// Where a listener's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Certificate {
    /// `"internal"`: a leaf per name from a CA of our own.
    Internal(Internal),
    /// PEM files.
    Files(CertificateFiles),
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
                f.write_str("\"internal\" or { chain = \"cert.pem\", key = \"key.pem\" }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Certificate, E> {
                match text {
                    "internal" => Ok(Certificate::Internal(Internal::Internal)),
                    _ => Err(E::custom(format_args!(
                        "`{text}` is no source of certificates; write \"internal\" or {{ chain = \"cert.pem\", key = \"key.pem\" }}"
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
