//! The upstream of `tollgate dev`: a small server that shows what passes through a gateway.
//!
//! Two instances run, so that balancing is seen; each names itself in `x-instance`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::tasks::Tasks;

/// Longest time `/slow` waits: long enough to meet every default timeout.
const SLOW_MAX: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_secs(1);

const PAGE: &str = include_str!("demo.html");

/// Starts an instance on a port of its own on loopback.
pub(super) async fn start(instance: &'static str, tasks: &Tasks) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let app = router(instance);
    tasks.spawn_forever("demo", async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the demo upstream ended");
        }
    });
    Ok(address)
}

fn router(instance: &'static str) -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/hello/{name}", get(hello))
        .route("/headers", any(headers))
        .route("/echo", any(|body: axum::body::Body| async { Response::new(body) }))
        .route("/stream", get(stream))
        .route("/ws", get(websocket))
        .route("/slow", get(slow))
        .route("/status/{code}", any(status))
        .layer(axum::middleware::map_response(move |mut response: Response| async move {
            response.headers_mut().insert("x-instance", HeaderValue::from_static(instance));
            response
        }))
        .with_state(instance)
}

async fn hello(State(instance): State<&'static str>, Path(name): Path<String>) -> String {
    format!("Hello {name}, this is {instance}.\n")
}

/// The request as it arrived here: what the gateway adds, and what it takes away.
async fn headers(request: Request) -> String {
    let mut lines = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        lines.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    lines
}

async fn stream(State(instance): State<&'static str>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(futures_util::stream::unfold(0_u64, move |count| async move {
        if count > 0 {
            tokio::time::sleep(TICK).await;
        }
        Some((Ok(Event::default().id(count.to_string()).data(format!("tick {count} from {instance}"))), count + 1))
    }))
}

#[derive(Debug, serde::Deserialize)]
struct Slow {
    #[serde(default)]
    ms: Option<u64>,
}

async fn slow(Query(slow): Query<Slow>) -> String {
    let pause = slow.ms.map_or(Duration::from_secs(2), Duration::from_millis).min(SLOW_MAX);
    tokio::time::sleep(pause).await;
    format!("waited {} ms\n", pause.as_millis())
}

async fn status(Path(code): Path<u16>) -> Response {
    match StatusCode::from_u16(code) {
        Ok(status) if !status.is_informational() => status.into_response(),
        _ => (StatusCode::BAD_REQUEST, "a status from 200 to 999\n").into_response(),
    }
}

/// Sends every message back.
async fn websocket(mut request: Request) -> Response {
    let Some(accept) = accept_key(request.headers()) else {
        return (StatusCode::UPGRADE_REQUIRED, [(header::UPGRADE, "websocket")], "speak WebSocket here\n")
            .into_response();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    // Ends with its connection, and the runtime bounds it: the demo lives as long as the process.
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut peer = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = peer.next().await {
            if (message.is_text() || message.is_binary()) && peer.send(message).await.is_err() {
                return;
            }
        }
    });
    let switch = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, switch).into_response()
}

fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    if !upgrade.eq_ignore_ascii_case("websocket") {
        return None;
    }
    derive_accept_key(key.as_bytes()).parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    async fn ask(address: SocketAddr, target: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET {target} HTTP/1.1\r\nHost: demo\r\nX-Mark: here\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_what_the_dev_command_says_to_try() {
        let tasks = Tasks::default();
        let address = start("blue", &tasks).await.unwrap();
        for (target, expect) in [
            ("/", "<!doctype html>"),
            ("/hello/you", "Hello you, this is blue."),
            ("/headers", "x-mark: here"),
            ("/slow?ms=1", "waited 1 ms"),
            ("/status/418", "HTTP/1.1 418"),
            ("/status/100", "HTTP/1.1 400"),
            ("/ws", "HTTP/1.1 426"),
        ] {
            let answer = ask(address, target).await;
            assert!(answer.contains(expect), "{target}: {answer}");
            assert!(answer.contains("x-instance: blue"), "{target}: {answer}");
        }
    }

    #[tokio::test]
    async fn sends_websocket_messages_back() {
        let tasks = Tasks::default();
        let address = start("blue", &tasks).await.unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut peer, _) = tokio_tungstenite::client_async(format!("ws://{address}/ws"), stream).await.unwrap();
        peer.send(Message::text("ping")).await.unwrap();
        assert_eq!(peer.next().await.unwrap().unwrap(), Message::text("ping"));
    }
}
