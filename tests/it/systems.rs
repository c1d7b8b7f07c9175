//! The systems of `examples/`, each with its own configuration, real services and the requests of its README.

use std::net::SocketAddr;

use http::Request;
use tokio::task::JoinHandle;

use crate::kit::load::{Load, Tally};
use crate::kit::{Gateway, Port, empty};

#[path = "../../examples/pet-builder/services.rs"]
mod pet_builder;

/// A running service that can be stopped.
struct Service {
    port: Port,
    running: JoinHandle<std::io::Result<()>>,
}

impl Service {
    fn start(name: &'static str) -> Service {
        let port = Port::free();
        let running = tokio::spawn(pet_builder::serve(port.listen(), name));
        Service { port, running }
    }

    fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.running.abort();
    }
}

const ROUTES: &str = include_str!("../../examples/pet-builder/routes.toml");

/// The file with other weights for the module that moves.
fn designs(monolith: u32, builder: u32) -> String {
    let weight = |upstream: &str, weight: u32| format!("{{ upstream = \"{upstream}\", weight = {weight} }}");
    let (before, after) = (weight("monolith", 100), weight("builder", 0));
    assert!(ROUTES.contains(&before) && ROUTES.contains(&after), "the example has other weights now");
    ROUTES.replace(&before, &weight("monolith", monolith)).replace(&after, &weight("builder", builder))
}

/// Which services answered under load.
fn services(tally: &Tally) -> Vec<String> {
    let mut names: Vec<_> = tally
        .bodies
        .keys()
        .map(|body| serde_json::from_str::<serde_json::Value>(body).unwrap()["service"].as_str().unwrap().to_owned())
        .collect();
    names.dedup();
    names
}

async fn service(gateway: &Gateway, path: &str) -> String {
    let reply = gateway.get(&format!("http://localhost{path}")).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()["service"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pet_builder_moves_a_module_and_back_under_load() {
    let [web, monolith, one, two] = ["web", "monolith", "builder-1", "builder-2"].map(Service::start);
    let gateway = Gateway::with(ROUTES, |settings| {
        for (name, service) in [("WEB", &web), ("MONOLITH", &monolith), ("BUILDER_1", &one), ("BUILDER_2", &two)] {
            settings.environment(name, service.address());
        }
    })
    .await;
    for (path, expected) in [
        ("/", "web"),
        ("/index.html", "web"),
        ("/api", "monolith"),
        ("/api/orders", "monolith"),
        ("/api/designs/7", "monolith"),
    ] {
        assert_eq!(service(&gateway, path).await, expected, "{path}");
    }
    // No more at once than may always be tried again elsewhere (`retry_budget.min`).
    let load = || Load::start(gateway.http(), "http://localhost/api/designs/7", 3);

    let moving = load();
    moving.more(50).await;
    gateway.change(&designs(90, 10)).await;
    moving.more(300).await;
    gateway.change(&designs(0, 100)).await;
    moving.more(100).await;
    assert_eq!(services(&moving.finish().await.clean()), ["builder-1", "builder-2", "monolith"]);

    let moved = load();
    moved.more(100).await;
    // One instance goes: nobody notices.
    drop(one);
    moved.more(200).await;
    let tally = moved.finish().await.clean();
    assert!(services(&tally).iter().all(|name| name.starts_with("builder-")), "{:?}", tally.bodies);
    assert_eq!(service(&gateway, "/api/orders").await, "monolith", "the rest stays where it was");

    let back = load();
    back.more(50).await;
    gateway.change(ROUTES).await;
    back.more(100).await;
    back.finish().await.clean();
    assert_eq!(service(&gateway, "/api/designs/7").await, "monolith");
}

#[tokio::test]
async fn pet_builder_lets_nobody_say_who_they_are() {
    let monolith = Service::start("monolith");
    let gateway = Gateway::with(ROUTES, |settings| {
        settings.environment("MONOLITH", monolith.address());
    })
    .await;
    for name in ["x-user-id", "X-User-Id", "x_user_id"] {
        let request = Request::get("http://localhost/api/me").header(name, "admin").body(empty()).unwrap();
        let told = gateway.h1().await.fetch(request).await.json();
        assert_eq!((&told["user"], &told["client"]), (&serde_json::Value::Null, &"127.0.0.1".into()), "{name}");
    }
}
