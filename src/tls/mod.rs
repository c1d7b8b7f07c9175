//! Certificates by name: from files, or minted by a CA of our own.
//!
//! A listener's `rustls::ServerConfig`s are built once; which of them a handshake gets, and which certificate, is decided by
//! the name the client asks for. Files are looked at again and again, names are swapped with the document: both take effect
//! with the next handshake. Nothing here touches a socket.

mod acme;
mod files;
mod internal;
mod names;
mod shown;

use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;

pub use acme::{Acme, AcmeCertificate, Challenges, Standing};
pub use files::FileCertificate;
pub use internal::{Authority, AuthorityError};
pub use names::{ByName, Held, Index, Named};
pub use shown::Shown;

use crate::settings::{HttpVersion, Listen, UnknownNames};

/// How often certificate files are looked at.
const LOOK: Duration = Duration::from_secs(2);

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
    own: Held,
    unknown: UnknownNames,
    by_name: Arc<ByName>,
}

impl Certificates {
    /// `own` is what the listener shows where no name says otherwise.
    pub fn new(own: Held, unknown: UnknownNames, by_name: Arc<ByName>) -> Certificates {
        Certificates { own, unknown, by_name }
    }

    /// What a session with this server name may be asked for.
    pub fn covers(&self, sni: Option<&str>) -> Covers {
        let Some(name) = sni else { return Covers::Anything };
        let named = self.by_name.find(name).and_then(|named| named.held);
        match named.as_ref().unwrap_or(&self.own) {
            Held::Internal(_) | Held::Acme(..) => Covers::ServerName,
            Held::Files(files) => files
                .current()
                .cert
                .first()
                .map_or(Covers::ServerName, |leaf| Covers::Certificate(leaf.clone().into_owned())),
        }
    }

    /// Whether sessions of TLS 1.2 are good for this host.
    pub fn takes_tls12(&self, host: &str) -> bool {
        self.by_name.find(host).is_none_or(|named| !named.only_tls13)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        match name.and_then(|name| self.by_name.find(name)) {
            // Until a CA has given one, the listener's own keeps the name reachable.
            Some(Named { held, .. }) => {
                held.and_then(|held| held.certificate(name)).or_else(|| self.own.certificate(name))
            }
            None if self.unknown == UnknownNames::Refuse => None,
            None => self.own.certificate(name),
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

/// The TLS side of a listener.
#[derive(Debug)]
pub struct Tls {
    pub certificates: Arc<Certificates>,
    any: Arc<ServerConfig>,
    only_tls13: Arc<ServerConfig>,
    challenges: Option<Arc<ServerConfig>>,
}

impl Tls {
    /// TLS 1.2 and 1.3, the provider's ciphers, stateless tickets whose keys rotate, no early data.
    pub fn new(
        listen: &Listen,
        certificates: Arc<Certificates>,
        challenges: Option<Arc<Challenges>>,
    ) -> Result<Tls, CertificateError> {
        let config = |versions: &[&'static rustls::SupportedProtocolVersion]| {
            let builder = ServerConfig::builder_with_protocol_versions(versions).with_no_client_auth();
            let mut config = builder.with_cert_resolver(certificates.clone());
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
            Ok::<_, CertificateError>(Arc::new(config))
        };
        let any = config(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let only_tls13 = config(&[&rustls::version::TLS13])?;
        let challenges = challenges.map(|challenges| {
            let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(challenges);
            config.alpn_protocols = vec![acme::ALPN.to_vec()];
            Arc::new(config)
        });
        Ok(Tls { certificates, any, only_tls13, challenges })
    }

    /// The configuration for a handshake, and whether that is all there is to do (RFC 8737 3).
    pub fn config(&self, hello: &ClientHello<'_>) -> (Arc<ServerConfig>, Purpose) {
        let asks_for_proof = || hello.alpn().is_some_and(|mut all| all.any(|protocol| protocol == acme::ALPN));
        if let Some(config) = self.challenges.as_ref().filter(|_| asks_for_proof()) {
            return (config.clone(), Purpose::Challenge);
        }
        (self.config_for(hello.server_name()), Purpose::Requests)
    }

    fn config_for(&self, server_name: Option<&str>) -> Arc<ServerConfig> {
        match server_name.is_none_or(|name| self.certificates.takes_tls12(name)) {
            true => self.any.clone(),
            false => self.only_tls13.clone(),
        }
    }
}

/// What a handshake is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Requests,
    /// A CA looks whether a name is ours.
    Challenge,
}

/// Looks after certificate files for as long as the process lives.
pub async fn watch(all: Vec<Arc<FileCertificate>>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let all = all.clone();
        let look = move || all.iter().for_each(|certificate| certificate.look());
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "certificate files could not be looked at");
        }
    }
}
