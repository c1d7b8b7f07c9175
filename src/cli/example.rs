//! The systems of `examples/` that `dev` runs whole: their services on free ports of loopback, their routes pointed there.

use std::io;

use tokio::net::TcpListener;

use crate::tasks::Tasks;

#[path = "../../examples/pet-builder/services.rs"]
mod pet_builder;

/// A system under `examples/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Example {
    /// A modular monolith whose parts leave one by one.
    PetBuilder,
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
            Example::PetBuilder => "pet-builder",
        }
    }

    /// Starts the services; the routes that lead to them.
    pub(super) async fn start(self, tasks: &Tasks) -> io::Result<String> {
        match self {
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
        }
    }

    pub(super) fn try_this(self, http: u16) -> String {
        match self {
            Example::PetBuilder => format!(
                "  curl http://localhost:{http}/                      the web app\n  \
                 curl http://localhost:{http}/api/orders            the monolith\n  \
                 curl http://localhost:{http}/api/designs/7         the module that moves: change its weights in the routes\n"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_service_has_its_place_in_the_routes() {
        let tasks = Tasks::default();
        let routes = Example::PetBuilder.start(&tasks).await.unwrap();
        assert!(!routes.contains("${"), "{routes}");
        tasks.stop().await;
    }
}
