//! PROXY headers: from load balancers, whose word is believed; from others, who get nothing by it; and to upstreams.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use tollgate::proxy_protocol::{Read, Version, read, write};

use crate::kit::{Gateway, Origin, Raw, RawOrigin, Settings, client, routes, tls, within};

const CLIENT: &str = "203.0.113.9:4711";
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";

fn header(version: Version, source: &str) -> Vec<u8> {
    write(version, Some((source.parse().unwrap(), "198.51.100.1:443".parse().unwrap())))
}

/// Every listener expects headers from 127.0.0.1 and from nobody else.
fn behind_a_balancer(settings: &mut Settings) {
    for listener in ["http", "h2c", "https"] {
        settings.at("listen", listener, "proxy_protocol", toml::toml! { from = "127.0.0.1" });
    }
}

async fn gateway(origin: SocketAddr, change: impl FnOnce(&mut Settings)) -> Gateway {
    Gateway::with(&routes::all_to(origin), |settings| {
        behind_a_balancer(settings);
        change(settings);
    })
    .await
}

async fn refused(gateway: &Gateway) -> f64 {
    gateway.metric("tollgate_refused_connections_total{reason=\"proxy_header\"}").await
}

#[tokio::test]
async fn the_client_is_who_the_header_names() {
    let origin = Origin::text("ok");
    let gateway = gateway(origin.address(), |_| {}).await;
    let mapped = "[2001:db8::7]:1";
    for (version, source) in [(Version::V1, CLIENT), (Version::V2, CLIENT), (Version::V2, mapped)] {
        let ip = source.parse::<SocketAddr>().unwrap().ip().to_string();
        // Header and request in one piece: what follows the header is not swallowed.
        for listener in ["http", "h2c"] {
            let mut client = Raw::connect(gateway.address(listener)).await;
            client.send([&header(version, source)[..], REQUEST.as_bytes()].concat()).await;
            assert_eq!(client.answer().await.status(), 200, "{listener}");
            assert_eq!(origin.last().header("x-forwarded-for"), ip);
        }
        let mut raw = Raw::connect(gateway.address("https")).await;
        raw.send(header(version, source)).await;
        let stream = tls::connect(raw.stream, "app.test", gateway.authority.client(&["h2"])).await.unwrap();
        assert_eq!(client::Client::h2_over(stream).await.get("https://app.test/").await.status, 200);
        assert_eq!(origin.last().header("x-forwarded-for"), ip);
        gateway.access_line(|line| line["client"] == ip && line["listener"] == "https").await;
    }
    // The balancer's own connection (a check of its own).
    let mut client = Raw::connect(gateway.http()).await;
    client.send([&write(Version::V2, None)[..], REQUEST.as_bytes()].concat()).await;
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(origin.last().header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(refused(&gateway).await, 0.0);
}

#[tokio::test]
async fn tlvs_and_slow_pieces_are_taken() {
    let origin = Origin::text("ok");
    let gateway = gateway(origin.address(), |_| {}).await;
    let mut with_tlvs = header(Version::V2, CLIENT);
    with_tlvs.extend([0x04, 0, 3, 0, 0, 0, 0xEA, 0, 2, 1, 2]);
    with_tlvs[15] += 11;
    for bytes in [with_tlvs, header(Version::V1, CLIENT)] {
        let mut client = Raw::connect(gateway.http()).await;
        for byte in bytes {
            client.send([byte]).await;
            tokio::task::yield_now().await;
        }
        client.send(REQUEST).await;
        assert_eq!(client.answer().await.status(), 200);
        assert_eq!(origin.last().header("x-forwarded-for"), "203.0.113.9");
    }
}

/// No answer: who does not begin as agreed is not the balancer, whatever its address.
#[tokio::test]
async fn a_missing_or_broken_header_closes_the_connection() {
    let origin = Origin::text("ok");
    let gateway = gateway(origin.address(), |settings| {
        settings.set("limits.handshake_timeout", "300ms");
    })
    .await;
    let mut oversize = header(Version::V2, CLIENT);
    oversize[14] = 0xff;
    let broken: [&[u8]; 6] = [
        REQUEST.as_bytes(),
        b"PROXY TCP4 203.0.113.9 198.51.100.1 4711\r\n",
        b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\nGET / HTTP/1.1\r\n\r\n",
        &b"PROXY UNKNOWN ".repeat(20),
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c",
        &oversize,
    ];
    for (number, bytes) in broken.into_iter().enumerate() {
        let mut client = Raw::connect(gateway.http()).await;
        client.send(bytes).await;
        client.ends().await;
        eventually!(refused(&gateway).await == (number + 1) as f64);
    }
    // Cut short: it waits as long as a handshake may take.
    for listener in ["http", "https"] {
        let began = Instant::now();
        let mut client = Raw::connect(gateway.address(listener)).await;
        client.send("PROXY TCP4 203.0.113.9").await;
        client.ends().await;
        assert!(began.elapsed() >= Duration::from_millis(250) && began.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn nobody_else_says_who_it_is() {
    let origin = Origin::text("ok");
    let gateway = gateway(origin.address(), |_| {}).await;
    let stranger = || async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.77:0".parse().unwrap()).unwrap();
        Raw::over(socket.connect(gateway.http()).await.unwrap())
    };
    let mut client = stranger().await;
    client.send([&header(Version::V1, CLIENT)[..], REQUEST.as_bytes()].concat()).await;
    assert_eq!(client.answer().await.status(), 400);
    assert_eq!(origin.count(), 0);
    let mut client = stranger().await;
    client.send(REQUEST).await;
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(origin.last().header("x-forwarded-for"), "127.0.0.77");
}

#[tokio::test]
async fn limits_count_clients_and_not_the_balancer() {
    let origin = Origin::text("ok");
    let gateway = gateway(origin.address(), |settings| {
        settings.set("limits.connections_per_address", 1);
    })
    .await;
    let open = |source: &'static str| async {
        let mut client = Raw::connect(gateway.http()).await;
        client.send([&header(Version::V2, source)[..], b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"].concat()).await;
        client
    };
    let mut one = open("203.0.113.1:1").await;
    assert_eq!(one.answer().await.status(), 200);
    assert_eq!(open("203.0.113.2:1").await.answer().await.status(), 200);
    open("203.0.113.1:2").await.ends().await;
    eventually!(gateway.metric("tollgate_refused_connections_total{reason=\"connections_per_address\"}").await == 1.0);
}

/// Reads the header of each connection, then answers every request with the address it named.
fn told() -> RawOrigin {
    RawOrigin::start(|mut connection, _| async move {
        let mut bytes = Vec::new();
        let source = loop {
            match read(&bytes) {
                Read::Whole(header) => break header.source,
                Read::Needs(more) => match connection.exactly(more).await {
                    Some(piece) => bytes.extend(piece),
                    None => return,
                },
                Read::Broken(why) => panic!("{why}: {bytes:?}"),
            }
        };
        let body = source.map_or("nobody".to_owned(), |source| source.to_string());
        while connection.message().await.is_some() {
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
}

#[tokio::test]
async fn upstreams_are_told_who_connected() {
    for version in ["v1", "v2"] {
        let origin = told();
        let words = format!("proxy_protocol = \"{version}\"\nhealth = {{ path = \"/health\", every = \"50ms\" }}");
        let gateway = Gateway::start(&routes::with(origin.address(), &words, "")).await;
        // Checks come from ourselves, and pass.
        eventually!(gateway.upstream("origin").await["endpoints"][0]["state"] == "healthy");
        let (mut one, mut other) = (Raw::connect(gateway.http()).await, Raw::connect(gateway.http()).await);
        for _ in 0..3 {
            for client in [&mut one, &mut other] {
                client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
                let own = client.stream.local_addr().unwrap().to_string();
                assert_eq!(within("an answer", client.answer()).await.text(), own, "no client speaks as another");
            }
        }
    }
}
