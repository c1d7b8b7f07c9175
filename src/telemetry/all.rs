//! Everything a gateway tells with, in one place, and how it starts and ends.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use super::access::{AccessLog, Entry};
use super::metrics::Metrics;
use super::trace::{Attempt, Begun, Origin, SpanRecord, TraceContext, Tracer, TracerError};
use crate::settings::Settings;

/// Everything a gateway tells with.
#[derive(Clone, Debug)]
pub struct Telemetry {
    pub metrics: Metrics,
    pub access: AccessLog,
    tracer: Option<Tracer>,
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the access log `{name}` cannot be opened: {source}")]
    AccessLog { name: String, source: io::Error },
    #[error(transparent)]
    Traces(#[from] TracerError),
}

/// The work of sending spans; the caller runs it as a task.
pub type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Telemetry {
    /// Opens the access log and, if the settings ask for traces, a tracer.
    pub fn open(settings: &Settings) -> Result<(Telemetry, Option<Sending>), TelemetryError> {
        let metrics = Metrics::new();
        let access = AccessLog::open(&settings.log, metrics.log_lines_dropped.clone())
            .map_err(|source| TelemetryError::AccessLog { name: settings.log.access.clone(), source })?;
        let Some(traces) = &settings.traces else { return Ok((Telemetry { metrics, access, tracer: None }, None)) };
        let origin = Origin { name: settings.node_name(), region: settings.node.region.as_deref() };
        let (tracer, sending) = Tracer::new(traces, origin, access.redact().clone(), metrics.spans_dropped.clone())?;
        Ok((Telemetry { metrics, access, tracer: Some(tracer) }, Some(Box::pin(sending))))
    }

    /// Where a request stands in a trace. Without a tracer there is no span of ours: the client's stands for it.
    pub fn begin(&self, traceparent: Option<&str>) -> Begun {
        if let Some(tracer) = &self.tracer {
            return tracer.begin(traceparent);
        }
        let context = traceparent.and_then(TraceContext::parse).unwrap_or_else(|| TraceContext::begin(false));
        Begun { context, parent: None }
    }

    /// Whether upstreams get our span in `traceparent`. If not, what the client sent passes through: a span that nobody
    /// records would break the trace, and a decision of ours would keep services from sampling.
    pub fn traces(&self) -> bool {
        self.tracer.is_some()
    }

    /// Takes the spans of a request that has ended, if it is sampled.
    pub fn span(&self, entry: &Entry<'_>, parent: Option<[u8; 8]>, attempts: &[Attempt]) {
        if let Some(tracer) = &self.tracer {
            tracer.record(&SpanRecord { entry, parent, attempts });
        }
    }

    /// Waits until log lines and spans have left, or the time is over. `false`: it was.
    pub async fn flush(&self, time: Duration) -> bool {
        let access = self.access.clone();
        let lines = tokio::task::spawn_blocking(move || access.flush(time));
        let spans = async {
            match &self.tracer {
                Some(tracer) => tracer.flush(time).await,
                None => true,
            }
        };
        let (lines, spans) = tokio::join!(lines, spans);
        lines.unwrap_or(false) && spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn settings(rest: &str) -> Settings {
        let text = format!("format = 1\nlisten = []\nroutes = {{ file = \"r\" }}\n{rest}");
        toml::from_str(&text).unwrap()
    }

    #[tokio::test]
    async fn without_a_tracer_the_clients_trace_is_told_and_passes_through() {
        let (telemetry, sending) = Telemetry::open(&settings("[log]\naccess = \"off\"")).unwrap();
        assert!(sending.is_none() && !telemetry.traces());
        let begun = telemetry.begin(Some(CLIENT));
        assert_eq!((begun.context.header_value(), begun.parent), (CLIENT.to_owned(), None));
        assert!(!telemetry.begin(None).context.sampled);
        assert!(telemetry.flush(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn with_a_tracer_the_gateway_has_a_span_of_its_own() {
        let traces =
            "[log]\naccess = \"off\"\n[traces]\nendpoint = \"http://127.0.0.1:9/v1/traces\"\nsample_percent = 100.0";
        let (telemetry, sending) = Telemetry::open(&settings(traces)).unwrap();
        assert!(sending.is_some() && telemetry.traces());
        let begun = telemetry.begin(Some(CLIENT));
        assert_eq!(begun.parent, Some(0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()));
        assert_ne!(Some(begun.context.span_id), begun.parent);
        assert!(telemetry.begin(None).context.sampled);
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let error = Telemetry::open(&settings("[log]\naccess = \"/nowhere/at/all.log\"")).err().unwrap();
        assert!(error.to_string().contains("/nowhere/at/all.log"), "{error}");
        let traces = "[log]\naccess = \"off\"\n[traces]\nendpoint = \"collector\"";
        assert!(Telemetry::open(&settings(traces)).err().unwrap().to_string().contains("collector"));
    }
}
