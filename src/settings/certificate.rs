//! Where the certificate of a listener comes from.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

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
