//! Runs the services of the pet builder on the ports that `routes.toml` expects.
//!
//! `cargo run --example pet-builder`, then the gateway beside it: see README.md.

// A failure here is a failure of the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod services;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

const SERVICES: [(&str, u16); 4] = [("web", 3000), ("monolith", 4000), ("builder-1", 4002), ("builder-2", 4012)];

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut running = JoinSet::new();
    for (name, port) in SERVICES {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        println!("{name} on 127.0.0.1:{port}");
        running.spawn(services::serve(listener, name));
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(std::io::Error::other)??;
    }
    Ok(())
}
