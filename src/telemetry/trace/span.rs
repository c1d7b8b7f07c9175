//! The spans of a request: one for the request itself, one for each attempt on an endpoint.
//!
//! Attribute names are those of the OpenTelemetry semantic conventions for HTTP; our own begin with `tollgate.`.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::telemetry::access::{Entry, Redact};
use crate::telemetry::metrics::Failure;

/// A request that has ended, as its spans tell it.
#[derive(Clone, Copy, Debug)]
pub struct SpanRecord<'a> {
    /// What the access log says of it; `trace` is the span of the request itself.
    pub entry: &'a Entry<'a>,
    /// The span of the client, if it sent one.
    pub parent: Option<[u8; 8]>,
    pub attempts: &'a [Attempt],
}

/// A request sent to an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// What the endpoint got in `traceparent`.
    pub span_id: [u8; 8],
    /// Since the beginning of the request.
    pub began: Duration,
    pub took: Duration,
    pub endpoint: SocketAddr,
    /// 0 when there was no answer.
    pub status: u16,
    pub failure: Option<Failure>,
}

impl SpanRecord<'_> {
    /// The spans, ready to be sent. None if the request stands in no trace.
    pub(super) fn spans(&self, scope: &InstrumentationScope, redact: &Redact) -> Vec<SpanData> {
        let Some(trace) = self.entry.trace else { return Vec::new() };
        let began = self.entry.at.checked_sub(self.entry.durations.total).unwrap_or(self.entry.at);
        let span = |id: [u8; 8], parent: Option<[u8; 8]>| SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(trace.trace_id),
                SpanId::from_bytes(id),
                if trace.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED },
                false,
                TraceState::NONE,
            ),
            parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: false,
            span_kind: SpanKind::Server,
            name: Cow::Borrowed(""),
            start_time: began,
            end_time: self.entry.at,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: scope.clone(),
        };
        let mut spans = Vec::with_capacity(1 + self.attempts.len());
        spans.push(SpanData {
            parent_span_is_remote: self.parent.is_some(),
            name: self.name(),
            attributes: self.attributes(redact),
            status: server_status(self.entry.status),
            ..span(trace.span_id, self.parent)
        });
        spans.extend(self.attempts.iter().enumerate().map(|(resent, attempt)| {
            let start_time: SystemTime = began + attempt.began;
            SpanData {
                span_kind: SpanKind::Client,
                name: Cow::Owned(method(self.entry.method).to_owned()),
                start_time,
                end_time: start_time + attempt.took,
                attributes: self.attempt_attributes(attempt, resent),
                status: client_status(attempt),
                ..span(attempt.span_id, Some(trace.span_id))
            }
        }));
        spans
    }

    /// `{method} {route}`: of low cardinality, as the conventions ask.
    fn name(&self) -> Cow<'static, str> {
        let method = match method(self.entry.method) {
            "_OTHER" => "HTTP",
            method => method,
        };
        if self.entry.route.is_empty() {
            return Cow::Owned(method.to_owned());
        }
        Cow::Owned(format!("{method} {}", self.entry.route))
    }

    fn attributes(&self, redact: &Redact) -> Vec<KeyValue> {
        let entry = self.entry;
        let mut attributes = Vec::with_capacity(16);
        attributes.push(KeyValue::new("http.request.method", method(entry.method).to_owned()));
        if method(entry.method) != entry.method && !entry.method.is_empty() {
            attributes.push(KeyValue::new("http.request.method_original", entry.method.to_owned()));
        }
        let query = entry.query.map(|query| redact.query(query));
        let texts = [
            ("url.scheme", entry.scheme),
            ("url.path", entry.path),
            ("url.query", query.as_deref().unwrap_or_default()),
            ("server.address", entry.host),
            ("network.protocol.version", entry.protocol.strip_prefix("HTTP/").unwrap_or_default()),
            ("tollgate.request_id", entry.request_id),
            ("tollgate.route", entry.route),
            ("tollgate.code", entry.code.map_or("", |code| code.as_str())),
            ("tollgate.upstream", entry.upstream.unwrap_or_default()),
            ("tollgate.listener", entry.listener),
        ];
        for (name, value) in texts {
            if !value.is_empty() {
                attributes.push(KeyValue::new(name, value.to_owned()));
            }
        }
        if let Some(client) = entry.client {
            attributes.push(KeyValue::new("client.address", client.to_string()));
        }
        if entry.status > 0 {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(entry.status)));
        }
        match (entry.status, entry.code) {
            (0, None) => attributes.push(KeyValue::new("error.type", "no_answer")),
            (0 | 500.., Some(code)) => attributes.push(KeyValue::new("error.type", code.as_str())),
            (500.., None) => attributes.push(KeyValue::new("error.type", entry.status.to_string())),
            _ => {}
        }
        attributes
    }

    fn attempt_attributes(&self, attempt: &Attempt, resent: usize) -> Vec<KeyValue> {
        let Attempt { span_id: _, began: _, took: _, endpoint, status, failure } = *attempt;
        let (address, port) = (endpoint.ip().to_string(), i64::from(endpoint.port()));
        let mut attributes = vec![
            KeyValue::new("http.request.method", method(self.entry.method).to_owned()),
            KeyValue::new("server.address", address.clone()),
            KeyValue::new("server.port", port),
            KeyValue::new("network.peer.address", address),
            KeyValue::new("network.peer.port", port),
        ];
        if let Some(upstream) = self.entry.upstream {
            attributes.push(KeyValue::new("tollgate.upstream", upstream.to_owned()));
        }
        if resent > 0 {
            attributes.push(KeyValue::new("http.request.resend_count", i64::try_from(resent).unwrap_or(i64::MAX)));
        }
        if status > 0 {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        match (failure, status) {
            (Some(failure), _) => attributes.push(KeyValue::new("error.type", failure.as_str())),
            (None, 400..) => attributes.push(KeyValue::new("error.type", status.to_string())),
            (None, _) => {}
        }
        attributes
    }
}

/// Methods the conventions know; any other is `_OTHER`, so that clients cannot make up names.
fn method(method: &str) -> &str {
    match method {
        "CONNECT" | "DELETE" | "GET" | "HEAD" | "OPTIONS" | "PATCH" | "POST" | "PUT" | "QUERY" | "TRACE" => method,
        _ => "_OTHER",
    }
}

/// A 4xx is the client's error, not the server's.
fn server_status(status: u16) -> Status {
    match status {
        0 | 500.. => Status::error(""),
        _ => Status::Unset,
    }
}

fn client_status(attempt: &Attempt) -> Status {
    match (attempt.failure, attempt.status) {
        (Some(_), _) | (None, 0 | 400..) => Status::error(""),
        (None, _) => Status::Unset,
    }
}
