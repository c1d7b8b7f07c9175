//! How much: rates and requests at once, as clients, operators and those who change the document see them.

use std::time::Duration;

use http::Request;

use crate::kit::{Client, Gateway, Origin, RawOrigin, Reply, Settings, empty, routes};

/// One route that answers by itself, under the limit `l`.
fn limited(words: &str, route: &str) -> String {
    format!("[limit.l]\n{words}\n{}limits = \"l\"\n{route}\n", routes::answering("in"))
}

async fn with(gateway: &Gateway, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::get("http://app.test/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway.h1().await.fetch(request.body(empty()).unwrap()).await
}

fn trusting(settings: &mut Settings) {
    settings.set("trust.forwarded_from", vec!["127.0.0.1"]);
}

#[tokio::test]
async fn a_limit_says_where_a_client_stands() {
    let gateway = Gateway::start(&limited("rate = \"60/1m\"\nburst = 3", "")).await;
    let first = gateway.get("http://app.test/").await;
    assert_eq!(first.text(), "in");
    assert_eq!((first.header("ratelimit-policy"), first.header("ratelimit")), ("\"l\";q=60;w=60", "\"l\";r=2;t=1"));
    assert_eq!(gateway.get("http://app.test/").await.status, 200);
    let third = gateway.get("http://app.test/").await;
    assert!(third.header("ratelimit").starts_with("\"l\";r=0;t="), "{third:?}");
    let refused = gateway.get("http://app.test/").await;
    refused.is_rejected(429, "limit");
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit")), ("1", "\"l\";r=0;t=1"));
    let line = gateway.access_line(|line| line["code"] == "limit").await;
    assert_eq!((line["cause"].as_str(), line["status"].as_u64()), (Some("limit `l`"), Some(429)));
    let limits = gateway.admin("/limits").await.json();
    assert_eq!((&limits["limits"][0]["name"], &limits["limits"][0]["limited"]), (&"l".into(), &1.into()), "{limits}");
    assert_eq!(gateway.metric("tollgate_limit_requests_total{limit=\"l\",result=\"limited\"}").await, 1.0);
    assert_eq!(gateway.metric("tollgate_limit_requests_total{limit=\"l\",result=\"allowed\"}").await, 3.0);
    // Who comes when it was told to come is let in.
    let began = std::time::Instant::now();
    eventually!(gateway.get("http://app.test/").await.status == 200);
    assert!(began.elapsed() > Duration::from_millis(500));
}

#[tokio::test]
async fn what_was_used_outlives_a_change() {
    let gateway = Gateway::start(&limited("rate = \"1/h\"\nburst = 2", "")).await;
    assert_eq!(gateway.get("http://app.test/").await.status, 200);
    let more = "[[route]]\nname = \"other\"\nmatch = { path = \"/other\" }\nlimits = \"l\"\nrespond = {}";
    gateway.change(&limited("rate = \"1/h\"\nburst = 2", more)).await;
    assert_eq!(gateway.get("http://app.test/other").await.status, 200, "one limit for both routes");
    gateway.get("http://app.test/").await.is_rejected(429, "limit");
    // Under another rule what was used counts as well.
    gateway.change(&limited("rate = \"1/h\"\nburst = 4", "")).await;
    assert_eq!(gateway.get("http://app.test/").await.status, 200);
    assert_eq!(gateway.get("http://app.test/").await.status, 200);
    gateway.get("http://app.test/").await.is_rejected(429, "limit");
}

#[tokio::test]
async fn keys_are_chosen_in_their_order() {
    let words = "rate = \"1/h\"\nburst = 1\nkey = [[\"header.x-tenant\", \"header.x-user\"], [\"header.x-user\"], [\"client.ip\"]]";
    let gateway = Gateway::with(&limited(words, ""), trusting).await;
    let both = [("x-tenant", "a"), ("x-user", "1")];
    assert_eq!(with(&gateway, &both).await.status, 200);
    with(&gateway, &both).await.is_rejected(429, "limit");
    assert_eq!(with(&gateway, &[("x-tenant", "b"), ("x-user", "1")]).await.status, 200);
    assert_eq!(with(&gateway, &[("x-user", "1")]).await.status, 200);
    with(&gateway, &[("x-user", "1")]).await.is_rejected(429, "limit");
    assert_eq!(with(&gateway, &[("x-forwarded-for", "2001:db8::1")]).await.status, 200);
    with(&gateway, &[("x-forwarded-for", "2001:db8::2")]).await.is_rejected(429, "limit");
    assert_eq!(with(&gateway, &[("x-forwarded-for", "2001:db8:1::1")]).await.status, 200);
}

#[tokio::test]
async fn a_dry_run_counts_and_lets_pass() {
    let gateway = Gateway::start(&limited("rate = \"1/h\"\nburst = 1\ndry_run = true", "")).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("http://app.test/").await.status, 200);
    }
    assert_eq!(gateway.metric("tollgate_limit_requests_total{limit=\"l\",result=\"dry_run\"}").await, 2.0);
}

#[tokio::test]
async fn requests_have_their_price() {
    let words = "rate = \"10/h\"\nburst = 10\ncost = { method = { POST = 4 }, header = \"x-cost\" }";
    let gateway = Gateway::start(&limited(words, "")).await;
    let post = Request::post("http://app.test/").body(empty()).unwrap();
    let reply = gateway.h1().await.fetch(post).await;
    assert!(reply.header("ratelimit").starts_with("\"l\";r=6;"), "{reply:?}");
    let reply = with(&gateway, &[("x-cost", "5")]).await;
    assert!(reply.header("ratelimit").starts_with("\"l\";r=1;"), "{reply:?}");
    with(&gateway, &[("x-cost", "5")]).await.is_rejected(429, "limit");
    assert_eq!(with(&gateway, &[("x-cost", "-5")]).await.status, 200);
}

#[tokio::test]
async fn requests_under_way_are_bounded() {
    let silent = RawOrigin::start(|mut connection, _| async move { while connection.message().await.is_some() {} });
    let words = "[limit.l]\nconcurrent = 2\nkey = [\"header.x-user\"]\n";
    let gateway = Gateway::start(&format!("{words}{}", routes::with(silent.address(), "", "limits = \"l\""))).await;
    let address = gateway.http();
    let ask = move |user: &'static str| {
        tokio::spawn(async move {
            let request = Request::get("http://app.test/").header("x-user", user).body(empty()).unwrap();
            Client::h1(address).await.send(request).await
        })
    };
    let held = [ask("a"), ask("a"), ask("b")];
    eventually!(silent.connections() == 3);
    with(&gateway, &[("x-user", "a")]).await.is_rejected(429, "limit");
    for one in held {
        one.abort();
    }
    // Places come back when the clients have gone: somebody waits for the origin again.
    eventually!(tokio::time::timeout(Duration::from_millis(200), with(&gateway, &[("x-user", "a")])).await.is_err());
    assert!(silent.connections() > 3);
}

#[tokio::test]
async fn limits_come_before_proofs_where_they_can() {
    let origin = Origin::text("in");
    let document = format!(
        "[api_keys.a]\nkeys = []\n[limit.each]\nrate = \"2/h\"\nburst = 2\n{}",
        routes::with(origin.address(), "", "limits = \"each\"\nauth = { any = [{ api_key = \"a\" }] }")
    );
    let gateway = Gateway::start(&document).await;
    for _ in 0..2 {
        with(&gateway, &[("x-api-key", "bad")]).await.is_rejected(401, "auth_invalid");
    }
    with(&gateway, &[("x-api-key", "bad")]).await.is_rejected(429, "limit");
}

/// A request that one limit refuses takes nothing of the others.
#[tokio::test]
async fn refused_requests_take_nothing() {
    let words =
        "rate = \"1/h\"\nburst = 5\nkey = []\n[limit.own]\nrate = \"1/h\"\nburst = 1\nkey = [\"header.x-user\"]";
    let document = limited(words, "").replace("limits = \"l\"", "limits = [\"l\", \"own\"]");
    let gateway = Gateway::start(&document).await;
    assert_eq!(with(&gateway, &[("x-user", "a")]).await.status, 200);
    for _ in 0..10 {
        with(&gateway, &[("x-user", "a")]).await.is_rejected(429, "limit");
    }
    for user in ["b", "c", "d", "e"] {
        assert_eq!(with(&gateway, &[("x-user", user)]).await.status, 200, "{user}");
    }
    with(&gateway, &[("x-user", "f")]).await.is_rejected(429, "limit");
}
