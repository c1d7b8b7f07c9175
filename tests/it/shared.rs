//! What gateways of one fleet have in common: limits, revocations, live requests, and what each role may on the bus.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Request;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tollgate::bus::{Bus, Link, Message, Role};
use tollgate::scalar::{OneOrMany, Secret};
use tollgate::settings;

use crate::kit::nats::Nats;
use crate::kit::tokens::{KeyServer, Signer};
use crate::kit::tollgate::{command, tollgate};
use crate::kit::{Client, Gateway, full, routes, within};
use crate::tokens::ask_for;

const NODES: usize = 5;

async fn member(nats: &Nats, node: &str, routes: &str) -> Gateway {
    Gateway::with(routes, |settings| nats.bus(settings, node)).await
}

/// The buckets and streams of the fleet, as `push` and the controller make them.
async fn prepared(nats: &Nats) -> Bus {
    let bus = connected(nats, Role::Operator, None).await;
    tollgate::bus::names::Fleet::new("tollgate").make(&bus, "tollgate").await.unwrap();
    bus
}

async fn connected(nats: &Nats, role: Role, password: Option<&str>) -> Bus {
    let words = settings::Bus {
        urls: OneOrMany(vec![nats.url()]),
        user: password.map(|_| role.name().to_owned()),
        password: password.map(Secret::new),
        ..settings::Bus::default()
    };
    let bus = tollgate::bus::open(&words, "test", role).await.unwrap();
    within("a connection", bus.link().wait_for(|link| *link == Link::Up)).await.unwrap();
    bus
}

/// Asks as fast as it can, until told to stop; counts what was let through.
async fn hammer(gateway: &Gateway, stop: &AtomicBool, passed: &AtomicU64) {
    let mut client = gateway.h1().await;
    while !stop.load(Ordering::Relaxed) {
        if client.get("http://app.test/").await.status == 200 {
            passed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_the_fleet_holds_for_all_nodes_together() {
    let nats = Nats::start().await;
    prepared(&nats).await;
    const RATE: f64 = 40.0;
    const BURST: f64 = 20.0;
    let document = format!(
        "[limit.l]\nrate = \"{RATE}/s\"\nburst = {BURST}\nkey = []\nscope = \"fleet\"\n{}limits = \"l\"\n",
        routes::answering("in")
    );
    let names: Vec<String> = (0..NODES).map(|number| format!("n{number}")).collect();
    let gateways = futures_util::future::join_all(names.iter().map(|name| member(&nats, name, &document))).await;
    // Uneven: the first has as many clients as all the others together.
    let (stop, passed) = (AtomicBool::new(false), AtomicU64::new(0));
    let clients = gateways.iter().chain(std::iter::repeat_n(&gateways[0], NODES - 2));
    let hammering = futures_util::future::join_all(clients.map(|gateway| hammer(gateway, &stop, &passed)));
    let began = Instant::now();
    let watching = async {
        // Long enough that the excess at the beginning is small beside the rest.
        eventually!(Duration::from_secs(60), began.elapsed() > Duration::from_secs(10));
        let (seen, at) = (passed.load(Ordering::Relaxed), began.elapsed());
        eventually!(Duration::from_secs(60), began.elapsed() > at + Duration::from_secs(5));
        stop.store(true, Ordering::Relaxed);
        (passed.load(Ordering::Relaxed) - seen, began.elapsed() - at)
    };
    let (_, (late, window)) = tokio::join!(hammering, watching);
    let (all, whole) = (passed.load(Ordering::Relaxed) as f64, began.elapsed().as_secs_f64());
    let nodes = NODES as f64;
    let stated = BURST + RATE * whole + (nodes - 1.0) * (BURST + RATE * 0.3);
    assert!(all <= stated, "{all} in {whole} s, at most {stated}");
    assert!(all >= RATE * whole * 0.7, "{all} in {whole} s: too few");
    // Whoever joins late finds no burst of its own.
    let fair = RATE * window.as_secs_f64();
    assert!((late as f64) < fair * 1.3 + BURST && late as f64 > fair * 0.6, "{late} in {window:?}, {fair} are fair");
}

#[tokio::test]
async fn without_the_bus_a_limit_of_the_fleet_does_what_it_says() {
    let mut nats = Nats::start().await;
    prepared(&nats).await;
    let document = |on_loss: &str| {
        format!(
            "[limit.l]\nrate = \"1/h\"\nburst = 6\nscope = \"fleet\"\non_loss = \"{on_loss}\"\n{}limits = \"l\"\n",
            routes::answering("in")
        )
    };
    let one = member(&nats, "n1", &document("local_share")).await;
    let _two = member(&nats, "n2", &document("local_share")).await;
    // Nodes know of each other.
    eventually!({
        let limits = one.admin("/limits").await.json();
        limits["limits"][0]["nodes"] == 2
    });
    nats.kill();
    eventually!(one.health("/ready").await.json()["bus"] == "down");
    eventually!(one.admin("/limits").await.json()["limits"][0]["alone"] == true);
    let mut passed = 0;
    for _ in 0..6 {
        passed += usize::from(one.get("http://app.test/").await.status == 200);
    }
    assert_eq!(passed, 3, "half of it");
    one.change(&document("deny")).await;
    one.get("http://app.test/").await.is_rejected(429, "limit");
    one.change(&document("allow")).await;
    assert_eq!(one.get("http://app.test/").await.status, 200);
    nats.begin().await;
    eventually!(one.admin("/limits").await.json()["limits"][0]["alone"] == false);
    one.get("http://app.test/").await.is_rejected(429, "limit");
}

pub(crate) async fn revoke(gateway: &Gateway, method: &str, path: &str, body: Option<Value>) -> u16 {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://127.0.0.1{path}"))
        .header("content-type", "application/json")
        .body(full(body.map(|body| body.to_string()).unwrap_or_default()))
        .unwrap();
    Client::h1(gateway.address("admin")).await.fetch(request).await.status.as_u16()
}

#[tokio::test]
async fn what_one_node_revokes_all_refuse_within_a_second() {
    let mut nats = Nats::start().await;
    prepared(&nats).await;
    let signer = Signer::new("k1", Algorithm::ES256);
    let server = KeyServer::start(&[&signer]);
    let route = format!("{}auth = {{ any = [{{ jwt = \"accounts\" }}] }}\n", routes::answering("in"));
    let document = format!("{}{route}", server.block(""));
    let (one, two) = (member(&nats, "n1", &document).await, member(&nats, "n2", &document).await);
    let token = |jti: &str| signer.token(json!({ "exp": crate::kit::tokens::now() + 600, "jti": jti }));
    let status =
        async |gateway: &Gateway, jti: &str| ask_for(gateway, "http://app.test/", &token(jti)).await.status.as_u16();
    assert_eq!((status(&one, "a").await, status(&two, "a").await), (200, 200));
    assert_eq!(revoke(&one, "POST", "/revocations", Some(json!({ "jti": "a" }))).await, 201);
    eventually!(Duration::from_secs(1), status(&two, "a").await == 401);
    assert_eq!(status(&two, "b").await, 200);
    // What is revoked and taken back while the bus is away comes through when it is back.
    nats.kill();
    eventually!(one.health("/ready").await.json()["bus"] == "down");
    assert_eq!(revoke(&one, "POST", "/revocations", Some(json!({ "jti": "b" }))).await, 201);
    let ids = two.admin("/revocations").await.json();
    let id = ids["revocations"].as_object().unwrap().keys().next().unwrap().clone();
    assert_eq!(revoke(&two, "DELETE", &format!("/revocations/{id}"), None).await, 204);
    assert_eq!((status(&two, "a").await, status(&two, "b").await), (200, 200));
    nats.begin().await;
    eventually!(status(&two, "b").await == 401);
    eventually!(status(&one, "a").await == 200);
    assert_eq!(status(&two, "a").await, 200);
    // A node that knows nothing learns all of it.
    let three = member(&nats, "n3", &document).await;
    eventually!(status(&three, "b").await == 401);
    assert_eq!(status(&three, "a").await, 200);
}

#[tokio::test]
async fn tail_shows_live_requests_of_the_fleet_and_costs_nothing_else() {
    let nats = Nats::start().await;
    prepared(&nats).await;
    let document = format!(
        "{}{}",
        routes::answering("in"),
        "[[route]]\nname = \"b\"\nmatch.path = \"/b\"\nrespond = { status = 404 }\n"
    );
    let (one, two) = (member(&nats, "n1", &document).await, member(&nats, "n2", &document).await);
    let tail = |args: &[&str]| {
        let mut command = command();
        command.args(["tail", "--nats", &nats.url(), "--format", "json", "-n", "2"]).args(args);
        command.spawn().unwrap()
    };
    let mut all = tail(&["--status", "4xx"]);
    eventually!({
        for gateway in [&one, &two] {
            gateway.get("http://app.test/?token=SECRET").await;
            gateway.get("http://app.test/b?token=SECRET").await;
        }
        all.try_wait().unwrap().is_some()
    });
    let output = all.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !text.contains("SECRET"), "{text}");
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["status"], &line["route"]), (&404.into(), &"b".into()), "{line}");
        assert!(line["node"] == "n1" || line["node"] == "n2", "{line}");
    }
    assert_eq!(text.lines().count(), 2);
    let mut one_only = tail(&["--node", "n2", "--path", "/b"]);
    eventually!({
        one.get("http://app.test/b").await;
        two.get("http://app.test/b").await;
        one_only.try_wait().unwrap().is_some()
    });
    let text = String::from_utf8(one_only.wait_with_output().unwrap().stdout).unwrap();
    assert!(text.lines().all(|line| line.contains("\"node\":\"n2\"")), "{text}");
}

#[tokio::test]
async fn access_lines_reach_the_stream_and_what_is_not_sent_is_counted() {
    let nats = Nats::start().await;
    let bus = prepared(&nats).await;
    let gateway = Gateway::with(&routes::answering("in"), |settings| {
        nats.bus(settings, "n1");
        settings.set("fleet.requests_per_second", 5);
    })
    .await;
    for _ in 0..40 {
        gateway.get("http://app.test/").await;
    }
    let mut stream = bus.read("tollgate_requests", 0).await.unwrap();
    let (mut lines, mut unsent) = (0, 0);
    while lines + unsent < 40 {
        let kept = within("more lines", stream.next()).await.unwrap().unwrap();
        assert_eq!(kept.message.subject, "tollgate.request.n1");
        let batch: Vec<Value> = serde_json::from_slice(&kept.message.payload).unwrap();
        for line in batch {
            match line["unsent"].as_u64() {
                Some(number) => unsent += number,
                None => {
                    assert_eq!(line["route"], "all");
                    lines += 1;
                }
            }
        }
    }
    assert_eq!(lines + unsent, 40);
    assert!(unsent > 0 && lines >= 5, "{lines} {unsent}");
}

const PASSWORDS: [(&str, &str); 4] = [
    ("NATS_GATEWAY_PASSWORD", "one"),
    ("NATS_OPERATOR_PASSWORD", "two"),
    ("NATS_CONTROLLER_PASSWORD", "three"),
    ("NATS_SERVICE_PASSWORD", "four"),
];

async fn guarded() -> Nats {
    Nats::of(
        |address, store| {
            let here = std::path::Path::new(".");
            tollgate(here, &["nats-config", "--listen", address, "--store", store])
                .exits(0)
                .stdout
                .replace("http: \"127.0.0.1:8222\"\n", "")
        },
        &PASSWORDS,
    )
    .await
}

#[tokio::test]
async fn every_role_may_what_it_needs() {
    let nats = guarded().await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("routes.toml"), format!("format = 1\n{}", routes::answering("in"))).unwrap();
    let url = nats.url();
    let operator = ["--nats", &url, "--user", "operator:two"];
    let run = |args: &[&str]| tollgate(directory.path(), &[args, &operator[..]].concat());
    run(&["push", "routes.toml"]).exits(0);
    let gateway = Gateway::with("", |settings| {
        nats.routes(settings, "n1");
        settings.set("bus.user", "gateway").set("bus.password", "one");
    })
    .await;
    eventually!(gateway.get("http://app.test/").await.text() == "in");
    run(&["push", "routes.toml", "--wait", "-m", "again"]).exits(0);
    assert!(run(&["status"]).exits(0).stdout.contains("current"));
    run(&["log"]).exits(0);
    let mut tail = command();
    tail.args(["tail", "-n", "1"]).args(operator);
    let mut tail = tail.spawn().unwrap();
    eventually!({
        gateway.get("http://app.test/").await;
        tail.try_wait().unwrap().is_some_and(|status| status.success())
    });
    let controller = connected(&nats, Role::Controller, Some("three")).await;
    let mut requests = controller.read("tollgate_requests", 0).await.unwrap();
    within("access lines", requests.next()).await.unwrap().unwrap();
    let mut traffic = controller.subscribe("tollgate.traffic.*").await.unwrap();
    within("counters", traffic.next()).await.unwrap();
    let service = connected(&nats, Role::Service, Some("four")).await;
    let event = Message { subject: "tollgate.event.backend.started".to_owned(), payload: Bytes::from_static(b"{}") };
    service.append(event, "1").await.unwrap();
    let mut events = controller.read("tollgate_events", 0).await.unwrap();
    within("the event", events.next()).await.unwrap().unwrap();
    assert!(!gateway.log().contains("ermissions"), "{}", gateway.log());
}

#[tokio::test]
async fn no_role_may_more() {
    let nats = guarded().await;
    let operator = connected(&nats, Role::Operator, Some("two")).await;
    tollgate::bus::names::Fleet::new("tollgate").make(&operator, "tollgate").await.unwrap();
    let head = operator.bucket("tollgate").await.unwrap();
    head.put("head.fleet", Bytes::from_static(b"mine")).await.unwrap();
    let sealed = operator.bucket("tollgate_sealed").await.unwrap();
    let gateway = connected(&nats, Role::Gateway, Some("one")).await;
    let service = connected(&nats, Role::Service, Some("four")).await;
    let documents = gateway.bucket("tollgate").await.unwrap();
    assert_eq!(documents.entry("head.fleet").await.unwrap().unwrap().value, "mine");
    // What is not allowed is not answered: all at once, so that waiting is done once.
    let value = || Bytes::from_static(b"x");
    let (document, certificate, stranger, events) = tokio::join!(
        documents.put("head.fleet", value()),
        sealed.put("certificate.x", value()),
        service.bucket("tollgate"),
        gateway.read("tollgate_events", 0),
    );
    assert!(document.is_err() && certificate.is_err() && stranger.is_err() && events.is_err());
    assert_eq!(head.entry("head.fleet").await.unwrap().unwrap().value, "mine");
    // Nobody hears what is meant for another.
    let mut spying = service.subscribe("_INBOX.gateway.>").await.unwrap();
    documents.entry("head.fleet").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), spying.next()).await.is_err());
    let words = settings::Bus { urls: OneOrMany(vec![nats.url()]), ..settings::Bus::default() };
    let nobody = tollgate::bus::open(&words, "test", Role::Gateway).await.unwrap();
    let mut link = nobody.link();
    assert!(tokio::time::timeout(Duration::from_millis(500), link.wait_for(|link| *link == Link::Up)).await.is_err());
}
