//! An OTLP collector: takes traces over HTTP and keeps the spans.

use http::Response;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::{Origin, empty};

pub(crate) struct Collector(Origin);

impl Collector {
    pub(crate) fn start() -> Collector {
        Collector(Origin::replying(|_| {
            Response::builder().header("content-type", "application/x-protobuf").body(empty()).unwrap()
        }))
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/v1/traces", self.0.address())
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let exports = self.0.seen().into_iter().filter(|seen| !seen.body.is_empty());
        let requests = exports.map(|seen| {
            assert_eq!(seen.header("content-type"), "application/x-protobuf");
            ExportTraceServiceRequest::decode(seen.body).unwrap()
        });
        requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }
}
