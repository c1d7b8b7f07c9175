//! `traceparent` from clients: what is read is what is written.
#![no_main]

use tollgate::telemetry::trace::TraceContext;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Some(context) = TraceContext::parse(text) {
        assert_eq!(TraceContext::parse(&context.header_value()), Some(context));
    }
});
