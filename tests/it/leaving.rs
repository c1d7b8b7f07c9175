//! Leaving: draining, ending at once, handing over. No request that was accepted is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::kit::load::Load;
use crate::kit::websocket::{WebSocket, echo};
use crate::kit::{Client, Gateway, Origin, PATIENCE, Raw, Reply, empty, full, routes};

/// An origin that answers when it is told to.
fn gated() -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let permits = gate.clone();
    let origin = Origin::scripted(move |_| {
        let permits = permits.clone();
        async move {
            permits.acquire().await.unwrap().forget();
            Ok(Response::new(full("done")))
        }
    });
    (origin, gate)
}

fn asking(mut client: Client) -> JoinHandle<Reply> {
    tokio::spawn(async move { client.fetch(Request::get("http://app.test/").body(empty()).unwrap()).await })
}

async fn refuses(gateway: &Gateway) -> bool {
    TcpStream::connect(gateway.http()).await.is_err()
}

#[tokio::test]
async fn an_idle_gateway_leaves_at_once() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut gateway = Gateway::start(&routes::answering("ok")).await;
        // Connections without a request hold nobody up.
        let mut kept = gateway.h1().await;
        assert_eq!(kept.get("http://app.test/").await.text(), "ok");
        let mut h2 = gateway.h2c().await;
        assert_eq!(h2.get("http://app.test/").await.text(), "ok");
        let _silent = Raw::connect(gateway.http()).await;
        let began = Instant::now();
        gateway.signal(signal);
        let status = gateway.exited(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{signal:?}: {}", gateway.log());
        assert!(began.elapsed() < Duration::from_secs(5), "{signal:?}: {:?} of a grace of 10 s", began.elapsed());
    }
}

#[tokio::test]
async fn requests_in_flight_finish_and_nothing_new_is_accepted() {
    let (origin, gate) = gated();
    let mut gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let requests =
        [asking(gateway.h1().await), asking(gateway.h2c().await), asking(gateway.tls("app.test", &["http/1.1"]).await)];
    eventually!(origin.count() == 3);
    gateway.signal(Signal::TERM);
    eventually!(refuses(&gateway).await);
    assert!(gateway.running());
    gate.add_permits(3);
    for (number, request) in requests.into_iter().enumerate() {
        let reply = request.await.unwrap();
        assert_eq!(reply.text(), "done");
        if number != 1 {
            assert_eq!(reply.header("connection"), "close", "{reply:?}");
        }
    }
    let began = Instant::now();
    assert_eq!(gateway.exited(PATIENCE).await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?} after the last request", began.elapsed());
}

#[tokio::test]
async fn ready_says_no_before_the_listeners_stop() {
    let mut gateway = Gateway::with(&routes::answering("ok"), |settings| {
        settings.set("drain.delay", "1s");
    })
    .await;
    let mut kept = gateway.h1().await;
    gateway.signal(Signal::TERM);
    eventually!(gateway.health("/ready").await.status == 503);
    assert_eq!(gateway.health("/health").await.status, 200);
    // Load balancers that have not noticed are served.
    assert_eq!(gateway.get("http://app.test/").await.text(), "ok");
    assert_eq!(kept.get("http://app.test/").await.text(), "ok");
    assert_eq!(gateway.exited(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn http2_is_told_to_go_away_and_its_streams_finish() {
    let (origin, gate) = gated();
    let mut gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut peer = crate::kit::frames::Peer::connect(gateway.address("h2c")).await;
    peer.request("GET", 1, crate::kit::frames::END_STREAM).await;
    eventually!(origin.count() == 1);
    gateway.signal(Signal::TERM);
    let away = peer.until(crate::kit::frames::GOAWAY).await.unwrap();
    assert_eq!(away.payload[4..8], [0; 4], "NO_ERROR");
    gate.add_permits(1);
    let answer = peer.until(crate::kit::frames::DATA).await.unwrap();
    assert_eq!((answer.stream, answer.payload.as_slice()), (1, &b"done"[..]));
    assert_eq!(gateway.exited(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn websockets_live_until_the_grace_period_is_over() {
    let origin = echo();
    let mut gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("drain.grace", "1s");
    })
    .await;
    let mut socket = WebSocket::connect(gateway.http(), "ws://app.test/").await;
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    eventually!(refuses(&gateway).await);
    while began.elapsed() < Duration::from_millis(700) {
        socket.echoes("still here").await;
        crate::kit::pause().await;
    }
    assert_eq!(socket.next().await, None);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(gateway.exited(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn it_leaves_when_the_last_websocket_is_closed() {
    let origin = echo();
    let mut gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut socket = WebSocket::connect(gateway.http(), "ws://app.test/").await;
    socket.echoes("here").await;
    gateway.signal(Signal::INT);
    eventually!(refuses(&gateway).await);
    assert!(gateway.running());
    drop(socket);
    let began = Instant::now();
    assert_eq!(gateway.exited(PATIENCE).await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_second_interrupt_ends_at_once() {
    let (origin, _gate) = gated();
    let mut gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("drain.grace", "1m");
    })
    .await;
    let request = tokio::spawn({
        let mut client = gateway.h1().await;
        async move { client.try_fetch(Request::get("http://app.test/").body(empty()).unwrap()).await }
    });
    eventually!(origin.count() == 1);
    gateway.signal(Signal::INT);
    eventually!(refuses(&gateway).await);
    assert!(gateway.running());
    let began = Instant::now();
    gateway.signal(Signal::INT);
    gateway.exited(PATIENCE).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(request.await.unwrap().is_err());
}

#[tokio::test]
async fn requests_beyond_the_grace_period_are_cut_off() {
    let (origin, _gate) = gated();
    let mut gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("drain.grace", "500ms");
    })
    .await;
    let mut client = gateway.h1().await;
    let request =
        tokio::spawn(async move { client.try_fetch(Request::get("http://app.test/").body(empty()).unwrap()).await });
    eventually!(origin.count() == 1);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exited(PATIENCE).await.code(), Some(0));
    assert!(request.await.unwrap().is_err_or_rejected());
}

trait Cut {
    fn is_err_or_rejected(&self) -> bool;
}

impl Cut for hyper::Result<Reply> {
    /// The connection broke, or the gateway still could say that it would not answer.
    fn is_err_or_rejected(&self) -> bool {
        self.as_ref().is_err() || self.as_ref().is_ok_and(|reply| reply.status.is_server_error())
    }
}

async fn with_handover(document: &str) -> Gateway {
    Gateway::with(document, |settings| {
        settings.set("drain.handover", "handover.sock").set("drain.handover_timeout", "10s");
    })
    .await
}

#[tokio::test]
async fn quit_hands_over_under_load() {
    let origin = Origin::text("ok");
    let mut gateway = with_handover(&routes::all_to(origin.address())).await;
    let load = Load::start(gateway.http(), "http://app.test/", 6);
    load.more(100).await;
    let mut generations = Vec::new();
    for _ in 0..3 {
        let (next, ()) = tokio::join!(gateway.successor(&["--upgrade"]), async { gateway.signal(Signal::QUIT) });
        let next = next.unwrap_or_else(|ran| panic!("{}\nold: {}", ran.said(), gateway.log()));
        assert_eq!(next.http(), gateway.http(), "the same sockets");
        load.more(100).await;
        assert_eq!(gateway.exited(PATIENCE).await.code(), Some(0), "{}", gateway.log());
        load.more(100).await;
        generations.push(std::mem::replace(&mut gateway, next));
    }
    load.finish().await.clean();
    assert!(gateway.ready().await);
}

#[tokio::test]
async fn requests_in_flight_finish_in_the_old_process() {
    let (origin, gate) = gated();
    let sockets = echo();
    let document = format!(
        "{}[upstream.sockets]\naddress = \"{}\"\n[[route]]\nname = \"ws\"\nmatch = {{ path = \"/ws\" }}\nupstream = \"sockets\"\n",
        routes::all_to(origin.address()),
        sockets.address()
    );
    let mut old = with_handover(&document).await;
    let request = asking(old.h1().await);
    let mut socket = WebSocket::connect(old.http(), "ws://app.test/ws").await;
    eventually!(origin.count() == 1);
    let (new, ()) = tokio::join!(old.successor(&["--upgrade"]), async { old.signal(Signal::QUIT) });
    let new = new.unwrap_or_else(|ran| panic!("{}", ran.said()));
    socket.echoes("in the old one").await;
    gate.add_permits(2);
    assert_eq!(request.await.unwrap().text(), "done");
    assert_eq!(new.get("http://app.test/").await.text(), "done");
    assert!(old.running());
    drop(socket);
    assert_eq!(old.exited(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn if_the_new_one_does_not_come_up_the_old_one_goes_on() {
    let origin = Origin::text("ok");
    let mut old = with_handover(&routes::all_to(origin.address())).await;
    let edge = old.directory().join("edge.toml");
    let good = std::fs::read_to_string(&edge).unwrap();
    let load = Load::start(old.http(), "http://app.test/", 4);
    // One fails before it asks for the sockets, the other when it has them.
    let unwritable = good.replace("access.log", "no/such/directory/access.log");
    for bad in ["nonsense = true".to_owned(), unwritable] {
        std::fs::write(&edge, bad).unwrap();
        let (new, ()) = tokio::join!(old.successor(&["--upgrade"]), async { old.signal(Signal::QUIT) });
        assert!(new.is_err(), "it came up");
        load.more(50).await;
        assert!(old.running(), "{}", old.log());
        assert!(old.ready().await);
    }
    std::fs::write(&edge, good).unwrap();
    // The socket of the failed attempts is free again, or its wait is over: a good one takes over.
    let mut new = None;
    for _ in 0..3 {
        let (next, ()) = tokio::join!(old.successor(&["--upgrade"]), async { old.signal(Signal::QUIT) });
        if let Ok(next) = next {
            new = Some(next);
            break;
        }
    }
    let new = new.expect("no hand-over any more");
    assert_eq!(old.exited(PATIENCE).await.code(), Some(0));
    load.more(50).await;
    load.finish().await.clean();
    assert_eq!(new.get("http://app.test/").await.text(), "ok");
}
