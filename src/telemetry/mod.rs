//! What the gateway tells: metrics, the access log, traces, its own log.
//!
//! Knows nothing of tables, pools or sockets of clients: whoever acts hands in plain values. Nothing here may slow a
//! request: metrics are atomic adds, log lines and spans go through bounded queues that drop (and count) when full.

pub mod access;
mod all;
mod happened;
mod log;
pub mod metrics;
pub mod trace;

pub use access::{AccessLog, Entry};
pub use all::{Sending, Telemetry, TelemetryError};
pub use happened::{Happened, listen};
pub use log::init_log;
pub use metrics::{Metrics, RouteMetrics, UpstreamMetrics};
pub use trace::{SpanRecord, TraceContext, Tracer};
