//! zlib under the name of zlib-ng.
//!
//! Pingora asks flate2 for zlib-ng, and that needs CMake to build. Both have the same interface; the gateway does not
//! compress with either on its request path, so a machine with Rust and a C compiler is enough.

pub use libz_sys::*;
