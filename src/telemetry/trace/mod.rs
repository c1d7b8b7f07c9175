//! Traces: where a request stands in one, and the spans that tell it.
//!
//! Of the W3C context only `traceparent` is read and written; `tracestate` is the vendors' and passes through untouched.

mod collector;
mod context;
mod span;
mod tracer;

pub use context::TraceContext;
pub use span::{Attempt, SpanRecord};
pub use tracer::{Begun, Origin, Tracer, TracerError};

#[cfg(test)]
mod tests;
