//! A certificate for the programs under test, and clients that take it.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// Writes `cert.pem`, `key.pem` and `both.pem` (HAProxy) and returns what clients trust.
pub(crate) fn write(directory: &Path) -> CertificateDer<'static> {
    let pair = rcgen::generate_simple_self_signed(vec!["bench.test".to_owned(), "*.bench.test".to_owned()])
        .expect("a certificate");
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    for (name, text) in [("cert.pem", &certificate), ("key.pem", &key), ("both.pem", &format!("{certificate}{key}"))] {
        std::fs::write(directory.join(name), text).expect("a writable directory");
    }
    pair.cert.der().clone()
}

/// Without resumption every handshake is a full one.
pub(crate) fn client(trusted: &CertificateDer<'static>, alpn: &[u8], resumption: Resumption) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    if matches!(resumption, Resumption::Off) {
        config.resumption = rustls::client::Resumption::disabled();
    }
    Arc::new(config)
}

#[derive(Clone, Copy)]
pub(crate) enum Resumption {
    On,
    Off,
}
