//! Sends spans to a collector: OTLP over HTTP, protobuf.
//!
//! A request that ends puts its spans into a bounded queue; one task gathers and sends them. A full queue or a collector
//! that takes nothing loses spans, and counts them.

use std::future::Future;
use std::time::Duration;

use http::Uri;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::collector::Client;
use super::{SpanRecord, TraceContext};
use crate::settings;
use crate::telemetry::access::Redact;
use crate::telemetry::metrics::Count;

/// Requests whose spans wait.
const QUEUE: usize = 2_048;
/// Spans sent at once.
const BATCH: usize = 512;
/// How long a span may wait for others to be sent with.
const GATHER: Duration = Duration::from_secs(1);
/// Time for a batch, tries and pauses together.
const EXPORT: Duration = Duration::from_secs(10);

/// Decides which requests are traced, and takes their spans. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Tracer {
    queue: mpsc::Sender<Message>,
    sample_percent: f64,
    redact: Redact,
    scope: InstrumentationScope,
    dropped: Count,
}

/// Who sends the spans.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// `service.name`
    pub name: &'a str,
    /// `cloud.region`
    pub region: Option<&'a str>,
}

#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to `{endpoint}`: {cause}")]
pub struct TracerError {
    endpoint: String,
    cause: Box<dyn std::error::Error + Send + Sync>,
}

#[derive(Debug)]
enum Message {
    Spans(Vec<SpanData>),
    Flush(oneshot::Sender<()>),
}

/// The span of a request that has just arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    pub context: TraceContext,
    /// The span of the client, if it sent one.
    pub parent: Option<[u8; 8]>,
}

impl Tracer {
    /// A tracer, and the work of sending, which the caller runs as a task. Spans lost are counted in `dropped`.
    pub fn new(
        settings: &settings::Traces,
        origin: Origin<'_>,
        redact: Redact,
        dropped: Count,
    ) -> Result<(Tracer, impl Future<Output = ()> + Send + use<>), TracerError> {
        let exporter = exporter(&settings.endpoint, origin)
            .map_err(|cause| TracerError { endpoint: settings.endpoint.clone(), cause })?;
        let (queue, messages) = mpsc::channel(QUEUE);
        let scope = InstrumentationScope::builder("tollgate").with_version(env!("CARGO_PKG_VERSION")).build();
        let sending = send(messages, exporter, dropped.clone());
        let sample_percent = settings.sample_percent;
        Ok((Tracer { queue, sample_percent, redact, scope, dropped }, sending))
    }

    /// The span of a request: in the client's trace with the client's decision, or in a new one with ours.
    pub fn begin(&self, traceparent: Option<&str>) -> Begun {
        match traceparent.and_then(TraceContext::parse) {
            Some(client) => Begun { context: client.child(), parent: Some(client.span_id) },
            None => {
                let sampled = fastrand::f64() * 100.0 < self.sample_percent;
                Begun { context: TraceContext::begin(sampled), parent: None }
            }
        }
    }

    /// Takes the spans of a request that has ended, if it is sampled.
    pub fn record(&self, record: &SpanRecord<'_>) {
        if !record.entry.trace.is_some_and(|trace| trace.sampled) {
            return;
        }
        let spans = record.spans(&self.scope, &self.redact);
        let number = spans.len() as u64;
        if self.queue.try_send(Message::Spans(spans)).is_err() {
            self.dropped.add(number);
        }
    }

    /// Waits until the spans taken so far are sent or lost. `false`: the time was over.
    pub async fn flush(&self, time: Duration) -> bool {
        let (done, sent) = oneshot::channel();
        let flushed = async {
            self.queue.send(Message::Flush(done)).await.ok()?;
            sent.await.ok()
        };
        timeout(time, flushed).await.is_ok_and(|done| done.is_some())
    }
}

fn exporter(endpoint: &str, origin: Origin<'_>) -> Result<SpanExporter, Box<dyn std::error::Error + Send + Sync>> {
    let uri: Uri = endpoint.parse()?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::for_endpoint(&uri)?)
        .with_endpoint(endpoint)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(EXPORT)
        .build()?;
    let resource = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.name", origin.name.to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(origin.region.map(|region| KeyValue::new("cloud.region", region.to_owned())));
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

/// Gathers and sends until all tracers are gone.
async fn send(mut messages: mpsc::Receiver<Message>, exporter: SpanExporter, dropped: Count) {
    let mut healthy = true;
    let mut open = true;
    while open {
        let mut batch = Vec::new();
        let mut flushed = None;
        let mut deadline = None;
        while batch.len() < BATCH && flushed.is_none() {
            let message = match deadline {
                None => messages.recv().await,
                Some(at) => match timeout_at(at, messages.recv()).await {
                    Ok(message) => message,
                    Err(_) => break,
                },
            };
            match message {
                Some(Message::Spans(spans)) => batch.extend(spans),
                Some(Message::Flush(done)) => flushed = Some(done),
                None => {
                    open = false;
                    break;
                }
            }
            deadline.get_or_insert_with(|| Instant::now() + GATHER);
        }
        if !batch.is_empty() {
            let spans = batch.len();
            // Twice the time the exporter gives itself: it does not bound the exchange it is in.
            let sent = match timeout(EXPORT * 2, exporter.export(batch)).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            match sent {
                Ok(()) => healthy = true,
                Err(error) => {
                    dropped.add(spans as u64);
                    if healthy {
                        tracing::warn!(%error, spans, "spans cannot be sent; further losses are only counted");
                    }
                    healthy = false;
                }
            }
        }
        if let Some(done) = flushed {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}
