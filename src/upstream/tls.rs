//! TLS towards endpoints: what is verified, what is shown.
//!
//! Everything an author can get wrong (PEM, a key that is not the certificate's) is found when this is compiled. The
//! system's roots are read at the first connection only: compiling has no effects and `check` needs none.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::transport::Digest;
use crate::config::{Protocol, UpstreamTls};
use crate::problem::{Path, Problem};

/// TLS towards endpoints.
pub struct Tls {
    /// Sent as SNI (unless it is an IP address) and verified.
    pub server_name: String,
    /// `false` accepts any certificate.
    pub verify: bool,
    /// The only CAs trusted, in DER. `None`: the system's roots.
    pub ca_der: Option<Vec<Vec<u8>>>,
    /// Client certificate chain and key, in DER.
    pub client: Option<(Vec<Vec<u8>>, Vec<u8>)>,
    trust: Trust,
    protocol: Protocol,
    config: OnceLock<Arc<ClientConfig>>,
}

/// The part of TLS that is the same for every target of an upstream.
#[derive(Clone, Default)]
pub(crate) struct Trust {
    verify: bool,
    ca: Option<(Arc<RootCertStore>, Vec<Vec<u8>>)>,
    client: Option<(Arc<CertifiedKey>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    /// Says nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("server_name", &self.server_name)
            .field("verify", &self.verify)
            .finish_non_exhaustive()
    }
}

impl Trust {
    /// Reads the PEM texts. Text with a reference that is not resolved (`check`) is taken to be right.
    pub(crate) fn compile(words: &UpstreamTls, path: &Path, problems: &mut Vec<Problem>) -> Trust {
        let client = match (&words.client_certificate, &words.client_key) {
            (None, None) => None,
            (Some(chain), Some(key)) => client(chain, key, path, problems),
            (Some(_), None) => {
                problems.push(Problem::error(path.at("client_certificate"), "`client_certificate` needs `client_key`"));
                None
            }
            (None, Some(_)) => {
                problems.push(Problem::error(path.at("client_key"), "`client_key` needs `client_certificate`"));
                None
            }
        };
        if !words.verify {
            problems.push(
                Problem::warning(path.at("verify"), "any certificate is accepted")
                    .help("for tests only; name the CA of a private server in `ca`"),
            );
        }
        if !words.verify && words.ca.is_some() {
            problems.push(Problem::error(path.at("ca"), "`ca` has no effect with `verify = false`"));
        }
        let ca = words.ca.as_deref().and_then(|pem| roots(pem, &path.at("ca"), problems));
        Trust { verify: words.verify, ca, client }
    }
}

fn roots(pem: &str, path: &Path, problems: &mut Vec<Problem>) -> Option<(Arc<RootCertStore>, Vec<Vec<u8>>)> {
    let ders = certificates(pem, path, problems)?;
    let mut store = RootCertStore::empty();
    for der in &ders {
        if let Err(error) = store.add(der.clone()) {
            problems.push(Problem::error(path.clone(), format!("a certificate cannot be trusted: {error}")));
            return None;
        }
    }
    Some((Arc::new(store), ders.iter().map(|der| der.to_vec()).collect()))
}

fn client(chain: &str, key: &str, path: &Path, problems: &mut Vec<Problem>) -> Option<(Arc<CertifiedKey>, Vec<u8>)> {
    let chain = certificates(chain, &path.at("client_certificate"), problems);
    if is_symbolic(key) {
        return None;
    }
    // The parser's own message may hold bytes of the key.
    let wrong = |message: &str| {
        Problem::error(path.at("client_key"), message).help("PEM of PKCS#8, SEC1 or PKCS#1, usually by `${file:..}`")
    };
    let Ok(key) = PrivateKeyDer::from_pem_slice(key.as_bytes()) else {
        problems.push(wrong("this is not a private key in PEM"));
        return None;
    };
    let der = key.secret_der().to_vec();
    let chain = chain?;
    match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
        Ok(certified) => Some((Arc::new(certified), der)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            problems.push(wrong("the key does not belong to `client_certificate`"));
            None
        }
        Err(_) => {
            problems.push(wrong("this private key cannot be used"));
            None
        }
    }
}

fn certificates(pem: &str, path: &Path, problems: &mut Vec<Problem>) -> Option<Vec<CertificateDer<'static>>> {
    if is_symbolic(pem) {
        return None;
    }
    let ders: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match ders {
        Ok(ders) if !ders.is_empty() => Some(ders),
        _ => {
            let problem = Problem::error(path.clone(), "this is not a certificate in PEM");
            problems
                .push(problem.help("it begins with `-----BEGIN CERTIFICATE-----`; a file is read by `${file:PATH}`"));
            None
        }
    }
}

/// The text holds a reference that only the gateway resolves.
pub(crate) fn is_symbolic(text: &str) -> bool {
    text.contains("${")
}

impl Tls {
    pub(crate) fn new(server_name: String, trust: Trust, protocol: Protocol) -> Tls {
        Tls {
            server_name,
            verify: trust.verify,
            ca_der: trust.ca.as_ref().map(|(_, ders)| ders.clone()),
            client: trust
                .client
                .as_ref()
                .map(|(certified, key)| (certified.cert.iter().map(|der| der.to_vec()).collect(), key.clone())),
            trust,
            protocol,
            config: OnceLock::new(),
        }
    }

    /// The configuration for connections of our own (checks, exchanges). The first call may read the system's roots.
    pub fn client_config(&self) -> &Arc<ClientConfig> {
        self.config.get_or_init(|| Arc::new(self.build(alpn(self.protocol))))
    }

    /// As `client_config`, offering HTTP/2 only: gRPC checks speak nothing else.
    pub(crate) fn h2_config(&self) -> Arc<ClientConfig> {
        Arc::new(self.build(alpn(Protocol::H2)))
    }

    pub(crate) fn digest(&self, digest: &mut Digest) {
        digest.add(self.server_name.as_bytes());
        digest.add(&[u8::from(self.verify)]);
        match &self.ca_der {
            None => digest.add(b"system roots"),
            Some(ders) => {
                digest.add(b"roots");
                ders.iter().for_each(|der| digest.add(der));
            }
        }
        if let Some((chain, key)) = &self.client {
            digest.add(b"client");
            chain.iter().for_each(|der| digest.add(der));
            digest.add(key);
        }
    }

    fn build(&self, alpn: Vec<Vec<u8>>) -> ClientConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = match (&self.trust.ca, self.verify) {
            (Some((roots, _)), _) => roots.clone(),
            (None, true) => system_roots(),
            (None, false) => Arc::new(RootCertStore::empty()),
        };
        // The defaults of a complete provider always hold a usable version.
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = match builder.with_safe_default_protocol_versions() {
            Ok(builder) => builder,
            Err(_) => ClientConfig::builder(),
        };
        let builder = builder.with_root_certificates(roots);
        let mut config = match &self.trust.client {
            None => builder.with_no_client_auth(),
            Some((certified, _)) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified.clone())))
            }
        };
        if !self.verify {
            let algorithms = provider.signature_verification_algorithms;
            config.dangerous().set_certificate_verifier(Arc::new(AcceptAny(algorithms)));
        }
        config.alpn_protocols = alpn;
        config
    }
}

fn alpn(protocol: Protocol) -> Vec<Vec<u8>> {
    match protocol {
        Protocol::H1 => vec![b"http/1.1".to_vec()],
        Protocol::H2 => vec![b"h2".to_vec()],
        Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    }
}

/// The system's roots, read once in the life of the process.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let load = || {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::error!("the system has no root certificates; upstreams with `tls` and without `ca` will fail");
        }
        Arc::new(store)
    };
    ROOTS.get_or_init(load).clone()
}

/// Accepts any certificate, but still wants the peer to hold its key.
#[derive(Debug)]
struct AcceptAny(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
