//! Which route a request takes, on the wire: hosts, paths, conditions, listeners, and what fits nowhere.

use http::Request;

use crate::kit::{Client, Gateway, Raw, empty, get};

/// Every route answers with its name.
fn named(name: &str, words: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\nrespond = {{ body = \"{{route.name}}\" }}\nmatch = {{ {words} }}\n")
}

fn document(routes: &[(&str, &str)]) -> String {
    routes.iter().map(|(name, words)| named(name, words)).collect()
}

/// Each URL must be answered by the route of that name; a name that is a status must be its rejection.
async fn takes(gateway: &Gateway, expected: &[(&str, &str)]) {
    for (url, route) in expected {
        let reply = gateway.get(url).await;
        match route.parse::<u16>() {
            Ok(status) => assert_eq!(reply.status, status, "{url}: {reply:?}"),
            Err(_) => assert_eq!(reply.text(), *route, "{url}"),
        }
    }
}

#[tokio::test]
async fn the_best_host_is_chosen_first() {
    let gateway = Gateway::start(&document(&[
        ("exact", "host = \"a.example.com\", path = \"/only\""),
        ("label", "host = \"*.example.com\""),
        ("deep", "host = \"**.example.com\""),
        ("deeper", "host = \"**.x.example.com\""),
        ("any", ""),
    ]))
    .await;
    takes(
        &gateway,
        &[
            ("http://a.example.com/only", "exact"),
            // No fall-through to a worse host.
            ("http://a.example.com/other", "404"),
            ("http://b.example.com/", "label"),
            ("http://B.Example.COM/", "label"),
            ("http://b.example.com:8080/", "label"),
            ("http://b.example.com./", "label"),
            ("http://c.b.example.com/", "deep"),
            ("http://a.x.example.com/", "deeper"),
            ("http://example.com/", "any"),
            ("http://badexample.com/", "any"),
            ("http://[::1]/", "any"),
        ],
    )
    .await;
}

#[tokio::test]
async fn paths_go_segment_by_segment() {
    let gateway = Gateway::start(&document(&[
        ("root", "path = \"/\""),
        ("api", "path = \"/api/*\""),
        ("users", "path = \"/api/users/{id}\""),
        ("me", "path = \"/api/users/me\""),
        ("posts", "path = \"/api/users/{id}/posts/*\""),
    ]))
    .await;
    takes(
        &gateway,
        &[
            ("http://x.test/", "root"),
            ("http://x.test/api", "api"),
            ("http://x.test/api/", "api"),
            ("http://x.test/api/x/y?z", "api"),
            ("http://x.test/apix", "404"),
            ("http://x.test/other", "404"),
            ("http://x.test/api/users/7", "users"),
            ("http://x.test/api/users/me", "me"),
            ("http://x.test/api/users/7/likes", "api"),
            ("http://x.test/api/users/7/posts/1", "posts"),
            ("http://x.test/api/users/me/posts", "posts"),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_path_is_normalised_once() {
    let gateway = Gateway::start(&document(&[("admin", "path = \"/admin/*\""), ("rest", "")])).await;
    for target in
        ["/admin/x", "//admin//x", "/./admin/x", "/y/../admin/x", "/%61dmin/x", "/%2e/admin/x", "/y/%2E%2e/admin"]
    {
        let mut client = Raw::connect(gateway.http()).await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x.test\r\n\r\n")).await;
        assert_eq!(client.answer().await.text(), "admin", "{target}");
    }
    for target in ["/admin%2Fx", "/admin/%5cx", "/admin/%00", "/admin/%", "/admin/%zz", "/..", "/../x"] {
        let mut client = Raw::connect(gateway.http()).await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x.test\r\n\r\n")).await;
        let status = client.answer().await.status();
        // Dot segments above the root go nowhere (RFC 3986 5.2.4): refused, or the root itself.
        assert!(status == 400 || target.starts_with("/.."), "{target}: {status}");
    }
}

#[tokio::test]
async fn an_encoded_slash_stays_in_its_segment_where_a_route_says_so() {
    let gateway = Gateway::start(
        "[[route]]\nname = \"keep\"\nencoded_slash = \"keep\"\nmatch = { path = \"/files/{name}\" }\n\
         respond = { body = \"{path.name}\" }\n",
    )
    .await;
    assert_eq!(gateway.get("http://x.test/files/a%2Fb").await.text(), "a%2Fb");
    assert_eq!(gateway.get("http://x.test/files/a%00b").await.status, 400);
}

#[tokio::test]
async fn conditions_decide_between_equal_paths() {
    let gateway = Gateway::start(&document(&[
        ("plain", "path = \"/x\""),
        ("version", "path = \"/x\", header = { \"x-version\" = \"2\" }"),
        ("prefix", "path = \"/x\", header = { \"x-version\" = { prefix = \"2.\" } }"),
        ("present", "path = \"/x\", header = { \"x-version\" = { present = true } }"),
        ("query", "path = \"/x\", query = { beta = \"on\" }"),
        ("cookie", "path = \"/x\", cookie = { canary = \"yes\" }"),
        ("both", "path = \"/x\", query = { beta = \"on\" }, cookie = { canary = \"yes\" }"),
    ]))
    .await;
    for (query, header, route) in [
        ("", None, "plain"),
        ("", Some(("x-version", "2")), "version"),
        ("", Some(("x-version", "2.1")), "prefix"),
        ("", Some(("x-version", "3")), "present"),
        ("?beta=on", None, "query"),
        ("?beta=%6Fn", None, "query"),
        ("?beta=off", None, "plain"),
        ("", Some(("cookie", "a=b; canary=yes")), "cookie"),
        ("?a=b&beta=on", Some(("cookie", "canary=yes")), "both"),
    ] {
        let mut request = Request::get(format!("http://x.test/x{query}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let reply = gateway.h1().await.fetch(request.body(empty()).unwrap()).await;
        assert_eq!(reply.text(), route, "{query} {header:?}");
    }
}

#[tokio::test]
async fn absence_is_a_condition() {
    let gateway = Gateway::start(&document(&[
        ("anonymous", "path = \"/x\", header = { authorization = { present = false } }"),
        ("known", "path = \"/x\", header = { authorization = { present = true } }"),
    ]))
    .await;
    assert_eq!(gateway.get("http://x.test/x").await.text(), "anonymous");
    let request = Request::get("http://x.test/x").header("authorization", "Basic eDp5").body(empty()).unwrap();
    assert_eq!(gateway.h1().await.fetch(request).await.text(), "known");
}

#[tokio::test]
async fn a_method_that_fits_nowhere_is_answered_with_those_that_do() {
    let gateway = Gateway::start(&document(&[
        ("read", "path = \"/x\", method = \"GET\""),
        ("write", "path = \"/x\", method = [\"PUT\", \"DELETE\"]"),
        ("all", "path = \"/*\", host = \"other.test\""),
    ]))
    .await;
    let send = async |method: &str, url: &str| {
        let request = Request::builder().method(method).uri(url).body(empty()).unwrap();
        gateway.h1().await.fetch(request).await
    };
    assert_eq!(send("HEAD", "http://x.test/x").await.status, 200);
    assert_eq!(send("PUT", "http://x.test/x").await.text(), "write");
    let refused = send("POST", "http://x.test/x").await;
    refused.is_rejected(405, "method_not_allowed");
    let mut allowed: Vec<_> = refused.header("allow").split(", ").collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET", "HEAD", "PUT"]);
    send("POST", "http://x.test/y").await.is_rejected(404, "no_route");
}

#[tokio::test]
async fn client_networks_are_conditions() {
    let routes = document(&[
        ("outside", ""),
        ("loopback", "from = \"127.0.0.0/8\""),
        ("office", "from = [\"203.0.113.0/24\"]"),
        ("one", "from = [\"203.0.113.7\"]"),
    ]);
    let gateway = Gateway::with(&routes, |settings| {
        settings.set("trust.forwarded_from", "127.0.0.1");
    })
    .await;
    for (forwarded, route) in [
        (None, "loopback"),
        (Some("203.0.113.9"), "office"),
        (Some("203.0.113.7"), "one"),
        (Some("198.51.100.1"), "outside"),
    ] {
        let mut request = Request::get("http://x.test/");
        if let Some(client) = forwarded {
            request = request.header("x-forwarded-for", client);
        }
        assert_eq!(gateway.h1().await.fetch(request.body(empty()).unwrap()).await.text(), route, "{forwarded:?}");
    }
}

#[tokio::test]
async fn routes_answer_on_public_listeners_unless_they_say_otherwise() {
    let routes = document(&[("outside", ""), ("inside", "listen = \"internal\", path = \"/metrics\"")]);
    let gateway = Gateway::with(&routes, |settings| {
        settings.listen("name = \"internal\"\nprotocol = \"http\"\npublic = false");
    })
    .await;
    let internal = gateway.address("internal");
    assert_eq!(get(internal, "http://x.test/metrics").await.text(), "inside");
    get(internal, "http://x.test/").await.is_rejected(404, "no_route");
    assert_eq!(gateway.get("http://x.test/metrics").await.text(), "outside");
}

#[tokio::test]
async fn a_host_outside_the_certificate_is_misdirected() {
    let gateway = Gateway::start(&document(&[("any", "")])).await;
    for alpn in [&["h2"][..], &["http/1.1"]] {
        let mut client = gateway.tls("app.test", alpn).await;
        assert_eq!(client.get("https://app.test/").await.text(), "any");
        client.get("https://elsewhere.test/").await.is_rejected(421, "misdirected");
        assert_eq!(client.get("https://app.test/").await.text(), "any");
    }
}

#[tokio::test]
async fn both_versions_take_the_same_route() {
    let gateway =
        Gateway::start(&document(&[("users", "host = \"x.test\", path = \"/u/{id}\""), ("rest", "host = \"x.test\"")]))
            .await;
    for mut client in [gateway.h1().await, Client::h2c(gateway.address("h2c")).await] {
        for (url, route) in
            [("http://x.test/u/7", "users"), ("http://x.test/u", "rest"), ("http://X.TEST//u/7", "users")]
        {
            assert_eq!(client.get(url).await.text(), route, "{url}");
        }
    }
}
