//! Certificates of the listeners: from files, or minted by a CA of our own.
//!
//! A listener's `rustls::ServerConfig` is built once; which certificate a handshake gets is decided by `Certificates`,
//! whose content is swapped whole. Nothing here touches a socket.

mod files;
mod internal;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;

pub use files::load;
pub use internal::{Authority, AuthorityError};

use crate::settings::{Certificate, HttpVersion, Listen};

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {path}: {source}")]
    Read { path: std::path::PathBuf, source: std::io::Error },
    #[error("{path} holds no {what} in PEM")]
    Empty { path: std::path::PathBuf, what: &'static str },
    #[error("{path} is no whole PEM file")]
    Damaged { path: std::path::PathBuf },
    #[error("{path}: {source}")]
    Tls { path: std::path::PathBuf, source: rustls::Error },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("TLS setup failed: {0}")]
    Setup(#[from] rustls::Error),
}

/// The certificates of one listener.
#[derive(Debug)]
pub struct Certificates {
    source: Certificate,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Files(ArcSwap<CertifiedKey>),
    Internal(Arc<Authority>),
}

impl Certificates {
    pub fn open(
        listen: &Listen,
        authority: impl FnOnce() -> Result<Arc<Authority>, AuthorityError>,
    ) -> Result<Certificates, CertificateError> {
        let source = listen.certificate.clone().unwrap_or(Certificate::Internal(crate::settings::Internal::Internal));
        let held = match &source {
            Certificate::Files(files) => Held::Files(ArcSwap::from_pointee(load(files)?)),
            Certificate::Internal(_) => Held::Internal(authority()?),
        };
        Ok(Certificates { source, held })
    }

    /// Reads the files again. On an error the old certificate stays.
    pub fn reload(&self) -> Result<(), CertificateError> {
        if let (Certificate::Files(files), Held::Files(held)) = (&self.source, &self.held) {
            held.store(Arc::new(load(files)?));
        }
        Ok(())
    }

    /// What a session with this server name may be asked for.
    pub fn covers(&self, sni: Option<&str>) -> Covers {
        match (&self.held, sni) {
            (_, None) => Covers::Anything,
            (Held::Internal(_), Some(_)) => Covers::ServerName,
            (Held::Files(held), Some(_)) => held
                .load()
                .cert
                .first()
                .map_or(Covers::ServerName, |leaf| Covers::Certificate(leaf.clone().into_owned())),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match &self.held {
            Held::Files(held) => Some(held.load_full()),
            Held::Internal(authority) => authority.leaf(hello.server_name()),
        }
    }
}

/// Which hosts may be asked for over a TLS session (RFC 9110 7.4: others are answered 421).
#[derive(Debug)]
pub enum Covers {
    /// The client named no server.
    Anything,
    /// The name it asked for, only.
    ServerName,
    /// That name, and whatever the certificate is good for.
    Certificate(CertificateDer<'static>),
}

impl Covers {
    /// Whether `host` (normalised) may be asked for, where `sni` was.
    pub fn host(&self, sni: Option<&str>, host: &str) -> bool {
        let Some(sni) = sni else { return true };
        if sni.trim_end_matches('.').eq_ignore_ascii_case(host) {
            return true;
        }
        match self {
            Covers::Anything => true,
            Covers::ServerName => false,
            Covers::Certificate(leaf) => {
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let (Ok(name), Ok(leaf)) = (ServerName::try_from(bare), ParsedCertificate::try_from(leaf)) else {
                    return false;
                };
                verify_server_name(&leaf, &name).is_ok()
            }
        }
    }
}

/// The TLS side of a listener: versions 1.2 and 1.3, the provider's ciphers, stateless tickets, no early data.
pub fn server_config(listen: &Listen, certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, CertificateError> {
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(certificates);
    config.alpn_protocols = Vec::new();
    if listen.speaks(HttpVersion::H2) {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    if listen.speaks(HttpVersion::H1) {
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}
