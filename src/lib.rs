//! Tollgate: a programmable edge gateway on Pingora.

pub mod admin;
pub mod bounded;
pub mod cli;
pub mod config;
pub mod control;
pub mod durable;
pub mod facts;
pub mod fetch;
pub mod front;
pub mod gateway;
pub mod overload;
pub mod policy;
pub mod problem;
pub mod proxy;
pub mod proxy_protocol;
pub mod ratelimit;
pub mod rejection;
pub mod routes;
pub mod scalar;
pub mod settings;
pub mod source;
pub mod stamp;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod upstream;
