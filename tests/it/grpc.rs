//! gRPC of all four kinds, trailers included, and the answers of the gateway in its terms.

use crate::kit::grpc::{Messages, call, message, origin};
use crate::kit::{Client, Gateway, Origin, Port, channel, full, routes};

async fn echo() -> (Origin, Gateway) {
    let origin = origin();
    let gateway = Gateway::start(&routes::with(origin.address(), "protocol = \"h2\"", "")).await;
    (origin, gateway)
}

async fn both(gateway: &Gateway) -> [Client; 2] {
    [gateway.h2c().await, gateway.tls("app.test", &["h2"]).await]
}

async fn start(client: &mut Client, method: &str, body: crate::kit::Body, tls: bool) -> Messages {
    let mut request = call(method, body);
    if tls {
        *request.uri_mut() = format!("https://app.test/test.Echo/{method}").parse().unwrap();
    }
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    Messages::of(response.into_body())
}

#[tokio::test]
async fn unary_calls_end_with_trailers() {
    let (origin, gateway) = echo().await;
    for (mut client, tls) in both(&gateway).await.into_iter().zip([false, true]) {
        let mut answer = start(&mut client, "Unary", full(message("hello")), tls).await;
        assert_eq!(answer.all().await, ["hello"]);
        assert_eq!((answer.status(), &answer.trailers["x-trailer"]), ("0", &"of-the-origin".parse().unwrap()));
        assert_eq!(origin.last().header("te"), "trailers");
    }
}

#[tokio::test]
async fn a_status_of_the_origin_is_passed_on() {
    let (_origin, gateway) = echo().await;
    let mut answer = start(&mut gateway.h2c().await, "Fail", full(message("x")), false).await;
    assert_eq!(answer.all().await, [""; 0]);
    assert_eq!(answer.status(), "9");
}

#[tokio::test]
async fn client_streams_are_collected() {
    let (_origin, gateway) = echo().await;
    let (feed, body) = channel();
    let sending = tokio::spawn(async move {
        for text in ["a", "b", "c"] {
            feed.data(message(text)).await;
        }
    });
    let mut answer = start(&mut gateway.h2c().await, "Collect", body, false).await;
    sending.await.unwrap();
    assert_eq!(answer.all().await, ["abc"]);
    assert_eq!(answer.status(), "0");
}

#[tokio::test]
async fn server_streams_are_passed_on() {
    let (_origin, gateway) = echo().await;
    let mut answer = start(&mut gateway.h2c().await, "Repeat", full(message("x")), false).await;
    assert_eq!(answer.all().await, ["x", "x", "x"]);
    assert_eq!(answer.status(), "0");
}

#[tokio::test]
async fn both_sides_stream_at_once() {
    let (_origin, gateway) = echo().await;
    for (mut client, tls) in both(&gateway).await.into_iter().zip([false, true]) {
        let (feed, body) = channel();
        feed.data(message("0")).await;
        let mut answer = start(&mut client, "Chat", body, tls).await;
        assert_eq!(answer.next().await.unwrap(), "0");
        for number in 1..5 {
            // Each message is answered before the next one is sent.
            feed.data(message(number.to_string())).await;
            assert_eq!(answer.next().await.unwrap(), number.to_string());
        }
        drop(feed);
        assert_eq!(answer.next().await, None);
        assert_eq!(answer.status(), "0");
    }
}

#[tokio::test]
async fn rejections_speak_grpc() {
    let dead = Port::free();
    let gateway = Gateway::start(&routes::with(
        dead.address(),
        "protocol = \"h2\"",
        "match = { host = \"grpc.test\", path = \"/test.Echo/*\" }",
    ))
    .await;
    let mut client = gateway.h2c().await;
    let unavailable = client.fetch(call("Unary", full(message("x")))).await;
    assert_eq!((unavailable.status.as_u16(), unavailable.header("grpc-status")), (200, "14"), "{unavailable:?}");
    assert!(unavailable.header("content-type").starts_with("application/grpc"), "{unavailable:?}");
    assert!(unavailable.body.is_empty() && unavailable.trailers.is_empty(), "{unavailable:?}");
    let mut lost = call("Unary", full(message("x")));
    *lost.uri_mut() = "http://grpc.test/other.Service/Call".parse().unwrap();
    let lost = client.fetch(lost).await;
    assert_eq!((lost.status.as_u16(), lost.header("grpc-status")), (200, "5"), "{lost:?}");
    let line = gateway.access_line(|line| line["path"] == "/other.Service/Call").await;
    assert_eq!(line["code"], "no_route", "{line}");
}
