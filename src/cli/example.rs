//! The systems of `examples/` that `dev` runs whole: their services on free ports of loopback, their routes pointed there.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::system::Parts;
use crate::tasks::Tasks;

#[path = "../../examples/pet-builder/services.rs"]
mod pet_builder;
#[path = "../../examples/reply-insights/services.rs"]
mod reply_insights;

/// A system under `examples/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Example {
    /// Accounts, API and web page behind an edge, steered from a dashboard.
    CoreV2,
    /// The same in two regions, over nats-servers that can be cut off from each other.
    CoreHa,
    /// A modular monolith whose parts leave one by one.
    PetBuilder,
    /// Tokens of an auth service, an API in three instances, analytics over gRPC.
    ReplyInsights,
}

/// What stands in the routes for the address of each service, and the service's name.
const PET_BUILDER: [(&str, &str); 4] = [
    ("${WEB:-127.0.0.1:3000}", "web"),
    ("${MONOLITH:-127.0.0.1:4000}", "monolith"),
    ("${BUILDER_1:-127.0.0.1:4002}", "builder-1"),
    ("${BUILDER_2:-127.0.0.1:4012}", "builder-2"),
];

impl Example {
    /// As it is written on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Example::CoreV2 => "core-v2",
            Example::CoreHa => "core-ha",
            Example::PetBuilder => "pet-builder",
            Example::ReplyInsights => "reply-insights",
        }
    }

    /// What of the system it needs.
    pub(super) fn parts(self) -> Parts {
        match self {
            Example::CoreV2 | Example::CoreHa => Parts::ControllerAndBackend,
            Example::PetBuilder | Example::ReplyInsights => Parts::Controller,
        }
    }

    /// Whether its document is on the bus, else in a file.
    pub(super) fn is_on_bus(self) -> bool {
        matches!(self, Example::CoreV2 | Example::CoreHa)
    }

    /// Starts the services; the routes that lead to them. Nodes of core-ha are `Regions`' to place.
    pub(super) async fn start(self, tasks: &Tasks, backend: Option<SocketAddr>) -> io::Result<String> {
        // Nobody else's names are known on a laptop.
        let behind = |routes: &str| {
            let backend = backend.ok_or_else(|| io::Error::other("the example needs the backend"))?;
            Ok(routes.replace("core-pocketbase.internal:8090", &backend.to_string()))
        };
        match self {
            Example::CoreV2 => {
                let routes = behind(include_str!("../../examples/core-v2/routes.toml"))?;
                Ok(routes.replace("core-nats.internal:8222", "127.0.0.1:8222"))
            }
            Example::CoreHa => behind(include_str!("../../examples/core-ha/routes.toml")),
            Example::PetBuilder => {
                let mut routes = include_str!("../../examples/pet-builder/routes.toml").to_owned();
                for (reference, name) in PET_BUILDER {
                    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
                    routes = routes.replace(reference, &listener.local_addr()?.to_string());
                    tasks.spawn_forever("example", async move {
                        if let Err(error) = pet_builder::serve(listener, name).await {
                            tracing::error!(%error, name, "a service of the example ended");
                        }
                    });
                }
                Ok(routes)
            }
            Example::ReplyInsights => start_reply_insights(tasks).await,
        }
    }

    pub(super) fn try_this(self, http: u16) -> String {
        match self {
            Example::CoreV2 | Example::CoreHa => format!(
                "  http://localhost:{http}/                           the web page: sign up, write notes\n  \
                 curl -i http://localhost:{http}/api/collections      401: nobody asks\n  \
                 curl -s http://localhost:{http}/api/auth/signup -H 'content-type: application/json' -d '{{\"email\": \"a@example.com\", \"password\": \"correct horse\"}}'\n"
            ),
            Example::ReplyInsights => format!(
                "  curl -i http://localhost:{http}/api/replies/7      401: nobody asks\n  \
                 TOKEN=$(curl -s http://localhost:{http}/auth/token -H 'content-type: application/json' -d '{{\"user\": \"alice\"}}' | sed 's/.*:\"//; s/\".*//')\n  \
                 curl -i http://localhost:{http}/api/replies/7 -H \"authorization: Bearer $TOKEN\"\n"
            ),
            Example::PetBuilder => format!(
                "  curl http://localhost:{http}/                      the web app\n  \
                 curl http://localhost:{http}/api/orders            the monolith\n  \
                 curl http://localhost:{http}/api/designs/7         the module that moves: change its weights in the routes\n"
            ),
        }
    }
}

const REPLIES: [(&str, &str); 3] = [
    ("${REPLIES_1:-127.0.0.1:5011}", "replies-1"),
    ("${REPLIES_2:-127.0.0.1:5012}", "replies-2"),
    ("${REPLIES_3:-127.0.0.1:5013}", "replies-3"),
];

async fn start_reply_insights(tasks: &Tasks) -> io::Result<String> {
    let mut routes = include_str!("../../examples/reply-insights/routes.toml").to_owned();
    let run = |service: std::pin::Pin<Box<dyn Future<Output = io::Result<()>> + Send>>| {
        tasks.spawn_forever("example", async move {
            if let Err(error) = service.await {
                tracing::error!(%error, "a service of the example ended");
            }
        });
    };
    let mut place = async |reference: &str| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        routes = routes.replace(reference, &listener.local_addr()?.to_string());
        Ok::<_, io::Error>(listener)
    };
    run(Box::pin(reply_insights::auth(place("${AUTH:-127.0.0.1:5001}").await?)));
    for (reference, name) in REPLIES {
        run(Box::pin(reply_insights::replies(place(reference).await?, name)));
    }
    let trust = reply_insights::Trust::new()?;
    let analytics = place("${ANALYTICS:-127.0.0.1:5021}").await?;
    for (reference, pem) in [
        ("${SERVICES_CA}", &trust.ca),
        ("${GATEWAY_CERTIFICATE}", &trust.gateway_certificate),
        ("${GATEWAY_KEY}", &trust.gateway_key),
    ] {
        routes = routes.replace(reference, &pem.replace('\n', "\\n"));
    }
    run(Box::pin(async move { reply_insights::analytics(analytics, &trust).await }));
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_service_has_its_place_in_the_routes() {
        let tasks = Tasks::default();
        for example in [Example::CoreV2, Example::CoreHa, Example::PetBuilder, Example::ReplyInsights] {
            let routes = example.start(&tasks, Some("127.0.0.1:1".parse().unwrap())).await.unwrap();
            assert!(!routes.contains("${"), "{routes}");
        }
        tasks.stop().await;
    }
}
