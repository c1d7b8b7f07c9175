//! Header fields on their way: what ends at each hop, what the gateway adds, what it does not believe, what routes edit.

use http::{Request, Response};

use crate::kit::{Gateway, Origin, Raw, RawOrigin, Seen, Settings, empty, full, routes};

/// Sends these lines and says what the origin saw.
async fn sent(routes: impl Fn(&Origin) -> String, change: impl FnOnce(&mut Settings), lines: &[&str]) -> Seen {
    let origin = Origin::text("ok");
    let gateway = Gateway::with(&routes(&origin), change).await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send(format!("GET /x HTTP/1.1\r\nHost: app.test\r\n{}\r\n", lines.concat())).await;
    let answer = client.answer().await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    origin.last()
}

fn plain(origin: &Origin) -> String {
    routes::all_to(origin.address())
}

fn trusting(settings: &mut Settings) {
    settings.set("trust.forwarded_from", "127.0.0.0/8");
}

#[tokio::test]
async fn fields_of_the_hop_end_here() {
    let seen = sent(
        plain,
        |_| {},
        &[
            "Connection: close, X-Private, keep-alive\r\n",
            "X-Private: 1\r\n",
            "Keep-Alive: timeout=5\r\n",
            "Proxy-Authorization: Basic eA==\r\n",
            "Proxy-Connection: keep-alive\r\n",
            "TE: trailers, gzip\r\n",
            "Trailer: x-t\r\n",
            "Upgrade: h2c\r\n",
            "HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            "X-Public: 2\r\n",
        ],
    )
    .await;
    for name in
        ["x-private", "keep-alive", "proxy-authorization", "proxy-connection", "trailer", "upgrade", "http2-settings"]
    {
        assert_eq!(seen.header(name), "", "{name}");
    }
    assert!(!seen.header("connection").contains("private"), "{seen:?}");
    assert_eq!(seen.header("x-public"), "2");
}

#[tokio::test]
async fn fields_of_the_hop_end_here_on_the_way_back() {
    let origin = RawOrigin::answering(concat!(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\n",
        "Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nX-Public: 2\r\n\r\nok",
    ));
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    for mut client in [gateway.h1().await, gateway.h2c().await] {
        let reply = client.get("http://app.test/").await;
        for name in ["x-private", "keep-alive", "proxy-authenticate"] {
            assert_eq!(reply.header(name), "", "{name}: {reply:?}");
        }
        assert_eq!(reply.header("x-public"), "2");
    }
}

#[tokio::test]
async fn a_client_cannot_nominate_what_the_gateway_adds() {
    let seen = sent(
        |origin| routes::with(origin.address(), "", "request_headers = { set = { x-user-id = \"{client.ip}\" } }"),
        |_| {},
        &["Connection: X-User-Id, Via, Traceparent, X-Request-Id\r\n"],
    )
    .await;
    assert_eq!((seen.header("x-user-id"), seen.header("x-forwarded-for")), ("127.0.0.1".into(), "127.0.0.1".into()));
    assert_eq!((seen.header("host"), seen.header("x-forwarded-proto")), ("app.test".into(), "http".into()));
    assert_ne!(seen.header("via"), "");
}

#[tokio::test]
async fn strangers_are_not_believed_about_themselves() {
    let seen = sent(
        plain,
        |_| {},
        &[
            "X-Forwarded-For: 203.0.113.7\r\n",
            "X-Forwarded-Proto: https\r\n",
            "X-Forwarded-Host: bank.test\r\n",
            "X-Forwarded-Port: 443\r\n",
            "X-Real-IP: 203.0.113.7\r\n",
            "Forwarded: for=203.0.113.7\r\n",
        ],
    )
    .await;
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!((seen.header("x-forwarded-proto"), seen.header("x-forwarded-host")), ("http".into(), "app.test".into()));
    for name in ["x-forwarded-port", "x-real-ip", "forwarded"] {
        assert_eq!(seen.header(name), "", "{name}");
    }
}

#[tokio::test]
async fn trusted_proxies_are_believed_up_to_the_first_stranger() {
    let seen = sent(
        |origin| routes::with(origin.address(), "", "request_headers = { set = { x-client = \"{client.ip}\" } }"),
        trusting,
        &["X-Forwarded-For: 192.0.2.1, 203.0.113.7, 127.0.0.9\r\n", "X-Forwarded-Proto: https\r\n"],
    )
    .await;
    assert_eq!(seen.header("x-client"), "203.0.113.7");
    assert!(seen.header("x-forwarded-for").ends_with("203.0.113.7, 127.0.0.9, 127.0.0.1"), "{seen:?}");
    assert_eq!(seen.header("x-forwarded-proto"), "https");
}

#[tokio::test]
async fn nonsense_from_a_trusted_proxy_is_no_client() {
    let words = "request_headers = { set = { x-client = \"{client.ip}\" } }";
    let routes = |origin: &Origin| routes::with(origin.address(), "", words);
    let seen = sent(routes, trusting, &["X-Forwarded-For: 203.0.113.7, unknown\r\n"]).await;
    assert_eq!(seen.header("x-client"), "127.0.0.1");
}

#[tokio::test]
async fn the_gateway_says_that_it_was_here() {
    let seen = sent(plain, |_| {}, &["Via: 1.0 other\r\n"]).await;
    let via = seen.header("via");
    assert!(via.starts_with("1.0 other, 1.1 ") && via.contains("tollgate-test"), "{via}");
}

#[tokio::test]
async fn a_request_that_comes_back_is_a_loop() {
    let gateway = Gateway::start(&routes::answering("nothing yet")).await;
    gateway.change(&routes::all_to(gateway.http())).await;
    gateway.get("http://app.test/").await.is_rejected(508, "loop");
}

#[tokio::test]
async fn gateways_of_other_names_stand_behind_each_other() {
    let origin = Origin::text("behind both");
    let inner = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("node.name", "inner");
    })
    .await;
    let outer = Gateway::start(&routes::all_to(inner.http())).await;
    assert_eq!(outer.get("http://app.test/").await.text(), "behind both");
    assert_eq!(origin.last().header("via").split(", ").count(), 2);
}

#[tokio::test]
async fn headers_that_any_route_sets_are_taken_from_clients_everywhere() {
    let routes = |origin: &Origin| {
        format!(
            "{}\n[[route]]\nname = \"setting\"\nmatch = {{ path = \"/set\" }}\nupstream = \"origin\"\n\
             request_headers = {{ set = {{ x-user-id = \"proven\" }} }}\n",
            routes::all_to(origin.address())
        )
    };
    let lines = ["X-User-Id: forged\r\n", "X_User_Id: forged\r\n", "x-USER_id: forged\r\n", "X-Other: mine\r\n"];
    let seen = sent(routes, |_| {}, &lines).await;
    assert!(!seen.headers.values().any(|value| value == "forged"), "{seen:?}");
    assert_eq!(seen.header("x-other"), "mine");
}

#[tokio::test]
async fn names_with_underscores_are_dropped() {
    let seen = sent(plain, |_| {}, &["X_Thing: 1\r\n", "X-Thing: 2\r\n"]).await;
    assert_eq!((seen.header("x_thing"), seen.header("x-thing")), (String::new(), "2".into()));
}

#[tokio::test]
async fn request_headers_are_edited_in_order() {
    let seen = sent(
        |origin| {
            routes::with(
                origin.address(),
                "",
                r#"request_headers = { remove = ["x-a", "x-b"], set = { x-b = "set", x-host = "{request.host}", x-none = "{header.x-missing}" }, add = { x-c = "added" } }"#,
            )
        },
        |_| {},
        &["X-A: 1\r\n", "X-B: 1\r\n", "X-C: 1\r\n", "X-None: mine\r\n"],
    )
    .await;
    let shown = ["x-a", "x-b", "x-c", "x-host", "x-none"].map(|name| seen.header(name));
    assert_eq!(shown, ["", "set", "added", "app.test", ""], "headers the document writes come from it alone");
}

#[tokio::test]
async fn response_headers_are_edited() {
    let origin = Origin::replying(|_| {
        Response::builder().header("server", "secret/1").header("x-a", "1").body(full("ok")).unwrap()
    });
    let words =
        r#"response_headers = { remove = ["server"], set = { x-route = "{route.name}" }, add = { x-a = "2" } }"#;
    let gateway = Gateway::start(&routes::with(origin.address(), "", words)).await;
    for mut client in [gateway.h1().await, gateway.h2c().await] {
        let reply = client.get("http://app.test/").await;
        assert_eq!((reply.header("server"), reply.header("x-route")), ("", "all"));
        let values: Vec<_> = reply.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
    }
}

#[tokio::test]
async fn the_host_is_the_one_asked_for_and_forwarded() {
    let origin = Origin::text("ok");
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let mut client = gateway.tls("app.test", &["h2"]).await;
    let request = Request::get("https://app.test/").body(empty()).unwrap();
    assert_eq!(client.fetch(request).await.text(), "ok");
    let seen = origin.last();
    assert_eq!((seen.header("host"), seen.header("x-forwarded-proto")), ("app.test".into(), "https".into()));
    assert_eq!(
        (seen.header("x-forwarded-host"), seen.header("x-forwarded-for")),
        ("app.test".into(), "127.0.0.1".into())
    );
    assert!(seen.header("via").starts_with("2"), "{}", seen.header("via"));
}

#[tokio::test]
async fn cookies_split_by_http2_are_joined() {
    let origin = Origin::text("ok");
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let request = Request::get("http://app.test/").header("cookie", "a=1").header("cookie", "b=2");
    assert_eq!(gateway.h2c().await.fetch(request.body(empty()).unwrap()).await.text(), "ok");
    // RFC 9113 8.2.3: one field for a protocol that does not know the split.
    let cookies: Vec<_> = origin.last().headers.get_all("cookie").iter().cloned().collect();
    assert_eq!(cookies, ["a=1; b=2"]);
}
