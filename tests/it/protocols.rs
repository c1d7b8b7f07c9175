//! What clients speak: HTTP/1, HTTP/2 and TLS, and the messages whose framing is special.

use http::{Method, Request, Response, StatusCode, Version};

use crate::kit::{Client, Gateway, Origin, Raw, RawOrigin, Reply, empty, full, routes};

async fn hello() -> (Origin, Gateway) {
    let origin = Origin::text("hello");
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    (origin, gateway)
}

fn greets(reply: &Reply, version: Version) {
    assert_eq!((reply.status.as_u16(), reply.text(), reply.version), (200, "hello", version), "{reply:?}");
}

#[tokio::test]
async fn answers_http1_and_keeps_the_connection() {
    let (_origin, gateway) = hello().await;
    let mut client = gateway.h1().await;
    for _ in 0..3 {
        greets(&client.get("http://app.test/").await, Version::HTTP_11);
    }
    assert!(!client.is_closed());
}

#[tokio::test]
async fn closes_after_http10_and_does_not_chunk() {
    let origin = Origin::scripted(|_| async {
        let (feed, body) = crate::kit::channel();
        tokio::spawn(async move { feed.data("unframed").await });
        Ok(Response::new(body))
    });
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("GET / HTTP/1.0\r\nHost: app.test\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(client.rest().await, b"unframed");
}

#[tokio::test]
async fn answers_http2_by_prior_knowledge_where_asked_for() {
    let (_origin, gateway) = hello().await;
    let mut client = gateway.h2c().await;
    greets(&client.get("http://app.test/").await, Version::HTTP_2);
    greets(&client.get("http://app.test/again").await, Version::HTTP_2);
    let mut plain = Client::h1(gateway.address("h2c")).await;
    greets(&plain.get("http://app.test/").await, Version::HTTP_11);
}

#[tokio::test]
async fn refuses_prior_knowledge_elsewhere() {
    let (origin, gateway) = hello().await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let answer = client.rest().await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn agrees_on_the_version_by_alpn() {
    let (_origin, gateway) = hello().await;
    for (offered, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["h2"], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let mut client = gateway.tls("app.test", offered).await;
        greets(&client.get("https://app.test/").await, version);
    }
}

#[tokio::test]
async fn refuses_a_handshake_without_a_common_version() {
    let (_origin, gateway) = hello().await;
    let config = gateway.authority.client(&["spdy/1"]);
    assert!(Client::tls(gateway.address("https"), "app.test", config).await.is_err());
    eventually!(gateway.metric("tollgate_handshakes_total{result=\"failed\"}").await == 1.0);
}

#[tokio::test]
async fn mints_certificates_for_an_internal_listener() {
    let origin = Origin::text("hello");
    let gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.listen("name = \"minted\"\nprotocol = \"https\"\ncertificate = \"internal\"");
    })
    .await;
    let trusting_another = gateway.authority.client(&[]);
    assert!(Client::tls(gateway.address("minted"), "app.test", trusting_another).await.is_err());
    let found = walk(&gateway.directory().join("state"));
    let certificates: Vec<_> = found.iter().filter(|text| text.contains("BEGIN CERTIFICATE")).collect();
    let mut greeted = 0;
    for pem in certificates {
        let config = crate::kit::tls::trusting(pem);
        if let Ok(mut client) = Client::tls(gateway.address("minted"), "app.test", config).await {
            greets(&client.get("https://app.test/").await, Version::HTTP_11);
            greeted += 1;
        }
    }
    assert!(greeted > 0, "no CA in the state directory signs what the listener shows");
}

fn walk(directory: &std::path::Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { texts.extend(walk(&path)) } else { texts.extend(std::fs::read_to_string(path).ok()) }
    }
    texts
}

#[tokio::test]
async fn carries_head_no_content_and_not_modified_without_bodies() {
    let origin = Origin::replying(|seen| {
        let status = match seen.uri.path() {
            "/none" => StatusCode::NO_CONTENT,
            "/same" => StatusCode::NOT_MODIFIED,
            _ => StatusCode::OK,
        };
        let body = if seen.method == Method::HEAD || status != StatusCode::OK { empty() } else { full("0123456789") };
        let mut response = Response::builder().status(status).header("etag", "\"tag\"");
        if seen.method == Method::HEAD {
            response = response.header("content-length", "10");
        }
        response.body(body).unwrap()
    });
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    for mut client in [gateway.h1().await, gateway.h2c().await] {
        let request = Request::head("http://app.test/").body(empty()).unwrap();
        let head = client.fetch(request).await;
        assert_eq!((head.status.as_u16(), head.header("content-length"), head.text()), (200, "10", ""));
        for (path, status) in [("/none", 204), ("/same", 304)] {
            let reply = client.get(&format!("http://app.test{path}")).await;
            assert_eq!((reply.status.as_u16(), reply.text(), reply.header("etag")), (status, "", "\"tag\""));
        }
        // The connection is where it should be: the next answer is whole.
        assert_eq!(client.get("http://app.test/").await.text(), "0123456789");
    }
}

#[tokio::test]
async fn frames_a_bodiless_answer_so_that_the_next_one_is_whole() {
    let origin = Origin::text("ten bytes.");
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("HEAD / HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "ten bytes.");
}

#[tokio::test]
async fn passes_100_continue_before_the_body_is_sent() {
    let origin = Origin::echo();
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let interim = client.answer().await;
    assert_eq!(interim.status(), 100, "{interim:?}");
    client.send("body").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "body"));
}

#[tokio::test]
async fn passes_a_refusal_instead_of_100_continue() {
    let origin = RawOrigin::start(|mut connection, _| async move {
        connection.head().await;
        connection.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
    });
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (417, "no"));
}

#[tokio::test]
async fn answers_pipelined_requests_in_order() {
    let origin = Origin::replying(|seen| Response::new(full(seen.target().to_owned())));
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut client = Raw::connect(gateway.http()).await;
    let requests: String = (0..5).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: app.test\r\n\r\n")).collect();
    client.send(requests).await;
    for n in 0..5 {
        assert_eq!(client.answer().await.text(), format!("/{n}"));
    }
}

#[tokio::test]
async fn keeps_pipelined_bodies_apart() {
    let origin = Origin::echo();
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut client = Raw::connect(gateway.http()).await;
    client
        .send(concat!(
            "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\none",
            "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n",
        ))
        .await;
    let bodies = [client.answer().await, client.answer().await, client.answer().await].map(|answer| answer.body);
    assert_eq!(bodies, [b"one".to_vec(), b"two".to_vec(), Vec::new()]);
    client.ends().await;
}

#[tokio::test]
async fn passes_early_hints_to_http1_and_only_the_answer_to_http2() {
    let origin = RawOrigin::answering(concat!(
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal",
    ));
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    let hints = client.answer().await;
    assert_eq!((hints.status(), hints.field("link")), (103, Some("</style.css>; rel=preload")));
    assert_eq!(client.answer().await.text(), "final");
    let reply = gateway.h2c().await.get("http://app.test/").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "final"));
}

#[tokio::test]
async fn carries_an_answer_that_ends_with_the_connection() {
    let origin = RawOrigin::start(|mut connection, _| async move {
        connection.head().await;
        connection.send("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    });
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    for mut client in [gateway.h1().await, gateway.h2c().await] {
        for _ in 0..2 {
            assert_eq!(client.get("http://app.test/").await.text(), "until the end");
        }
    }
}

#[tokio::test]
async fn an_answer_cut_short_does_not_look_whole() {
    let origin = RawOrigin::start(|mut connection, _| async move {
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await;
    });
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    // What came reaches the client, however close behind it the end is.
    for _ in 0..20 {
        for mut client in [gateway.h1().await, gateway.h2c().await] {
            let response = client.send(Request::get("http://app.test/").body(empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(Reply::read(response).await.is_err());
        }
    }
}

#[tokio::test]
async fn connect_and_unknown_upgrades_are_not_tunnels() {
    let (origin, gateway) = hello().await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\n\r\n").await;
    let answer = client.answer().await;
    assert!((400..500).contains(&answer.status()), "{answer:?}");
    assert_eq!(origin.count(), 0);
    let mut client = Raw::connect(gateway.http()).await;
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(origin.last().header("upgrade"), "");
}
