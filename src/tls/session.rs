//! What a name asks of its sessions, and the `rustls::ServerConfig` that asks it.
//!
//! Every policy has a configuration of its own with tickets of its own: a session is taken up again only under the policy
//! that it began under. When the authorities of a policy change, so do its tickets: whoever is revoked shows its
//! certificate again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ResolvesServerCert, ServerConfig};
use rustls::version::{TLS12, TLS13};

use super::CertificateError;
use super::clients::{ClientAuthority, Clients};
use crate::settings::{HttpVersion, Listen};

/// What a name asks of its sessions, beyond what its listener does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// TLS 1.2 is not spoken.
    pub only_tls13: bool,
    /// HTTP versions that are not offered though the listener speaks them.
    pub no_h1: bool,
    pub no_h2: bool,
    pub clients: Option<ClientPolicy>,
}

/// Clients are asked for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientPolicy {
    /// Of `[client_ca.NAME]`.
    pub authority: Box<str>,
    pub required: bool,
}

/// All `[client_ca.NAME]`.
pub type ClientAuthorities = BTreeMap<String, Arc<ClientAuthority>>;

/// Configurations by policy, made when they are first needed. There are as many as the boot settings' authorities allow
/// for: a small number.
#[derive(Debug)]
pub(super) struct Sessions {
    h1: bool,
    h2: bool,
    resolver: Arc<dyn ResolvesServerCert>,
    authorities: Arc<ClientAuthorities>,
    plain: Arc<ServerConfig>,
    made: RwLock<HashMap<Policy, Made>>,
}

#[derive(Clone, Debug)]
struct Made {
    /// Under which it was made.
    clients: Option<Arc<Clients>>,
    config: Arc<ServerConfig>,
}

impl Sessions {
    pub(super) fn new(
        listen: &Listen,
        resolver: Arc<dyn ResolvesServerCert>,
        authorities: Arc<ClientAuthorities>,
    ) -> Result<Sessions, CertificateError> {
        let (h1, h2) = (listen.speaks(HttpVersion::H1), listen.speaks(HttpVersion::H2));
        let plain = Arc::new(make(&Policy::default(), None, (h1, h2), resolver.clone())?);
        Ok(Sessions { h1, h2, resolver, authorities, plain, made: RwLock::default() })
    }

    /// The configuration of a policy. `None` refuses the handshake: who vouches for clients is not known.
    pub(super) fn config(&self, policy: &Policy) -> Option<Arc<ServerConfig>> {
        if *policy == Policy::default() {
            return Some(self.plain.clone());
        }
        let clients = match &policy.clients {
            Some(clients) => Some(self.authorities.get(&*clients.authority)?.current()),
            None => None,
        };
        let is_of = |made: &&Made| match (&made.clients, &clients) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner).get(policy).filter(is_of).cloned();
        if let Some(made) = made {
            return Some(made.config);
        }
        let versions = (self.h1 && !policy.no_h1, self.h2 && !policy.no_h2);
        match make(policy, clients.as_deref(), versions, self.resolver.clone()) {
            Ok(config) => {
                let config = Arc::new(config);
                let made = Made { clients, config: config.clone() };
                self.made.write().unwrap_or_else(PoisonError::into_inner).insert(policy.clone(), made);
                Some(config)
            }
            Err(error) => {
                tracing::error!(%error, "no TLS for a name's policy: its handshakes are refused");
                None
            }
        }
    }
}

impl Sessions {
    /// Whether a client's chain is good under a policy, as it is now.
    pub(super) fn verify(&self, policy: &Policy, chain: &[CertificateDer<'_>]) -> bool {
        let Some(clients) = &policy.clients else { return true };
        let (Some(authority), Some((leaf, more))) = (self.authorities.get(&*clients.authority), chain.split_first())
        else {
            return !clients.required;
        };
        authority.current().require.verify_client_cert(leaf, more, UnixTime::now()).is_ok()
    }
}

/// TLS 1.2 and 1.3, the provider's ciphers, stateless tickets whose keys rotate, no early data.
fn make(
    policy: &Policy,
    clients: Option<&Clients>,
    (h1, h2): (bool, bool),
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, CertificateError> {
    let versions: &[&rustls::SupportedProtocolVersion] = if policy.only_tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let builder = ServerConfig::builder_with_provider(super::provider()).with_protocol_versions(versions)?;
    let required = policy.clients.as_ref().is_some_and(|clients| clients.required);
    let builder = match clients {
        Some(clients) if required => builder.with_client_cert_verifier(clients.require.clone()),
        Some(clients) => builder.with_client_cert_verifier(clients.request.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    let offered = [(h2, &b"h2"[..]), (h1, &b"http/1.1"[..])].into_iter().filter(|(spoken, _)| *spoken);
    config.alpn_protocols = offered.map(|(_, name)| name.to_vec()).collect();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(config)
}
