//! HTTP/2 connections that work against the gateway: each flood ends its own connection and harms no other.

use crate::kit::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, PREFACE, Peer, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::kit::{Gateway, Origin, Raw, routes};

async fn gateway() -> (Origin, Gateway) {
    let origin = Origin::text("ok");
    let gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("limits.http2.resets_per_minute", 50).set("limits.http2.control_per_minute", 100);
    })
    .await;
    (origin, gateway)
}

/// Sends this again and again; the gateway must end the connection long before it has read all of it.
async fn is_cut_off(gateway: &Gateway, times: usize, bytes: impl Fn(usize) -> Vec<u8>) {
    let before = gateway.metric("tollgate_refused_connections_total{reason=\"http2_limit\"}").await;
    let mut peer = Peer::connect(gateway.address("h2c")).await;
    let mut sent = 0;
    while sent < times && peer.send(bytes(sent)).await {
        sent += 1;
    }
    if let Some(code) = peer.ended().await {
        assert_eq!(code, ENHANCE_YOUR_CALM);
    }
    let refused = async || gateway.metric("tollgate_refused_connections_total{reason=\"http2_limit\"}").await;
    eventually!(refused().await == before + 1.0);
    // Others are served as before.
    assert_eq!(gateway.h2c().await.get("http://x.test/").await.text(), "ok");
}

fn stream(number: usize) -> u32 {
    u32::try_from(2 * number + 1).unwrap()
}

#[tokio::test]
async fn rapid_resets() {
    let (origin, gateway) = gateway().await;
    is_cut_off(&gateway, 5_000, |number| {
        let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block("GET", &[]));
        bytes.extend(frame(RST_STREAM, 0, stream(number), &CANCEL.to_be_bytes()));
        bytes
    })
    .await;
    assert!(origin.count() < 1_000, "{} requests reached the origin", origin.count());
}

#[tokio::test]
async fn a_few_resets_are_fine() {
    let (_origin, gateway) = gateway().await;
    let mut peer = Peer::connect(gateway.address("h2c")).await;
    for number in 0..30 {
        peer.request("GET", stream(number), END_STREAM).await;
        peer.send(frame(RST_STREAM, 0, stream(number), &CANCEL.to_be_bytes())).await;
    }
    peer.request("GET", 99, END_STREAM).await;
    while peer.until(HEADERS).await.expect("the connection was ended").stream != 99 {}
}

#[tokio::test]
async fn pings() {
    let (_origin, gateway) = gateway().await;
    is_cut_off(&gateway, 100_000, |_| frame(PING, 0, 0, &[0; 8])).await;
}

#[tokio::test]
async fn settings() {
    let (_origin, gateway) = gateway().await;
    is_cut_off(&gateway, 100_000, |_| frame(SETTINGS, 0, 0, &[])).await;
}

#[tokio::test]
async fn empty_data() {
    let (_origin, gateway) = gateway().await;
    is_cut_off(&gateway, 100_000, |number| {
        let mut bytes = Vec::new();
        if number == 0 {
            bytes = frame(HEADERS, END_HEADERS, 1, &block("POST", &[]));
        }
        bytes.extend(frame(DATA, 0, 1, &[]));
        bytes
    })
    .await;
}

#[tokio::test]
async fn window_updates() {
    let (_origin, gateway) = gateway().await;
    is_cut_off(&gateway, 100_000, |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())).await;
}

#[tokio::test]
async fn continuations() {
    let (origin, gateway) = gateway().await;
    is_cut_off(&gateway, 10_000, |number| match number {
        0 => frame(HEADERS, END_STREAM, 1, &block("GET", &[])),
        _ => frame(CONTINUATION, 0, 1, &[]),
    })
    .await;
    let only_mine = origin.seen().iter().filter(|seen| !seen.header("x-forwarded-for").is_empty()).count();
    assert_eq!(only_mine, 1, "only the request of the neighbour");
}

#[tokio::test]
async fn a_long_header_block_is_too_large() {
    let (origin, gateway) = gateway().await;
    let mut peer = Peer::connect(gateway.address("h2c")).await;
    let value = "x".repeat(8_000);
    let fields: Vec<(&str, &str)> = (0..5).map(|_| ("x-long", value.as_str())).collect();
    let all = block("GET", &fields);
    let pieces: Vec<&[u8]> = all.chunks(16_000).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let (kind, start) = if number == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        let end = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
        peer.send(frame(kind, start | end, 1, piece)).await;
    }
    // 431 in a HEADERS frame, or a reset of the stream.
    let mut answer = peer.next().await.unwrap();
    while answer.stream == 0 {
        answer = peer.next().await.unwrap();
    }
    assert!([HEADERS, RST_STREAM].contains(&answer.kind), "{answer:?}");
    assert_eq!(origin.count(), 0);
    eventually!(gateway.access().iter().any(|line| line["code"] == "head_too_large"));
}

#[tokio::test]
async fn streams_at_once_are_bounded() {
    let never = std::sync::Arc::new(tokio::sync::Notify::new());
    let gate = never.clone();
    let origin = Origin::scripted(move |_| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Ok(http::Response::new(crate::kit::empty()))
        }
    });
    let gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("limits.http2.streams", 5);
    })
    .await;
    let mut peer = Peer::connect(gateway.address("h2c")).await;
    for number in 0..8 {
        peer.request("GET", stream(number), END_STREAM).await;
    }
    for number in 5..8 {
        let refused = peer.until(RST_STREAM).await.unwrap();
        // REFUSED_STREAM: may be sent again elsewhere (RFC 9113 8.7).
        assert_eq!((refused.stream, refused.payload.as_slice()), (stream(number), &7_u32.to_be_bytes()[..]));
    }
    eventually!(origin.count() == 5);
}

#[tokio::test]
async fn what_is_not_http2_is_not_answered_as_if_it_were() {
    let (origin, gateway) = gateway().await;
    for bytes in [b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), [PREFACE, &[0xff; 64]].concat()] {
        let mut client = Raw::connect(gateway.address("h2c")).await;
        client.send(bytes).await;
        client.rest().await;
    }
    assert_eq!(origin.count(), 0);
    assert_eq!(gateway.h2c().await.get("http://x.test/").await.text(), "ok");
}

#[tokio::test]
async fn a_preface_has_a_deadline() {
    let origin = Origin::text("ok");
    let gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("limits.head_timeout", "300ms");
    })
    .await;
    let mut client = Raw::connect(gateway.address("h2c")).await;
    client.send(&PREFACE[..10]).await;
    client.rest().await;
    let silent = crate::kit::tls::connect(
        tokio::net::TcpStream::connect(gateway.address("https")).await.unwrap(),
        "app.test",
        gateway.authority.client(&["h2"]),
    );
    let mut client = Raw::over(silent.await.unwrap());
    client.rest().await;
}

#[tokio::test]
async fn bodies_are_bounded_without_a_declared_length() {
    let origin = Origin::text("ok");
    let gateway = Gateway::start(&routes::with(origin.address(), "", "body = { max = \"10KiB\" }")).await;
    for mut client in [gateway.h1().await, gateway.h2c().await] {
        let body = crate::kit::body::sized(1 << 20);
        let reply = client.try_fetch(http::Request::post("http://x.test/").body(body).unwrap()).await;
        // The answer may meet a client that still sends; what counts is that the body did not go through.
        if let Ok(reply) = reply {
            reply.is_rejected(413, "body_too_large");
        }
        let within = crate::kit::body::sized(10 << 10);
        let mut client = gateway.h1().await;
        let reply = client.fetch(http::Request::post("http://x.test/").body(within).unwrap()).await;
        assert_eq!(reply.status, 200);
    }
    assert!(origin.seen().iter().all(|seen| seen.body.len() <= 10 << 10));
    eventually!(gateway.access().iter().filter(|line| line["code"] == "body_too_large").count() == 2);
}
