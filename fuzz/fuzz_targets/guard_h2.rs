//! HTTP/2 frames from clients: what is counted does not depend on the pieces they come in.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tollgate::front::fuzz::h2(bytes));
