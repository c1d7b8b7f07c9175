//! Certificates of clients: who vouches for them, which are revoked, and what one says.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};
use x509_parser::revocation_list::CertificateRevocationList;

use super::shown::Leaf;
use super::watched::{FromFiles, Watched, read};
use super::{CertificateError, files, provider};
use crate::facts::ClientCertificate;
use crate::scalar::hex;
use crate::settings::ClientCa;

/// The authorities of a `[client_ca.NAME]`, as they are now.
pub type ClientAuthority = Watched<Clients>;

/// Who vouches for clients, and who is revoked.
#[derive(Debug)]
pub struct Clients {
    roots: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    pub(super) require: Arc<dyn ClientCertVerifier>,
    pub(super) request: Arc<dyn ClientCertVerifier>,
}

impl FromFiles for Clients {
    type Files = ClientCa;
    const WHAT: &'static str = "CA for clients";

    fn paths(files: &ClientCa) -> Vec<&Path> {
        std::iter::once(files.roots.as_path()).chain(files.revoked.as_deref()).collect()
    }

    fn load(words: &ClientCa) -> Result<Clients, CertificateError> {
        let roots = files::certificates(&words.roots)?;
        let revoked = match &words.revoked {
            Some(path) => revocation_lists(path)?,
            None => Vec::new(),
        };
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(|source| CertificateError::Tls { path: words.roots.clone(), source })?;
        }
        let store = Arc::new(store);
        let verifier = |required: bool| {
            let mut builder = WebPkiClientVerifier::builder_with_provider(store.clone(), provider());
            if !revoked.is_empty() {
                // Whoever is in no list of its issuer, or in one that has run out, is not let in.
                builder = builder
                    .with_crls(revoked.iter().cloned())
                    .only_check_end_entity_revocation()
                    .enforce_revocation_expiration();
            }
            if !required {
                builder = builder.allow_unauthenticated();
            }
            let failed = |error: rustls::server::VerifierBuilderError| CertificateError::Clients {
                path: words.revoked.clone().unwrap_or_else(|| words.roots.clone()),
                reason: error.to_string(),
            };
            builder.build().map_err(failed)
        };
        let (require, request) = (verifier(true)?, verifier(false)?);
        Ok(Clients { roots, revoked, require, request })
    }

    fn is_same(&self, other: &Clients) -> bool {
        self.roots == other.roots && self.revoked == other.revoked
    }
}

impl Clients {
    pub(super) fn root(&self) -> Option<&CertificateDer<'static>> {
        self.roots.first()
    }

    /// When the first root or list runs out.
    pub(super) fn ends(&self) -> Option<SystemTime> {
        let roots = self.roots.iter().filter_map(|root| Some(Leaf::read(root).ok()?.not_after));
        let lists = self.revoked.iter().filter_map(|list| {
            let (_, list) = CertificateRevocationList::from_der(list.as_ref()).ok()?;
            let at = u64::try_from(list.next_update()?.timestamp()).ok()?;
            Some(UNIX_EPOCH + Duration::from_secs(at))
        });
        roots.chain(lists).min()
    }
}

fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, CertificateError> {
    let all: Vec<CertificateRevocationListDer<'static>> = CertificateRevocationListDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateError::Damaged { path: path.to_owned() })?;
    match all.is_empty() {
        true => Err(CertificateError::Empty { path: path.to_owned(), what: "revocation list" }),
        false => Ok(all),
    }
}

/// What a client's certificate says. The error is for the log.
pub fn read_client(leaf: &CertificateDer<'_>) -> Result<ClientCertificate, String> {
    let (_, read) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    let names = read.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    Ok(ClientCertificate {
        subject: distinguished_name(read.subject()),
        issuer: distinguished_name(read.issuer()),
        serial: hex(read.raw_serial()),
        fingerprint: hex(digest::digest(&digest::SHA256, leaf).as_ref()),
        san: names.iter().filter_map(alternative_name).collect(),
        certificate: format!(":{}:", BASE64_STANDARD.encode(leaf)),
    })
}

/// With its kind before it; a comma, which parts names from each other, is percent-encoded.
fn alternative_name(name: &GeneralName<'_>) -> Option<String> {
    let plain = |kind: &str, text: &str| {
        let text = text.replace('%', "%25").replace(',', "%2C");
        (!text.bytes().any(|byte| byte.is_ascii_control())).then(|| format!("{kind}:{text}"))
    };
    match name {
        GeneralName::DNSName(name) => plain("dns", &name.to_ascii_lowercase()),
        // Of a URI, the percent sign is its own.
        GeneralName::URI(uri) => {
            let text = uri.replace(',', "%2C");
            (!text.bytes().any(|byte| byte.is_ascii_control())).then(|| format!("uri:{text}"))
        }
        GeneralName::RFC822Name(name) => plain("email", name),
        GeneralName::IPAddress(bytes) => {
            let address = match <[u8; 4]>::try_from(*bytes) {
                Ok(v4) => std::net::IpAddr::from(v4),
                Err(_) => std::net::IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
            };
            Some(format!("ip:{address}"))
        }
        _ => None,
    }
}

/// As RFC 4514 writes it: most specific first, and nothing in a value reads like the next part.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let pairs: Vec<String> = rdn
                .iter()
                .map(|pair| {
                    let kind = match pair.attr_type().to_id_string().as_str() {
                        "2.5.4.3" => "CN".to_owned(),
                        "2.5.4.7" => "L".to_owned(),
                        "2.5.4.8" => "ST".to_owned(),
                        "2.5.4.10" => "O".to_owned(),
                        "2.5.4.11" => "OU".to_owned(),
                        "2.5.4.6" => "C".to_owned(),
                        "2.5.4.9" => "STREET".to_owned(),
                        "0.9.2342.19200300.100.1.25" => "DC".to_owned(),
                        "0.9.2342.19200300.100.1.1" => "UID".to_owned(),
                        other => other.to_owned(),
                    };
                    match pair.as_str() {
                        Ok(text) => format!("{kind}={}", Escaped(text)),
                        Err(_) => format!("{kind}=#{}", hex(pair.as_slice())),
                    }
                })
                .collect();
            pairs.join("+")
        })
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// A value of a distinguished name (RFC 4514 2.4); control characters as hex pairs.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Escaped(text) = self;
        let last = text.chars().count().saturating_sub(1);
        for (index, c) in text.chars().enumerate() {
            match c {
                '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => write!(f, "\\{c}")?,
                ' ' if index == 0 || index == last => write!(f, "\\ ")?,
                '#' if index == 0 => write!(f, "\\#")?,
                c if c.is_control() => {
                    for byte in c.to_string().bytes() {
                        write!(f, "\\{byte:02x}")?;
                    }
                }
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn read(params: CertificateParams) -> ClientCertificate {
        let key = KeyPair::generate().unwrap();
        read_client(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn says_what_stands_in_the_certificate_and_nothing_twice_readable() {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
        params.distinguished_name.push(DnType::CommonName, "builder,O=Other");
        params.subject_alt_names = vec![
            SanType::DnsName("A.example.com".try_into().unwrap()),
            SanType::URI("spiffe://example/a,dns:b".try_into().unwrap()),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
        ];
        let read = read(params);
        assert_eq!(read.subject, "CN=builder\\,O\\=Other,O=Example\\, Inc.");
        assert_eq!(read.san, ["dns:a.example.com", "uri:spiffe://example/a%2Cdns:b", "ip:192.0.2.1"]);
        assert_eq!(read.fingerprint.len(), 64);
        assert!(read.certificate.starts_with(":MII") && read.certificate.ends_with(':'));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(read_client(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
