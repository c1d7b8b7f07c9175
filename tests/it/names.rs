//! Upstreams behind names: every record an endpoint, followed as it changes, kept when the name server fails.

use std::collections::BTreeSet;

use crate::kit::dns::{Answer, Dns};
use crate::kit::origin::Wire;
use crate::kit::{Gateway, Origin, Port, full, routes};

const IPS: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
const NAME: &str = "service.test";

/// One origin per address, all on one port; each answers with its address.
fn origins() -> Vec<Origin> {
    let origin = |(ip, port)| Origin::replying_at(port, Wire::H1, move |_| http::Response::new(full(ip)));
    IPS.into_iter().zip(Port::on_each(&IPS)).map(origin).collect()
}

async fn behind(dns: &Dns, origins: &[Origin]) -> Gateway {
    let document = format!(
        "[upstream.origin]\naddress = \"{NAME}:{}\"\nbalance = \"round_robin\"\n\
         [[route]]\nname = \"all\"\nupstream = \"origin\"\n",
        origins[0].address().port()
    );
    Gateway::with(&document, |settings| {
        settings.set("dns.servers", dns.address()).set("dns.timeout", "500ms");
    })
    .await
}

/// Who answers now, over several requests.
async fn answering(gateway: &Gateway) -> BTreeSet<String> {
    let (mut client, mut answers) = (gateway.h1().await, BTreeSet::new());
    for _ in 0..9 {
        let reply = client.get("http://app.test/").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        answers.insert(reply.text().to_owned());
    }
    answers
}

fn set(ips: &[&str]) -> BTreeSet<String> {
    ips.iter().map(|ip| (*ip).to_owned()).collect()
}

#[tokio::test]
async fn every_record_is_an_endpoint_and_changes_are_followed() {
    let (dns, origins) = (Dns::start().await, origins());
    dns.records(NAME, &IPS[..2]);
    let gateway = behind(&dns, &origins).await;
    assert_eq!(answering(&gateway).await, set(&IPS[..2]), "names are warm before the first request");
    dns.records(NAME, &IPS[1..]);
    eventually!(answering(&gateway).await == set(&IPS[1..]));
    dns.records(NAME, &IPS[..1]);
    eventually!(answering(&gateway).await == set(&IPS[..1]));
}

#[tokio::test]
async fn the_last_good_answer_outlives_failures_of_the_name_server() {
    let (dns, origins) = (Dns::start().await, origins());
    dns.records(NAME, &IPS[..2]);
    let gateway = behind(&dns, &origins).await;
    for failure in [Answer::ServerFailure, Answer::Silence] {
        let before = dns.queries(NAME);
        dns.say(NAME, failure.clone());
        // It was asked again, and more than once: the time to live is over.
        eventually!(dns.queries(NAME) >= before + 4);
        assert_eq!(answering(&gateway).await, set(&IPS[..2]), "{failure:?}");
    }
    dns.records(NAME, &IPS[2..]);
    eventually!(answering(&gateway).await == set(&IPS[2..]));
}

#[tokio::test]
async fn a_name_without_records_does_not_stop_the_gateway() {
    let (dns, origins) = (Dns::start().await, origins());
    dns.say(NAME, Answer::NoSuchName);
    let gateway = behind(&dns, &origins).await;
    let refused = gateway.get("http://app.test/").await;
    refused.is_rejected(503, "no_endpoint");
    dns.records(NAME, &IPS[..1]);
    eventually!(gateway.get("http://app.test/").await.status == 200);
}

#[tokio::test]
async fn a_silent_name_server_does_not_hold_up_the_start_or_a_change() {
    let (dns, origins) = (Dns::start().await, origins());
    dns.say(NAME, Answer::Silence);
    let gateway = behind(&dns, &origins).await;
    gateway.get("http://app.test/").await.is_rejected(503, "no_endpoint");
    let began = std::time::Instant::now();
    gateway.change(&routes::answering("changed")).await;
    assert_eq!(gateway.get("http://app.test/").await.text(), "changed");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_name_that_is_gone_for_good_loses_its_endpoints() {
    let (dns, origins) = (Dns::start().await, origins());
    dns.records(NAME, &IPS[..1]);
    let gateway = behind(&dns, &origins).await;
    assert_eq!(answering(&gateway).await, set(&IPS[..1]));
    // An authoritative answer, not a failure: what is gone is dropped.
    dns.say(NAME, Answer::Records(Vec::new()));
    eventually!(gateway.get("http://app.test/").await.status == 503);
}

#[tokio::test]
async fn the_name_server_is_not_asked_by_requests() {
    let (dns, origins) = (Dns::start().await, origins());
    dns.records(NAME, &IPS);
    let gateway = behind(&dns, &origins).await;
    let (before, began) = (dns.queries(NAME), std::time::Instant::now());
    for _ in 0..10 {
        answering(&gateway).await;
    }
    // Both record types once a second at most, and one round on its way.
    let most = 2 * (began.elapsed().as_secs() as usize + 2);
    assert!(dns.queries(NAME) - before <= most, "{} queries", dns.queries(NAME) - before);
}
