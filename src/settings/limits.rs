//! Bounds on what clients may do, with the answer each one gives.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{Size, Span};

/// Bounds on what clients may do. Every one has an answer and a metric.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest request line of HTTP/1. Beyond it 414 `uri_too_long`. Default 8KiB.
    pub request_line: Size,
    /// Longest head in all (request line and fields; the decoded list of HTTP/2). Beyond it 431 `head_too_large`. Default 32KiB.
    pub head: Size,
    /// Most header fields. Beyond it 431 `head_too_large`. Default 100.
    pub headers: usize,
    /// Time to send a whole head, however the bytes drip. Then 408 `head_timeout`, or a close if nothing came. Default 10s.
    pub head_timeout: Span,
    /// Time between two pieces of a request body. Then 408 `body_timeout`. Default 30s.
    pub body_idle: Span,
    /// Time an HTTP/1 connection may wait for its next request, and an HTTP/2 one without streams. Default 75s.
    pub keepalive: Span,
    /// Time for a TLS handshake. Default 10s.
    pub handshake_timeout: Span,
    /// A client that takes no byte of an answer for this long is cut off. Default 60s.
    pub write_idle: Span,
    /// Most connections open at once, all listeners together. Beyond it a connection is closed at once. Default 20000.
    pub connections: usize,
    /// Most connections from one address (IPv6: one /64). Default 1000.
    pub connections_per_address: usize,
    /// Most requests on one HTTP/1 connection, then `Connection: close`. Default 10000.
    pub requests_per_connection: u32,
    /// Bounds that only HTTP/2 has.
    pub http2: Http2,
}

/// Bounds of HTTP/2. A connection that breaks one gets GOAWAY ENHANCE_YOUR_CALM or is closed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Most streams at once on a connection. Default 128.
    pub streams: u32,
    /// Most streams a client may reset in a minute on a connection (rapid reset), accepted ones included. Default 200.
    pub resets_per_minute: u32,
    /// Most control frames (PING, SETTINGS, PRIORITY, empty DATA, WINDOW_UPDATE beyond one per DATA sent) in a minute. Default 2000.
    pub control_per_minute: u32,
    /// Most CONTINUATION frames of one header block. Default 8.
    pub continuations: u32,
    /// Window of a stream for request bodies. Default 256KiB.
    pub stream_window: Size,
    /// Window of a connection for request bodies. Default 1MiB.
    pub connection_window: Size,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_line: Size(8 << 10),
            head: Size(32 << 10),
            headers: 100,
            head_timeout: Span::from_secs(10),
            body_idle: Span::from_secs(30),
            keepalive: Span::from_secs(75),
            handshake_timeout: Span::from_secs(10),
            write_idle: Span::from_secs(60),
            connections: 20_000,
            connections_per_address: 1_000,
            requests_per_connection: 10_000,
            http2: Http2::default(),
        }
    }
}

impl Default for Http2 {
    fn default() -> Http2 {
        Http2 {
            streams: 128,
            resets_per_minute: 200,
            control_per_minute: 2_000,
            continuations: 8,
            stream_window: Size(256 << 10),
            connection_window: Size(1 << 20),
        }
    }
}
