//! The gateway under test: one thread, on its own core, with listeners in the clear and over TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::process::Process;

pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) directory: PathBuf,
    ports: serde_json::Value,
}

impl Gateway {
    /// With these routes, and more lines of settings behind the usual ones. Chain and key are `cert.pem` and `key.pem`.
    pub(crate) fn start(binary: &Path, directory: &Path, routes: &str, more: &str) -> Gateway {
        let at = |name: &str| directory.join(name);
        let settings = format!(
            "format = 1\nnode = {{ threads = 1 }}\nroutes = {{ file = {routes:?} }}\n\
             log = {{ access = {access:?}, level = \"warn\" }}\nhealth = {{ address = \"127.0.0.1:0\" }}\n\
             [limits]\nconnections_per_address = 20000\nrequests_per_connection = 1000000000\n\
             [[listen]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
             [[listen]]\nname = \"https\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
             certificate = {{ chain = {chain:?}, key = {key:?} }}\n{more}",
            routes = at("routes.toml"),
            access = at("access.log"),
            chain = at("cert.pem"),
            key = at("key.pem"),
        );
        let _ = std::fs::remove_file(at("ports.json"));
        std::fs::write(at("edge.toml"), settings).expect("a writable directory");
        std::fs::write(at("routes.toml"), routes).expect("a writable directory");
        let (edge, ports, log) = (at("edge.toml"), at("ports.json"), at("log"));
        let arguments = ["run".as_ref(), "-c".as_ref(), edge.as_os_str()];
        let process = Process::start(binary, &arguments, &[("TOLLGATE_PORTS_FILE", ports.as_os_str())], &log);
        let began = Instant::now();
        let text = loop {
            if let Ok(text) = std::fs::read_to_string(&ports) {
                break text;
            }
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(20), "not ready: {}", said());
            std::thread::sleep(Duration::from_millis(10));
        };
        let ports = serde_json::from_str(&text).expect("JSON");
        Gateway { process, directory: directory.to_owned(), ports }
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.ports[name].as_str().and_then(|address| address.parse().ok()).expect("a bound listener")
    }
}
