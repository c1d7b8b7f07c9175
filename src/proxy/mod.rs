//! The life of a request. Pingora carries the bytes; what is decided about them is decided here, phase by phase.
//!
//! `gate` holds the hooks in their order; `admit` (who, what, which route), `access` (who may pass, how much), `attempt` (which endpoint), `forward` (the head
//! that goes upstream), `failure` (what an error means), `answer` (answers of our own and `finish`), `record` (the log line).

mod access;
mod admit;
mod answer;
mod attempt;
mod body;
mod client;
mod ctx;
mod failure;
mod flow;
mod forward;
mod gate;
mod hop;
mod mirror;
mod peer;
mod record;
mod sink;
mod upgrade;

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

pub use client::{Trusted, scheme};
use flow::{Flow, Reaper};
use gate::Gate;
use mirror::Mirrors;

use crate::front::conn;
use crate::overload::Overload;
use crate::routes::Live;
use crate::settings::Settings;
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;
use crate::tls::Challenges;

/// Idle connections to upstreams that are kept, all endpoints together.
const IDLE_UPSTREAM_CONNECTIONS: usize = 4096;

/// Attempts are bounded by routes; this only bounds a mistake of ours.
const ATTEMPTS_MAX: usize = 16 + failure::WAITS_MAX as usize;

/// The proxy: takes requests of any connection.
pub struct Proxy {
    inner: Arc<HttpProxy<Gate>>,
}

/// What requests need of the rest of the gateway.
pub struct Surroundings {
    pub live: Arc<Live>,
    pub telemetry: Arc<Telemetry>,
    pub challenges: Option<Arc<Challenges>>,
    pub overload: Arc<Overload>,
    /// True once the gateway is leaving.
    pub shutdown: watch::Receiver<bool>,
}

impl Proxy {
    pub fn new(settings: &Settings, tasks: &Tasks, around: Surroundings) -> Proxy {
        let reaper = Arc::new(Reaper::default());
        tasks.spawn_forever("reaper", reaper.clone().run());
        let gate = Gate::new(settings, around, reaper, Mirrors::new(tasks.clone()));
        let conf = ServerConf {
            threads: settings.threads(),
            upstream_keepalive_pool_size: IDLE_UPSTREAM_CONNECTIONS,
            max_retries: ATTEMPTS_MAX,
            ..ServerConf::default()
        };
        Proxy { inner: Arc::new(pingora_proxy::http_proxy(&Arc::new(conf), gate)) }
    }
}

#[async_trait]
impl HttpServerApp for Proxy {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &tokio::sync::watch::Receiver<bool>,
    ) -> Option<ReusedHttpStream> {
        let kept = match &session {
            ServerSession::H1(_) => conn::current().and_then(|connection| connection.kept(Flow::new)),
            _ => None,
        };
        let flow = kept.unwrap_or_else(|| Arc::new(Flow::new()));
        flow.run(self.inner.process_new_http(session, shutdown)).await
    }
}
