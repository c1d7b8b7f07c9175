//! What a gateway tells: health, metrics, the admin listener, the access log, traces.

use http::{Request, Response};
use serde_json::{Value, json};

use crate::kit::collector::Collector;
use crate::kit::{Client, Gateway, Origin, Raw, Reply, empty, full, get, routes};

async fn hello() -> (Origin, Gateway) {
    let origin = Origin::text("hello");
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    (origin, gateway)
}

#[tokio::test]
async fn the_health_listener_answers_three_things() {
    let (_origin, gateway) = hello().await;
    assert_eq!(gateway.health("/health").await.status, 200);
    let ready = gateway.health("/ready").await;
    assert_eq!(ready.status, 200);
    assert!(ready.json().is_object(), "the body says more: {ready:?}");
    assert!(gateway.health("/metrics").await.header("content-type").starts_with("text/plain"));
    for path in ["/config", "/routes", "/upstreams", "/explain", "/tap", "/", "/metrics/x"] {
        assert_eq!(gateway.health(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn metrics_are_named_by_one_rule_and_documented() {
    let (_origin, gateway) = hello().await;
    gateway.get("http://app.test/").await;
    let metrics = gateway.metrics().await;
    let documented = include_str!("../../docs/metrics.md");
    for name in metrics.names() {
        assert!(name.starts_with("tollgate_"), "{name}");
        let family = name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        assert!(documented.contains(family), "docs/metrics.md lacks {family}");
    }
}

#[tokio::test]
async fn labels_never_come_from_clients() {
    let (_origin, gateway) = hello().await;
    for number in 0..20 {
        gateway.get(&format!("http://marker-{number}.test/marker-{number}?marker={number}")).await;
    }
    let mut client = Raw::connect(gateway.http()).await;
    client.send("MARKER / HTTP/1.1\r\nHost: marker.test\r\n\r\n").await;
    client.answer().await;
    let text = gateway.health("/metrics").await.text().to_lowercase();
    assert!(!text.contains("marker"), "{text}");
}

#[tokio::test]
async fn the_admin_listener_shows_routes_upstreams_and_config() {
    let (origin, gateway) = hello().await;
    gateway.get("http://app.test/").await;
    let routes = gateway.admin("/routes").await.json().to_string();
    assert!(routes.contains("\"all\"") && routes.contains("\"upstream origin\""), "{routes}");
    let upstream = gateway.upstream("origin").await.to_string();
    assert!(upstream.contains(&origin.address().to_string()), "{upstream}");
    let config = gateway.config().await;
    assert_eq!((&config["routes"], &config["upstreams"], &config["serving"]), (&1.into(), &1.into(), &"source".into()));
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(gateway.admin(path).await.status, 200, "{path}");
    }
    assert_eq!(gateway.admin("/nothing").await.status, 404);
}

#[tokio::test]
async fn a_live_explanation_names_the_route_and_the_losers() {
    let document = "[[route]]\nname = \"api\"\nmatch = { path = \"/api/*\", method = \"GET\" }\nrespond = { body = \"x\" }\n\
                    [[route]]\nname = \"rest\"\nrespond = { body = \"x\" }\n";
    let gateway = Gateway::start(document).await;
    let reply = gateway.explain(json!({ "method": "GET", "url": "http://app.test/api/x" })).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let told = reply.json();
    assert_eq!(told["outcome"]["route"], "api", "{told}");
    assert!(told.to_string().contains("rest"), "why every other one lost: {told}");
    let wrong = gateway.explain(json!({ "method": "GET" })).await;
    assert!(wrong.status.is_client_error(), "{wrong:?}");
}

async fn admin_with(gateway: &Gateway, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::get("http://127.0.0.1/config");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Client::h1(gateway.address("admin")).await.fetch(request.body(empty()).unwrap()).await
}

#[tokio::test]
async fn the_admin_listener_refuses_foreign_pages() {
    let (_origin, gateway) = hello().await;
    for headers in [
        &[("host", "evil.test")][..],
        &[("host", "127.0.0.1.evil.test")],
        &[("origin", "https://evil.test")],
        &[("origin", "null")],
    ] {
        let reply = admin_with(&gateway, headers).await;
        assert!(reply.status.is_client_error(), "{headers:?}: {reply:?}");
    }
    assert_eq!(admin_with(&gateway, &[("host", "localhost:9090")]).await.status, 200);
    assert_eq!(admin_with(&gateway, &[("host", "[::1]")]).await.status, 200);
}

#[tokio::test]
async fn a_token_is_asked_for_where_one_is_set() {
    let origin = Origin::text("hello");
    let gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("admin.token", "s3cret-token");
    })
    .await;
    for headers in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "s3cret-token")]] {
        let reply = admin_with(&gateway, headers).await;
        assert_eq!(reply.status, 401, "{headers:?}");
        assert!(!reply.text().contains("s3cret"));
    }
    assert_eq!(admin_with(&gateway, &[("authorization", "Bearer s3cret-token")]).await.status, 200);
    assert!(!gateway.log().contains("s3cret"));
}

#[tokio::test]
async fn an_access_line_tells_the_whole_request() {
    let (origin, gateway) = hello().await;
    let revision = gateway.revision().await;
    let request = Request::post("http://App.Test:80/path%7e?token=abc&x=1").header("user-agent", "tests");
    let mut client = gateway.h1().await;
    client.get("http://app.test/first").await;
    client.fetch(request.body(full("12345")).unwrap()).await;
    let line = gateway.access_line(|line| line["path"] == "/path~").await;
    for (field, value) in [
        ("route", json!("all")),
        ("revision", json!(revision)),
        ("client", json!("127.0.0.1")),
        ("listener", json!("http")),
        ("method", json!("POST")),
        ("scheme", json!("http")),
        ("host", json!("app.test")),
        ("query", json!("token=***&x=1")),
        ("protocol", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("code", Value::Null),
        ("bytes_in", json!(5)),
        ("bytes_out", json!(5)),
        ("upstream", json!("origin")),
        ("endpoint", json!(origin.address().to_string())),
        ("attempts", json!(1)),
        ("reused", json!(true)),
        ("upstream_reused", json!(true)),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(line["total_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    assert!(line["upstream_head_ms"].as_f64().is_some(), "{line}");
    assert!(line["time"].as_str().is_some_and(|time| time.starts_with("20")), "{line}");
}

#[tokio::test]
async fn tls_and_http2_are_told() {
    let (_origin, gateway) = hello().await;
    gateway.tls("app.test", &["h2"]).await.get("https://app.test/secure").await;
    let line = gateway.access_line(|line| line["path"] == "/secure").await;
    assert_eq!(
        (&line["tls"], &line["protocol"], &line["scheme"]),
        (&json!("TLSv1.3"), &json!("HTTP/2"), &json!("https"))
    );
}

#[tokio::test]
async fn refusals_before_routing_are_told_too() {
    let (_origin, gateway) = hello().await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 400);
    let line = gateway.access_line(|line| line["code"] == "bad_request").await;
    assert_eq!(
        (&line["status"], &line["client"], &line["listener"]),
        (&json!(400), &json!("127.0.0.1"), &json!("http"))
    );
    assert!(line["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{line}");
}

#[tokio::test]
async fn secrets_of_clients_are_in_no_log() {
    let (_origin, gateway) = hello().await;
    let request = Request::get("http://app.test/?access_token=SECRETQ&ok=1")
        .header("authorization", "Bearer SECRETA")
        .header("cookie", "session=SECRETC")
        .header("proxy-authorization", "Basic SECRETP");
    gateway.h1().await.fetch(request.body(empty()).unwrap()).await;
    gateway.access_line(|line| line["path"] == "/").await;
    let access = std::fs::read_to_string(gateway.directory().join("access.log")).unwrap();
    assert!(!access.contains("SECRET") && !gateway.log().contains("SECRET"), "{access}");
}

#[tokio::test]
async fn a_line_feed_in_a_request_is_one_line_in_the_log() {
    let (_origin, gateway) = hello().await;
    gateway.get("http://app.test/a%0a%22forged%22?b=%0d%0a").await;
    eventually!(!gateway.access().is_empty());
    assert_eq!(gateway.access().len(), 1);
}

#[tokio::test]
async fn usr1_opens_the_access_log_again() {
    let (_origin, gateway) = hello().await;
    gateway.get("http://app.test/before").await;
    gateway.access_line(|line| line["path"] == "/before").await;
    let rotated = gateway.directory().join("access.log.1");
    std::fs::rename(gateway.directory().join("access.log"), &rotated).unwrap();
    gateway.signal(rustix::process::Signal::USR1);
    eventually!({
        gateway.get("http://app.test/after").await;
        gateway.access().iter().any(|line| line["path"] == "/after")
    });
    assert!(std::fs::read_to_string(rotated).unwrap().contains("/before"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn traced() -> (Collector, Origin, Gateway) {
    let (collector, origin) = (Collector::start(), Origin::text("hello"));
    let gateway = Gateway::with(&routes::all_to(origin.address()), |settings| {
        settings.set("traces.endpoint", collector.endpoint()).set("traces.sample_percent", 100);
    })
    .await;
    (collector, origin, gateway)
}

/// A span that nobody records would break the trace, and a decision of ours would keep services from sampling.
#[tokio::test]
async fn without_traces_the_clients_context_passes_through() {
    let (origin, gateway) = hello().await;
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::get("http://app.test/").header("traceparent", given).header("tracestate", "vendor=1");
    gateway.h1().await.fetch(request.body(empty()).unwrap()).await;
    assert_eq!(
        (origin.last().header("traceparent"), origin.last().header("tracestate")),
        (given.into(), "vendor=1".into())
    );
    gateway.access_line(|line| line["trace_id"] == "0af7651916cd43dd8448eb211c80319c").await;
    gateway.get("http://app.test/").await;
    assert_eq!(origin.last().header("traceparent"), "");
}

#[tokio::test]
async fn a_trace_is_carried_on() {
    let (collector, origin, gateway) = traced().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = Request::get("http://app.test/")
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .header("tracestate", "vendor=1");
    gateway.h1().await.fetch(request.body(empty()).unwrap()).await;
    let seen = origin.last();
    let parent = seen.header("traceparent");
    assert!(parent.starts_with(&format!("00-{trace}-")) && parent.ends_with("-01"), "{parent}");
    assert!(!parent.contains("b7ad6b7169203331"), "a span of our own stands between: {parent}");
    assert_eq!(seen.header("tracestate"), "vendor=1");
    let line = gateway.access_line(|line| line["trace_id"] == trace).await;
    // The upstream is asked by the span of the attempt, whose parent is the one in the log.
    let attempt = eventually!(collector.spans().into_iter().find(|span| parent.contains(&hex(&span.span_id))));
    assert_eq!(line["span_id"], hex(&attempt.parent_span_id));
}

#[tokio::test]
async fn without_a_usable_one_a_trace_begins() {
    let (_collector, origin, gateway) = traced().await;
    for given in [None, Some("nonsense"), Some("00-00000000000000000000000000000000-b7ad6b7169203331-01")] {
        let mut request = Request::get("http://app.test/").header("tracestate", "vendor=1");
        if let Some(given) = given {
            request = request.header("traceparent", given);
        }
        gateway.h1().await.fetch(request.body(empty()).unwrap()).await;
        let parent = origin.last().header("traceparent");
        let parts: Vec<_> = parent.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2], "{given:?}: {parent}");
        assert!(!parent.contains("0000000000000000"), "{given:?}: {parent}");
        assert_eq!(origin.last().header("tracestate"), "", "it belongs to a trace that was not taken up");
    }
}

#[tokio::test]
async fn spans_reach_a_collector() {
    let (collector, origin, gateway) = traced().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = Request::get("http://app.test/path").header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    gateway.h1().await.fetch(request.body(empty()).unwrap()).await;
    let span = eventually!(collector.spans().into_iter().find(|span| hex(&span.parent_span_id) == "b7ad6b7169203331"));
    assert_eq!(hex(&span.trace_id), trace);
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    let attributes = format!("{:?}", span.attributes);
    for told in ["GET", "/path", "200", "all"] {
        assert!(attributes.contains(told) || span.name.contains(told), "no {told}: {span:?}");
    }
    // What goes upstream is a child of ours.
    let sent = origin.last().header("traceparent");
    eventually!(collector.spans().iter().any(|span| sent.contains(&hex(&span.span_id))));
}

#[tokio::test]
async fn a_client_that_does_not_sample_is_heard() {
    let (collector, origin, gateway) = traced().await;
    let send = async |parent: &str| {
        let request = Request::get("http://app.test/").header("traceparent", parent).body(empty()).unwrap();
        gateway.h1().await.fetch(request).await
    };
    send("00-11111111111111111111111111111111-b7ad6b7169203331-00").await;
    assert!(origin.last().header("traceparent").ends_with("-00"));
    send("00-22222222222222222222222222222222-b7ad6b7169203331-01").await;
    // The second one has arrived: the first, were it sent, would be there.
    eventually!(collector.spans().iter().any(|span| span.trace_id == [0x22; 16]));
    assert!(!collector.spans().iter().any(|span| span.trace_id == [0x11; 16]));
}

#[tokio::test]
async fn the_tap_shows_live_requests() {
    let (_origin, gateway) = hello().await;
    let mut tap = Client::h1(gateway.address("admin")).await;
    let request = Request::get("http://127.0.0.1/tap").body(empty()).unwrap();
    let response: Response<_> = tap.send(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    get(gateway.http(), "http://app.test/tapped?token=SECRET").await;
    let mut text = String::new();
    while !text.contains("/tapped") {
        let frame = crate::kit::within("an event", http_body_util::BodyExt::frame(&mut body)).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    assert!(text.contains("data:") && !text.contains("SECRET"), "{text}");
}
