//! Endpoints that fail: found by checks, by live requests, and bounded by the breaker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, Response};
use tokio::sync::Semaphore;

use crate::kit::origin::Wire;
use crate::kit::{Gateway, Origin, Port, channel, empty, full, grpc, routes};

/// An origin whose `/health` answers with the status in the cell.
fn with_health(name: &'static str) -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let shown = status.clone();
    let origin = Origin::replying(move |seen| {
        let status = if seen.target() == "/health" { shown.load(Ordering::SeqCst) } else { 200 };
        Response::builder().status(status).body(full(name)).unwrap()
    });
    (origin, status)
}

const CHECKS: &str = "health = { path = \"/health\", every = \"50ms\", timeout = \"1s\", rise = 2, fall = 2 }\n\
                      balance = \"round_robin\"\npanic_percent = 0";

async fn healthy(gateway: &Gateway) -> f64 {
    gateway.metric("tollgate_upstream_endpoints{upstream=\"origin\",state=\"healthy\"}").await
}

#[tokio::test]
async fn a_failing_check_takes_an_endpoint_out_and_a_good_one_brings_it_back() {
    let ((a, state), (b, _)) = (with_health("a"), with_health("b"));
    let gateway = Gateway::start(&routes::all_to_each(&[a.address(), b.address()], CHECKS, "")).await;
    eventually!(healthy(&gateway).await == 2.0);
    state.store(503, Ordering::SeqCst);
    eventually!(healthy(&gateway).await == 1.0);
    for _ in 0..10 {
        assert_eq!(gateway.get("http://app.test/").await.text(), "b");
    }
    state.store(204, Ordering::SeqCst);
    eventually!(healthy(&gateway).await == 2.0);
    eventually!(gateway.get("http://app.test/").await.text() == "a");
}

#[tokio::test]
async fn checks_ask_what_the_words_say() {
    let (origin, state) = with_health("a");
    state.store(418, Ordering::SeqCst);
    let words = "health = { path = \"/health\", host = \"checked.test\", every = \"50ms\", expect = [418], fall = 1 }";
    let gateway = Gateway::start(&routes::with(origin.address(), words, "")).await;
    eventually!(origin.count() >= 3);
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| seen.method == "GET" && seen.target() == "/health"), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.header("host") == "checked.test"), "{seen:?}");
    assert_eq!(healthy(&gateway).await, 1.0);
}

#[tokio::test]
async fn without_a_healthy_endpoint_there_is_none_unless_panic_says_otherwise() {
    let (origin, state) = with_health("a");
    state.store(500, Ordering::SeqCst);
    let gateway = Gateway::start(&routes::with(origin.address(), CHECKS, "")).await;
    eventually!(healthy(&gateway).await == 0.0);
    gateway.get("http://app.test/").await.is_rejected(503, "no_endpoint");
    let panicking = CHECKS.replace("panic_percent = 0", "panic_percent = 50");
    gateway.change(&routes::with(origin.address(), &panicking, "")).await;
    assert_eq!(gateway.get("http://app.test/").await.text(), "a", "below half healthy, all are used");
}

#[tokio::test]
async fn tcp_checks_see_whether_a_connection_opens() {
    let (mut a, b) = (Origin::text("a"), Origin::text("b"));
    let words = "health = { kind = \"tcp\", every = \"50ms\", rise = 1, fall = 1 }\npanic_percent = 0";
    let gateway = Gateway::start(&routes::all_to_each(&[a.address(), b.address()], words, "")).await;
    eventually!(healthy(&gateway).await == 2.0);
    a.kill().await;
    eventually!(healthy(&gateway).await == 1.0);
    assert_eq!(gateway.get("http://app.test/").await.text(), "b");
    a.revive();
    eventually!(healthy(&gateway).await == 2.0);
    assert_eq!(a.count() + b.count(), 1, "a TCP check sends no request");
}

/// grpc.health.v1: status 1 is SERVING, 2 is not.
fn grpc_health(status: Arc<AtomicU16>) -> Origin {
    Origin::start(Port::free(), Wire::H2, move |_| {
        let status = u8::try_from(status.load(Ordering::SeqCst)).unwrap();
        async move {
            let (feed, body) = channel();
            tokio::spawn(async move {
                feed.data(grpc::message([0x08, status])).await;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                feed.trailers(trailers).await;
            });
            Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
        }
    })
}

#[tokio::test]
async fn grpc_checks_speak_the_health_protocol() {
    let status = Arc::new(AtomicU16::new(1));
    let origin = grpc_health(status.clone());
    let words = "protocol = \"h2\"\npanic_percent = 0\n\
                 health = { kind = \"grpc\", service = \"shop\", every = \"50ms\", rise = 1, fall = 1 }";
    let gateway = Gateway::start(&routes::with(origin.address(), words, "")).await;
    eventually!(origin.count() >= 2 && healthy(&gateway).await == 1.0);
    let seen = origin.last();
    assert_eq!((seen.method.as_str(), seen.target()), ("POST", "/grpc.health.v1.Health/Check"));
    status.store(2, Ordering::SeqCst);
    eventually!(healthy(&gateway).await == 0.0);
    status.store(1, Ordering::SeqCst);
    eventually!(healthy(&gateway).await == 1.0);
}

#[tokio::test]
async fn upstreams_with_the_same_target_share_its_checks() {
    let (origin, _) = with_health("a");
    let check = "health = { path = \"/health\", every = \"100ms\" }";
    let upstreams: String =
        (0..5).map(|n| format!("[upstream.u{n}]\naddress = \"{}\"\n{check}\n", origin.address())).collect();
    let routes: String = (0..5)
        .map(|n| format!("[[route]]\nname = \"r{n}\"\nmatch = {{ path = \"/{n}\" }}\nupstream = \"u{n}\"\n"))
        .collect();
    let _gateway = Gateway::start(&format!("{upstreams}{routes}")).await;
    let (before, began) = (origin.count(), Instant::now());
    eventually!(origin.count() >= before + 10);
    // Ten checks a tenth of a second apart, a tenth of jitter; five times as many would take a fifth of that.
    assert!(began.elapsed() > Duration::from_millis(600), "{:?}", began.elapsed());
}

fn failing(name: &'static str, status: Arc<AtomicU16>) -> Origin {
    Origin::replying(move |_| Response::builder().status(status.load(Ordering::SeqCst)).body(full(name)).unwrap())
}

#[tokio::test]
async fn live_failures_eject_for_a_while() {
    let status = Arc::new(AtomicU16::new(503));
    let (bad, good) = (failing("bad", status.clone()), Origin::text("good"));
    let words = "balance = \"round_robin\"\neject = { errors = 3, within = \"10s\", for = \"500ms\" }";
    let gateway = Gateway::start(&routes::all_to_each(&[bad.address(), good.address()], words, "")).await;
    let mut client = gateway.h1().await;
    eventually!({
        client.get("http://app.test/").await;
        gateway.metric("tollgate_upstream_endpoints{state=\"ejected\"}").await == 1.0
    });
    assert_eq!(bad.count(), 3, "the third failure ejects");
    status.store(200, Ordering::SeqCst);
    assert_eq!(client.get("http://app.test/").await.text(), "good");
    eventually!(client.get("http://app.test/").await.text() == "bad");
}

#[tokio::test]
async fn neither_the_last_endpoint_nor_more_than_half_is_ejected() {
    let status = Arc::new(AtomicU16::new(502));
    let origins: Vec<_> = ["a", "b", "c", "d"].map(|name| failing(name, status.clone())).into();
    let addresses: Vec<_> = origins.iter().map(Origin::address).collect();
    let words = "balance = \"round_robin\"\neject = { errors = 1, for = \"1m\" }";
    for count in [1, 4] {
        let gateway = Gateway::start(&routes::all_to_each(&addresses[..count], words, "")).await;
        let mut client = gateway.h1().await;
        for _ in 0..40 {
            let reply = client.get("http://app.test/").await;
            assert_eq!(reply.status, 502);
            assert!(!reply.text().contains("code"), "an answer of the origin: {reply:?}");
        }
        let ejected = gateway.metric("tollgate_upstream_endpoints{state=\"ejected\"}").await;
        assert_eq!(ejected, (count / 2) as f64);
    }
}

#[tokio::test]
async fn other_answers_do_not_eject() {
    let status = Arc::new(AtomicU16::new(500));
    let (odd, good) = (failing("odd", status), Origin::text("good"));
    let words = "balance = \"round_robin\"\neject = { errors = 1, for = \"1m\" }";
    let gateway = Gateway::start(&routes::all_to_each(&[odd.address(), good.address()], words, "")).await;
    let mut client = gateway.h1().await;
    for _ in 0..20 {
        client.get("http://app.test/").await;
    }
    assert_eq!((odd.count(), good.count()), (10, 10));
}

#[tokio::test]
async fn the_breaker_answers_at_once_and_closes_again() {
    let gate = Arc::new(Semaphore::new(0));
    let permits = gate.clone();
    let origin = Origin::scripted(move |_| {
        let permits = permits.clone();
        async move {
            permits.acquire().await.unwrap().forget();
            Ok(Response::new(empty()))
        }
    });
    let gateway = Gateway::start(&routes::with(origin.address(), "breaker = { in_flight = 2 }", "")).await;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let address = gateway.http();
            tokio::spawn(async move { crate::kit::get(address, "http://app.test/").await })
        })
        .collect();
    eventually!(origin.count() == 2);
    let refused = gateway.get("http://app.test/").await;
    refused.is_rejected(503, "breaker_open");
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{refused:?}");
    gate.add_permits(3);
    for one in waiting {
        assert_eq!(one.await.unwrap().status, 200);
    }
    assert_eq!(gateway.get("http://app.test/").await.status, 200);
    assert_eq!(origin.count(), 3);
}
