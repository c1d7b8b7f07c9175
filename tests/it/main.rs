//! The gateway as its clients, upstreams and operators see it: the real program, real sockets, real bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a test that panics has failed, as it should

#[macro_use]
mod kit;

mod access;
mod acme;
mod acme_authorities;
mod acme_fleet;
mod acme_names;
mod alerts;
mod answers;
mod backend;
mod backend_bounds;
mod backend_crash;
mod backend_keys;
mod backend_pages;
mod balancing;
mod blame;
mod browsers;
mod bus;
mod certificates;
mod change;
mod cli;
mod client_certificates;
mod codes;
mod controller;
mod controller_access;
mod controller_acts;
mod corpus;
mod crashes;
mod credentials;
mod dashboard;
mod deploy;
mod destinations;
mod discovery;
mod fleet;
mod floods;
mod forgeries;
mod grpc;
mod happenings;
mod headers;
mod health;
mod keys_fleet;
mod leaving;
mod limits;
mod names;
mod overload;
mod protocols;
mod proxy_protocol;
mod retries;
mod revocations;
mod rewriting;
mod routing;
mod seeing;
mod shared;
mod slow_clients;
mod soak;
mod streaming;
mod systems;
mod systems_core;
mod tidy;
mod tokens;
mod upstream_tls;
mod websocket;
mod wire;
