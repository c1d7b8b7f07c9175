//! Clients that take their time, and clients that come in numbers: bounded, answered, counted.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::kit::body::sized;
use crate::kit::frames::{DATA, END_STREAM, GOAWAY, HEADERS, Peer, RST_STREAM, frame};
use crate::kit::{Gateway, Origin, Raw, Settings, get, pause, routes};

async fn bounded(change: impl FnOnce(&mut Settings)) -> (Origin, Gateway) {
    let origin = Origin::text("ok");
    let gateway = Gateway::with(&routes::all_to(origin.address()), change).await;
    (origin, gateway)
}

/// Between the bound and what a busy machine may add to it.
fn took(began: Instant, bound_ms: u128) {
    let elapsed = began.elapsed().as_millis();
    assert!(elapsed + 50 >= bound_ms && elapsed < bound_ms + 5_000, "{elapsed} ms instead of {bound_ms}");
}

/// One byte after the other until the gateway has had enough.
async fn drip(client: &mut Raw, bytes: &str) {
    for byte in bytes.as_bytes() {
        if !client.send([*byte]).await {
            return;
        }
        pause().await;
    }
}

#[tokio::test]
async fn a_head_has_one_deadline_however_it_drips() {
    let (origin, gateway) = bounded(|settings| {
        settings.set("limits.head_timeout", "400ms");
    })
    .await;
    let began = Instant::now();
    let mut client = Raw::connect(gateway.http()).await;
    let endless = format!("GET / HTTP/1.1\r\nHost: x.test\r\nX-Long: {}", "x".repeat(2_000));
    drip_until_answered(&mut client, &endless).await;
    took(began, 400);
    assert_eq!(origin.count(), 0);
    let line = gateway.access_line(|line| line["code"] == "head_timeout").await;
    assert_eq!(line["status"], 408, "{line}");
}

async fn drip_until_answered(client: &mut Raw, bytes: &str) {
    for byte in bytes.as_bytes() {
        client.send([*byte]).await;
        let mut first = [0];
        if let Ok(Ok(1)) = tokio::time::timeout(Duration::from_millis(5), client.stream.peek(&mut first)).await {
            break;
        }
    }
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.code().as_str()), (408, "head_timeout"));
    client.ends().await;
}

#[tokio::test]
async fn the_second_head_has_a_deadline_too() {
    let (_origin, gateway) = bounded(|settings| {
        settings.set("limits.head_timeout", "400ms");
    })
    .await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("GET / HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
    let began = Instant::now();
    let endless = format!("GET / HTTP/1.1\r\nHost: x.test\r\nX-Long: {}", "x".repeat(2_000));
    drip_until_answered(&mut client, &endless).await;
    took(began, 400);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_without_an_answer() {
    let (_origin, gateway) = bounded(|settings| {
        settings.set("limits.head_timeout", "300ms").set("limits.handshake_timeout", "300ms");
    })
    .await;
    for name in ["http", "h2c", "https"] {
        let began = Instant::now();
        Raw::connect(gateway.address(name)).await.ends().await;
        took(began, 300);
    }
    eventually!(gateway.metric("tollgate_handshakes_total{result=\"timeout\"}").await == 1.0);
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_a_while() {
    let (_origin, gateway) = bounded(|settings| {
        settings.set("limits.keepalive", "400ms");
    })
    .await;
    let mut client = Raw::connect(gateway.http()).await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
        assert_eq!(client.answer().await.status(), 200);
    }
    let began = Instant::now();
    client.ends().await;
    took(began, 400);
    let mut client = gateway.h2c().await;
    assert_eq!(client.get("http://x.test/").await.status, 200);
    let began = Instant::now();
    eventually!(client.is_closed());
    took(began, 400);
}

#[tokio::test]
async fn a_body_may_drip_but_not_stall() {
    let (origin, gateway) = bounded(|settings| {
        settings.set("limits.body_idle", "400ms");
    })
    .await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("POST / HTTP/1.1\r\nHost: x.test\r\nContent-Length: 100\r\n\r\n").await;
    let began = Instant::now();
    drip(&mut client, &"x".repeat(100)).await;
    assert!(began.elapsed() > Duration::from_millis(800), "it dripped longer than one pause may take");
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(origin.last().body.len(), 100);

    client.send("POST / HTTP/1.1\r\nHost: x.test\r\nContent-Length: 100\r\n\r\nonly this").await;
    let began = Instant::now();
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.code().as_str()), (408, "body_timeout"));
    took(began, 400);
    client.ends().await;
}

#[tokio::test]
async fn a_stalled_body_of_a_stream_is_given_up_and_the_others_live() {
    let (_origin, gateway) = bounded(|settings| {
        settings.set("limits.body_idle", "400ms");
    })
    .await;
    let mut peer = Peer::connect(gateway.address("h2c")).await;
    let began = Instant::now();
    peer.request("POST", 1, 0).await;
    peer.send(frame(DATA, 0, 1, b"only this")).await;
    peer.request("GET", 3, END_STREAM).await;
    let first = peer.until(HEADERS).await.unwrap();
    assert_eq!(first.stream, 3, "the stalled stream holds up no other");
    loop {
        let frame = peer.next().await.expect("the connection ended");
        assert_ne!(frame.kind, GOAWAY, "one stalled stream ends no connection");
        // 408 in a HEADERS frame, or a reset: either way the stream is over.
        if frame.stream == 1 {
            break;
        }
    }
    took(began, 400);
    peer.request("GET", 5, END_STREAM).await;
    while peer.until(HEADERS).await.unwrap().stream != 5 {}
    gateway.access_line(|line| line["code"] == "body_timeout").await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off() {
    let origin = Origin::scripted(|_| async { Ok(http::Response::new(sized(256 << 20))) });
    let gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("limits.write_idle", "500ms");
    })
    .await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("GET / HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
    eventually!(gateway.metric("tollgate_refused_connections_total{reason=\"write_idle\"}").await == 1.0);
    assert!(client.rest().await.len() < 256 << 20);

    // HTTP/2: the window stays as small as it is.
    let mut peer = Peer::connect(gateway.address("h2c")).await;
    peer.request("GET", 1, END_STREAM).await;
    let began = Instant::now();
    // The stream ends; the others of its connection would live on.
    assert_eq!(peer.until(RST_STREAM).await.map(|frame| frame.stream), Some(1));
    took(began, 500);
    eventually!(origin.open() == 0);
}

#[tokio::test]
async fn a_slow_reader_that_takes_something_gets_all_of_it() {
    const SIZE: usize = 16 << 20;
    let origin = Origin::scripted(|_| async { Ok(http::Response::new(sized(SIZE))) });
    let gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("limits.write_idle", "500ms");
    })
    .await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n").await;
    client.head().await.unwrap();
    let (mut total, mut buffer) = (0, vec![0; 128 << 10]);
    while let Ok(count @ 1..) = client.stream.read(&mut buffer).await {
        total += count;
        pause().await;
    }
    assert!(total >= SIZE - (1 << 20), "{total}");
}

#[tokio::test]
async fn connections_are_bounded_in_all() {
    let (_origin, gateway) = bounded(|settings| {
        settings.set("limits.connections", 3);
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = Raw::connect(gateway.http()).await;
        client.send("GET / HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
        assert_eq!(client.answer().await.status(), 200);
        held.push(client);
    }
    Raw::connect(gateway.http()).await.ends().await;
    eventually!(gateway.metric("tollgate_refused_connections_total{reason=\"connections\"}").await == 1.0);
    held.pop();
    // Room again.
    eventually!({
        let mut client = Raw::connect(gateway.http()).await;
        client.send("GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n").await;
        client.message().await
    });
}

#[tokio::test]
async fn connections_are_bounded_per_address() {
    let (_origin, gateway) = bounded(|settings| {
        settings.set("limits.connections_per_address", 2);
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(Raw::connect(gateway.http()).await);
    }
    eventually!(gateway.metric("tollgate_open_connections").await == 2.0);
    Raw::connect(gateway.http()).await.ends().await;
    let another = tokio::net::TcpSocket::new_v4().unwrap();
    another.bind("127.0.0.77:0".parse().unwrap()).unwrap();
    let mut client = Raw::over(another.connect(gateway.http()).await.unwrap());
    client.send("GET / HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200, "another address has a bound of its own");
    let refused = "tollgate_refused_connections_total{reason=\"connections_per_address\"}";
    eventually!(gateway.metric(refused).await == 1.0);
}

#[tokio::test]
async fn a_connection_carries_so_many_requests() {
    let (_origin, gateway) = bounded(|settings| {
        settings.set("limits.requests_per_connection", 3);
    })
    .await;
    let mut client = Raw::connect(gateway.http()).await;
    for number in 1..=3 {
        client.send("GET / HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
        let answer = client.answer().await;
        let closes = answer.field("connection") == Some("close");
        assert_eq!((answer.status(), closes), (200, number == 3), "{answer:?}");
    }
    client.ends().await;
}

#[tokio::test]
async fn an_unfinished_handshake_holds_up_nobody() {
    let (_origin, gateway) = bounded(|_| {}).await;
    let _silent: Vec<TcpStream> =
        futures_util::future::join_all((0..50).map(|_| TcpStream::connect(gateway.address("https"))))
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
    assert_eq!(gateway.tls("app.test", &["h2"]).await.get("https://app.test/").await.status, 200);
    assert_eq!(get(gateway.http(), "http://x.test/").await.status, 200);
}
