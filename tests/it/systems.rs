//! The systems of `examples/`, each with its own configuration, real services and the requests of its README.

use std::net::SocketAddr;

use http::Request;
use tokio::task::JoinHandle;

use crate::kit::load::{Load, Tally};
use crate::kit::{Client, Gateway, Port, Reply, empty, full, grpc};

#[path = "../../examples/pet-builder/services.rs"]
mod pet_builder;
#[path = "../../examples/reply-insights/services.rs"]
mod reply_insights;

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

/// The services of reply insights, and a gateway in front of them.
struct Insights {
    gateway: Gateway,
    replies: Vec<Task>,
    _others: Vec<Task>,
}

/// A service that ends when this is dropped.
struct Task(JoinHandle<std::io::Result<()>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn insights() -> Insights {
    let ports: Vec<Port> = (0..5).map(|_| Port::free()).collect();
    let [auth, one, two, three, counts] = ports.as_slice() else { panic!("five ports") };
    let trust = std::sync::Arc::new(reply_insights::Trust::new().unwrap());
    let (shown, listener) = (trust.clone(), counts.listen());
    let others = vec![
        Task(tokio::spawn(reply_insights::auth(auth.listen()))),
        Task(tokio::spawn(async move { reply_insights::analytics(listener, &shown).await })),
    ];
    let replies = [(one, "replies-1"), (two, "replies-2"), (three, "replies-3")];
    let replies = replies.map(|(port, name)| Task(tokio::spawn(reply_insights::replies(port.listen(), name))));
    let gateway = Gateway::with(include_str!("../../examples/reply-insights/routes.toml"), |settings| {
        for (name, port) in
            [("AUTH", auth), ("REPLIES_1", one), ("REPLIES_2", two), ("REPLIES_3", three), ("ANALYTICS", counts)]
        {
            settings.environment(name, port.address());
        }
        settings.environment("SERVICES_CA", &trust.ca);
        settings.environment("GATEWAY_CERTIFICATE", &trust.gateway_certificate);
        settings.environment("GATEWAY_KEY", &trust.gateway_key);
    })
    .await;
    Insights { gateway, replies: replies.into(), _others: others }
}

impl Insights {
    async fn token(&self, user: &str, plan: &str) -> String {
        let asked = serde_json::json!({ "user": user, "plan": plan }).to_string();
        let request = Request::post("http://localhost/auth/token").header("content-type", "application/json");
        let reply = self.gateway.h1().await.fetch(request.body(full(asked)).unwrap()).await;
        reply.json()["token"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, path: &str, token: &str) -> Reply {
        let request = Request::get(format!("http://localhost{path}"))
            .header("authorization", format!("Bearer {token}"))
            .header("x-user-id", "root");
        self.gateway.h1().await.fetch(request.body(empty()).unwrap()).await
    }
}

#[tokio::test]
async fn reply_insights_knows_its_users() {
    let mut system = insights().await;
    system.gateway.get("http://localhost/api/replies/7").await.is_rejected(401, "auth_required");
    let (free, paying) = (system.token("alice", "free").await, system.token("bob", "pro").await);
    let mut instances = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let reply = system.ask("/api/replies/7", &free).await;
        let told = reply.json();
        assert_eq!((&told["user"], &told["plan"]), (&"alice".into(), &"free".into()), "{told}");
        assert!(reply.headers.contains_key("ratelimit") && reply.headers.contains_key("server-timing"), "{reply:?}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        instances.insert(told["service"].as_str().unwrap().to_owned());
    }
    assert_eq!(instances.len(), 3, "{instances:?}");
    system.ask("/api/reports/7", &free).await.is_rejected(403, "auth_forbidden");
    assert_eq!(system.ask("/api/reports/7", &paying).await.json()["user"], "bob");

    // An instance goes: nobody notices.
    system.replies.pop();
    for _ in 0..30 {
        assert_eq!(system.ask("/api/replies/7", &free).await.status, 200);
    }

    // gRPC over TLS on which the gateway shows its certificate.
    let call = Request::post("http://localhost/insights.v1.Analytics/Count")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {paying}"))
        .body(full(grpc::message("")))
        .unwrap();
    let counted = system.gateway.h2c().await.fetch(call).await;
    assert_eq!((counted.status.as_u16(), &counted.body[..]), (200, &[0, 0, 0, 0, 2, 8, 42][..]), "{counted:?}");
    assert_eq!(counted.trailers["grpc-status"], "0");

    // Each user has a limit of its own; logins have one by address.
    let asking = (0..8).map(|_| {
        let (address, token) = (system.gateway.http(), free.clone());
        tokio::spawn(async move {
            let mut client = Client::h1(address).await;
            let mut refused = 0;
            for _ in 0..60 {
                let request =
                    Request::get("http://localhost/api/replies/7").header("authorization", format!("Bearer {token}"));
                refused += u32::from(client.fetch(request.body(empty()).unwrap()).await.status == 429);
            }
            refused
        })
    });
    let mut refused = 0;
    for one in asking.collect::<Vec<_>>() {
        refused += one.await.unwrap();
    }
    assert!(refused > 0, "480 requests passed a limit of 50/s");
    assert_eq!(system.ask("/api/replies/7", &paying).await.status, 200);

    let revoked = Request::post("http://localhost/revocations").header("content-type", "application/json");
    let revoked = revoked.body(full(r#"{"sub": "bob", "issuer": "accounts"}"#)).unwrap();
    let admin = system.gateway.address("admin");
    assert_eq!(Client::h1(admin).await.fetch(revoked).await.status, 201);
    system.ask("/api/replies/7", &paying).await.is_rejected(401, "auth_invalid");
}
