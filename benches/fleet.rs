//! How long a change takes from `push` to every gateway of a fleet: `cargo bench --bench fleet -- --nodes 20 --changes 100`.
//!
//! A real nats-server, and as many gateways as are asked for in one process, each with its own listeners and table. A change
//! is applied where it is reported; the report is part of the time.

// A failure here is a failure of the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tollgate::bus::{Bus, Link, Role, Seen};
use tollgate::config::{References, read};
use tollgate::fleet::Report;
use tollgate::gateway::{Gateway, Options};
use tollgate::ledger::{Draft, Ledger, digest};
use tollgate::{scalar, settings};

/// nats-server, ended with the run.
struct Nats {
    child: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Nats {
    fn start() -> Nats {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let child = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &address.port().to_string(), "-js", "-sd"])
            .arg(directory.path())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server; ./test installs it");
        Nats { child, url: format!("nats://{address}"), _directory: directory }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(name: &str, default: usize) -> usize {
    let value = std::env::args().skip_while(|argument| argument != name).nth(1);
    value.and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn document(routes: usize, change: usize) -> String {
    let mut text = String::from("format = 1\n");
    for route in 0..routes {
        let body = if route == 0 { change } else { 0 };
        text.push_str(&format!(
            "[[route]]\nname = \"r{route}\"\nmatch = {{ path = \"/{route}\" }}\nrespond = {{ body = \"{body}\" }}\n"
        ));
    }
    text
}

async fn gateway(url: &str, node: usize) -> Gateway {
    let text = format!(
        "format = 1\nnode = {{ id = \"n{node}\", threads = 1 }}\nroutes = {{ nats = {{}} }}\nbus = {{ urls = [\"{url}\"] }}\n\
         log = {{ access = \"off\" }}\n[[listen]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n"
    );
    let (settings, problems) = read::settings(&text, &References::symbolic(), &[]);
    let settings = settings.unwrap_or_else(|| panic!("{problems:?}"));
    Gateway::start(settings, Options::default()).await.expect("a gateway")
}

async fn push(ledger: &Ledger, text: String) -> String {
    let wanted = digest(&text);
    let head = ledger.head().await.expect("the head");
    let draft = Draft {
        text: text.into(),
        author: "bench".to_owned(),
        reason: String::new(),
        requires: Default::default(),
        rollback_of: None,
    };
    ledger.push(draft, head.as_ref(), None).await.expect("a push");
    wanted
}

/// Waits until so many nodes have reported a document.
async fn everywhere(seen: &mut tollgate::bus::Follow, wanted: &str, nodes: usize) {
    let mut running = std::collections::BTreeSet::new();
    while running.len() < nodes {
        if let Seen::Put(entry) = seen.next().await
            && let Ok(report) = serde_json::from_slice::<Report>(&entry.value)
            && report.runs(wanted)
        {
            running.insert(report.who.node);
        }
    }
}

async fn run() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (nodes, changes, routes) = (number("--nodes", 20), number("--changes", 100), number("--routes", 100));
    let nats = Nats::start();
    let words = settings::Bus { urls: scalar::OneOrMany(vec![nats.url.clone()]), ..settings::Bus::default() };
    let bus: Bus = tollgate::bus::open(&words, "bench", Role::Operator).await.expect("a client");
    let mut link = bus.link();
    link.wait_for(|link| *link == Link::Up).await.expect("a connection");
    tollgate::bus::names::Fleet::new("tollgate").make(&bus, "tollgate").await.expect("buckets");
    let ledger = Ledger::new(bus.clone(), "tollgate");
    let first = push(&ledger, document(routes, 0)).await;
    let mut gateways = Vec::new();
    for node in 0..nodes {
        gateways.push(gateway(&nats.url, node).await);
    }
    let mut seen = bus.follow("tollgate_status", "node.*");
    everywhere(&mut seen, &first, nodes).await;
    let mut took: Vec<Duration> = Vec::new();
    for change in 1..=changes {
        let began = Instant::now();
        let wanted = push(&ledger, document(routes, change)).await;
        everywhere(&mut seen, &wanted, nodes).await;
        took.push(began.elapsed());
    }
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)].as_millis();
    println!("{nodes} nodes, {changes} changes of a document of {routes} routes, from push to the last report:");
    println!(
        "  p50 {} ms, p90 {} ms, p99 {} ms, longest {} ms",
        at(50),
        at(90),
        at(99),
        took[took.len() - 1].as_millis()
    );
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run());
    runtime.shutdown_timeout(Duration::from_millis(500));
}
