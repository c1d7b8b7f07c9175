//! What the upstream sees instead of what was asked for.

use crate::kit::{Gateway, Origin, routes};

/// For each URL the target and Host that the origin must see.
async fn sees(words: &str, expected: &[(&str, &str, &str)]) {
    let origin = Origin::text("ok");
    let gateway = Gateway::start(&routes::with(origin.address(), "", words)).await;
    for (url, target, host) in expected {
        assert_eq!(gateway.get(url).await.text(), "ok", "{words}: {url}");
        let seen = origin.last();
        assert_eq!((seen.target(), seen.header("host").as_str()), (*target, *host), "{words}: {url}");
    }
}

#[tokio::test]
async fn without_words_the_request_stays_as_it_was_matched() {
    sees(
        "",
        &[
            ("http://app.test/a/b?c=d&c=e", "/a/b?c=d&c=e", "app.test"),
            ("http://app.test:8080/?", "/?", "app.test:8080"),
            ("http://app.test//a/./b/../c", "/a/c", "app.test"),
            ("http://app.test/%7euser/%c3%a4", "/~user/%C3%A4", "app.test"),
            ("http://app.test/a?q=%2F..%2f", "/a?q=%2F..%2f", "app.test"),
        ],
    )
    .await;
}

#[tokio::test]
async fn prefixes_are_stripped_at_segment_borders() {
    sees(
        "rewrite = { strip_prefix = \"/api\" }",
        &[
            ("http://app.test/api/x?y=1", "/x?y=1", "app.test"),
            ("http://app.test/api", "/", "app.test"),
            ("http://app.test/apix", "/apix", "app.test"),
            ("http://app.test/other", "/other", "app.test"),
        ],
    )
    .await;
}

#[tokio::test]
async fn prefixes_are_replaced() {
    sees(
        "rewrite = { replace_prefix = { from = \"/api\", to = \"/v2/api\" } }",
        &[
            ("http://app.test/api/x", "/v2/api/x", "app.test"),
            ("http://app.test/api?q", "/v2/api?q", "app.test"),
            ("http://app.test/apix", "/apix", "app.test"),
        ],
    )
    .await;
}

#[tokio::test]
async fn paths_and_hosts_are_templates() {
    sees(
        "match = { path = \"/users/{id}/*\" }\n\
         rewrite = { path = \"/people/{path.id}/all/{path.*}\", host = \"{path.id}.internal\" }",
        &[("http://app.test/users/7/posts/1?x=y", "/people/7/all/posts/1?x=y", "7.internal")],
    )
    .await;
}

#[tokio::test]
async fn a_host_that_would_be_none_is_refused() {
    let origin = Origin::text("ok");
    let words = "match = { path = \"/{name}\" }\nrewrite = { host = \"{path.name}.internal\" }";
    let gateway = Gateway::start(&routes::with(origin.address(), "", words)).await;
    assert_eq!(gateway.get("http://app.test/a").await.text(), "ok");
    gateway.get("http://app.test/a%20b").await.is_rejected(400, "bad_request");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn queries_are_edited() {
    sees(
        "rewrite = { query = { remove = [\"debug\"], set = { version = \"2\" }, add = { from = \"{client.ip}\" } } }",
        &[
            ("http://app.test/x", "/x?version=2&from=127.0.0.1", "app.test"),
            ("http://app.test/x?debug=1&a=b", "/x?a=b&version=2&from=127.0.0.1", "app.test"),
            ("http://app.test/x?from=me&version=1&version=0", "/x?from=me&version=2&from=127.0.0.1", "app.test"),
        ],
    )
    .await;
}

#[tokio::test]
async fn values_of_clients_cannot_leave_their_parameter() {
    sees(
        "rewrite = { query = { set = { user = \"{header.host}\", name = \"{query.name}\" } } }",
        &[("http://app.test/x?name=a%26admin%3d1%23", "/x?name=a%26admin%3D1%23&user=app.test", "app.test")],
    )
    .await;
}

#[tokio::test]
async fn http2_upstreams_see_the_rewritten_authority() {
    let origin = Origin::replying_at(crate::kit::Port::free(), crate::kit::origin::Wire::H2, |_| {
        http::Response::new(crate::kit::full("ok"))
    });
    let route = "rewrite = { host = \"inside.test\", strip_prefix = \"/api\" }";
    let gateway = Gateway::start(&routes::with(origin.address(), "protocol = \"h2\"", route)).await;
    for mut client in [gateway.h1().await, gateway.h2c().await] {
        assert_eq!(client.get("http://app.test/api/x").await.text(), "ok");
        let seen = origin.last();
        assert_eq!((seen.uri.authority().unwrap().as_str(), seen.target()), ("inside.test", "/x"));
    }
}
