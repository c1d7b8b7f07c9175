//! Ten thousand changes leave nothing behind: no memory, no task, no series.

use rustix::process::Signal;

use crate::kit::{Client, Gateway, Origin};

const CHANGES: usize = 10_000;
const WARM: usize = 1_000;
/// Names come back after so many changes; after the last one the same stand as after the warming.
const GENERATIONS: usize = 9;
const _: () = assert!(CHANGES % GENERATIONS == WARM % GENERATIONS);

/// Upstreams, checks, splits and edits under names that come and go.
fn document(number: usize, origin: &Origin) -> String {
    let (address, generation) = (origin.address(), number % GENERATIONS);
    format!(
        r#"
        [upstream.kept]
        address = "{address}"
        [upstream.passing-{generation}]
        address = [{{ to = "{address}", tier = 1 }}, {{ to = "127.0.0.1:9", tier = 2 }}]
        health = {{ every = "1h" }}
        eject = {{}}
        [[route]]
        name = "version"
        match = {{ path = "/version" }}
        respond = {{ body = "{number}" }}
        [[route]]
        name = "passing-{generation}"
        match = {{ host = "*.g{generation}.test", path = "/a/{{b}}/*", header = {{ x-a = "{number}" }} }}
        split = [{{ upstream = "kept", weight = 1 }}, {{ upstream = "passing-{generation}", weight = 2 }}]
        request_headers = {{ set = {{ x-number = "{number}-{{path.b}}" }} }}
        rewrite = {{ strip_prefix = "/a" }}
        [[route]]
        name = "rest"
        upstream = "kept"
        "#
    )
}

struct Soak {
    gateway: Gateway,
    origin: Origin,
    client: Client,
}

impl Soak {
    /// Writes the next document and returns when it is in force. HUP, because waiting for the quiet after a save is not
    /// what this test is about.
    async fn change(&mut self, number: usize) {
        self.gateway.write_routes(&document(number, &self.origin));
        self.gateway.signal(Signal::HUP);
        let (began, wanted) = (std::time::Instant::now(), number.to_string());
        while self.client.get("http://app.test/version").await.text() != wanted {
            assert!(began.elapsed() < crate::kit::PATIENCE, "change {number} was not applied: {}", self.gateway.log());
        }
    }

    async fn standing(&mut self) -> Standing {
        let metrics = self.gateway.metrics().await;
        Standing {
            memory: metrics.sum("tollgate_process_resident_memory_bytes").unwrap(),
            tasks: metrics.sum("tollgate_tasks").unwrap(),
            descriptors: metrics.sum("tollgate_process_open_fds").unwrap(),
            series: metrics.names().count(),
        }
    }
}

#[derive(Debug)]
struct Standing {
    memory: f64,
    tasks: f64,
    descriptors: f64,
    series: usize,
}

#[tokio::test]
async fn ten_thousand_changes_leave_nothing_behind() {
    let origin = Origin::text("ok");
    let gateway = Gateway::with(&document(0, &origin), |settings| {
        // Neither lines of logs nor a disk that is waited for is what this test is about.
        settings.set("log.level", "error").set("log.access", "off").remove("state");
        settings.set("limits.requests_per_connection", 100_000_000);
    })
    .await;
    let client = gateway.h1().await;
    let mut soak = Soak { gateway, origin, client };
    let mut warm = None;
    for number in 1..=CHANGES {
        soak.change(number).await;
        if number % 50 == 0 {
            assert_eq!(soak.client.get("http://app.test/").await.text(), "ok");
        }
        if number == WARM {
            warm = Some(soak.standing().await);
        }
    }
    let (warm, end) = (warm.unwrap(), soak.standing().await);
    assert!(end.memory <= warm.memory * 1.05, "{warm:?} became {end:?}");
    assert_eq!((end.tasks, end.series), (warm.tasks, warm.series), "{warm:?} became {end:?}");
    assert!(end.descriptors <= warm.descriptors + 2.0, "{warm:?} became {end:?}");
}
