//! Whole exchanges over real connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::{ExchangeError, PickError, Pool, Truncated, exchange};
use super::origin::{Origin, certified};
use super::{adopt, pools};

const SOON: Duration = Duration::from_secs(10);

fn post() -> Request<Bytes> {
    Request::post("/a?b=c")
        .header("host", "pets.test")
        .header("x-a", "1")
        .header("connection", "x-hop")
        .header("x-hop", "2")
        .header("content-length", "999")
        .body(Bytes::from_static(b"body"))
        .unwrap()
}

async fn ask(pool: &Arc<Pool>) -> Result<Response<Bytes>, ExchangeError> {
    exchange(pool, post(), SOON, 1 << 20).await
}

/// Three exchanges on one connection; the request as the origin saw it.
async fn carries(origin: &Origin, words: &str, line: &str) {
    let pools = pools();
    let pool = adopt(&pools, &format!("address = '{}'\n{words}", origin.address));
    for round in 1..=3 {
        let answer = ask(&pool).await.unwrap();
        assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, &b"hello"[..]));
        assert!(answer.extensions().get::<Truncated>().is_none());
        assert_eq!((origin.requests(), origin.connections.load(Ordering::Relaxed)), (round, 1));
    }
    let seen = origin.seen.lock().unwrap()[2].clone();
    assert_eq!((seen.line.as_str(), seen.body.as_ref()), (line, &b"body"[..]));
    assert_eq!(seen.headers["x-a"], "1");
    assert!(seen.headers.get("x-hop").is_none() && seen.headers.get("connection").is_none());
    assert_eq!((pool.in_flight(), pool.snapshot().endpoints[0].connections), (0, 1));
    assert_eq!(pool.snapshot().counts.successes, 3);
    drop((pool, pools));
}

#[tokio::test]
async fn carries_requests_over_every_protocol_and_keeps_the_connection() {
    let (ca, h1) = certified("pets.test", &[b"http/1.1"]);
    let h1 = Origin::start(false, Some(h1), Bytes::from_static(b"hello")).await;
    let tls = |ca: &str| format!("[tls]\nserver_name = 'pets.test'\nca = '''{ca}'''");
    carries(&h1, &format!("protocol = 'auto'\n{}", tls(&ca)), "POST /a?b=c HTTP/1.1").await;
    let (ca, h2) = certified("pets.test", &[b"h2", b"http/1.1"]);
    let h2 = Origin::start(true, Some(h2), Bytes::from_static(b"hello")).await;
    carries(&h2, &format!("protocol = 'auto'\n{}", tls(&ca)), "POST https://pets.test/a?b=c HTTP/2.0").await;
    carries(&Origin::h1().await, "", "POST /a?b=c HTTP/1.1").await;
    carries(&Origin::h2().await, "protocol = 'h2'", "POST http://pets.test/a?b=c HTTP/2.0").await;
}

#[tokio::test]
async fn a_connection_is_not_shared_with_a_stricter_transport() {
    let (ca, tls) = certified("pets.test", &[b"http/1.1"]);
    let origin = Origin::start(false, Some(tls), Bytes::new()).await;
    let pools = pools();
    let text = |tls: &str| format!("address = '{}'\n[tls]\n{tls}", origin.address);
    let pool = adopt(&pools, &text("server_name = 'other.test'\nverify = false"));
    ask(&pool).await.unwrap();
    adopt(&pools, &text(&format!("server_name = 'other.test'\nca = '''{ca}'''")));
    assert!(matches!(ask(&pool).await, Err(ExchangeError::Connect(_))));
    adopt(&pools, &text(&format!("server_name = 'pets.test'\nca = '''{ca}'''")));
    ask(&pool).await.unwrap();
}

#[tokio::test]
async fn old_and_idle_connections_are_left() {
    for words in ["idle = '5s'", "max_age = '5s'"] {
        let (origin, pools) = (Origin::h1().await, pools());
        let pool = adopt(&pools, &format!("address = '{}'\nconnections = {{ {words} }}", origin.address));
        for (wait, connections) in [(0, 1), (1, 1), (6, 2)] {
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(wait)).await;
            tokio::time::resume();
            ask(&pool).await.unwrap();
            assert_eq!(origin.connections.load(Ordering::Relaxed), connections, "{words} after {wait} s");
        }
    }
}

#[tokio::test]
async fn a_long_answer_is_cut_and_marked() {
    let origin = Origin::start(false, None, Bytes::from(vec![b'x'; 100_000])).await;
    let pools = pools();
    let pool = adopt(&pools, &format!("address = '{}'", origin.address));
    for (most, cut) in [(0, true), (99_999, true), (100_000, false)] {
        let answer = exchange(&pool, post(), SOON, most).await.unwrap();
        assert_eq!((answer.body().len(), answer.extensions().get::<Truncated>().is_some()), (most, cut));
        assert_eq!(pool.snapshot().endpoints[0].connections, usize::from(!cut), "what is cut is not used again");
    }
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_replaced_and_reported() {
    let alive = Origin::h1().await;
    let refuses = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pools = pools();
    let text = format!("address = [{{ to = '{refuses}' }}, {{ to = '{}', tier = 2 }}]", alive.address);
    let pool = adopt(&pools, &text);
    assert_eq!(ask(&pool).await.unwrap().status(), StatusCode::OK);
    assert_eq!((pool.snapshot().counts.connect_failures, pool.snapshot().counts.retries), (1, 1));
    adopt(&pools, &format!("{text}\nretry_budget = {{ percent = 0, min = 0 }}"));
    assert!(matches!(ask(&pool).await, Err(ExchangeError::Connect(_))));
    adopt(&pools, &format!("address = '{refuses}'"));
    assert!(matches!(ask(&pool).await, Err(ExchangeError::Connect(_))));
    assert_eq!((pool.in_flight(), pool.snapshot().retries_in_flight), (0, 0));
    let empty = pools.pool("empty");
    assert!(matches!(ask(&empty).await, Err(ExchangeError::Pick(PickError::NoEndpoint))));
}

/// A server that reads the head of each request on a connection and does what the script says.
async fn scripted(script: &'static [&'static str]) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in script {
                let mut read = Vec::new();
                while !read.ends_with(b"body") {
                    if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                if *answer == "hang" {
                    std::future::pending::<()>().await;
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn the_deadline_stands_over_head_and_body() {
    let pools = pools();
    let half = &["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "hang"];
    for address in [scripted(&["hang"]).await, scripted(half).await] {
        let pool = adopt(&pools, &format!("address = '{address}'"));
        let answer = exchange(&pool, post(), Duration::from_millis(50), 100).await;
        assert!(matches!(answer, Err(ExchangeError::Timeout(_))), "{answer:?}");
        assert_eq!(pool.in_flight(), 0);
    }
    assert_eq!(pools.pool("p").snapshot().counts.timeouts, 2);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_and_reported() {
    let pools = pools();
    for script in [&["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"][..], &["nonsense\r\n\r\n"], &[""]] {
        let pool = adopt(&pools, &format!("address = '{}'", scripted(script).await));
        let answer = ask(&pool).await;
        assert!(matches!(answer, Err(ExchangeError::Broken(_))), "{script:?}: {answer:?}");
    }
    assert_eq!(pools.pool("p").snapshot().counts.resets, 3);
}

#[tokio::test]
async fn a_connection_closed_meanwhile_is_replaced_without_a_word() {
    let address = scripted(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]).await;
    let pools = pools();
    let pool = adopt(&pools, &format!("address = '{address}'"));
    for _ in 0..20 {
        // Idempotent, so that even a close that crosses the request is repaired.
        let request = Request::put("/a").header("host", "a").body(Bytes::from_static(b"body")).unwrap();
        assert_eq!(exchange(&pool, request, SOON, 100).await.unwrap().body().as_ref(), b"ok");
    }
    assert_eq!(pool.snapshot().counts.successes, 20);
}
