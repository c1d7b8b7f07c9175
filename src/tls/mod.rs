//! Certificates by name: from files, from a CA that speaks ACME, or minted by a CA of our own; and what names ask of clients.
//!
//! A listener's `rustls::ServerConfig`s are made once; which of them a handshake gets, and which certificate, is decided by
//! the name the client asks for. Files are looked at again and again, names are swapped with the document: both take effect
//! with the next handshake. Nothing here touches a client's socket.

mod acme;
mod clients;
mod files;
mod internal;
mod names;
mod session;
mod shown;
mod staple;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;

pub use acme::{Acme, AcmeCertificate, Challenges, Demand, Shared, Standing, Wish};
pub use clients::{ClientAuthority, read_client};
pub use files::FileCertificate;
pub use internal::{Authority, AuthorityError};
pub use names::{ByName, Held, Index, Named};
use session::Sessions;
pub use session::{ClientAuthorities, ClientPolicy, Policy};
pub use shown::Shown;
pub use staple::{Stapled, keep as keep_staples};
pub use watched::Look;

use crate::settings::{Listen, UnknownNames};

/// How often files are looked at.
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
    #[error("{path}: {reason}")]
    Clients { path: std::path::PathBuf, reason: String },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("TLS setup failed: {0}")]
    Setup(#[from] rustls::Error),
}

/// The crypto provider of the process: the one that main installed, or the one it would have.
fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// The certificates of one listener.
#[derive(Debug)]
pub struct Certificates {
    own: Held,
    /// Every host of the routes gets one from a CA.
    automatic: bool,
    unknown: UnknownNames,
    by_name: Arc<ByName>,
    demand: Option<Arc<Demand>>,
}

impl Certificates {
    /// `own` is what the listener shows where no name says otherwise.
    pub fn new(
        own: Held,
        automatic: bool,
        unknown: UnknownNames,
        by_name: Arc<ByName>,
        demand: Option<Arc<Demand>>,
    ) -> Certificates {
        Certificates { own, automatic, unknown, by_name, demand }
    }

    fn held<'n>(&self, named: &'n Named) -> Option<&'n Held> {
        named.held.as_ref().or(named.automatic.as_ref().filter(|_| self.automatic))
    }

    /// What a session with this server name may be asked for.
    fn covers(&self, sni: Option<&str>) -> Covers {
        let named = sni.and_then(|name| self.by_name.find(name));
        let held = named.as_ref().and_then(|named| self.held(named)).unwrap_or(&self.own);
        let demanded = || self.demand.as_ref()?.current(sni?);
        let current = match (demanded().filter(|_| named.is_none()), held) {
            (Some(demanded), _) => Some(demanded),
            // Its leaves are made for whatever is asked for.
            (None, Held::Internal(_)) => None,
            (None, held) => held.certificate(sni),
        };
        let leaf = current.and_then(|current| current.cert.first().map(|leaf| leaf.clone().into_owned()));
        match (leaf, sni) {
            (Some(leaf), _) => Covers::Certificate(leaf),
            (None, Some(_)) => Covers::ServerName,
            (None, None) => Covers::Anything,
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let own = || self.own.certificate(name);
        match name.and_then(|name| self.by_name.find(name)) {
            // Until a CA has given one, the listener's own keeps the name reachable.
            Some(named) => self.held(&named).and_then(|held| held.certificate(name)).or_else(own),
            None => {
                let demanded = || self.demand.as_ref()?.current(name?);
                demanded().or_else(|| own().filter(|_| self.unknown != UnknownNames::Refuse))
            }
        }
    }
}

/// Which hosts may be asked for over a TLS session (RFC 9110 7.4: others are answered 421).
#[derive(Debug)]
enum Covers {
    /// The client named no server.
    Anything,
    /// The name it asked for, only.
    ServerName,
    /// That name, and whatever the certificate is good for.
    Certificate(CertificateDer<'static>),
}

impl Covers {
    /// Whether `host` (normalised) may be asked for, where `sni` was.
    fn host(&self, sni: Option<&str>, host: &str) -> bool {
        if sni.is_some_and(|sni| sni.trim_end_matches('.').eq_ignore_ascii_case(host)) {
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

/// What a TLS session was begun under, and so which hosts it is good for.
#[derive(Debug)]
pub struct Session {
    pub server_name: Option<Box<str>>,
    tls12: bool,
    h2: bool,
    covers: Covers,
    named: Option<Arc<Named>>,
    /// Of the names it was begun under.
    generation: u64,
    certificates: Arc<Certificates>,
}

impl Session {
    /// Whether `host` (normalised) may be asked for. A change of the document may make a session unfit that was fit.
    pub fn is_good_for(&self, host: &str) -> bool {
        let same = self.server_name.as_deref() == Some(host);
        // The handshake was held to what its own name asks for.
        if same && self.certificates.by_name.generation() == self.generation {
            return true;
        }
        let asked = self.certificates.by_name.find(host);
        let of = |named: &Option<Arc<Named>>| named.as_ref().map(|named| named.policy.clone()).unwrap_or_default();
        let Policy { only_tls13, no_h1, no_h2, clients } = of(&asked);
        let unfit = (only_tls13 && self.tls12) || (if self.h2 { no_h2 } else { no_h1 });
        !unfit && clients == of(&self.named).clients && (same || self.covers.host(self.server_name.as_deref(), host))
    }
}

/// The TLS side of a listener.
#[derive(Debug)]
pub struct Tls {
    certificates: Arc<Certificates>,
    sessions: Sessions,
    challenges: Option<Arc<ServerConfig>>,
}

/// How a handshake goes on after the client has said what it wants.
#[derive(Debug)]
pub enum Handshake {
    /// With this configuration; what comes of it is for requests.
    Requests(Arc<ServerConfig>, Begun),
    /// A CA looks whether a name is ours, and that is all there is to do (RFC 8737 3).
    Challenge(Arc<ServerConfig>),
    Refused,
}

/// A session that has begun: `Tls::session` makes it whole.
#[derive(Debug)]
pub struct Begun {
    named: Option<Arc<Named>>,
    generation: u64,
}

impl Tls {
    pub fn new(
        listen: &Listen,
        certificates: Certificates,
        authorities: Arc<ClientAuthorities>,
        challenges: Option<Arc<Challenges>>,
    ) -> Result<Tls, CertificateError> {
        let certificates = Arc::new(certificates);
        let sessions = Sessions::new(listen, certificates.clone(), authorities)?;
        let challenges = challenges.map(|challenges| {
            let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(challenges);
            config.alpn_protocols = vec![acme::ALPN.to_vec()];
            Arc::new(config)
        });
        Ok(Tls { certificates, sessions, challenges })
    }

    /// Waits for the certificate of a name that may have one on demand and has none yet.
    /// False: a bound stands in the way.
    pub async fn demanded(&self, hello: &ClientHello<'_>, wait: Duration) -> bool {
        let (Some(name), Some(demand)) = (hello.server_name(), &self.certificates.demand) else { return true };
        // The CA that looks is not made to wait for what it is to give.
        if asks_for_proof(hello) || self.certificates.by_name.find(name).is_some() {
            return true;
        }
        demand.ask(name, wait).await
    }

    pub fn begin(&self, hello: &ClientHello<'_>) -> Handshake {
        if let Some(config) = self.challenges.as_ref().filter(|_| asks_for_proof(hello)) {
            return Handshake::Challenge(config.clone());
        }
        let generation = self.certificates.by_name.generation();
        let named = hello.server_name().and_then(|name| self.certificates.by_name.find(name));
        let config = match &named {
            Some(named) => self.sessions.config(&named.policy),
            None => self.sessions.config(&Policy::default()),
        };
        match config {
            Some(config) => Handshake::Requests(config, Begun { named, generation }),
            None => Handshake::Refused,
        }
    }

    /// Whether the client's certificate of a session that was taken up again is still good: rustls takes it out of the ticket
    /// as it was.
    pub fn is_still_good(&self, begun: &Begun, chain: &[CertificateDer<'_>]) -> bool {
        let policy = begun.named.as_ref().map(|named| &named.policy);
        policy.is_none_or(|policy| self.sessions.verify(policy, chain))
    }

    /// `None`: the client speaks a version of HTTP that the name does not.
    pub fn session(&self, begun: Begun, server_name: Option<Box<str>>, tls12: bool, h2: bool) -> Option<Session> {
        let Begun { named, generation } = begun;
        if named.as_ref().is_some_and(|named| if h2 { named.policy.no_h2 } else { named.policy.no_h1 }) {
            return None;
        }
        let covers = self.certificates.covers(server_name.as_deref());
        Some(Session { server_name, tls12, h2, covers, named, generation, certificates: self.certificates.clone() })
    }
}

/// RFC 8737 3.
fn asks_for_proof(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut all| all.any(|protocol| protocol == acme::ALPN))
}

/// Looks after files for as long as the process lives.
pub async fn watch(all: Vec<Arc<dyn Look>>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let all = all.clone();
        let look = move || all.iter().for_each(|one| one.look());
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "certificate files could not be looked at");
        }
    }
}
