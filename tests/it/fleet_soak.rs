//! Changes over the bus, one after the other, under load: no request fails, nothing is left behind.
//!
//! As many changes as `CHANGES`, as fast as every gateway reports them; with `TOLLGATE_SOAK_SECONDS=300` one a second for as long.

use std::time::{Duration, Instant};

use tollgate::bus::{Follow, Seen};
use tollgate::fleet::Report;
use tollgate::ledger::{Ledger, digest};

use crate::controller::{bus, slip_in};
use crate::kit::load::Load;
use crate::kit::nats::Nats;
use crate::kit::{Gateway, Origin, within};

const NODES: [&str; 2] = ["n1", "n2"];
const CHANGES: usize = 150;
/// Names come back after so many changes.
const GENERATIONS: usize = 5;

/// Upstreams, checks, limits and edits under names that come and go.
fn document(number: usize, origin: &Origin) -> String {
    let (address, generation) = (origin.address(), number % GENERATIONS);
    format!(
        "format = 1\n\
         [upstream.kept]\naddress = \"{address}\"\n\
         [upstream.passing-{generation}]\naddress = \"{address}\"\nhealth = {{ every = \"1h\" }}\neject = {{}}\n\
         [limit.passing-{generation}]\nrate = \"1000000/s\"\nkey = \"client.ip\"\n\
         [[route]]\nname = \"passing-{generation}\"\nmatch.path = \"/passing/*\"\nupstream = \"passing-{generation}\"\n\
         [[route]]\nname = \"rest\"\nupstream = \"kept\"\nlimits = [\"passing-{generation}\"]\n\
         request_headers = {{ set = {{ x-number = \"{number}\" }} }}\n"
    )
}

struct Fleet {
    ledger: Ledger,
    reports: Follow,
}

impl Fleet {
    /// Puts a document in force. Returns its digest.
    async fn push(&self, text: String) -> String {
        let wanted = digest(&text);
        slip_in(&self.ledger, text).await;
        wanted
    }

    /// Puts a document in force and returns when every gateway has reported it.
    async fn change(&mut self, text: String) {
        let wanted = self.push(text).await;
        let mut running = std::collections::BTreeSet::new();
        let everywhere = async {
            while running.len() < NODES.len() {
                if let Seen::Put(entry) = self.reports.next().await
                    && let Ok(report) = serde_json::from_slice::<Report>(&entry.value)
                    && report.runs(&wanted)
                {
                    running.insert(report.who.node);
                }
            }
        };
        within("every gateway's report", everywhere).await;
    }
}

async fn memory(gateways: &[Gateway]) -> Vec<f64> {
    let mut all = Vec::new();
    for gateway in gateways {
        all.push(gateway.metrics().await.sum("tollgate_process_resident_memory_bytes").unwrap() / 1e6);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_over_the_bus_cost_no_request_and_no_memory() {
    let seconds = std::env::var("TOLLGATE_SOAK_SECONDS").ok().map(|text| text.parse::<u64>().unwrap());
    let (nats, origin) = (Nats::start().await, Origin::text("ok"));
    let operator = bus(&nats).await;
    tollgate::bus::names::Fleet::new("tollgate").make(&operator, "tollgate").await.unwrap();
    let mut fleet = Fleet {
        ledger: Ledger::new(operator.clone(), "tollgate"),
        reports: operator.follow("tollgate_status", "node.*"),
    };
    fleet.push(document(0, &origin)).await;
    let mut gateways = Vec::new();
    for node in NODES {
        let settings = |settings: &mut crate::kit::Settings| {
            nats.routes(settings, node);
            settings.set("overload.lag", "0s").set("log.access", "off").remove("state");
        };
        gateways.push(Gateway::with("", settings).await);
    }
    let loads: Vec<Load> = gateways.iter().map(|gateway| Load::start(gateway.http(), "http://app.test/", 2)).collect();
    let (began, mut warm, mut number) = (Instant::now(), None, 0);
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    loop {
        number += 1;
        fleet.change(document(number, &origin)).await;
        let done = match seconds {
            None => number as f64 / CHANGES as f64,
            Some(seconds) => {
                pace.tick().await;
                began.elapsed().as_secs_f64() / seconds as f64
            }
        };
        if warm.is_none() && done >= 0.2 {
            warm = Some(memory(&gateways).await);
        }
        if done >= 1.0 {
            break;
        }
    }
    let (warm, end) = (warm.unwrap(), memory(&gateways).await);
    let mut answers = 0;
    for load in loads {
        answers += load.finish().await.clean().answers;
    }
    let took = began.elapsed().as_secs();
    println!("{number} changes in {took} s, {answers} answers, none failed; {warm:.1?} MB became {end:.1?} MB");
    for (warm, end) in warm.iter().zip(&end) {
        assert!(*end <= warm * 1.05 + 1.0, "{warm} MB became {end} MB");
    }
}
