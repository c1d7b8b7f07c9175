//! Bodies that flow: piece by piece in both directions, held back when the other side is slow, cut off when it leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{Notify, mpsc};

use crate::kit::body::{Feed, sized};
use crate::kit::{Client, Gateway, Origin, channel, empty, full, routes, within};

/// More than all buffers between two ends may hold.
const IN_BETWEEN_MAX: usize = 24 << 20;
const LARGE: usize = 64 << 20;

/// Both versions of HTTP towards the client.
async fn clients(gateway: &Gateway) -> [Client; 2] {
    [gateway.h1().await, gateway.h2c().await]
}

/// An origin that hands the writing end of each answer to the test.
fn handing_over() -> (Origin, mpsc::UnboundedReceiver<Feed>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let origin = Origin::scripted(move |_| {
        let (feed, body) = channel();
        let _ = sender.send(feed);
        async { Ok(Response::builder().header("content-type", "text/event-stream").body(body).unwrap()) }
    });
    (origin, receiver)
}

async fn piece(body: &mut Incoming) -> Option<Bytes> {
    loop {
        let data = within("a piece of the body", body.frame()).await?.unwrap().into_data().unwrap();
        // HTTP/2 may end a stream with an empty DATA frame.
        if !data.is_empty() {
            return Some(data);
        }
    }
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (origin, mut feeds) = handing_over();
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    for mut client in clients(&gateway).await {
        let request = Request::get("http://app.test/events").body(empty()).unwrap();
        let mut body = client.send(request).await.unwrap().into_body();
        let feed = feeds.recv().await.unwrap();
        for number in 0..5 {
            // The next event is made only after the last one arrived: nothing may be held back.
            let event = format!("data: {number}\n\n");
            feed.data(event.clone()).await;
            assert_eq!(piece(&mut body).await.unwrap(), event);
        }
        drop(feed);
        assert_eq!(piece(&mut body).await, None);
    }
}

/// An answer of known length is no reason to wait for all of it.
#[tokio::test]
async fn pieces_of_a_known_length_arrive_one_by_one() {
    let (sender, mut feeds) = mpsc::unbounded_channel();
    let origin = Origin::scripted(move |_| {
        let (feed, body) = channel();
        let _ = sender.send(feed);
        async { Ok(Response::builder().header("content-length", "10").body(body).unwrap()) }
    });
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    for mut client in clients(&gateway).await {
        let answer = client.send(Request::get("http://app.test/").body(empty()).unwrap()).await.unwrap();
        assert_eq!(answer.headers()["content-length"], "10");
        let mut body = answer.into_body();
        let feed = feeds.recv().await.unwrap();
        for half in ["first", "other"] {
            feed.data(half).await;
            assert_eq!(piece(&mut body).await.unwrap(), half);
        }
        drop(feed);
        assert_eq!(piece(&mut body).await, None);
    }
}

#[tokio::test]
async fn request_pieces_are_answered_before_the_next_is_sent() {
    let origin = Origin::scripted(|request| async {
        let (feed, body) = channel();
        tokio::spawn(async move {
            let mut incoming = request.into_body();
            while let Some(Ok(frame)) = incoming.frame().await {
                if let Ok(data) = frame.into_data() {
                    feed.data(data).await;
                }
            }
        });
        Ok(Response::new(body))
    });
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    for mut client in clients(&gateway).await {
        let (feed, body) = channel();
        feed.data("first").await;
        let request = Request::post("http://app.test/").body(body).unwrap();
        let mut answer = client.send(request).await.unwrap().into_body();
        assert_eq!(piece(&mut answer).await.unwrap(), "first");
        for number in 0..5 {
            feed.data(format!("piece {number}")).await;
            assert_eq!(piece(&mut answer).await.unwrap(), format!("piece {number}"));
        }
        drop(feed);
        assert_eq!(piece(&mut answer).await, None);
    }
}

#[tokio::test]
async fn carries_large_bodies_both_ways() {
    let origin = Origin::scripted(|request| async {
        let received = request.into_body().collect().await?.to_bytes().len();
        Ok(Response::builder().header("x-received", received).body(sized(LARGE)).unwrap())
    });
    let route = routes::with(origin.address(), "", "body = { max = \"1GiB\" }");
    let gateway = Gateway::start(&route).await;
    for mut client in clients(&gateway).await {
        let reply = client.fetch(Request::post("http://app.test/").body(sized(LARGE)).unwrap()).await;
        assert_eq!((reply.header("x-received"), reply.body.len()), (LARGE.to_string().as_str(), LARGE));
    }
}

/// Counts what is taken until it stands still, then says how much that was.
async fn stalled_at(taken: &AtomicUsize) -> usize {
    let (mut last, mut still) = (usize::MAX, 0);
    eventually!({
        let now = taken.load(Ordering::SeqCst);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        still == 50
    });
    last
}

/// Writes until nobody reads, counting.
async fn flood(feed: Feed, taken: Arc<AtomicUsize>) {
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    while taken.load(Ordering::SeqCst) < 4 * LARGE && feed.data(piece.clone()).await {
        taken.fetch_add(piece.len(), Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_origin_back() {
    let (origin, mut feeds) = handing_over();
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    for mut client in clients(&gateway).await {
        let request = Request::get("http://app.test/").body(empty()).unwrap();
        let response = client.send(request);
        let (response, feed) = tokio::join!(response, feeds.recv());
        let (body, taken) = (response.unwrap().into_body(), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(flood(feed.unwrap(), taken.clone()));
        let stalled = stalled_at(&taken).await;
        assert!(stalled < IN_BETWEEN_MAX, "{stalled} bytes were taken for a client that reads none");
        let rest = within("the rest", body.collect()).await.unwrap().to_bytes().len();
        assert_eq!(rest, 4 * LARGE);
    }
}

#[tokio::test]
async fn an_origin_that_stops_reading_holds_the_client_back() {
    let go = Arc::new(Notify::new());
    let gate = go.clone();
    let origin = Origin::scripted(move |request| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            let received = request.into_body().collect().await?.to_bytes().len();
            Ok(Response::new(full(received.to_string())))
        }
    });
    let gateway = Gateway::start(&routes::with(origin.address(), "", "body = { max = \"1GiB\" }")).await;
    for mut client in clients(&gateway).await {
        let ((feed, body), taken) = (channel(), Arc::new(AtomicUsize::new(0)));
        let request = Request::post("http://app.test/").body(body).unwrap();
        let answer = tokio::spawn(async move { client.fetch(request).await });
        tokio::spawn(flood(feed, taken.clone()));
        let stalled = stalled_at(&taken).await;
        assert!(stalled < IN_BETWEEN_MAX, "{stalled} bytes were taken for an origin that reads none");
        go.notify_one();
        assert_eq!(answer.await.unwrap().text(), (4 * LARGE).to_string());
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_stream_at_the_origin() {
    let (origin, mut feeds) = handing_over();
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    for mut client in clients(&gateway).await {
        let request = Request::get("http://app.test/").body(empty()).unwrap();
        let mut body = client.send(request).await.unwrap().into_body();
        let feed = feeds.recv().await.unwrap();
        feed.data("on its way").await;
        assert_eq!(piece(&mut body).await.unwrap(), "on its way");
        drop((body, client));
        within("the end of the stream", feed.closed()).await;
    }
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    let origin = Origin::scripted(|_| async { Ok(Response::builder().status(403).body(full("no need")).unwrap()) });
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    for mut client in clients(&gateway).await {
        let (feed, body) = channel();
        feed.data("the beginning").await;
        let reply = client.fetch(Request::post("http://app.test/").body(body).unwrap()).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (403, "no need"));
        drop(feed);
    }
}

#[tokio::test]
async fn streams_live_by_idle_and_not_by_the_time_for_a_head() {
    let (origin, mut feeds) = handing_over();
    let route = "timeout = { head = \"200ms\", idle = \"600ms\" }";
    let gateway = Gateway::start(&routes::with(origin.address(), "", route)).await;
    let request = Request::get("http://app.test/").body(empty()).unwrap();
    let mut body = gateway.h1().await.send(request).await.unwrap().into_body();
    let feed = feeds.recv().await.unwrap();
    let began = std::time::Instant::now();
    while began.elapsed().as_millis() < 1_500 {
        feed.data("tick").await;
        assert_eq!(piece(&mut body).await.unwrap(), "tick");
        crate::kit::pause().await;
    }
    // Now nothing comes: the stream is broken off, it does not end as if it were whole.
    let end = within("the end", body.frame()).await;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}

#[tokio::test]
async fn a_request_timeout_bounds_streams_too() {
    let (origin, mut feeds) = handing_over();
    let gateway = Gateway::start(&routes::with(origin.address(), "", "timeout = { request = \"500ms\" }")).await;
    let request = Request::get("http://app.test/").body(empty()).unwrap();
    let mut body = gateway.h1().await.send(request).await.unwrap().into_body();
    let feed = feeds.recv().await.unwrap();
    let ended = within("the end", async {
        loop {
            feed.data("tick").await;
            match body.frame().await {
                Some(Ok(_)) => crate::kit::pause().await,
                other => break other,
            }
        }
    });
    assert!(matches!(ended.await, Some(Err(_))));
}
