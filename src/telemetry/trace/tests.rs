//! Spans, decoded at a collector that the test runs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode as SpanStatus};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::rejection::Code;
use crate::settings::Traces;
use crate::telemetry::access::{Durations, Entry, Redact};
use crate::telemetry::metrics::{Count, Failure};

const PATIENCE: Duration = Duration::from_secs(10);

/// A collector that answers with `status` and hands over what it got.
async fn collector(status: StatusCode) -> (SocketAddr, mpsc::UnboundedReceiver<Request<Bytes>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (got, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let got = got.clone();
            let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                let got = got.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    got.send(Request::from_parts(head, body)).unwrap();
                    let mut response = Response::new(Full::<Bytes>::default());
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    (address, requests)
}

fn tracer(address: SocketAddr, sample_percent: f64) -> (Tracer, Count) {
    let settings = Traces { endpoint: format!("http://{address}/v1/traces"), sample_percent };
    let origin = Origin { name: "edge", region: Some("fra") };
    let dropped = Count::default();
    let (tracer, sending) = Tracer::new(&settings, origin, Redact::new(["token"]), dropped.clone()).unwrap();
    tokio::spawn(sending);
    (tracer, dropped)
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    })
}

#[track_caller]
fn check(span: &Span, expect: &[(&str, &str)]) {
    for (name, value) in expect {
        assert_eq!(attribute(&span.attributes, name).as_deref(), Some(*value), "{name}");
    }
}

#[tokio::test]
async fn a_request_and_its_attempts_reach_the_collector() {
    let (address, mut requests) = collector(StatusCode::OK).await;
    let (tracer, dropped) = tracer(address, 0.0);
    let begun = tracer.begin(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    let entry = Entry {
        at: UNIX_EPOCH + Duration::from_secs(1_000),
        request_id: "r1",
        trace: Some(begun.context),
        route: "api",
        listener: "public",
        client: Some("203.0.113.7".parse().unwrap()),
        method: "GET",
        scheme: "https",
        host: "example.com",
        path: "/api/x",
        query: Some("a=1&token=secret"),
        protocol: "HTTP/1.1",
        status: 502,
        code: Some(Code::UpstreamReset),
        upstream: Some("pocketbase"),
        durations: Durations { total: Duration::from_secs(2), ..Durations::default() },
        ..Entry::default()
    };
    let attempt = |id: u64, began: u64, status, failure| Attempt {
        span_id: id.to_be_bytes(),
        began: Duration::from_millis(began),
        took: Duration::from_millis(10),
        endpoint: "127.0.0.1:8090".parse().unwrap(),
        status,
        failure,
    };
    let attempts = [attempt(1, 5, 0, Some(Failure::Reset)), attempt(2, 20, 200, None)];
    tracer.record(&SpanRecord { entry: &entry, parent: begun.parent, attempts: &attempts });
    assert!(tracer.flush(PATIENCE).await);
    assert_eq!(dropped.value(), 0);

    let request = requests.recv().await.unwrap();
    assert_eq!(request.uri(), "/v1/traces");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    assert_eq!(request.headers()["host"], address.to_string());
    let sent = ExportTraceServiceRequest::decode(request.into_body()).unwrap();
    let [resource] = &sent.resource_spans[..] else { panic!("{sent:?}") };
    let of_resource = &resource.resource.as_ref().unwrap().attributes;
    assert_eq!(attribute(of_resource, "service.name").as_deref(), Some("edge"));
    assert_eq!(attribute(of_resource, "cloud.region").as_deref(), Some("fra"));

    let [server, first, second] = &resource.scope_spans[0].spans[..] else { panic!("{sent:?}") };
    let trace_id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
    for span in [server, first, second] {
        assert_eq!(span.trace_id, trace_id);
    }
    assert_eq!((&*server.name, server.kind()), ("GET api", SpanKind::Server));
    assert_eq!(server.span_id, begun.context.span_id);
    assert_eq!(server.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!((server.start_time_unix_nano, server.end_time_unix_nano), (998_000_000_000, 1_000_000_000_000));
    assert_eq!(server.status.as_ref().unwrap().code(), SpanStatus::Error);
    check(
        server,
        &[
            ("http.request.method", "GET"),
            ("http.response.status_code", "502"),
            ("url.scheme", "https"),
            ("url.path", "/api/x"),
            ("url.query", "a=1&token=***"),
            ("server.address", "example.com"),
            ("client.address", "203.0.113.7"),
            ("network.protocol.version", "1.1"),
            ("error.type", "upstream_reset"),
            ("tollgate.route", "api"),
            ("tollgate.code", "upstream_reset"),
            ("tollgate.request_id", "r1"),
        ],
    );
    for (span, id) in [(first, 1_u64), (second, 2)] {
        assert_eq!((&*span.name, span.kind()), ("GET", SpanKind::Client));
        assert_eq!(span.span_id, id.to_be_bytes());
        assert_eq!(span.parent_span_id, server.span_id);
        check(span, &[("server.port", "8090"), ("tollgate.upstream", "pocketbase")]);
    }
    assert_eq!(first.start_time_unix_nano, 998_005_000_000);
    assert_eq!(first.end_time_unix_nano, 998_015_000_000);
    check(first, &[("error.type", "reset")]);
    check(second, &[("http.request.resend_count", "1"), ("http.response.status_code", "200")]);
    assert_eq!(attribute(&second.attributes, "error.type"), None);
}

#[tokio::test]
async fn the_clients_decision_is_kept_and_ours_follows_the_percentage() {
    let (address, mut requests) = collector(StatusCode::OK).await;
    let (never, _) = tracer(address, 0.0);
    let (always, _) = tracer(address, 100.0);
    for _ in 0..100 {
        assert!(!never.begin(None).context.sampled);
        assert!(always.begin(Some("nonsense")).context.sampled);
    }
    let refused = always.begin(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"));
    assert!(!refused.context.sampled);
    let entry = Entry { trace: Some(refused.context), ..Entry::default() };
    always.record(&SpanRecord { entry: &entry, parent: refused.parent, attempts: &[] });
    assert!(always.flush(PATIENCE).await);
    assert!(requests.try_recv().is_err(), "nothing is sent of an unsampled request");

    let begun = always.begin(None);
    let entry = Entry { method: "BREW", status: 200, trace: Some(begun.context), ..Entry::default() };
    always.record(&SpanRecord { entry: &entry, parent: begun.parent, attempts: &[] });
    assert!(always.flush(PATIENCE).await);
    let sent = ExportTraceServiceRequest::decode(requests.recv().await.unwrap().into_body()).unwrap();
    let span = &sent.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((&*span.name, span.parent_span_id.len()), ("HTTP", 0));
    check(span, &[("http.request.method", "_OTHER"), ("http.request.method_original", "BREW")]);
}

fn sampled(tracer: &Tracer) {
    let entry = Entry { trace: Some(TraceContext::begin(true)), ..Entry::default() };
    tracer.record(&SpanRecord { entry: &entry, parent: None, attempts: &[] });
}

#[tokio::test]
async fn spans_a_collector_refuses_are_counted() {
    let (address, mut requests) = collector(StatusCode::BAD_REQUEST).await;
    let (tracer, dropped) = tracer(address, 100.0);
    sampled(&tracer);
    sampled(&tracer);
    assert!(tracer.flush(PATIENCE).await);
    assert!(requests.recv().await.is_some());
    assert_eq!(dropped.value(), 2);
}

#[tokio::test]
async fn a_queue_that_is_full_drops_and_counts() {
    let settings = Traces { endpoint: "http://127.0.0.1:9/v1/traces".to_owned(), sample_percent: 100.0 };
    let dropped = Count::default();
    let origin = Origin { name: "edge", region: None };
    let (tracer, _sending) = Tracer::new(&settings, origin, Redact::default(), dropped.clone()).unwrap();
    for _ in 0..5_000 {
        sampled(&tracer);
    }
    assert_eq!(dropped.value(), 5_000 - 2_048);
    assert!(!tracer.flush(Duration::from_millis(1)).await);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_used_is_an_error() {
    for endpoint in ["collector:4318", "ftp://collector/", "/v1/traces", "http://"] {
        let settings = Traces { endpoint: endpoint.to_owned(), sample_percent: 1.0 };
        let origin = Origin { name: "edge", region: None };
        assert!(Tracer::new(&settings, origin, Redact::default(), Count::default()).is_err(), "{endpoint}");
    }
}
