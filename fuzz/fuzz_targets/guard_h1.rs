//! HTTP/1 from clients: what passes does not depend on the pieces it comes in.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tollgate::front::fuzz::h1(bytes));
