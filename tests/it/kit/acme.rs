//! A real CA that looks for itself, and what it needs: a name server, and the ports it looks at.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;

use super::dns::{Answer, Dns};
use super::pebble::Pebble;
use super::tls::connect;
use super::{Gateway, Origin, Port, Settings, routes};

/// A CA, a name server, and the ports the CA looks at.
pub(crate) struct Rig {
    pub(crate) pebble: Pebble,
    pub(crate) dns: Dns,
    pub(crate) http: Port,
    pub(crate) https: Port,
}

impl Rig {
    pub(crate) async fn new(lifetime_s: u64) -> Rig {
        let dns = Dns::start().await;
        let (http, https) = (Port::free(), Port::free());
        let pebble = Pebble::new(http.address(), https.address(), dns.address(), lifetime_s);
        Rig { pebble, dns, http, https }
    }

    pub(crate) fn knows(&self, name: &str) {
        self.dns.say(name, Answer::Records(vec![IpAddr::from([127, 0, 0, 1])]));
    }

    pub(crate) fn settings(&self, settings: &mut Settings) {
        settings.at("listen", "http", "address", self.http.address().to_string());
        settings.at("listen", "https", "address", self.https.address().to_string());
        settings.set("ca.pebble.directory", self.pebble.directory_url());
        settings.set("ca.pebble.root", self.pebble.root().display().to_string());
        settings.set("ca.pebble.retry", "200ms");
        settings.set("ca.pebble.contact", "mailto:ops@example.com");
    }
}

/// One upstream for everything, and a certificate for each of the names.
pub(crate) fn document(origin: &Origin, names: &[String]) -> String {
    let hosts = names.iter().map(|name| format!("[host.\"{name}\"]\ncertificate = \"acme\"\n"));
    routes::all_to(origin.address()) + &hosts.collect::<String>()
}

/// The certificate that a client is shown, whoever signed it.
pub(crate) async fn shown(gateway: &Gateway, name: &str) -> CertificateDer<'static> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let tcp = TcpStream::connect(gateway.address("https")).await.unwrap();
    let stream = connect(tcp, name, Arc::new(config)).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Whether the CA signed what a name shows.
pub(crate) async fn is_signed(gateway: &Gateway, name: &str) -> bool {
    let shown = shown(gateway, name).await;
    let (_, read) = x509_parser::parse_x509_certificate(&shown).unwrap();
    let names = read.subject_alternative_name().unwrap().unwrap();
    names.value.general_names.iter().any(|one| one.to_string().contains(name))
        && read.issuer().to_string().contains("Pebble Intermediate CA")
}

pub(crate) async fn issuer(gateway: &Gateway, name: &str) -> String {
    let shown = shown(gateway, name).await;
    x509_parser::parse_x509_certificate(&shown).unwrap().1.issuer().to_string()
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

pub(crate) fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}
