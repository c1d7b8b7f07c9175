//! WebSockets through the gateway.

use crate::kit::websocket::{WebSocket, echo};
use crate::kit::{Gateway, Origin, Raw, routes, tls, within};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Error, Message};

#[tokio::test]
async fn messages_go_both_ways() {
    let origin = echo();
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut socket = WebSocket::connect(gateway.http(), "ws://app.test/chat").await;
    for text in ["one", "two", &"long ".repeat(20_000)] {
        socket.echoes(text).await;
    }
    drop(socket);
    let line = gateway.access_line(|line| line["path"] == "/chat").await;
    assert_eq!((&line["status"], &line["route"]), (&101.into(), &"all".into()), "{line}");
}

#[tokio::test]
async fn messages_go_both_ways_over_tls() {
    let origin = echo();
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let tcp = tokio::net::TcpStream::connect(gateway.address("https")).await.unwrap();
    let stream = tls::connect(tcp, "app.test", gateway.authority.client(&["http/1.1"])).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("wss://app.test/", stream).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    let answer = within("the echo", socket.next()).await.unwrap().unwrap();
    assert_eq!(answer, Message::text("hello"));
}

#[tokio::test]
async fn a_refused_upgrade_is_passed_on() {
    let origin = Origin::replying(|_| http::Response::builder().status(403).body(crate::kit::full("no")).unwrap());
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let Err(Error::Http(answer)) = WebSocket::try_connect(gateway.http(), "ws://app.test/").await else {
        panic!("the upgrade was not refused");
    };
    assert_eq!(answer.status(), 403);
}

#[tokio::test]
async fn an_origin_that_switches_unasked_is_not_believed() {
    let origin = crate::kit::RawOrigin::answering(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_protocol"));
}

#[tokio::test]
async fn bytes_behind_an_upgrade_that_is_refused_are_not_a_tunnel() {
    let origin = Origin::text("plain");
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut client = Raw::connect(gateway.http()).await;
    client
        .send(concat!(
            "GET /first HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET /second HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n",
        ))
        .await;
    assert_eq!(client.answer().await.text(), "plain");
    let _ = client.rest().await;
    // The second request was read by the gateway as a request of its own, or not at all; the origin got no stray bytes.
    assert!(origin.seen().iter().all(|seen| !seen.header("via").is_empty()), "{:?}", origin.seen());
}

#[tokio::test]
async fn an_idle_one_is_closed_and_a_busy_one_lives() {
    let origin = echo();
    let gateway = Gateway::start(&routes::with(origin.address(), "", "timeout = { idle = \"400ms\" }")).await;
    let mut busy = WebSocket::connect(gateway.http(), "ws://app.test/").await;
    let began = std::time::Instant::now();
    while began.elapsed().as_millis() < 1_200 {
        busy.echoes("still here").await;
        crate::kit::pause().await;
    }
    assert_eq!(busy.next().await, None);
}

#[tokio::test]
async fn none_grows_older_than_allowed() {
    let origin = echo();
    let gateway = Gateway::start(&routes::with(origin.address(), "", "stream = { max_age = \"500ms\" }")).await;
    let mut socket = WebSocket::connect(gateway.http(), "ws://app.test/").await;
    let began = std::time::Instant::now();
    socket.echoes("young").await;
    assert_eq!(socket.next().await, None);
    assert!(began.elapsed().as_millis() >= 400, "{:?}", began.elapsed());
}
