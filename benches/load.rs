//! The whole gateway under load: `cargo bench --bench load [-- --seconds 5]`.
//!
//! Built with profile `dist`, on a core of its own, routing, metrics and access log on.

// A failure here is a failure of the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "rig/mod.rs"]
#[allow(dead_code)] // each bench uses its part
mod rig;

use rig::driver::{self, Wire};
use rig::process::{Process, leave_the_core};
use rig::report::{self, Line};
use rig::tls::{Resumption, client};

const CLIENTS: usize = 32;
const IDLE: usize = 5_000;
const NAMES: u32 = 10_000;

struct Gateway {
    process: Process,
    directory: std::path::PathBuf,
    ports: serde_json::Value,
}

impl Gateway {
    fn start(binary: &Path, directory: &Path, origin: SocketAddr) -> Gateway {
        Gateway::with_names(binary, directory, origin, 0)
    }

    /// With so many names that show a certificate of their own each.
    fn with_names(binary: &Path, directory: &Path, origin: SocketAddr, names: u32) -> Gateway {
        let at = |name: &str| directory.join(name);
        let (mut certificates, mut hosts) = (String::new(), String::new());
        for number in 0..names {
            let (chain, key) = (at("cert.pem"), at("key.pem"));
            certificates.push_str(&format!("[certificate.c{number}]\nchain = {chain:?}\nkey = {key:?}\n"));
            hosts.push_str(&format!("[host.\"h{number}.bench.test\"]\ncertificate = \"c{number}\"\n"));
        }
        let settings = format!(
            "format = 1\nnode = {{ threads = 1 }}\nroutes = {{ file = {routes:?} }}\n\
             log = {{ access = {access:?}, level = \"warn\" }}\nhealth = {{ address = \"127.0.0.1:0\" }}\n\
             [limits]\nconnections_per_address = 20000\nrequests_per_connection = 1000000000\n\
             [[listen]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
             [[listen]]\nname = \"https\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
             certificate = {{ chain = {chain:?}, key = {key:?} }}\n{certificates}",
            routes = at("routes.toml"),
            access = at("access.log"),
            chain = at("cert.pem"),
            key = at("key.pem"),
        );
        std::fs::write(at("edge.toml"), settings).expect("a writable directory");
        std::fs::write(at("routes.toml"), document(origin, 0, 0) + &hosts).expect("a writable directory");
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

    fn address(&self, name: &str) -> SocketAddr {
        self.ports[name].as_str().and_then(|address| address.parse().ok()).expect("a bound listener")
    }
}

/// The route that load takes among so many others; the version makes it another document.
fn document(origin: SocketAddr, others: usize, version: usize) -> String {
    let mut text = format!(
        "format = 1\n[upstream.origin]\naddress = \"{origin}\"\n[[route]]\nname = \"bench\"\npriority = {version}\n\
         match = {{ host = \"bench.test\", path = \"/bench/*\" }}\nupstream = \"origin\"\n"
    );
    for number in 0..others {
        text.push_str(&format!(
            "[[route]]\nname = \"r{number}\"\nmatch = {{ host = \"h{}.test\", path = \"/p{number}/*\" }}\n\
             upstream = \"origin\"\n",
            number % 100
        ));
    }
    text
}

async fn measure(gateway: &Gateway, name: &str, address: SocketAddr, wire: &Wire, clients: usize, time: Duration) {
    driver::run(address, wire, clients, time / 5).await;
    let before = gateway.process.cpu();
    let seen = driver::run(address, wire, clients, time).await;
    report::line(name, &Line::of(&seen, time, gateway.process.cpu() - before, &gateway.process));
}

/// p99 at 2,000 requests/s, quiet and while 10,000 routes are exchanged again and again.
async fn change(gateway: &Gateway, origin: SocketAddr, time: Duration) {
    let address = gateway.address("http");
    driver::steady(address, 16, 2_000, time / 5).await;
    let quiet = driver::steady(address, 16, 2_000, time).await;
    let directory = gateway.directory.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let (began, mut versions) = (Instant::now(), 0);
        while began.elapsed() < time {
            versions += 1;
            let draft = directory.join("draft.toml");
            std::fs::write(&draft, document(origin, 10_000, versions)).expect("a writable directory");
            std::fs::rename(draft, directory.join("routes.toml")).expect("a writable directory");
            std::thread::sleep(Duration::from_millis(500));
        }
        versions
    });
    let changing = driver::steady(address, 16, 2_000, time).await;
    let versions = writer.await.expect("the writer");
    let p99 = |seen: &driver::Seen| seen.latency.value_at_quantile(0.99);
    println!(
        "p99 at 2,000 requests/s: {} us quiet, {} us while {versions} changes of 10,000 routes were written (factor {:.2})",
        p99(&quiet),
        p99(&changing),
        p99(&changing) as f64 / p99(&quiet).max(1) as f64
    );
    assert_eq!((quiet.failures, changing.failures), (0, 0), "requests failed");
}

fn main() {
    let time = Duration::from_secs(rig::number("--seconds", 5));
    let binary = rig::build(&["--bin", "tollgate"]).join("tollgate");
    leave_the_core();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let trusted = rig::tls::write(directory.path());
        let origin = rig::origin::start().await;
        let gateway = Gateway::start(&binary, directory.path(), origin);
        let (http, https) = (gateway.address("http"), gateway.address("https"));
        let h1 = Wire::H1Tls(client(&trusted, b"http/1.1", Resumption::On));
        let h2 = Wire::H2Tls(client(&trusted, b"h2", Resumption::On), 8);
        let full = client(&trusted, b"http/1.1", Resumption::Off);
        let handshakes = Wire::Handshakes(full.clone(), 0);
        let resumed = Wire::Handshakes(client(&trusted, b"http/1.1", Resumption::On), 0);
        report::head();
        measure(&gateway, "HTTP/1.1", http, &Wire::H1, CLIENTS, time).await;
        measure(&gateway, "HTTP/1.1 over TLS", https, &h1, CLIENTS, time).await;
        measure(&gateway, "HTTP/2 over TLS", https, &h2, CLIENTS / 8, time).await;
        measure(&gateway, "handshake and request", https, &handshakes, 8, time).await;
        measure(&gateway, "the same, resumed", https, &resumed, 8, time).await;
        change(&gateway, origin, time).await;
        drop(gateway);

        report::head();
        for names in [1, NAMES] {
            let gateway = Gateway::with_names(&binary, directory.path(), origin, names);
            let title = format!("handshake, {names} certificates");
            let wire = Wire::Handshakes(full.clone(), names);
            measure(&gateway, &title, gateway.address("https"), &wire, 8, time).await;
        }

        let quiet = tempfile::tempdir().expect("a directory");
        let trusted = rig::tls::write(quiet.path());
        let gateway = Gateway::start(&binary, quiet.path(), origin);
        let config = client(&trusted, b"http/1.1", Resumption::On);
        let before = gateway.process.memory();
        let mut idle = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            idle.push(driver::tls(gateway.address("https"), &config).await.expect("a connection"));
        }
        println!("{IDLE} idle HTTPS connections: {:.1} MiB, {before:.1} MiB without", gateway.process.memory());
    });
}
