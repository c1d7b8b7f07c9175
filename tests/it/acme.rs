//! Certificates by ACME, from a real CA that looks for itself.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;

use crate::kit::dns::{Answer, Dns};
use crate::kit::pebble::Pebble;
use crate::kit::tls::connect;
use crate::kit::{Gateway, Origin, Port, Settings, get, routes};

/// A CA, a name server, and the ports the CA looks at.
struct Rig {
    pebble: Pebble,
    dns: Dns,
    http: Port,
    https: Port,
}

impl Rig {
    async fn new(lifetime_s: u64) -> Rig {
        let dns = Dns::start().await;
        let (http, https) = (Port::free(), Port::free());
        let pebble = Pebble::new(http.address(), https.address(), dns.address(), lifetime_s);
        Rig { pebble, dns, http, https }
    }

    fn knows(&self, name: &str) {
        self.dns.say(name, Answer::Records(vec![IpAddr::from([127, 0, 0, 1])]));
    }

    fn settings(&self, settings: &mut Settings) {
        settings.at("listen", "http", "address", self.http.address().to_string());
        settings.at("listen", "https", "address", self.https.address().to_string());
        settings.set("ca.pebble.directory", self.pebble.directory_url());
        settings.set("ca.pebble.root", self.pebble.root().display().to_string());
        settings.set("ca.pebble.retry", "200ms");
        settings.set("ca.pebble.contact", "mailto:ops@example.com");
    }
}

/// One upstream for everything, and a certificate for each of the names.
fn document(origin: &Origin, names: &[String]) -> String {
    let hosts = names.iter().map(|name| format!("[host.\"{name}\"]\ncertificate = \"acme\"\n"));
    routes::all_to(origin.address()) + &hosts.collect::<String>()
}

/// The certificate that a client is shown, whoever signed it.
async fn shown(gateway: &Gateway, name: &str) -> CertificateDer<'static> {
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
async fn is_signed(gateway: &Gateway, name: &str) -> bool {
    let shown = shown(gateway, name).await;
    let (_, read) = x509_parser::parse_x509_certificate(&shown).unwrap();
    let names = read.subject_alternative_name().unwrap().unwrap();
    names.value.general_names.iter().any(|one| one.to_string().contains(name))
        && read.issuer().to_string().contains("Pebble Intermediate CA")
}

async fn issuer(gateway: &Gateway, name: &str) -> String {
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

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_name_gets_a_certificate_and_keeps_it() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(7_776_000).await);
    rig.pebble.start(0).await;
    rig.knows("one.test");
    let document = document(&origin, &names(&["one.test"]));
    let mut gateway = Gateway::with(&document, |settings| rig.settings(settings)).await;
    eventually!(is_signed(&gateway, "one.test").await);
    assert!(!is_signed(&gateway, "app.test").await, "others show the listener's");
    let first = shown(&gateway, "one.test").await;
    // The challenge is over: its path is the routes' again.
    let reply = get(gateway.http(), "http://one.test/.well-known/acme-challenge/x").await;
    assert_eq!(reply.text(), "ok");
    // After a restart the certificate is there at once, also without its CA.
    rig.pebble.stop();
    gateway.stop().await;
    let gateway = gateway.successor(&[]).await.unwrap();
    assert_eq!(shown(&gateway, "one.test").await, first);
    let key = gateway.directory().join("state/acme/pebble/one.test.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let secret = std::fs::read_to_string(gateway.directory().join("state/acme/pebble/.account.json")).unwrap();
    let key = serde_json::from_str::<serde_json::Value>(&secret).unwrap()["credentials"]["key_pkcs8"].clone();
    assert!(key.as_str().is_some_and(|key| key.len() > 40 && !gateway.log().contains(key)), "{secret}");
}

/// The CA cannot reach one of the ports: the other way is tried.
#[tokio::test]
async fn both_kinds_of_challenge_are_answered() {
    for closed in ["http", "https"] {
        let (origin, mut rig) = (Origin::text("ok"), Rig::new(7_776_000).await);
        let elsewhere = Port::free();
        let (http, https) = match closed {
            "http" => (elsewhere.address(), rig.https.address()),
            _ => (rig.http.address(), elsewhere.address()),
        };
        rig.pebble = Pebble::new(http, https, rig.dns.address(), 7_776_000);
        rig.pebble.start(0).await;
        rig.knows("one.test");
        // Requests in the clear are sent to https, all but the CA's.
        let document = document(&origin, &names(&["one.test"])) + "http = \"redirect\"\n";
        let gateway = Gateway::with(&document, |settings| rig.settings(settings)).await;
        eventually!(is_signed(&gateway, "one.test").await);
    }
}

#[tokio::test]
async fn certificates_are_renewed_before_they_end() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(6).await);
    rig.pebble.start(0).await;
    rig.knows("one.test");
    let document = document(&origin, &names(&["one.test"]));
    let gateway = Gateway::with(&document, |settings| rig.settings(settings)).await;
    eventually!(is_signed(&gateway, "one.test").await);
    let first = shown(&gateway, "one.test").await;
    eventually!(shown(&gateway, "one.test").await != first);
    assert!(is_signed(&gateway, "one.test").await);
}

#[tokio::test]
async fn a_ca_that_is_away_or_moody_delays_and_breaks_nothing() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(7_776_000).await);
    rig.knows("one.test");
    let document = document(&origin, &names(&["one.test"]));
    let gateway = Gateway::with(&document, |settings| rig.settings(settings)).await;
    eventually!(gateway.log().contains("no certificate"));
    // Moved to the CA by an edit: what was shown before is shown until there is something else.
    gateway.change(&document.replace("\"acme\"", "\"internal\"")).await;
    let before = issuer(&gateway, "one.test").await;
    assert!(before.contains("Tollgate local CA"), "{before}");
    gateway.change(&document).await;
    assert_eq!(issuer(&gateway, "one.test").await, before);
    let mut client = gateway.tls("app.test", &["h2"]).await;
    assert_eq!(client.get("https://app.test/").await.status, 200, "what there is is served");
    // Of its nonces it refuses a part (three times as many as by default). The waits after failures have grown by now.
    rig.pebble.start(15).await;
    eventually!(std::time::Duration::from_secs(120), is_signed(&gateway, "one.test").await);
}

#[tokio::test]
async fn a_name_that_fails_holds_up_no_other() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(7_776_000).await);
    rig.pebble.start(0).await;
    let mut all: Vec<String> = (0..50).map(|number| format!("h{number}.test")).collect();
    all.iter().for_each(|name| rig.knows(name));
    rig.dns.say("broken.test", Answer::NoSuchName);
    all.insert(0, "broken.test".to_owned());
    let gateway = Gateway::with(&document(&origin, &all), |settings| rig.settings(settings)).await;
    for name in all.iter().filter(|name| *name != "broken.test") {
        eventually!(std::time::Duration::from_secs(60), is_signed(&gateway, name).await);
    }
    assert!(!is_signed(&gateway, "broken.test").await);
    let kept = Path::new("state/acme/pebble/broken.test.json");
    let record = std::fs::read_to_string(gateway.directory().join(kept)).unwrap();
    assert!(!record.contains("\"failures\":0"), "its failures are remembered: {record}");
}

#[tokio::test]
async fn a_gateway_that_is_killed_in_the_middle_begins_again() {
    let (origin, mut rig) = (Origin::text("ok"), Rig::new(7_776_000).await);
    rig.pebble.start(0).await;
    let all: Vec<String> = (0..12).map(|number| format!("h{number}.test")).collect();
    all.iter().for_each(|name| rig.knows(name));
    let document = document(&origin, &all);
    let mut gateway = Gateway::with(&document, |settings| rig.settings(settings)).await;
    for _ in 0..3 {
        eventually!(gateway.directory().join("state/acme/pebble/.account.json").exists());
        gateway.signal(rustix::process::Signal::KILL);
        gateway.exited(crate::kit::PATIENCE).await;
        gateway = gateway.successor(&[]).await.unwrap();
    }
    for name in &all {
        eventually!(is_signed(&gateway, name).await);
    }
}
