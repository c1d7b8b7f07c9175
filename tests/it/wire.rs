//! The corpus on the wire: each bad request gets its answer, and the upstream sees nothing of it or exactly what is clean.

use std::sync::{Arc, Mutex};

use crate::corpus::{Answer, Case, cases};
use crate::kit::raw::Message;
use crate::kit::{Gateway, Raw, RawOrigin, routes};

/// What the upstream saw, judged by its own strict reading.
#[derive(Default)]
struct Upstream {
    whole: usize,
    unclean: Vec<String>,
}

type Shared = Arc<Mutex<Upstream>>;

fn upstream() -> (RawOrigin, Shared) {
    let shared = Shared::default();
    let log = shared.clone();
    let origin = RawOrigin::start(move |mut connection, _| {
        let log = log.clone();
        async move {
            while let Some(request) = connection.message().await {
                {
                    let mut log = log.lock().unwrap();
                    log.whole += 1;
                    log.unclean.extend(blemish(&request.head).map(|blemish| format!("{blemish}: {:?}", request.head)));
                }
                let path = request.head.split(' ').nth(1).unwrap_or_default();
                let status = path.rsplit_once("/status/").map_or("200", |(_, status)| status);
                let length = if status == "204" || status == "304" { "" } else { "Content-Length: 0\r\n" };
                connection.send(format!("HTTP/1.1 {status} X\r\n{length}\r\n")).await;
            }
        }
    });
    (origin, shared)
}

/// What is wrong with a head that reached the upstream, if anything is.
fn blemish(head: &str) -> Option<String> {
    let mut lines = head.split("\r\n");
    let start: Vec<_> = lines.next()?.split(' ').collect();
    if start.len() != 3 || start[2] != "HTTP/1.1" || !start[1].starts_with(['/', '*']) {
        return Some(format!("start line {start:?}"));
    }
    let mut names = Vec::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Some(format!("field {line:?}")) };
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(token) || value.contains(|c: char| c.is_control() && c != '\t') {
            return Some(format!("field {line:?}"));
        }
        names.push(name.to_ascii_lowercase());
    }
    let count = |wanted: &str| names.iter().filter(|name| *name == wanted).count();
    let framings = count("content-length") + count("transfer-encoding");
    if count("host") != 1 || framings > 1 {
        return Some(format!("{} Host, {framings} framings", count("host")));
    }
    // Bytes above 0x7f are fine in values (RFC 9110 5.5).
    head.contains('\0').then(|| "NUL".to_owned())
}

/// The next answer that is not interim.
async fn answer(client: &mut Raw) -> Option<Message> {
    loop {
        let message = client.message().await?;
        if message.status() >= 200 {
            return Some(message);
        }
    }
}

async fn run(case: &Case, gateway: &Gateway, upstream: &Shared) -> Result<(), String> {
    let before = upstream.lock().unwrap().whole;
    let mut client = Raw::connect(gateway.http()).await;
    client.send(&case.request).await;
    let mut ended = false;
    for expected in &case.expect {
        let got = answer(&mut client).await;
        match (expected, &got) {
            (Answer::Status(status), Some(message)) if message.status() == *status => {}
            (Answer::StatusOrClose(status), Some(message)) if message.status() == *status => {}
            (Answer::StatusOrClose(_) | Answer::Close, None) => ended = true,
            _ => return Err(format!("{expected:?} expected, got {got:?}")),
        }
    }
    let own = case.expect.len() > case.seen.whole;
    if own && !ended {
        let rest = client.rest().await;
        if !rest.is_empty() {
            return Err(format!("behind the refusal came {:?}", String::from_utf8_lossy(&rest)));
        }
    }
    let whole = upstream.lock().unwrap().whole - before;
    if whole != case.seen.whole {
        return Err(format!("the upstream saw {whole} whole requests instead of {}", case.seen.whole));
    }
    Ok(())
}

#[tokio::test]
async fn every_request_of_the_corpus_gets_its_answer() {
    let (origin, seen) = upstream();
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let all = cases();
    assert!(all.len() >= 200, "{}", all.len());
    let mut wrong = Vec::new();
    for case in &all {
        if let Err(told) = run(case, &gateway, &seen).await {
            let judge = if case.by_gateway { " (the guard lets it pass)" } else { "" };
            wrong.push(format!("{}{judge}: {told}", case.name));
        }
    }
    let unclean = std::mem::take(&mut seen.lock().unwrap().unclean);
    wrong.extend(unclean);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert_eq!(gateway.metric("tollgate_requests_total{class=\"5xx\"}").await, 0.0, "a refusal is not our failure");
}

#[tokio::test]
async fn refusals_reach_log_and_metrics_however_early() {
    let (origin, _) = upstream();
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let refused: Vec<Case> = cases().into_iter().filter(|case| case.expect == [Answer::Status(400)]).take(50).collect();
    for case in &refused {
        let mut client = Raw::connect(gateway.http()).await;
        client.send(&case.request).await;
        assert_eq!(client.answer().await.code(), "bad_request", "{}", case.name);
    }
    eventually!(gateway.metric("tollgate_rejections_total{code=\"bad_request\"}").await == refused.len() as f64);
    eventually!(gateway.access().len() == refused.len());
    let silent: Vec<_> = gateway.access().into_iter().filter(|line| line["cause"].is_null()).collect();
    assert!(silent.is_empty(), "no cause: {silent:?}");
}
