//! A CA of our own: a leaf for every server name, minted when it is first asked for.
//!
//! For development and private networks. The root's key is kept in the state directory (0600), so that trust in it
//! survives restarts; leaves live in memory only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::durable;

/// Leaves held at once. At the bound one is thrown away: a stranger may ask for any name.
const LEAVES_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot mint a certificate: {0}")]
    Mint(#[from] rcgen::Error),
    #[error("cannot keep the local CA in {path}: {source}")]
    Keep { path: PathBuf, source: std::io::Error },
}

/// A leaf is minted anew after this long; it is good for three months.
const LEAF_RENEWED_AFTER: Duration = Duration::from_secs(60 * 86_400);
const LEAF_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

struct Leaf {
    certified: Arc<CertifiedKey>,
    minted: Instant,
}

/// The local CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    leaves: Mutex<HashMap<Box<str>, Leaf>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// The CA kept in `dir`, made there if there is none; without a directory a CA for this run only.
    pub fn open(dir: Option<&Path>) -> Result<Authority, AuthorityError> {
        let Some(dir) = dir else { return Authority::from_key(KeyPair::generate()?) };
        let keep = |source| AuthorityError::Keep { path: dir.to_owned(), source };
        durable::directory(dir).map_err(keep)?;
        // Two gateways that begin together make one CA. The lock ends with the file.
        let lock = std::fs::File::create(dir.join(".local-ca.lock")).map_err(keep)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| keep(error.into()))?;
        let key_path = dir.join("local-ca.key");
        let key = match std::fs::read_to_string(&key_path) {
            Ok(pem) => KeyPair::from_pem(&Zeroizing::new(pem))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = KeyPair::generate()?;
                durable::replace(&key_path, Zeroizing::new(key.serialize_pem()).as_bytes()).map_err(keep)?;
                key
            }
            Err(error) => return Err(keep(error)),
        };
        let cert_path = dir.join("local-ca.pem");
        let public = key.public_key_raw().to_vec();
        let mut authority = Authority::from_key(key)?;
        let kept = std::fs::read_to_string(&cert_path).ok().filter(|pem| is_of(pem, &public));
        match kept {
            // The certificate that was trusted stays the one that is shown; key and subject are the same.
            Some(pem) => authority.root_pem = pem,
            None => {
                durable::replace(&cert_path, authority.root_pem.as_bytes()).map_err(keep)?;
                // Others read it to trust it.
                let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
                std::fs::set_permissions(&cert_path, open).map_err(keep)?;
            }
        }
        Ok(authority)
    }

    fn from_key(key: KeyPair) -> Result<Authority, AuthorityError> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Tollgate local CA");
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(2045, 1, 1);
        let root = params.self_signed(&key)?;
        Ok(Authority { root_pem: root.pem(), issuer: Issuer::new(params, key), leaves: Mutex::default() })
    }

    /// What a client has to trust, in PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    pub(super) fn root_der(&self) -> Option<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.root_pem.as_bytes()).ok()
    }

    /// The certificate for a server name; without one, for `localhost` and the loopback addresses.
    pub fn leaf(&self, server_name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = server_name.unwrap_or("localhost");
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(name).filter(|leaf| leaf.minted.elapsed() < LEAF_RENEWED_AFTER) {
            return Some(leaf.certified.clone());
        }
        let certified = match self.mint(name) {
            Ok(leaf) => Arc::new(leaf),
            Err(error) => {
                tracing::warn!(%error, "no certificate was minted");
                return None;
            }
        };
        if leaves.len() >= LEAVES_MAX
            && let Some(victim) = leaves.keys().next().cloned()
        {
            leaves.remove(&victim);
        }
        leaves.insert(name.into(), Leaf { certified: certified.clone(), minted: Instant::now() });
        Some(certified)
    }

    fn mint(&self, name: &str) -> Result<CertifiedKey, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        if name == "localhost" {
            params.subject_alt_names.push(SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
            params.subject_alt_names.push(SanType::IpAddress(std::net::Ipv6Addr::LOCALHOST.into()));
        }
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        // An hour of tolerance for clocks that lag; browsers refuse leaves of more than 825 days.
        params.not_before = (now - Duration::from_secs(3_600)).into();
        params.not_after = (now + LEAF_LIFETIME).into();
        let leaf = params.signed_by(&key, &self.issuer)?;
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        CertifiedKey::from_der(chain, key, &super::provider())
            .map_err(|_| AuthorityError::Mint(rcgen::Error::CouldNotParseCertificate))
    }
}

/// Whether a certificate is whole, and of this key.
fn is_of(pem: &str, public: &[u8]) -> bool {
    CertificateDer::from_pem_slice(pem.as_bytes()).is_ok_and(|der| {
        x509_parser::parse_x509_certificate(&der)
            .is_ok_and(|(_, read)| &*read.public_key().subject_public_key.data == public)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_key_across_restarts() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Authority::open(Some(dir.path())).expect("a new CA");
        let second = Authority::open(Some(dir.path())).expect("the kept CA");
        assert_eq!(first.root_pem(), second.root_pem());
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(dir.path().join("local-ca.key")).expect("the key").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        // A certificate that is not whole is made anew.
        std::fs::write(dir.path().join("local-ca.pem"), "-----BEGIN CERT").expect("written");
        let third = Authority::open(Some(dir.path())).expect("the kept CA");
        assert!(third.root_der().is_some());
    }

    #[test]
    fn the_number_of_leaves_is_bounded() {
        let authority = Authority::open(None).expect("a CA");
        for i in 0..LEAVES_MAX + 10 {
            assert!(authority.leaf(Some(&format!("h{i}.example.com"))).is_some());
        }
        assert!(authority.leaves.lock().expect("leaves").len() <= LEAVES_MAX);
    }
}
