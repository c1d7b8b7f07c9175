//! Tries, time limits and connections towards endpoints: what is sent again, what never, and when it is given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::{Method, Request, Response};
use tokio::sync::Semaphore;

use crate::kit::{Gateway, Origin, Port, RawOrigin, Reply, empty, full, routes};

const IN_TURN: &str = "balance = \"round_robin\"";

async fn send(gateway: &Gateway, method: Method, body: Vec<u8>) -> Reply {
    let request = Request::builder().method(method).uri("http://app.test/").body(full(body)).unwrap();
    gateway.h1().await.fetch(request).await
}

/// Reads a whole request, then breaks the connection off.
fn resetting(seen: Arc<AtomicUsize>) -> RawOrigin {
    RawOrigin::start(move |mut connection, _| {
        let seen = seen.clone();
        async move {
            connection.message().await;
            seen.fetch_add(1, Ordering::SeqCst);
        }
    })
}

#[tokio::test]
async fn any_method_is_tried_elsewhere_when_no_connection_opens() {
    let (dead, origin) = (Port::free(), Origin::echo());
    let gateway = Gateway::start(&routes::all_to_each(&[dead.address(), origin.address()], IN_TURN, "")).await;
    for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE] {
        for _ in 0..4 {
            let reply = send(&gateway, method.clone(), b"body".to_vec()).await;
            assert_eq!((reply.status.as_u16(), reply.text()), (200, "body"), "{method}");
        }
    }
    assert_eq!(origin.count(), 16);
    assert!(gateway.metric("tollgate_upstream_retries_total").await >= 1.0);
}

#[tokio::test]
async fn a_large_body_is_whole_after_a_connect_failure() {
    let (dead, origin) = (Port::free(), Origin::echo());
    let gateway = Gateway::start(&routes::all_to_each(&[dead.address(), origin.address()], IN_TURN, "")).await;
    let body: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    for _ in 0..4 {
        let reply = send(&gateway, Method::POST, body.clone()).await;
        assert!(reply.status == 200 && reply.body == body, "{} {}", reply.status, reply.body.len());
    }
}

#[tokio::test]
async fn idempotent_requests_are_tried_elsewhere_after_a_reset() {
    let seen = Arc::new(AtomicUsize::new(0));
    let (bad, good) = (resetting(seen.clone()), Origin::echo());
    let gateway = Gateway::start(&routes::all_to_each(&[bad.address(), good.address()], IN_TURN, "")).await;
    for (method, body) in [(Method::GET, ""), (Method::PUT, "a body"), (Method::DELETE, ""), (Method::OPTIONS, "")] {
        for _ in 0..2 {
            let reply = send(&gateway, method.clone(), body.into()).await;
            assert_eq!((reply.status.as_u16(), reply.text()), (200, body), "{method}");
        }
    }
    assert_eq!(good.count(), 8);
    assert!(seen.load(Ordering::SeqCst) >= 4, "the bad one was tried");
}

#[tokio::test]
async fn what_is_not_idempotent_is_never_sent_twice() {
    let seen = Arc::new(AtomicUsize::new(0));
    let (one, two) = (resetting(seen.clone()), resetting(seen.clone()));
    let words = "retry = { attempts = 5 }";
    let gateway = Gateway::start(&routes::all_to_each(&[one.address(), two.address()], IN_TURN, words)).await;
    for (count, method) in [Method::POST, Method::PATCH].into_iter().enumerate() {
        send(&gateway, method, b"once".to_vec()).await.is_rejected(502, "upstream_reset");
        assert_eq!(seen.load(Ordering::SeqCst), count + 1);
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_no_request() {
    // Closes each connection after one answer, without saying so: the next request on it may be lost.
    let origin = RawOrigin::start(|mut connection, _| async move {
        if connection.message().await.is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    });
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    for _ in 0..20 {
        assert_eq!(send(&gateway, Method::GET, Vec::new()).await.text(), "ok");
    }
}

#[tokio::test]
async fn a_body_too_long_to_keep_is_not_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let (one, two) = (resetting(seen.clone()), resetting(seen.clone()));
    let gateway = Gateway::start(&routes::all_to_each(&[one.address(), two.address()], IN_TURN, "")).await;
    send(&gateway, Method::PUT, vec![b'x'; 200_000]).await.is_rejected(502, "upstream_reset");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn tries_end_at_the_number_of_attempts() {
    let seen = Arc::new(AtomicUsize::new(0));
    let origins: Vec<_> = (0..4).map(|_| resetting(seen.clone())).collect();
    let addresses: Vec<_> = origins.iter().map(RawOrigin::address).collect();
    for (words, tries) in [("", 2), ("retry = { attempts = 1 }", 1), ("retry = { attempts = 3 }", 3)] {
        let before = seen.load(Ordering::SeqCst);
        let gateway = Gateway::start(&routes::all_to_each(&addresses, IN_TURN, words)).await;
        send(&gateway, Method::GET, Vec::new()).await.is_rejected(502, "upstream_reset");
        assert_eq!(seen.load(Ordering::SeqCst) - before, tries, "{words}");
        let line = gateway.access_line(|line| line["status"] == 502).await;
        assert_eq!(line["attempts"], tries, "{line}");
    }
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    // Everything waits until all are there, then everything is reset at once.
    const REQUESTS: usize = 30;
    let (seen, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let origin = || {
        let (seen, gate) = (seen.clone(), gate.clone());
        RawOrigin::start(move |mut connection, _| {
            let (seen, gate) = (seen.clone(), gate.clone());
            async move {
                connection.message().await;
                seen.fetch_add(1, Ordering::SeqCst);
                let _ = gate.acquire().await.unwrap();
            }
        })
    };
    let (one, two) = (origin(), origin());
    let words = format!("{IN_TURN}\nretry_budget = {{ percent = 0, min = 3 }}");
    let gateway = Gateway::start(&routes::all_to_each(&[one.address(), two.address()], &words, "")).await;
    let address = gateway.http();
    let requests: Vec<_> = (0..REQUESTS)
        .map(|_| tokio::spawn(async move { crate::kit::get(address, "http://app.test/").await }))
        .collect();
    eventually!(seen.load(Ordering::SeqCst) == REQUESTS);
    gate.add_permits(REQUESTS);
    // Retries wait at the gate: no more of them than the budget allows at once.
    eventually!(seen.load(Ordering::SeqCst) > REQUESTS);
    gate.add_permits(3 * REQUESTS);
    for request in requests {
        assert_eq!(request.await.unwrap().status, 502);
    }
    let retries = seen.load(Ordering::SeqCst) - REQUESTS;
    assert!(retries < REQUESTS / 2, "{retries} retries");
}

#[tokio::test]
async fn no_connection_at_all_is_a_bad_gateway() {
    let dead = Port::free();
    let gateway = Gateway::start(&routes::all_to(dead.address())).await;
    send(&gateway, Method::GET, Vec::new()).await.is_rejected(502, "upstream_connect");
}

#[tokio::test]
async fn an_invalid_answer_is_a_bad_gateway() {
    for bytes in ["NONSENSE\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let origin = RawOrigin::answering(bytes);
        let gateway = Gateway::start(&routes::all_to(origin.address())).await;
        send(&gateway, Method::POST, Vec::new()).await.is_rejected(502, "upstream_protocol");
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_is_a_timeout() {
    let origin = RawOrigin::start(|mut connection, _| async move { while connection.message().await.is_some() {} });
    let gateway = Gateway::start(&routes::with(origin.address(), "", "timeout = { head = \"300ms\" }")).await;
    let began = Instant::now();
    send(&gateway, Method::POST, b"x".to_vec()).await.is_rejected(504, "upstream_timeout");
    assert!((250..5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_request_as_a_whole_can_be_bounded() {
    let origin = RawOrigin::start(|mut connection, _| async move { while connection.message().await.is_some() {} });
    let gateway = Gateway::start(&routes::with(origin.address(), "", "timeout = { request = \"300ms\" }")).await;
    send(&gateway, Method::POST, b"x".to_vec()).await.is_rejected(504, "request_timeout");
}

#[tokio::test]
async fn the_last_attempt_is_the_one_that_is_told() {
    let dead = Port::free();
    let silent = RawOrigin::start(|mut connection, _| async move { while connection.message().await.is_some() {} });
    let words = "timeout = { head = \"300ms\", idle = \"1s\" }";
    let gateway = Gateway::start(&routes::all_to_each(&[dead.address(), silent.address()], IN_TURN, words)).await;
    // Every other request is refused a connection first; what the client waited for is the endpoint that said nothing.
    for _ in 0..2 {
        send(&gateway, Method::GET, Vec::new()).await.is_rejected(504, "upstream_timeout");
    }
}

#[tokio::test]
async fn a_connection_that_does_not_open_is_given_up() {
    // A queue of one that nobody empties: the kernel drops further SYNs.
    let full_queue = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full_queue.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full_queue.listen(0).unwrap();
    let address = full_queue.local_addr().unwrap().as_socket().unwrap();
    let _filling: Vec<_> = (0..4)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let gateway = Gateway::start(&routes::with(address, "", "timeout = { connect = \"300ms\" }")).await;
    let began = Instant::now();
    let reply = send(&gateway, Method::GET, Vec::new()).await;
    assert!(["upstream_connect", "upstream_timeout"].contains(&reply.code().as_str()), "{reply:?}");
    assert!((250..5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn connections_to_an_endpoint_are_bounded() {
    let gate = Arc::new(Semaphore::new(0));
    let permits = gate.clone();
    let origin = Origin::scripted(move |_| {
        let permits = permits.clone();
        async move {
            permits.acquire().await.unwrap().forget();
            Ok(Response::new(empty()))
        }
    });
    let spare = Origin::text("spare");
    let words = "connections = { max = 1 }";
    let gateway = Gateway::start(&routes::with(origin.address(), words, "")).await;
    let address = gateway.http();
    let waiting = tokio::spawn(async move { crate::kit::get(address, "http://app.test/").await });
    eventually!(origin.count() == 1);
    send(&gateway, Method::GET, Vec::new()).await.is_rejected(503, "connection_limit");
    gateway.change(&routes::all_to_each(&[origin.address(), spare.address()], words, "")).await;
    for _ in 0..5 {
        assert_eq!(send(&gateway, Method::GET, Vec::new()).await.text(), "spare");
    }
    gate.add_permits(1);
    assert_eq!(waiting.await.unwrap().status, 200);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn idle_and_old_connections_are_not_used_again() {
    let origin = Origin::text("ok");
    let gateway = Gateway::start(&routes::with(origin.address(), "connections = { idle = \"200ms\" }", "")).await;
    send(&gateway, Method::GET, Vec::new()).await;
    eventually!(origin.open() == 0);

    let origin = Origin::text("ok");
    let words = "connections = { max_age = \"300ms\" }";
    let gateway = Gateway::start(&routes::with(origin.address(), words, "")).await;
    let began = Instant::now();
    while began.elapsed().as_millis() < 1_000 {
        send(&gateway, Method::GET, Vec::new()).await;
        crate::kit::pause().await;
    }
    assert!((2..=8).contains(&origin.connections()), "{} connections", origin.connections());
}
