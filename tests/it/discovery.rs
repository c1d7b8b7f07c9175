//! Services that register themselves: `discover = "bus:NAME"` and `tollgate register`, with a real nats-server.

use std::collections::BTreeSet;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::kit::nats::Nats;
use crate::kit::tollgate::{command, tollgate};
use crate::kit::{Gateway, Origin};

const DOCUMENT: &str = "format = 1\n[upstream.builder]\ndiscover = \"bus:builder\"\nbalance = \"round_robin\"\n\
    [[route]]\nname = \"all\"\nupstream = \"builder\"\n";

/// `tollgate register builder ..`, running. Ends with the test.
struct Registered(Child);

impl Registered {
    fn start(nats: &Nats, address: &str, more: &[&str]) -> Registered {
        let mut command = command();
        command.args(["register", "builder", address, "--term", "3s", "--nats", &nats.url()]).args(more);
        Registered::run(command)
    }

    fn run(mut command: Command) -> Registered {
        Registered(command.stderr(std::process::Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn answers(gateway: &Gateway) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..12 {
        let reply = gateway.get("http://app.test/").await;
        seen.insert(if reply.status == 200 { reply.text().to_owned() } else { reply.status.as_str().to_owned() });
    }
    seen
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|one| (*one).to_owned()).collect()
}

#[tokio::test]
async fn an_endpoint_is_used_while_it_is_registered() {
    let mut nats = Nats::made().await;
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let gateway = Gateway::with(DOCUMENT, |settings| nats.bus(settings, "n1")).await;
    assert_eq!(answers(&gateway).await, set(&["503"]));

    let mut first = Registered::start(&nats, &one.address().to_string(), &[]);
    eventually!(answers(&gateway).await == set(&["one"]));
    let second = Registered::start(&nats, &two.address().to_string(), &["--weight", "3", "--region", "fra"]);
    eventually!(answers(&gateway).await == set(&["one", "two"]));
    let shown = gateway.admin("/upstreams").await.text().to_owned();
    assert!(shown.contains("bus:builder"), "{shown}");

    // Without the bus nobody can renew, and nobody is forgotten for it.
    nats.kill();
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(4) {
        assert_eq!(answers(&gateway).await, set(&["one", "two"]));
    }
    nats.begin().await;

    // One that dies is gone after its term, one that leaves at once; no request fails for it.
    second.signal(Signal::KILL);
    let died = Instant::now();
    loop {
        let seen = answers(&gateway).await;
        assert!(!seen.contains("503"), "{seen:?}");
        if seen == set(&["one"]) {
            break;
        }
        assert!(died.elapsed() < Duration::from_secs(30), "{seen:?}");
    }
    first.signal(Signal::TERM);
    eventually!(Duration::from_secs(3), answers(&gateway).await == set(&["503"]));
    assert!(eventually!(first.0.try_wait().unwrap()).success());
}

#[tokio::test]
async fn what_does_not_listen_is_not_registered() {
    let nats = Nats::made().await;
    let gateway = Gateway::with(DOCUMENT, |settings| nats.bus(settings, "n1")).await;
    let mut origin = Origin::text("one");
    let address = origin.address();
    // Beside a service of its own, which gateways forget before it is told to end.
    let registered = Registered::start(&nats, &address.to_string(), &["--", "sleep", "60"]);
    eventually!(answers(&gateway).await == set(&["one"]));
    origin.kill().await;
    eventually!(answers(&gateway).await == set(&["503"]));
    registered.signal(Signal::TERM);
    let mut registered = registered;
    let ended = eventually!(registered.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(3), "the service did not end well: it was killed by a signal");
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let here = tempfile::tempdir().unwrap();
    for (arguments, expect) in [
        (&["register", "a.b", "10.0.0.1:80"][..], "`a.b` is no name of a service"),
        (&["register", "a", "builder.internal:80"], "invalid socket address"),
        (&["register", "a", "0.0.0.0:80"], "0.0.0.0:80 is not the address of an endpoint"),
        (&["register", "a", "169.254.169.254:80"], "not the address of an endpoint"),
        (&["register", "a", "10.0.0.1:80", "--term", "1s"], "a term of 1 s; 3 to 300"),
        (&["register", "a", "10.0.0.1:80", "--weight", "1001"], "1000 at most"),
        (&["register", "a", "10.0.0.1:80", "--id", "a.b"], "`a.b` is no name of an endpoint"),
        (&["register", "a", "[::1]:80", "--nats", "nats://bus.test:4222"], "this machine only, and the bus is not"),
    ] {
        let ran = tollgate(here.path(), arguments).exits(2);
        assert!(ran.stderr.contains(expect), "{arguments:?}: {}", ran.stderr);
    }
    for (words, expect) in [
        ("discover = \"bus:a.b\"", "is no name of a service"),
        ("discover = \"builder.internal:80\"", "write `bus:SERVICE`"),
        ("discover = \"bus:a\"\naddress = \"a:1\"", "write either `address` or `discover`"),
        ("balance = \"random\"", "write `address = \"host:port\"`, or `discover = \"bus:SERVICE\"`"),
        ("discover = \"bus:a\"\ntls = {}", "the certificate of bus:a needs a name to be verified against"),
    ] {
        let text = format!("format = 1\n[upstream.x]\n{words}\n[[route]]\nname = \"all\"\nupstream = \"x\"\n");
        std::fs::write(here.path().join("routes.toml"), text).unwrap();
        let ran = tollgate(here.path(), &["check", "routes.toml"]).exits(1);
        assert!(ran.said().contains(expect), "{words}: {}", ran.said());
    }
}

#[tokio::test]
async fn a_gateway_without_a_bus_refuses_what_it_could_not_find() {
    let gateway = Gateway::start("format = 1\n").await;
    gateway.write_routes(DOCUMENT);
    eventually!(gateway.config().await["problems"].to_string().contains("this gateway is on no bus"));
}
