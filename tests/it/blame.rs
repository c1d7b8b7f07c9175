//! Who is waited for: a client that stalls is no fault of its upstream, and an upstream that stalls is answered for in time.

use std::time::{Duration, Instant};

use http::{Request, Response};

use crate::kit::body::sized;
use crate::kit::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Peer, RST_STREAM, block, frame};
use crate::kit::origin::Wire;
use crate::kit::{Gateway, Origin, Port, Raw, channel, empty, full, routes};

/// Two failures eject, if they are taken for the endpoint's.
const QUICK: &str = "eject = { errors = 2, within = \"1m\", for = \"1m\" }";
const IDLE: &str = "timeout = { head = \"5s\", idle = \"300ms\" }";

async fn failures(gateway: &Gateway) -> f64 {
    gateway.metric("tollgate_upstream_failures_total{upstream=\"origin\"}").await
}

#[tokio::test]
async fn a_stalled_upload_is_the_clients_fault() {
    let origin = Origin::text("ok");
    let gateway = Gateway::with(&routes::with(origin.address(), QUICK, IDLE), |settings| {
        settings.set("limits.body_idle", "900ms");
    })
    .await;
    for _ in 0..3 {
        let mut client = Raw::connect(gateway.http()).await;
        client.send("POST / HTTP/1.1\r\nHost: x.test\r\nContent-Length: 100\r\n\r\nonly this").await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.code().as_str()), (408, "body_timeout"));
        let mut peer = Peer::connect(gateway.address("h2c")).await;
        peer.request("POST", 1, 0).await;
        peer.send(frame(DATA, 0, 1, b"only this")).await;
        while peer.next().await.is_some_and(|frame| frame.stream != 1) {}
    }
    eventually!(gateway.access().iter().filter(|line| line["code"] == "body_timeout").count() == 6);
    assert_eq!(failures(&gateway).await, 0.0);
    assert_eq!(gateway.get("http://x.test/").await.status, 200);
}

#[tokio::test]
async fn a_stalled_reader_is_the_clients_fault() {
    let origin = Origin::scripted(|_| async { Ok(Response::new(sized(64 << 20))) });
    let gateway = Gateway::with(&routes::with(origin.address(), QUICK, IDLE), |settings| {
        settings.set("limits.write_idle", "900ms");
    })
    .await;
    for _ in 0..2 {
        let mut client = Raw::connect(gateway.http()).await;
        client.send("GET / HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
        let mut peer = Peer::connect(gateway.address("h2c")).await;
        peer.request("GET", 1, END_STREAM).await;
        eventually!(origin.open() == 2);
        eventually!(origin.open() == 0);
    }
    eventually!(gateway.access().len() >= 4);
    assert!(gateway.access().iter().all(|line| line["code"] != "upstream_timeout"), "{:?}", gateway.access());
    assert_eq!(failures(&gateway).await, 0.0);
}

/// The upload is whole, the upstream shares its connection with others and says nothing.
#[tokio::test]
async fn a_silent_upstream_over_http2_is_answered_for_in_time() {
    let origin = Origin::start(Port::free(), Wire::H2, |_| async {
        std::future::pending::<()>().await;
        Ok(Response::new(empty()))
    });
    let words = "retry = { attempts = 3 }\ntimeout = { head = \"400ms\", idle = \"400ms\" }";
    let gateway = Gateway::start(&routes::with(origin.address(), "protocol = \"h2\"", words)).await;
    for method in ["POST", "GET"] {
        let began = Instant::now();
        let request = Request::builder().method(method).uri("http://x.test/");
        let body = if method == "POST" { full("a body") } else { empty() };
        let reply = gateway.h1().await.fetch(request.body(body).unwrap()).await;
        reply.is_rejected(504, "upstream_timeout");
        assert!(began.elapsed() < Duration::from_secs(5), "{method}: {:?}", began.elapsed());
    }
    assert_eq!(origin.count(), 2, "time that has run out is not spent again");
}

#[tokio::test]
async fn connections_stay_within_their_bound_under_quick_requests() {
    let origin = Origin::text("ok");
    let gateway = Gateway::start(&routes::with(origin.address(), "connections = { max = 2 }", "")).await;
    let mut clients = [gateway.h1().await, gateway.h1().await];
    for _ in 0..200 {
        let [one, other] = &mut clients;
        let both = tokio::join!(one.get("http://x.test/"), other.get("http://x.test/"));
        assert_eq!((both.0.status.as_u16(), both.1.status.as_u16()), (200, 200));
        let connections = gateway.upstream("origin").await["endpoints"][0]["connections"].as_u64();
        assert!(connections.is_some_and(|open| open <= 2), "{connections:?} connections");
    }
}

#[tokio::test]
async fn streams_that_begin_together_share_the_connections_there_may_be() {
    let origin = Origin::start(Port::free(), Wire::H2, |_| async { Ok(Response::new(full("ok"))) });
    let words = "protocol = \"h2\"\nconnections = { max = 1, streams = 100 }";
    let gateway = Gateway::start(&routes::with(origin.address(), words, "")).await;
    let replies = futures_util::future::join_all((0..40).map(|_| gateway.get("http://x.test/"))).await;
    assert!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
    assert_eq!(origin.connections(), 1);
}

/// Long streams, which their upstream sends in pieces: nobody stalls.
#[tokio::test]
async fn a_stream_lives_while_pieces_come() {
    let origin = Origin::scripted(|_| async {
        let (feed, body) = channel();
        tokio::spawn(async move {
            for _ in 0..8 {
                feed.data("piece").await;
                for _ in 0..12 {
                    crate::kit::pause().await;
                }
            }
        });
        Ok(Response::new(body))
    });
    let gateway = Gateway::start(&routes::with(origin.address(), QUICK, IDLE)).await;
    for mut client in [gateway.h1().await, gateway.h2c().await] {
        assert_eq!(client.get("http://x.test/").await.body.len(), 8 * 5);
    }
    assert_eq!(failures(&gateway).await, 0.0);
}

/// Some are answered by us, some by Pingora's codec, some are reset by the h2 library.
#[tokio::test]
async fn refusals_of_http2_heads_are_told_like_others() {
    let origin = Origin::text("ok");
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    type Fields<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, &str, Fields<'_>, u16); 5] = [
        ("GET", "x.test", &[("host", "other.test")], 400),
        ("GET", "x.test", &[("host", "x.test"), ("host", "x.test")], 400),
        ("GET", "x.test:99999", &[], 400),
        ("TRACE", "x.test", &[], 405),
        ("GET", "x.test", &[("host", "x.test")], 200),
    ];
    for (number, (method, authority, fields, status)) in cases.into_iter().enumerate() {
        let tcp = tokio::net::TcpStream::connect(gateway.address("h2c")).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(format!("http://{authority}/"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (answer, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
        let answer = crate::kit::within("an answer", answer).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{method} {authority} {fields:?}");
        drop((sender, answer));
        eventually!(gateway.access().len() == number + 1);
    }
    let mut peer = Peer::connect(gateway.address("h2c")).await;
    peer.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block("GET", &[("connection", "close")]))).await;
    assert_eq!(peer.until(RST_STREAM).await.map(|frame| frame.stream), Some(1));
    drop(peer);
    eventually!(gateway.access().len() == cases.len() + 1);
    assert_eq!(origin.count(), 1);
    assert_eq!(gateway.metric("tollgate_rejections_total{code=\"bad_request\"}").await, 4.0);
}

#[tokio::test]
async fn a_head_over_http2_has_one_deadline_however_it_drips() {
    let origin = Origin::text("ok");
    let gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("limits.head_timeout", "400ms");
    })
    .await;
    let mut peer = Peer::connect(gateway.address("h2c")).await;
    peer.request("GET", 1, END_STREAM).await;
    peer.until(HEADERS).await.unwrap();
    let began = Instant::now();
    let whole = frame(HEADERS, END_STREAM, 3, &[0; 4_000]);
    for byte in whole {
        if !peer.send([byte]).await || began.elapsed() > Duration::from_secs(5) {
            break;
        }
        crate::kit::pause().await;
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    gateway.access_line(|line| line["code"] == "head_timeout").await;
    assert_eq!(origin.count(), 1);
}

/// Probes of load balancers connect and say nothing.
#[tokio::test]
async fn leaving_waits_for_no_silent_connection() {
    let origin = Origin::text("ok");
    let mut gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut silent = Vec::new();
    for listener in ["https", "h2c", "http"] {
        silent.push(Raw::connect(gateway.address(listener)).await);
    }
    eventually!(gateway.metric("tollgate_open_connections").await == 3.0);
    let began = Instant::now();
    gateway.stop().await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}
