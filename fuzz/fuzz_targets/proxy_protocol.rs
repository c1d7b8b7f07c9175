//! PROXY headers from anybody who may send one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tollgate::proxy_protocol::fuzz(bytes));
