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
use rig::gateway::Gateway;
use rig::process::leave_the_core;
use rig::report::{self, Line};
use rig::tls::{Resumption, client};

const CLIENTS: usize = 32;
const IDLE: usize = 5_000;
const NAMES: u32 = 10_000;

/// Settings and words of so many names that show a certificate of their own each.
fn names(directory: &Path, number: u32) -> (String, String) {
    let (chain, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    let (mut certificates, mut hosts) = (String::new(), String::new());
    for number in 0..number {
        certificates.push_str(&format!("[certificate.c{number}]\nchain = {chain:?}\nkey = {key:?}\n"));
        hosts.push_str(&format!("[host.\"h{number}.bench.test\"]\ncertificate = \"c{number}\"\n"));
    }
    (certificates, hosts)
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

/// What the whole chain of policies costs, beside the same route without any, turn by turn.
async fn policies(binary: &Path, directory: &Path, origin: SocketAddr, time: Duration) {
    let secret = "a secret of the bench, known to nobody";
    let document = format!(
        "{}[issuer.bench]\nissuer = \"https://bench.test\"\naudience = \"bench\"\nsecret = \"{secret}\"\n\
         [limit.address]\nrate = \"1000000/s\"\nburst = 1000000\n\
         [limit.subject]\nrate = \"1000000/s\"\nburst = 1000000\nkey = [\"claim.sub\"]\n\
         [[route]]\nname = \"guarded\"\nmatch = {{ host = \"bench.test\", path = \"/guarded/*\" }}\nupstream = \"origin\"\n\
         addresses = {{ allow = \"127.0.0.0/8\" }}\ncors = {{ origins = \"https://app.test\" }}\n\
         auth = {{ any = [{{ jwt = \"bench\" }}], require = {{ claim = \"scope\", contains = \"read\" }}, \
         pass = {{ x-user-id = \"{{claim.sub}}\" }} }}\n\
         limits = [\"address\", \"subject\"]\nsecurity_headers = \"basic\"\nserver_timing = true\n\
         request_headers = {{ set = {{ x-route = \"{{route.name}}\" }} }}\nresponse_headers = {{ set = {{ x-by = \"bench\" }} }}\n",
        document(origin, 0, 0)
    );
    let claims = serde_json::json!({
        "iss": "https://bench.test", "aud": "bench", "sub": "u1", "scope": "read write", "exp": 4_000_000_000_u64,
    });
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token");
    let head = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n");
    let bearer = format!("Origin: https://app.test\r\nAuthorization: Bearer {token}\r\n\r\n");
    let bare = Wire::H1Asking(format!("{}{bearer}", head("/bench/path")).into_bytes().into());
    let guarded = Wire::H1Asking(format!("{}{bearer}", head("/guarded/path")).into_bytes().into());
    let gateway = Gateway::start(binary, directory, &document, "");
    let address = gateway.address("http");
    driver::run(address, &guarded, CLIENTS, time / 5).await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        for (wire, lines) in [(&bare, &mut without), (&guarded, &mut with)] {
            let before = gateway.process.cpu();
            let seen = driver::run(address, wire, CLIENTS, time).await;
            lines.push(Line::of(&seen, time, gateway.process.cpu() - before, &gateway.process));
        }
    }
    report::head();
    let (without, with) = (Line::median(&without), Line::median(&with));
    report::line("no policy", &without);
    report::line("all policies", &with);
    println!("the chain adds {:.2} us of CPU per request", with.cpu_us - without.cpu_us);
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
        let gateway = Gateway::start(&binary, directory.path(), &document(origin, 0, 0), "");
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

        policies(&binary, directory.path(), origin, time).await;

        report::head();
        for number in [1, NAMES] {
            let (certificates, hosts) = names(directory.path(), number);
            let routes = document(origin, 0, 0) + &hosts;
            let gateway = Gateway::start(&binary, directory.path(), &routes, &certificates);
            let title = format!("handshake, {number} certificates");
            let wire = Wire::Handshakes(full.clone(), number);
            measure(&gateway, &title, gateway.address("https"), &wire, 8, time).await;
        }

        let quiet = tempfile::tempdir().expect("a directory");
        let trusted = rig::tls::write(quiet.path());
        let gateway = Gateway::start(&binary, quiet.path(), &document(origin, 0, 0), "");
        let config = client(&trusted, b"http/1.1", Resumption::On);
        let before = gateway.process.memory();
        let mut idle = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            idle.push(driver::tls(gateway.address("https"), &config).await.expect("a connection"));
        }
        println!("{IDLE} idle HTTPS connections: {:.1} MiB, {before:.1} MiB without", gateway.process.memory());
    });
}
