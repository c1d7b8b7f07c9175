//! What the tests are made of: the real gateway as a child process, origins and clients with full control of their bytes.
//!
//! No fixed ports and no sleeps: everything binds port 0, everything that takes time is polled by `eventually!`.

/// Asks again and again (a `bool`, `Option` or `Result`, awaits allowed) until it holds, or fails at the deadline.
macro_rules! eventually {
    ($condition:expr $(,)?) => {
        eventually!($crate::kit::PATIENCE, $condition)
    };
    ($deadline:expr, $condition:expr $(,)?) => {{
        let deadline: std::time::Duration = $deadline;
        let began = std::time::Instant::now();
        loop {
            if let Some(value) = $crate::kit::Settled::settled($condition) {
                break value;
            }
            assert!(began.elapsed() < deadline, "not within {deadline:?}: {}", stringify!($condition));
            $crate::kit::pause().await;
        }
    }};
}

pub(crate) mod acme;
pub(crate) mod backend;
pub(crate) mod bind;
pub(crate) mod body;
pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod controller;
pub(crate) mod dns;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod grpc;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod nats;
pub(crate) mod operator;
pub(crate) mod origin;
pub(crate) mod pebble;
pub(crate) mod port;
pub(crate) mod raw;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod tollgate;
pub(crate) mod websocket;

use std::time::Duration;

pub(crate) use body::{Body, channel, empty, full};
pub(crate) use client::{Client, Reply, get};
pub(crate) use gateway::Gateway;
pub(crate) use origin::{Origin, Seen};
pub(crate) use port::Port;
pub(crate) use raw::{Raw, RawOrigin};
pub(crate) use settings::Settings;
pub(crate) use tls::Authority;

/// How long anything may take that should happen soon. Generous: machines that run tests are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Something that may not have happened yet.
pub(crate) trait Settled {
    type Value;
    fn settled(self) -> Option<Self::Value>;
}

impl Settled for bool {
    type Value = ();
    fn settled(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Settled for Option<T> {
    type Value = T;
    fn settled(self) -> Option<T> {
        self
    }
}

impl<T, E> Settled for Result<T, E> {
    type Value = T;
    fn settled(self) -> Option<T> {
        self.ok()
    }
}

/// One step of polling.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// Fails instead of waiting for ever.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: nothing within {PATIENCE:?}"),
    }
}
