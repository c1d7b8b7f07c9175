//! What happens when something dies, is cut off or is broken in the middle of a change: gateways, the server of the bus,
//! what is in the bucket, whoever listens.

use std::process::Child;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tollgate::bus::{Expect, KeyValue, Message};
use tollgate::ledger::{HEAD, Ledger, TEXT_MAX, digest};

use crate::controller_acts::{LONG, Trial, events};
use crate::fleet::{Desk, answering, bus, member, says};
use crate::kit::load::Load;
use crate::kit::nats::Nats;
use crate::kit::tollgate::{Ran, command};
use crate::kit::{Gateway, PATIENCE, within};

#[allow(dead_code)] // its page and its nodes are for people
#[path = "../../examples/core-ha/lines.rs"]
mod lines;

/// A push that runs beside the test.
struct Pushing(Child);

impl Pushing {
    fn begin(desk: &Desk, text: &str, args: &[&str], url: &str) -> Pushing {
        std::fs::write(desk.path().join("routes.toml"), text).unwrap();
        let pushing =
            command().args(["push", "routes.toml", "--nats", url]).args(args).current_dir(desk.path()).spawn();
        Pushing(pushing.unwrap())
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    async fn ended(mut self, limit: Duration) -> Ran {
        eventually!(limit, !self.runs());
        Ran::of(self.0.wait_with_output().unwrap())
    }
}

/// A gateway whose line to the bus can be cut, and what cuts it.
async fn on_a_line(nats: &Nats, node: &str) -> (Gateway, tokio::sync::watch::Sender<bool>) {
    let line = lines::Line::to(nats.url().trim_start_matches("nats://").parse().unwrap()).await.unwrap();
    let (url, whole) = (format!("nats://{}", line.address().unwrap()), line.whole());
    tokio::spawn(line.carry());
    let gateway = Gateway::with("", |settings| {
        nats.routes(settings, node);
        settings.set("bus.urls", vec![url]);
    });
    (gateway.await, whole)
}

#[tokio::test]
async fn a_gateway_killed_while_a_push_waits_for_it_comes_back_and_takes_it() {
    let nats = Nats::start().await;
    let desk = Desk::new(&nats);
    desk.push(&answering("one"), &[]).exits(0);
    let (mut killed, whole) = on_a_line(&nats, "n1").await;
    let other = member(&nats, "n2").await;
    says(&killed, "one").await;
    says(&other, "one").await;
    eventually!(desk.status()["nodes"].as_array().unwrap().len() == 2);
    let load = Load::start(other.http(), "http://app.test/", 2);
    whole.send_replace(false);
    eventually!(killed.health("/ready").await.json()["bus"] == "down");
    let mut pushing = Pushing::begin(&desk, &answering("two"), &["--wait"], &nats.url());
    says(&other, "two").await;
    says(&killed, "one").await;
    killed.signal(Signal::KILL);
    killed.exited(PATIENCE).await;
    assert!(pushing.runs(), "one of two gateways runs it");
    // It has what it had, until it hears of the bus again.
    let back = killed.successor(&[]).await.unwrap();
    assert_eq!(back.config().await["serving"], "last_good");
    says(&back, "one").await;
    whole.send_replace(true);
    says(&back, "two").await;
    let ran = pushing.ended(PATIENCE).await.exits(0);
    assert!(ran.stderr.contains("2 of 2 gateways run it"), "{}", ran.stderr);
    load.finish().await.clean();
}

#[tokio::test]
async fn a_push_says_which_gateway_died_on_it() {
    let nats = Nats::start().await;
    let desk = Desk::new(&nats);
    desk.push(&answering("one"), &[]).exits(0);
    let (mut killed, other) = tokio::join!(member(&nats, "n1"), member(&nats, "n2"));
    eventually!(desk.status()["nodes"].as_array().unwrap().len() == 2);
    killed.signal(Signal::KILL);
    killed.exited(PATIENCE).await;
    let ran = desk.push(&answering("two"), &["--wait", "--timeout", "2s"]).exits(6);
    assert!(ran.stderr.contains("1 of 2 gateways run revision 2"), "{}", ran.stderr);
    assert!(ran.stderr.contains("n1: still runs"), "{}", ran.stderr);
    says(&other, "two").await;
    says(&killed.successor(&[]).await.unwrap(), "two").await;
    desk.push(&answering("three"), &["--wait"]).exits(0);
}

/// A document of some ten pieces, so that there is a middle.
fn long(text: &str) -> String {
    let noise = |_| format!("# {}\n", std::iter::repeat_with(fastrand::alphanumeric).take(4000).collect::<String>());
    answering(text) + &(0..1500).map(noise).collect::<String>()
}

#[tokio::test]
async fn a_push_is_there_whole_or_not_at_all_when_the_server_dies_in_it() {
    let mut nats = Nats::start().await;
    let desk = Desk::new(&nats);
    desk.push(&answering("0"), &[]).exits(0);
    let (one, two) = tokio::join!(member(&nats, "n1"), member(&nats, "n2"));
    let loads = [&one, &two].map(|gateway| Load::start(gateway.http(), "http://app.test/", 2));
    let ledger = Ledger::new(bus(&nats).await, "tollgate");
    let mut ends = Vec::new();
    for round in 1..=5 {
        let before = ledger.head().await.unwrap().unwrap().pointer;
        let text = long(&round.to_string());
        let mut pushing = Pushing::begin(&desk, &text, &[], &nats.url());
        // The first piece is there, and perhaps some more.
        let first = format!("document.{}.0", digest(&text));
        let bucket = ledger.bus().bucket("tollgate").await.unwrap();
        eventually!(!pushing.runs() || bucket.entry(&first).await.is_ok_and(|found| found.is_some()));
        nats.kill();
        // Every other time it comes back when the push has given up, else at once.
        if round % 2 == 1 {
            eventually!(LONG, !pushing.runs());
        }
        nats.begin().await;
        let ran = pushing.ended(LONG).await;
        assert!([0, 3].contains(&ran.code), "{}: {}", ran.code, ran.said());
        let head = eventually!(ledger.head().await).unwrap().pointer;
        assert!([before.revision, before.revision + 1].contains(&head.revision), "{head:?}");
        assert!(ran.code != 0 || head.revision > before.revision, "it said that it is in force: {}", ran.said());
        assert!(head.digest == digest(&text) || head == before, "{head:?}");
        ledger.text(&head.digest).await.unwrap();
        ends.push((ran.code, head.revision > before.revision));
        // The same again works, whatever of it is there.
        let ran = desk.push(&text, &["--wait"]).exits(0);
        assert!(ran.stderr.contains("2 of 2"), "{}", ran.stderr);
        assert_eq!(*ledger.text(&digest(&text)).await.unwrap(), *text, "byte for byte");
        says(&one, &round.to_string()).await;
        says(&two, &round.to_string()).await;
    }
    for load in loads {
        load.finish().await.clean();
    }
    assert!(ends.iter().any(|(code, _)| *code != 0), "none was hit in the middle: {ends:?}");
}

#[tokio::test]
async fn a_trial_is_frozen_while_the_bus_is_lost_and_goes_on_when_it_is_back() {
    let mut trial = Trial::begin(200).await;
    eventually!(trial.one.api("/status").await["trial"].is_object());
    trial.nats.kill();
    // Long enough that every node looks silent.
    eventually!(LONG, {
        let nodes = trial.one.api("/nodes").await;
        nodes.as_array().unwrap().iter().all(|node| node["stand"] == "silent")
    });
    assert!(trial.one.api("/status").await["trial"].is_object());
    trial.nats.begin().await;
    eventually!(LONG, events(&trial.one, "canary_promoted").await.len() == 1);
    eventually!(trial.over().await);
    assert_eq!(trial.head().await, 2);
    assert_eq!(events(&trial.one, "canary_taken_back").await.len(), 0);
    assert_eq!(events(&trial.one, "canary_promoted").await.len(), 1);
    for tally in trial.end().await {
        tally.clean();
    }
}

/// What is put beside a pointer to it, raw.
struct Poison {
    digest: String,
    /// Keys below `document.DIGEST`, and what is there.
    values: Vec<(&'static str, Bytes)>,
    /// What gateways say of it.
    says: &'static str,
}

fn poisons() -> Vec<Poison> {
    let manifest = |bytes: usize, pieces: usize| Bytes::from(json!({ "bytes": bytes, "pieces": pieces }).to_string());
    let packed = |text: &str| Bytes::from(zstd::bulk::compress(text.as_bytes(), 3).unwrap());
    let text = answering("poison");
    // Sixty-four MiB of nothing in a few KiB, said to be short.
    let bomb = Bytes::from(zstd::bulk::compress(&vec![0; TEXT_MAX], 3).unwrap());
    let of = |digest: &str, says, values: &[(&'static str, Bytes)]| {
        let (digest, values) = (digest.to_owned(), values.to_vec());
        Poison { digest, values, says }
    };
    vec![
        of(&digest("nothing"), "there is no such document", &[]),
        of(&digest("else"), "not what the digest says", &[("", manifest(text.len(), 1)), (".0", packed(&text))]),
        of(&digest("long"), "more than a document may have", &[("", manifest(TEXT_MAX + 1, 1)), (".0", packed(&text))]),
        of(&digest("pieces"), "pieces are more than a document has", &[("", manifest(10, usize::MAX))]),
        of(&digest("gone"), "piece 1 of 2 is missing", &[("", manifest(text.len(), 2)), (".0", packed(&text))]),
        of(
            &digest("noise"),
            "Unknown frame descriptor",
            &[("", manifest(text.len(), 1)), (".0", Bytes::from_static(&[7; 4096]))],
        ),
        of(&digest("cut"), "incomplete frame", &[("", manifest(text.len(), 1)), (".0", packed(&text).slice(..20))]),
        of(&digest("bomb"), "bytes where 10 were promised", &[("", manifest(10, 1)), (".0", bomb)]),
        of(&digest("manifest"), "cannot be read", &[("", Bytes::from_static(b"{\"bytes\": -1}"))]),
        of("../head fleet", "this is no digest", &[]),
    ]
}

#[tokio::test]
async fn what_somebody_puts_raw_into_the_bucket_is_refused_and_said() {
    let nats = Nats::start().await;
    let desk = Desk::new(&nats);
    desk.push(&answering("good"), &[]).exits(0);
    let (one, two) = tokio::join!(member(&nats, "n1"), member(&nats, "n2"));
    says(&one, "good").await;
    says(&two, "good").await;
    let loads = [&one, &two].map(|gateway| Load::start(gateway.http(), "http://app.test/", 1));
    let bucket = bus(&nats).await.bucket("tollgate").await.unwrap();
    let head = bucket.entry(HEAD).await.unwrap().unwrap();
    let good: Value = serde_json::from_slice(&head.value).unwrap();
    let refused = async |says: &str| {
        for node in ["n1", "n2"] {
            let told = eventually!(
                Some(desk.node(node)).filter(|node| node["problem"].as_str().is_some_and(|told| told.contains(says)))
            );
            assert_eq!((&told["ready"], &told["silent"]), (&true.into(), &false.into()), "{told}");
        }
        let human = desk.run(&["status"]).exits(0).stdout;
        assert!(human.contains(says), "{human}");
    };
    for Poison { digest, values, says } in poisons() {
        for (key, value) in values {
            bucket.put(&format!("document.{digest}{key}"), value).await.unwrap();
        }
        let mut pointer = good.clone();
        (pointer["digest"], pointer["revision"]) = (digest.into(), 2.into());
        bucket.put(HEAD, pointer.to_string().into()).await.unwrap();
        refused(says).await;
        heal(&*bucket, &desk, &head.value).await;
    }
    // A pointer that is none: gateways keep what they have, and a push takes its place.
    for pointer in [&b"\xff\x00"[..], b"{}", b"[[[[[[[[", b""] {
        bucket.put(HEAD, Bytes::from_static(pointer)).await.unwrap();
        refused("head.fleet cannot be read").await;
        let ran = desk.push(&answering("good"), &["--wait"]).exits(0);
        assert!(ran.stderr.contains("2 of 2"), "{}", ran.stderr);
        for node in ["n1", "n2"] {
            eventually!(desk.node(node)["problem"].is_null());
        }
    }
    let log = desk.run(&["log", "--format", "json"]).exits(0).json();
    assert_eq!(log.as_array().unwrap().len(), 5, "{log}");
    // Neither a trial that is none: whatever is put in force next removes it, or finds that it is in force already.
    bucket.put("revision.3", Bytes::from_static(b"?")).await.unwrap();
    for act in [&["push", "routes.toml", "--wait"][..], &["rollback", "2"]] {
        bucket.swap("head.canary", Bytes::from_static(b"?"), Expect::Nothing).await.unwrap();
        refused("head.canary cannot be read").await;
        let said = desk.run(act).exits(0).stderr;
        assert!(said.contains("head.canary cannot be read"), "{said}");
        for node in ["n1", "n2"] {
            eventually!(desk.node(node)["problem"].is_null());
        }
        assert_eq!(bucket.entry("head.canary").await.unwrap(), None);
    }
    // A hole in the history is one, and no more.
    let log = desk.run(&["log", "--format", "json"]).exits(0);
    let numbers: Vec<u64> = log.json().as_array().unwrap().iter().filter_map(|one| one["revision"].as_u64()).collect();
    assert_eq!(numbers, [6, 5, 4, 2, 1], "{}", log.said());
    assert!(log.stderr.contains("revision.3 cannot be read"), "{}", log.stderr);
    for load in loads {
        let tally = load.finish().await.clean();
        assert_eq!(tally.bodies.keys().collect::<Vec<_>>(), ["good"]);
    }
}

/// Puts back what was there.
async fn heal(bucket: &dyn KeyValue, desk: &Desk, head: &Bytes) {
    bucket.put(HEAD, head.clone()).await.unwrap();
    for node in ["n1", "n2"] {
        eventually!(desk.node(node)["problem"].is_null());
    }
}

/// A client that wants to hear everything, and reads nothing.
async fn deaf(nats: &Nats) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(nats.url().trim_start_matches("nats://").parse().unwrap()).await.unwrap();
    stream.write_all(b"CONNECT {\"verbose\":false}\r\nSUB > 1\r\nPING\r\n").await.unwrap();
    // What it is greeted with, and no more.
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"INFO");
    stream
}

#[tokio::test]
async fn whoever_listens_and_does_not_read_slows_nobody() {
    // The server gives up on it only after a minute.
    let nats = Nats::with("write_deadline: \"60s\"").await;
    let desk = Desk::new(&nats);
    desk.push(&answering("one"), &[]).exits(0);
    let (one, two) = tokio::join!(member(&nats, "n1"), member(&nats, "n2"));
    eventually!(desk.status()["nodes"].as_array().unwrap().len() == 2);
    let mut deaf = deaf(&nats).await;
    let bus = bus(&nats).await;
    let loads = [&one, &two].map(|gateway| Load::start(gateway.http(), "http://app.test/", 2));
    // Somebody wants to see every request, and events come in heaps: far more than what sockets hold.
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            let wish = Message {
                subject: "tollgate.tap".to_owned(),
                payload: Bytes::from_static(b"{\"id\":\"a-wish-of-mine\"}"),
            };
            bus.publish(wish).await.unwrap();
        }
    };
    let heap = Bytes::from(vec![b'x'; 100 << 10]);
    let pushing = async {
        for number in 0..200 {
            let message = Message { subject: "tollgate.event.shop.sold".to_owned(), payload: heap.clone() };
            bus.append(message, &number.to_string()).await.unwrap();
        }
        for (number, gateway) in [(1, &one), (2, &two), (3, &one)] {
            let text = number.to_string();
            let pushing = Pushing::begin(&desk, &answering(&text), &["--wait", "--timeout", "10s"], &nats.url());
            let ran = pushing.ended(PATIENCE).await.exits(0);
            assert!(ran.stderr.contains("2 of 2"), "{}", ran.stderr);
            says(gateway, &text).await;
        }
        for load in &loads {
            load.more(500).await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = pushing => {}
    }
    // All of it was meant for the one that does not read: some of it waits still.
    let mut begun = vec![0; 64 << 10];
    within("what waited", deaf.read_exact(&mut begun)).await.unwrap();
    assert!(String::from_utf8_lossy(&begun).contains("MSG tollgate."));
    for gateway in [&one, &two] {
        eventually!(gateway.metric("tollgate_bus_waiting_messages").await < 100.0);
        assert!(gateway.metric("tollgate_bus_messages_total{result=\"sent\"}").await > 500.0);
        for lost in ["event_lost", "telemetry_lost"] {
            assert_eq!(
                gateway.metric(&format!("tollgate_bus_messages_total{{result=\"{lost}\"}}")).await,
                0.0,
                "{lost}"
            );
        }
    }
    for load in loads {
        load.finish().await.clean();
    }
}
