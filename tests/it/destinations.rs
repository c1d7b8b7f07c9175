//! Where a route leads: upstream, split, redirect, a fixed answer, and a mirror beside any of them.

use std::sync::Arc;

use http::{Request, Response};
use tokio::sync::Notify;

use crate::kit::{Gateway, Origin, Port, Reply, empty, full, routes};

fn split(first: &Origin, second: &Origin, weights: [u32; 2], more: &str) -> String {
    format!(
        r#"
        [upstream.first]
        address = "{}"
        [upstream.second]
        address = "{}"
        [[route]]
        name = "all"
        split = [{{ upstream = "first", weight = {} }}, {{ upstream = "second", weight = {} }}]
        {more}
        "#,
        first.address(),
        second.address(),
        weights[0],
        weights[1]
    )
}

async fn ask(gateway: &Gateway, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::get("http://app.test/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway.h1().await.fetch(request.body(empty()).unwrap()).await
}

#[tokio::test]
async fn a_split_follows_its_weights() {
    let (first, second) = (Origin::text("first"), Origin::text("second"));
    let gateway = Gateway::start(&split(&first, &second, [4, 1], "")).await;
    let mut client = gateway.h1().await;
    for _ in 0..500 {
        assert_eq!(client.get("http://app.test/").await.status, 200);
    }
    // 100 expected, standard deviation 9: seven of them on either side.
    assert!((40..160).contains(&second.count()), "{}", second.count());
    assert_eq!(first.count() + second.count(), 500);
}

#[tokio::test]
async fn a_share_without_weight_gets_nothing() {
    let (first, second) = (Origin::text("first"), Origin::text("second"));
    let gateway = Gateway::start(&split(&first, &second, [1, 0], "")).await;
    let mut client = gateway.h1().await;
    for _ in 0..100 {
        client.get("http://app.test/").await;
    }
    assert_eq!((first.count(), second.count()), (100, 0));
}

#[tokio::test]
async fn a_cookie_keeps_a_client_on_its_share() {
    let (first, second) = (Origin::text("first"), Origin::text("second"));
    let gateway = Gateway::start(&split(&first, &second, [1, 1], "split_by = { cookie = \"share\" }")).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let reply = ask(&gateway, &[]).await;
        let cookie = reply.header("set-cookie").split(';').next().unwrap().to_owned();
        assert!(cookie.starts_with("share="), "{reply:?}");
        for _ in 0..5 {
            let again = ask(&gateway, &[("cookie", &cookie)]).await;
            assert_eq!(again.text(), reply.text());
            assert_eq!(again.header("set-cookie"), "", "the cookie is set once");
        }
        seen.insert(reply.text().to_owned());
    }
    assert_eq!(seen.len(), 2, "both shares are used");
}

#[tokio::test]
async fn a_cookie_nobody_issued_is_replaced() {
    let (first, second) = (Origin::text("first"), Origin::text("second"));
    let gateway = Gateway::start(&split(&first, &second, [1, 1], "split_by = { cookie = \"share\" }")).await;
    let reply = ask(&gateway, &[("cookie", "share=somewhere")]).await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("set-cookie").starts_with("share="), "{reply:?}");
}

#[tokio::test]
async fn a_fact_keeps_a_client_on_its_share() {
    let (first, second) = (Origin::text("first"), Origin::text("second"));
    let gateway = Gateway::start(&split(&first, &second, [1, 1], "split_by = { fact = \"header.x-user\" }")).await;
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..20 {
        let user = format!("user-{user}");
        let one = ask(&gateway, &[("x-user", &user)]).await;
        let two = ask(&gateway, &[("x-user", &user)]).await;
        assert_eq!(one.text(), two.text(), "{user}");
        seen.insert(one.text().to_owned());
    }
    assert_eq!(seen.len(), 2, "both shares are used");
    assert_eq!(ask(&gateway, &[]).await.status, 200);
}

#[tokio::test]
async fn redirects_are_templates() {
    let gateway = Gateway::start(
        r#"
        [[route]]
        name = "secure"
        match = { path = "/*" }
        redirect = { to = "https://{request.host}{request.path_and_query}" }
        [[route]]
        name = "moved"
        match = { path = "/old/{id}" }
        redirect = { to = "/new/{path.id}", status = 301 }
        "#,
    )
    .await;
    for (url, status, location) in [
        ("http://app.test/a/b?c=d", 308, "https://app.test/a/b?c=d"),
        ("http://app.test:8080/a", 308, "https://app.test/a"),
        ("http://app.test/old/7?x", 301, "/new/7"),
    ] {
        let reply = gateway.get(url).await;
        assert_eq!((reply.status.as_u16(), reply.header("location")), (status, location), "{url}");
    }
}

#[tokio::test]
async fn a_redirect_cannot_be_made_to_split_the_head() {
    let gateway = Gateway::start(
        "[[route]]\nname = \"q\"\nmatch = { path = \"/go\" }\nredirect = { to = \"https://x.test/{query.next}\" }\n",
    )
    .await;
    let reply = gateway.get("http://app.test/go?next=a%0d%0aset-cookie:%20x=y").await;
    assert_eq!(reply.header("set-cookie"), "");
    assert!(!reply.header("location").contains(['\r', '\n']), "{reply:?}");
}

#[tokio::test]
async fn fixed_answers_have_status_type_and_facts() {
    let gateway = Gateway::start(
        r#"
        [[route]]
        name = "gone"
        respond = { status = 410, body = "<p>{request.path} is {{gone}}</p>", content_type = "text/html" }
        "#,
    )
    .await;
    for mut client in [gateway.h1().await, gateway.h2c().await] {
        let reply = client.get("http://app.test/page").await;
        let shown = (reply.status.as_u16(), reply.text(), reply.header("content-type"));
        assert_eq!(shown, (410, "<p>/page is {gone}</p>", "text/html"));
        let head = client.fetch(Request::head("http://app.test/page").body(empty()).unwrap()).await;
        assert_eq!((head.status.as_u16(), head.text()), (410, ""));
        assert_eq!(client.fetch(Request::post("http://app.test/page").body(full("body")).unwrap()).await.status, 410);
    }
}

fn mirrored(origin: &Origin, mirror: std::net::SocketAddr, words: &str) -> String {
    let route = format!("mirror = {{ upstream = \"copy\"{words} }}\n[upstream.copy]\naddress = \"{mirror}\"");
    routes::with(origin.address(), "", &route)
}

#[tokio::test]
async fn a_mirror_gets_the_request_and_the_client_does_not_notice() {
    let (origin, copy) = (Origin::text("same"), Origin::text("same"));
    let gateway = Gateway::start(&mirrored(&origin, copy.address(), "")).await;
    let request = Request::post("http://app.test/path?q=1").header("x-mine", "yes").body(full("the body")).unwrap();
    assert_eq!(gateway.h1().await.fetch(request).await.text(), "same");
    eventually!(copy.count() == 1 && copy.last().body == "the body");
    let (seen, other) = (copy.last(), origin.last());
    assert_eq!((seen.method.as_str(), seen.target(), seen.header("x-mine")), ("POST", "/path?q=1", "yes".to_owned()));
    assert_eq!(seen.header("host"), other.header("host"));
    eventually!(gateway.metric("tollgate_mirrors_total{route=\"all\",result=\"same\"}").await == 1.0);
}

#[tokio::test]
async fn differences_between_mirror_and_answer_are_counted() {
    let origin = Origin::replying(|_| Response::builder().header("x-shape", "round").body(full("one")).unwrap());
    let copy = Origin::replying(|seen| {
        let status = if seen.target() == "/status" { 500 } else { 200 };
        let shape = if seen.target() == "/header" { "square" } else { "round" };
        let body = if seen.target() == "/body" { "two" } else { "one" };
        Response::builder().status(status).header("x-shape", shape).body(full(body)).unwrap()
    });
    let gateway = Gateway::start(&mirrored(&origin, copy.address(), ", compare_headers = [\"x-shape\"]")).await;
    for (path, result) in
        [("/status", "status_differs"), ("/header", "headers_differ"), ("/body", "body_differs"), ("/", "same")]
    {
        let reply = gateway.get(&format!("http://app.test{path}")).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "one"));
        let query = format!("tollgate_mirrors_total{{result=\"{result}\"}}");
        eventually!(gateway.metric(&query).await == 1.0);
    }
}

#[tokio::test]
async fn a_slow_or_dead_mirror_neither_slows_nor_fails_the_request() {
    let never = Arc::new(Notify::new());
    let gate = never.clone();
    let slow = Origin::scripted(move |_| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Ok(Response::new(empty()))
        }
    });
    let (origin, dead) = (Origin::text("answer"), Port::free());
    for mirror in [slow.address(), dead.address()] {
        let words = ", timeout = \"300ms\", in_flight = 5";
        let gateway = Gateway::start(&mirrored(&origin, mirror, words)).await;
        let mut client = gateway.h1().await;
        for _ in 0..20 {
            assert_eq!(client.get("http://app.test/").await.text(), "answer");
        }
        eventually!(gateway.metric("tollgate_mirrors_total{result=\"failed\"}").await >= 1.0);
        let total = async || gateway.metric("tollgate_mirrors_total{route=\"all\"}").await;
        eventually!(total().await == 20.0);
    }
}

#[tokio::test]
async fn long_bodies_and_other_percentages_are_not_copied() {
    let (origin, copy) = (Origin::text("answer"), Origin::text("answer"));
    let gateway = Gateway::start(&mirrored(&origin, copy.address(), ", body_max = \"1KiB\"")).await;
    let long = Request::post("http://app.test/").body(full(vec![b'x'; 2_000])).unwrap();
    assert_eq!(gateway.h1().await.fetch(long).await.text(), "answer");
    eventually!(gateway.metric("tollgate_mirrors_total{result=\"skipped\"}").await == 1.0);
    assert_eq!(origin.last().body.len(), 2_000);
    assert_eq!(copy.seen().iter().filter(|seen| seen.body.len() > 1_024).count(), 0);
    gateway.change(&mirrored(&origin, copy.address(), ", percent = 0")).await;
    let before = copy.count();
    for _ in 0..20 {
        assert_eq!(gateway.get("http://app.test/").await.text(), "answer");
    }
    gateway.change(&mirrored(&origin, copy.address(), "")).await;
    gateway.get("http://app.test/last").await;
    // The copy of the last request is there: those of earlier ones would be too.
    eventually!(copy.count() > before && copy.last().target() == "/last");
    assert_eq!(copy.count(), before + 1);
}
