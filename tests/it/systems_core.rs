//! core-v2 and core-ha: accounts and API behind edges that are steered over the bus.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use http::{Method, Request};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::kit::nats::Nats;
use crate::kit::tollgate::{Ran, command, tollgate};
use crate::kit::{Client, Gateway, Origin, PATIENCE, Port, Reply, Settings, empty, full, get, pause};

/// `tollgate dev`, ended with the test.
struct Dev {
    child: Child,
    directory: tempfile::TempDir,
    ports: BTreeMap<String, String>,
    dashboard: Value,
}

impl Dev {
    async fn start(example: &str) -> Dev {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let zero = ["--http", "0", "--https", "0", "--admin", "0", "--health", "0", "--dashboard", "0"];
        let child = command()
            .args(["dev", "--example", example, "--dir"])
            .arg(at("dev"))
            .args(zero)
            .env("TOLLGATE_PORTS_FILE", at("ports.json"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let mut dev = Dev { child, directory, ports: BTreeMap::new(), dashboard: Value::Null };
        let began = std::time::Instant::now();
        loop {
            let read = |name: &str| std::fs::read_to_string(dev.directory.path().join(name));
            if let (Ok(ports), Ok(dashboard)) = (read("ports.json"), read("dev/dashboard.json")) {
                dev.ports = serde_json::from_str(&ports).unwrap();
                dev.dashboard = serde_json::from_str(&dashboard).unwrap();
                return dev;
            }
            assert!(began.elapsed() < PATIENCE, "{}", read("log").unwrap_or_default());
            pause().await;
        }
    }

    fn read(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.directory.path().join("dev").join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn tell_to_leave(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }

    fn http(&self) -> SocketAddr {
        self.ports["http"].parse().unwrap()
    }

    async fn ask(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("http://localhost{path}"));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(full(body.to_string())),
            None => request.body(empty()),
        };
        Client::h1(self.http()).await.fetch(request.unwrap()).await
    }

    /// Asks the controller's API.
    async fn controller(&self, path: &str) -> Value {
        let address: SocketAddr = self.dashboard["address"].as_str().unwrap().parse().unwrap();
        let token = self.dashboard["token"].as_str().unwrap();
        let request = Request::get(format!("http://{address}{path}"))
            .header("authorization", format!("Bearer {token}"))
            .body(empty())
            .unwrap();
        let reply = Client::h1(address).await.fetch(request).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the log of dev, its end\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        // It ends what it has started, if it is told.
        self.tell_to_leave();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn core_v2_signs_up_is_limited_and_is_seen_on_the_dashboard() {
    let dev = Dev::start("core-v2").await;
    let page = dev.ask(Method::GET, "/", "", None).await;
    assert!(page.status == 200 && page.header("content-type").starts_with("text/html"), "{page:?}");
    dev.ask(Method::GET, "/api/collections", "", None).await.is_rejected(401, "auth_required");
    let who = json!({ "email": "a@example.com", "password": "correct horse battery" });
    assert_eq!(dev.ask(Method::POST, "/api/auth/signup", "", Some(who.clone())).await.status, 201);
    let login = dev.ask(Method::POST, "/api/auth/login", "", Some(who)).await.json();
    let token = login["access_token"].as_str().unwrap();
    let notes = "/api/collections/notes/records";
    // The keys of the backend may have been out of reach when the gateway began.
    eventually!(dev.ask(Method::GET, notes, token, None).await.status == 200);
    let made = dev.ask(Method::POST, notes, token, Some(json!({ "text": "hello" }))).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.header("x-served-by"), "core-edge");
    let listed = dev.ask(Method::GET, notes, token, None).await;
    assert!(listed.text().contains("hello"), "{listed:?}");
    // Forged, and somebody else's.
    dev.ask(Method::GET, notes, &format!("{token}x"), None).await.is_rejected(401, "auth_invalid");
    // Too much of one user.
    let mut limited = None;
    for _ in 0..200 {
        let reply = dev.ask(Method::GET, "/api/auth/me", token, None).await;
        let reply = if reply.status == 200 { dev.ask(Method::GET, notes, token, None).await } else { reply };
        if reply.status == 429 {
            limited = Some(reply);
            break;
        }
    }
    let limited = limited.expect("a limit");
    limited.is_rejected(429, "limit");
    assert!(limited.header("retry-after").parse::<u32>().is_ok(), "{limited:?}");
    // All of it on the dashboard: the node, what its routes carried, what the backend told.
    let text = async |path: &str| dev.controller(path).await.to_string();
    eventually!({
        let nodes = text("/api/nodes").await;
        nodes.contains("\"dev\"")
    });
    eventually!({
        let routes = text("/api/routes").await;
        routes.contains("\"api\"") && routes.contains("\"sign-in\"")
    });
    eventually!(text("/api/events").await.contains("record.created"));
}

#[tokio::test]
async fn dev_shows_core_ha_with_real_servers_and_lines_that_can_be_cut() {
    let mut dev = Dev::start("core-ha").await;
    let who = json!({ "email": "a@example.com", "password": "correct horse battery" });
    assert_eq!(dev.ask(Method::POST, "/api/auth/signup", "", Some(who.clone())).await.status, 201);
    let login = dev.ask(Method::POST, "/api/auth/login", "", Some(who)).await.json();
    let token = login["access_token"].as_str().unwrap();
    eventually!(dev.ask(Method::GET, "/api/collections/notes/records", token, None).await.status == 200);
    let (places, second) = (dev.read("regions.json"), dev.read("us.ports.json"));
    let [switch, us, health] = [&places["switch"], &second["http"], &second["health"]]
        .map(|address| address.as_str().unwrap().parse::<SocketAddr>().unwrap());
    let turn = async |line: &str, act: &str| {
        let request = Request::post(format!("http://{switch}/{line}/{act}")).body(empty()).unwrap();
        assert_eq!(Client::h1(switch).await.fetch(request).await.status, 200);
    };
    let asked = async |gateway: SocketAddr| get(gateway, "http://localhost/where").await;
    let node = async |gateway: SocketAddr| asked(gateway).await.json()["node"].as_str().unwrap_or_default().to_owned();
    let marked = async |gateway: SocketAddr| asked(gateway).await.header("x-changed").to_owned();
    // Each region has nodes of its own, and those of the other when they are lost.
    let eu = dev.http();
    assert!(node(eu).await.starts_with("eu-") && node(us).await.starts_with("us-"));
    turn("us-1", "cut").await;
    turn("us-2", "cut").await;
    eventually!(node(us).await.starts_with("eu-"));
    turn("us-1", "heal").await;
    eventually!(node(us).await == "us-1");

    // Whoever has no password of this run is nobody.
    let hub = places["hub"].as_str().unwrap();
    let directory = dev.directory.path().to_owned();
    tollgate(&directory, &["status", "--nats", hub, "--user", "operator:guess"]).exits(3);
    let password = std::fs::read_to_string(directory.join("dev/operator.password")).unwrap();
    let user = format!("operator:{password}");
    let ask = |args: &[&str]| tollgate(&directory, &[args, &["--nats", hub, "--user", &user]].concat());
    let routes = ask(&["pull"]).exits(0).stdout;
    let change = |mark: &str| {
        let marked = format!("[defaults]\nresponse_headers = {{ set = {{ \"x-changed\" = \"{mark}\" }} }}\n");
        std::fs::write(directory.join("routes.toml"), routes.replace("[defaults]\n", &marked)).unwrap();
    };
    change("one");
    ask(&["push", "routes.toml", "--wait"]).exits(0);
    assert_eq!((marked(eu).await, marked(us).await), ("one".to_owned(), "one".to_owned()));
    // What happens on a gateway is told as its own.
    eventually!(happened(&dev, "gateway.serving").await == BTreeMap::from([("eu".into(), 1), ("us".into(), 1)]));
    eventually!(happened(&dev, "config.applied").await == BTreeMap::from([("eu".into(), 2), ("us".into(), 2)]));
    // Cut off, a region serves on with what it has; healed, it takes what it has missed.
    turn("leaf", "cut").await;
    change("two");
    ask(&["push", "routes.toml"]).exits(0);
    eventually!(marked(eu).await == "two");
    eventually!(Duration::from_secs(60), get(health, "http://localhost/ready").await.json()["last_change_ok"] == false);
    assert_eq!((marked(us).await, node(us).await), ("one".to_owned(), "us-1".to_owned()));
    eventually!(happened(&dev, "config.applied").await["eu"] == 3);
    turn("leaf", "heal").await;
    eventually!(Duration::from_secs(60), marked(us).await == "two");
    eventually!(Duration::from_secs(60), happened(&dev, "config.applied").await["us"] == 3);

    // What was started goes, too.
    dev.tell_to_leave();
    assert_eq!(eventually!(dev.child.try_wait().unwrap()).code(), Some(0));
    for server in ["hub", "leaf"] {
        let address = places[server].as_str().unwrap().trim_start_matches("nats://").to_owned();
        eventually!(tokio::net::TcpStream::connect(&address).await.is_err());
    }
    assert!(tokio::net::TcpStream::connect(us).await.is_err());
}

/// How often something happened, by the node that told it; each in its own region.
async fn happened(dev: &Dev, event: &str) -> BTreeMap<String, usize> {
    let found = dev.controller(&format!("/api/events?service=gateway&event={event}")).await;
    let mut by_node = BTreeMap::new();
    for event in found["found"].as_array().unwrap() {
        let of = |name: &str| event["body"][name].as_str().unwrap_or_default().to_owned();
        assert_eq!(of("node"), of("region"));
        *by_node.entry(of("node")).or_default() += 1;
    }
    by_node
}

#[test]
fn core_ha_says_where_nats_server_is_to_be_had() {
    let directory = tempfile::tempdir().unwrap();
    let zero = ["--http", "0", "--https", "0", "--admin", "0", "--health", "0", "--dashboard", "0", "--dir", "dev"];
    let ran = command()
        .args(["dev", "--example", "core-ha"])
        .args(zero)
        .current_dir(directory.path())
        .env("PATH", directory.path())
        .output()
        .unwrap();
    let ran = Ran::of(ran).exits(3);
    assert!(ran.stderr.contains("nats-server") && ran.stderr.contains("help: `apt install"), "{}", ran.said());
}

/// Two regions: a hub with the streams, a leaf in front of which a gateway of its own.
#[tokio::test]
async fn core_ha_serves_on_when_the_leaf_is_cut_and_converges_when_it_heals() {
    const ROUTE: [(&str, &str); 5] = [
        ("NATS_GATEWAY_PASSWORD", "one"),
        ("NATS_OPERATOR_PASSWORD", "two"),
        ("NATS_CONTROLLER_PASSWORD", "three"),
        ("NATS_SERVICE_PASSWORD", "four"),
        ("NATS_LEAF_PASSWORD", "five"),
    ];
    let here = Path::new(".");
    let config = |args: &[&str]| tollgate(here, &[&["nats-config"], args].concat()).exits(0).stdout;
    let leaves = Port::free();
    let leaf_address = leaves.address().to_string();
    let mut environment = ROUTE.to_vec();
    environment.push(("NATS_ROUTE_PASSWORD", "six"));
    let mut hub = Nats::of(
        |address, store| {
            let hub = ["--topology", "hub", "--name", "hub-1", "--listen", address, "--leaves", &leaf_address];
            config(&[&hub[..], &["--store", store, "--monitor", "127.0.0.1:-1"]].concat())
        },
        &environment,
    )
    .await;
    let peer = format!("nats-leaf://leaf:five@{leaf_address}");
    let mut leaf = Nats::of(
        |address, store| {
            let leaf = ["--topology", "leaf", "--name", "leaf-1", "--listen", address, "--store", store];
            config(&[&leaf[..], &["--peer", &peer, "--monitor", "127.0.0.1:-1"]].concat())
        },
        &environment,
    )
    .await;
    // Each region has services of its own, and those of the other to spill over to.
    let (ours, theirs) = (Origin::text("eu"), Origin::text("us"));
    let document = |version: usize| {
        format!(
            "format = 1\n[upstream.pocketbase]\naddress = [{{ to = \"{}\", region = \"eu\" }}, {{ to = \"{}\", region = \"us\" }}]\n\
             [[route]]\nname = \"api\"\nupstream = \"pocketbase\"\nresponse_headers = {{ set = {{ \"x-version\" = \"{version}\" }} }}\n",
            ours.address(),
            theirs.address()
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let url = hub.url();
    let push = |version: usize, args: &[&str]| {
        std::fs::write(directory.path().join("routes.toml"), document(version)).unwrap();
        let fixed = ["push", "routes.toml", "--nats", &url, "--user", "operator:two"];
        tollgate(directory.path(), &[&fixed[..], args].concat())
    };
    eventually!(push(1, &[]).code == 0);
    let member = |settings: &mut Settings, nats: &Nats, region: &str, domain: Option<&str>| {
        nats.routes(settings, region);
        settings.set("node.region", region).set("bus.user", "gateway").set("bus.password", "one");
        settings.set("routes.nats.wait", "10s");
        if let Some(domain) = domain {
            settings.set("bus.domain", domain);
        }
    };
    let eu = Gateway::with("", |settings| member(settings, &hub, "eu", None)).await;
    let us = Gateway::with("", |settings| member(settings, &leaf, "us", Some("hub"))).await;
    let version = async |gateway: &Gateway| gateway.get("http://app.test/").await.header("x-version").to_owned();
    let region = async |gateway: &Gateway| gateway.get("http://app.test/").await.text().to_owned();
    assert_eq!((version(&eu).await, version(&us).await), ("1".to_owned(), "1".to_owned()));
    assert_eq!((region(&eu).await, region(&us).await), ("eu".to_owned(), "us".to_owned()), "the own region first");
    push(2, &["--wait"]).exits(0);
    assert_eq!((version(&eu).await, version(&us).await), ("2".to_owned(), "2".to_owned()));
    // The leaf is cut: its region serves on with what it has, while the other changes.
    leaf.kill();
    eventually!(us.health("/ready").await.json()["bus"] == "down");
    push(3, &[]).exits(0);
    eventually!(version(&eu).await == "3");
    assert_eq!((version(&us).await, region(&us).await), ("2".to_owned(), "us".to_owned()));
    assert_eq!(us.health("/ready").await.status, 200);
    // It heals, and converges.
    leaf.begin().await;
    eventually!(Duration::from_secs(60), version(&us).await == "3");
    assert_eq!(us.admin("/config").await.json()["bus_revision"], 3);
    // Without the hub nobody changes, and everybody serves.
    hub.kill();
    eventually!(eu.health("/ready").await.json()["bus"] == "down");
    assert_eq!((version(&eu).await, version(&us).await), ("3".to_owned(), "3".to_owned()));
    hub.begin().await;
    eventually!(push(4, &[]).code == 0);
    eventually!(version(&eu).await == "4");
    eventually!(Duration::from_secs(60), version(&us).await == "4");
}
