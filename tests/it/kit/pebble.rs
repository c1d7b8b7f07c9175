//! Pebble, the ACME server of Let's Encrypt's tests, as a child process that checks what it is shown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use super::{Authority, Port};

/// A running CA. Ends when dropped; starts again on the same port.
pub(crate) struct Pebble {
    directory: TempDir,
    port: Port,
    management: Port,
    dns: String,
    running: Option<Child>,
}

impl Pebble {
    /// Not running yet. It looks for names at these ports of the addresses that the name server gives.
    pub(crate) fn new(http: SocketAddr, https: SocketAddr, dns: String, lifetime_s: u64) -> Pebble {
        Pebble::with(http, https, dns, lifetime_s, &[])
    }

    /// Accounts need one of these keys, each an identifier and base64url.
    pub(crate) fn with(
        http: SocketAddr,
        https: SocketAddr,
        dns: String,
        lifetime_s: u64,
        account_keys: &[(&str, &str)],
    ) -> Pebble {
        let keys: serde_json::Map<String, serde_json::Value> =
            account_keys.iter().map(|(id, key)| ((*id).to_owned(), (*key).into())).collect();
        let directory = tempfile::tempdir().unwrap();
        let (port, management) = (Port::free(), Port::free());
        let authority = Authority::new();
        let identity = authority.issue(&["localhost", "127.0.0.1"]);
        let at = |name: &str| directory.path().join(name);
        let config = json!({ "pebble": {
            "listenAddress": port.address().to_string(),
            "managementListenAddress": management.address().to_string(),
            "certificate": at("api.pem"),
            "privateKey": at("api.key"),
            "httpPort": http.port(),
            "tlsPort": https.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": !account_keys.is_empty(),
            "externalAccountMACKeys": keys,
            "certificateValidityPeriod": lifetime_s,
        }});
        for (name, text) in [
            ("api.pem", identity.chain_pem),
            ("api.key", identity.key_pem),
            ("root.pem", authority.pem.clone()),
            ("pebble.json", config.to_string()),
        ] {
            std::fs::write(at(name), text).unwrap();
        }
        Pebble { directory, port, management, dns, running: None }
    }

    /// Part of all nonces it gives are refused, a share of its answers is one that was given before.
    pub(crate) async fn start(&mut self, reject_nonces_percent: u8) {
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        let child = Command::new("pebble")
            .arg("-strict")
            .arg("-config")
            .arg(self.directory.path().join("pebble.json"))
            .args(["-dnsserver", &self.dns])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_VA_ALWAYS_VALID", "0")
            .env("PEBBLE_WFE_NONCEREJECT", reject_nonces_percent.to_string())
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("pebble: ./test installs it");
        self.running = Some(child);
        eventually!(tokio::net::TcpStream::connect(self.port.address()).await);
        eventually!(tokio::net::TcpStream::connect(self.management.address()).await);
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// For `[ca.NAME]`.
    pub(crate) fn directory_url(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port.address().port())
    }

    /// What the API's certificate is signed by.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root.pem")
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- pebble's log, its end\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}
