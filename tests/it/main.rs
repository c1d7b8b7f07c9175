//! The gateway as its clients, upstreams and operators see it: the real program, real sockets, real bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a test that panics has failed, as it should

#[macro_use]
mod kit;

mod balancing;
mod destinations;
mod grpc;
mod headers;
mod health;
mod names;
mod protocols;
mod retries;
mod rewriting;
mod routing;
mod streaming;
mod tidy;
mod upstream_tls;
mod websocket;
