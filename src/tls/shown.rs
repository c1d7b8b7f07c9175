//! What an operator is told of a certificate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::acme::AcmeCertificate;
use super::clients::ClientAuthority;
use super::files::FileCertificate;
use super::internal::Authority;
use crate::telemetry::access::rfc3339;

/// A certificate as `/certs` and `tollgate certs` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Of the block, the listener, or the host.
    pub name: String,
    /// `file`, `acme:NAME`, `internal`, or `client_ca`: whose certificates clients may show.
    pub source: String,
    /// What it is good for. Of the local CA: nothing, since its leaves are made for whatever is asked for.
    pub names: Vec<String>,
    /// `None` until there is a certificate.
    pub issuer: Option<String>,
    pub not_after: Option<String>,
    pub not_after_unix: Option<u64>,
    /// When a new one is ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_order: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_order_unix: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Shown {
    fn of(name: &str, source: String, leaf: Option<&CertificateDer<'_>>) -> Shown {
        let read = leaf.and_then(|leaf| Leaf::read(leaf).ok());
        let not_after = read.as_ref().map(|leaf| leaf.not_after);
        Shown {
            name: name.to_owned(),
            source,
            not_after: not_after.map(rfc3339),
            not_after_unix: not_after.and_then(|at| Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())),
            issuer: read.as_ref().map(|leaf| leaf.issuer.clone()),
            names: read.map(|leaf| leaf.names).unwrap_or_default(),
            next_order: None,
            next_order_unix: None,
            last_error: None,
        }
    }

    pub fn file(certificate: &FileCertificate) -> Shown {
        let current = certificate.current();
        let shown = Shown::of(certificate.name(), "file".to_owned(), current.cert.first());
        Shown { last_error: certificate.error(), ..shown }
    }

    pub fn acme(certificate: &AcmeCertificate) -> Shown {
        let (current, standing) = (certificate.current(), certificate.standing());
        let leaf = current.as_ref().and_then(|current| current.cert.first());
        let shown = Shown::of(certificate.wish.name(), format!("acme:{}", certificate.wish.ca), leaf);
        let next_order_unix = standing.next_order.duration_since(UNIX_EPOCH).ok().map(|at| at.as_secs());
        let next_order = Some(rfc3339(standing.next_order));
        Shown { next_order, next_order_unix, last_error: standing.last_error, ..shown }
    }

    /// Until when: the first of its roots and revocation lists.
    pub fn clients(authority: &ClientAuthority) -> Shown {
        let current = authority.current();
        let shown = Shown::of(authority.name(), "client_ca".to_owned(), current.root());
        let ends = current.ends();
        Shown {
            names: Vec::new(),
            not_after: ends.map(rfc3339),
            not_after_unix: ends.and_then(|at| Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())),
            last_error: authority.error(),
            ..shown
        }
    }

    pub fn internal(authority: &Authority) -> Shown {
        let root = authority.root_der();
        Shown { names: Vec::new(), ..Shown::of("local CA", "internal".to_owned(), root.as_ref()) }
    }
}

/// What is read of a leaf.
pub(super) struct Leaf {
    pub(super) names: Vec<String>,
    issuer: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Leaf {
    pub(super) fn read(leaf: &CertificateDer<'_>) -> Result<Leaf, String> {
        let (_, read) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
        let time = |at: x509_parser::time::ASN1Time| {
            UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or_default())
        };
        let names = read.subject_alternative_name().ok().flatten().map(|names| {
            let names = names.value.general_names.iter().filter_map(|name| match name {
                x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            });
            names.collect()
        });
        Ok(Leaf {
            names: names.unwrap_or_default(),
            issuer: read.issuer().to_string(),
            not_before: time(read.validity().not_before),
            not_after: time(read.validity().not_after),
        })
    }
}
