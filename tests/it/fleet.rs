//! Documents from the bus: pushed, taken up, refused, rolled back; with and without the bus.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tollgate::bus::{Bus, Link, Role};
use tollgate::ledger::{Draft, Ledger};
use tollgate::settings;

use crate::kit::load::Load;
use crate::kit::nats::Nats;
use crate::kit::tollgate::{Ran, tollgate};
use crate::kit::{Gateway, within};

pub(crate) fn answering(text: &str) -> String {
    format!("format = 1\n[[route]]\nname = \"a\"\nrespond = {{ body = \"{text}\" }}\n")
}

/// A directory to push from.
pub(crate) struct Desk {
    directory: tempfile::TempDir,
    url: String,
}

impl Desk {
    pub(crate) fn new(nats: &Nats) -> Desk {
        Desk { directory: tempfile::tempdir().unwrap(), url: nats.url() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let mut all = args.to_vec();
        all.extend(["--nats", &self.url]);
        tollgate(self.path(), &all)
    }

    pub(crate) fn push(&self, text: &str, args: &[&str]) -> Ran {
        std::fs::write(self.path().join("routes.toml"), text).unwrap();
        let mut all = vec!["push", "routes.toml"];
        all.extend(args);
        self.run(&all)
    }

    pub(crate) fn status(&self) -> Value {
        self.run(&["status", "--format", "json"]).exits(0).json()
    }

    pub(crate) fn node(&self, name: &str) -> Value {
        let status = self.status();
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["node"] == name).cloned().unwrap_or(Value::Null)
    }
}

pub(crate) async fn member(nats: &Nats, node: &str) -> Gateway {
    Gateway::with("", |settings| nats.routes(settings, node)).await
}

pub(crate) async fn says(gateway: &Gateway, text: &str) {
    eventually!(gateway.get("http://app.test/").await.text() == text);
}

pub(crate) async fn bus(nats: &Nats) -> Bus {
    let words = settings::Bus { urls: tollgate::scalar::OneOrMany(vec![nats.url()]), ..settings::Bus::default() };
    let bus = tollgate::bus::open(&words, "test", Role::Operator).await.unwrap();
    within("a connection", bus.link().wait_for(|link| *link == Link::Up)).await.unwrap();
    bus
}

/// Puts a document in force that no `push` has looked at.
async fn slip(nats: &Nats, text: &str) {
    let ledger = Ledger::new(bus(nats).await, "tollgate");
    let head = ledger.head().await.unwrap();
    let (author, reason) = ("nobody".to_owned(), String::new());
    let draft = Draft { text: text.into(), author, reason, requires: Default::default(), rollback_of: None };
    ledger.push(draft, head.as_ref(), None).await.unwrap();
}

#[tokio::test]
async fn what_is_pushed_is_in_force_everywhere() {
    let nats = Nats::start().await;
    let desk = Desk::new(&nats);
    desk.push(&answering("one"), &["-m", "the first"]).exits(0);
    let (one, two) = tokio::join!(member(&nats, "n1"), member(&nats, "n2"));
    says(&one, "one").await;
    says(&two, "one").await;
    let ran = desk.push(&answering("two"), &["--wait", "--author", "me"]).exits(0);
    assert!(ran.stderr.contains("2 of 2 gateways run it"), "{}", ran.stderr);
    says(&one, "two").await;
    says(&two, "two").await;
    let config = one.config().await;
    assert_eq!((&config["bus_revision"], &config["serving"]), (&2.into(), &"source".into()), "{config}");
    let node = desk.node("n1");
    assert_eq!(node["revision"], 2);
    assert_eq!(
        (node["problem"].clone(), node["ready"].clone(), node["silent"].clone()),
        (Value::Null, true.into(), false.into())
    );
    let log = desk.run(&["log", "--format", "json"]).exits(0).json();
    let authors: Vec<(u64, &str)> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|pointer| (pointer["revision"].as_u64().unwrap(), pointer["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(authors, [(2, ""), (1, "the first")]);
    assert_eq!(log[0]["author"], "me");
    let diff = desk.run(&["diff", "1", "2"]).exits(0).stdout;
    assert!(diff.contains("-respond = { body = \"one\" }\n+respond = { body = \"two\" }"), "{diff}");
    desk.run(&["rollback", "1", "--wait"]).exits(0);
    says(&one, "one").await;
    let pulled = desk.run(&["pull"]).exits(0).stdout;
    assert_eq!(pulled, answering("one"), "byte for byte");
    desk.run(&["pull", "pulled.toml"]).exits(0);
    assert_eq!(std::fs::read_to_string(desk.path().join("pulled.toml")).unwrap(), pulled);
    assert!(desk.run(&["log"]).exits(0).stdout.contains("(back to 1)"));
    let human = desk.run(&["status"]).exits(0).stdout;
    assert!(human.contains("in force: revision 3") && human.contains("current"), "{human}");
}

#[tokio::test]
async fn of_two_writers_the_second_sees_what_the_first_did() {
    let nats = Nats::start().await;
    let desk = Desk::new(&nats);
    desk.push(&answering("one"), &[]).exits(0);
    desk.push(&answering("two"), &["--parent", "1"]).exits(0);
    let ran = desk.push(&answering("three"), &["--parent", "1"]).exits(5);
    assert!(ran.stderr.contains("revision 2 is in force"), "{}", ran.stderr);
    assert!(ran.stderr.contains("+respond = { body = \"two\" }"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--parent 2"), "{}", ran.stderr);
    assert_eq!(desk.status()["head"]["revision"], 2);
}

#[tokio::test]
async fn push_refuses_what_no_gateway_could_take() {
    let nats = Nats::start().await;
    let desk = Desk::new(&nats);
    let ran = desk.push("format = 1\n[[route]]\nname = 'a'\nupstrem = 'b'\n", &[]).exits(1);
    assert!(ran.stderr.contains("routes.toml:4:1") && ran.stderr.contains("upstream"), "{}", ran.stderr);
    let failing = format!("{}[[test]]\nrequest = 'GET http://h/'\nexpect = {{ route = 'b' }}\n", answering("x"));
    desk.push(&failing, &[]).exits(4);
    for reference in ["${HOME}", "${HOME:-x}", "${file:/etc/hostname}", "${secret:x}"] {
        let ran = desk.push(&answering(reference), &[]).exits(1);
        assert!(ran.stderr.contains("secret"), "{reference}: {}", ran.stderr);
    }
    let nobody = tollgate(desk.path(), &["push", "routes.toml", "--nats", "nats://127.0.0.1:1"]);
    assert!(nobody.exits(3).stderr.contains("cannot be reached"));
    let ran = desk.run(&["status"]);
    assert!(ran.exits(3).stderr.contains("nothing was ever pushed"));
}

#[tokio::test]
async fn a_poisoned_document_stays_outside_and_is_seen_everywhere() {
    let nats = Nats::start().await;
    let desk = Desk::new(&nats);
    desk.push(&answering("good"), &[]).exits(0);
    let gateway = member(&nats, "n1").await;
    says(&gateway, "good").await;
    let secret = "format = 1\n[issuer.a]\nissuer = 'i'\naudience = ['a']\nsecret = '${file:/etc/hostname}'\n\
        [[route]]\nname = 'a'\nrespond = { body = '${HOME}' }\n";
    for poison in ["format = 1\n[[route]]\nname = 'a'\n", "\u{0}", secret] {
        let good = desk.node("n1")["revision"].clone();
        slip(&nats, poison).await;
        let node = eventually!(Some(desk.node("n1")).filter(|node| !node["problem"].is_null()));
        assert_eq!(node["revision"], good, "{node}");
        says(&gateway, "good").await;
        desk.push(&answering("good"), &["--wait", "--timeout", "10s"]).exits(0);
        eventually!(desk.node("n1")["problem"].is_null());
    }
    slip(&nats, secret).await;
    let config = eventually!({
        let config = gateway.config().await;
        (config["problems_total"].as_u64() > Some(1)).then_some(config)
    });
    assert!(config.to_string().contains("cannot stand in a document from the bus"), "{config}");
    let ran = desk.run(&["rollback", "2", "--wait", "--timeout", "500ms"]);
    assert!(ran.stderr.contains("0 of 1") && ran.code == 6, "{}", ran.said());
}

#[tokio::test]
async fn secrets_are_named_in_documents_and_kept_by_gateways() {
    let nats = Nats::start().await;
    let desk = Desk::new(&nats);
    let text = "format = 1\n[issuer.a]\nissuer = 'i'\naudience = ['a']\nalgorithms = ['HS256']\nsecret = '${secret:signing}'\n\
        [[route]]\nname = 'a'\nrespond = { body = 'in' }\nauth = { any = [{ jwt = ['a'] }] }\n";
    desk.push(text, &[]).exits(0);
    let gateway = Gateway::with("", |settings| {
        nats.routes(settings, "n1");
        settings.set("secrets.signing", "${SIGNING}").environment("SIGNING", "a secret of at least thirty-two bytes");
    })
    .await;
    gateway.get("http://app.test/").await.is_rejected(401, "auth_required");
    assert!(!gateway.config().await.to_string().contains("thirty-two"));
}

#[tokio::test]
async fn the_last_good_document_outlives_the_bus() {
    let mut nats = Nats::start().await;
    let desk = Desk::new(&nats);
    desk.push(&answering("one"), &[]).exits(0);
    let mut gateway = member(&nats, "n1").await;
    says(&gateway, "one").await;
    let load = Load::start(gateway.http(), "http://app.test/", 2);
    nats.kill();
    eventually!(gateway.config().await["source_error"].is_string());
    assert_eq!(gateway.health("/ready").await.status, 200);
    assert_eq!(gateway.health("/ready").await.json()["bus"], "down");
    // Without the bus it comes up with what it has.
    load.finish().await.clean();
    gateway.stop().await;
    let gateway = gateway.successor(&[]).await.unwrap();
    assert_eq!(gateway.config().await["serving"], "last_good");
    says(&gateway, "one").await;
    nats.begin().await;
    eventually!(desk.run(&["status"]).code == 0);
    desk.push(&answering("two"), &["--wait"]).exits(0);
    says(&gateway, "two").await;
    eventually!(gateway.config().await["source_error"].is_null());
    assert_eq!(gateway.health("/ready").await.json()["bus"], "up");
}

#[tokio::test]
async fn an_edge_without_a_volume_has_a_fallback() {
    let mut nats = Nats::start().await;
    nats.kill();
    let routes = answering("baked in");
    let gateway = Gateway::with(&routes, |settings| {
        nats.routes(settings, "n1");
        settings.remove("state").set("routes.fallback", "routes.toml");
    })
    .await;
    says(&gateway, "baked in").await;
    assert_eq!(gateway.config().await["serving"], "fallback");
    assert_eq!(gateway.health("/ready").await.json()["serving"], "fallback");
    assert_eq!(gateway.metric("tollgate_config_serving{from=\"fallback\"}").await, 1.0);
    nats.begin().await;
    let desk = Desk::new(&nats);
    desk.push(&answering("pushed"), &[]).exits(0);
    says(&gateway, "pushed").await;
    assert_eq!(gateway.metric("tollgate_config_serving{from=\"source\"}").await, 1.0);
    let ran = Gateway::try_with("", |settings| {
        settings.set("routes", toml::Table::from_iter([("nats".to_owned(), toml::Table::new().into())]));
        settings.set("bus.urls", vec![""]);
    })
    .await;
    assert!(ran.err().unwrap().stderr.contains("routes.fallback"));
}

#[tokio::test]
async fn only_signed_documents_are_followed_where_keys_are_named() {
    let nats = Nats::start().await;
    let desk = Desk::new(&nats);
    let openssl = |args: &[&str]| {
        let output = std::process::Command::new("openssl").args(args).current_dir(desk.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", "operator.key"]);
    let public = openssl(&["pkey", "-in", "operator.key", "-pubout"]);
    desk.push(&answering("signed"), &["--sign", "operator.key"]).exits(0);
    let documents = bus(&nats).await.bucket("tollgate").await.unwrap();
    let first = documents.entry("head.fleet").await.unwrap().unwrap();
    let mut gateway = Gateway::with("", |settings| {
        nats.routes(settings, "n1");
        settings.set("routes.nats.signed_by", public.as_str());
    })
    .await;
    says(&gateway, "signed").await;
    desk.push(&answering("unsigned"), &[]).exits(0);
    let node = eventually!(Some(desk.node("n1")).filter(|node| node["problem"].is_string()));
    assert!(node["problem"].as_str().unwrap().contains("no signature"), "{node}");
    says(&gateway, "signed").await;
    desk.run(&["rollback", "1", "--sign", "operator.key", "--wait"]).exits(0);
    eventually!(desk.node("n1")["problem"].is_null());
    // What was signed once is not put back in force by whoever holds the bus, not even over a restart.
    gateway.stop().await;
    documents.put("head.fleet", first.value).await.unwrap();
    let _gateway = gateway.successor(&[]).await.unwrap();
    let older = "revision 1 is older than revision 3";
    eventually!(desk.node("n1")["problem"].as_str().is_some_and(|problem| problem.contains(older)));
}

#[tokio::test]
async fn a_word_that_a_live_gateway_does_not_read_is_not_pushed() {
    let nats = Nats::start().await;
    let desk = Desk::new(&nats);
    desk.push(&answering("one"), &[]).exits(0);
    let _gateway = member(&nats, "new").await;
    eventually!(desk.node("new").is_object());
    // An older gateway: it reads all but one word.
    let bus = bus(&nats).await;
    let status = bus.bucket("tollgate_status").await.unwrap();
    let mut report = desk.node("new");
    let known = status.entry(&format!("words.{}", report["words"].as_str().unwrap())).await.unwrap().unwrap();
    let mut known: Vec<String> = serde_json::from_slice(&known.value).unwrap();
    known.retain(|word| word != "route.respond.status");
    status.put("words.old", serde_json::to_vec(&known).unwrap().into()).await.unwrap();
    report["node"] = "old".into();
    report["words"] = "old".into();
    report["every_ms"] = 600_000.into();
    status.put("node.old", report.to_string().into()).await.unwrap();
    let text = "format = 1\n[[route]]\nname = 'a'\nrespond = { status = 204 }\n";
    let ran = desk.push(text, &[]).exits(5);
    assert!(ran.stderr.contains("gateway old") && ran.stderr.contains("route.respond.status"), "{}", ran.stderr);
    assert_eq!(desk.status()["head"]["revision"], 1);
    desk.push(text, &["--before-upgrade"]).exits(0);
    let ran = desk.push(&answering("two"), &["--wait=50%"]).exits(0);
    assert!(ran.stderr.contains("1 of 2"), "{}", ran.stderr);
}

#[tokio::test]
async fn ten_thousand_routes_and_two_hundred_revisions_fit() {
    let nats = Nats::start().await;
    let desk = Desk::new(&nats);
    let mut text = String::from("format = 1\n[upstream.a]\naddress = '127.0.0.1:9'\n");
    for number in 0..10_000 {
        text.push_str(&format!(
            "[[route]]\nname = 'route-{number}'\nmatch = {{ host = 'h{}.example.com', path = '/{:x}/*' }}\nupstream = 'a'\n\
             request_headers = {{ set = {{ 'x-route' = '{:x}' }} }}\n",
            number % 100,
            number * 7919,
            fastrand::u64(..)
        ));
    }
    desk.push(&text, &[]).exits(0);
    let gateway = member(&nats, "n1").await;
    assert_eq!(gateway.config().await["routes"], 10_000);
    let ledger = Ledger::new(bus(&nats).await, "tollgate");
    for number in 0..200 {
        let head = ledger.head().await.unwrap();
        let (author, reason) = ("me".to_owned(), format!("change {number}"));
        let text = answering(&number.to_string());
        let draft = Draft { text: text.into(), author, reason, requires: Default::default(), rollback_of: None };
        ledger.push(draft, head.as_ref(), None).await.unwrap();
    }
    says(&gateway, "199").await;
    assert_eq!(ledger.log().await.unwrap().len(), 201);
    let back = tokio::task::spawn_blocking({
        let url = nats.url();
        move || tollgate(Path::new("."), &["pull", "--revision", "1", "--nats", &url]).exits(0).stdout
    });
    assert!(back.await.unwrap() == text, "byte for byte");
}

#[tokio::test]
async fn a_server_killed_in_the_middle_of_pushes_leaves_a_whole_history() {
    let mut nats = Nats::start().await;
    let desk = Desk::new(&nats);
    desk.push(&answering("0"), &[]).exits(0);
    let gateway = member(&nats, "n1").await;
    let bus = bus(&nats).await;
    let ledger = Ledger::new(bus.clone(), "tollgate");
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = count.clone();
    let pushing = tokio::spawn(async move {
        let mut answered = Vec::new();
        for number in 1..200 {
            let Ok(head) = ledger.head().await else { continue };
            let (author, reason) = ("me".to_owned(), String::new());
            let text = answering(&number.to_string());
            let draft = Draft { text: text.into(), author, reason, requires: Default::default(), rollback_of: None };
            if let Ok(Ok(pointer)) =
                tokio::time::timeout(Duration::from_secs(2), ledger.push(draft, head.as_ref(), None)).await
            {
                answered.push(pointer);
                counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        answered
    });
    for round in 1..4 {
        eventually!(count.load(std::sync::atomic::Ordering::Relaxed) >= round * 5);
        nats.kill();
        nats.begin().await;
    }
    let answered = pushing.await.unwrap();
    assert!(answered.len() >= 15, "{}", answered.len());
    eventually!(desk.run(&["status"]).code == 0);
    let ledger = Ledger::new(bus, "tollgate");
    let log = eventually!(ledger.log().await);
    let numbers: Vec<u64> = log.iter().rev().map(|pointer| pointer.revision).collect();
    assert_eq!(numbers, (1..=log.len() as u64).collect::<Vec<_>>(), "no gap");
    for pointer in &answered {
        assert!(log.iter().any(|kept| kept.digest == pointer.digest), "what was answered is there: {pointer:?}");
    }
    for pointer in &log {
        ledger.text(&pointer.digest).await.unwrap();
    }
    let newest = log[0].digest.get(..12).unwrap().to_owned();
    eventually!(gateway.config().await["revision"] == newest.as_str());
}
