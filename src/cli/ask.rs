//! Asking the admin listener of a gateway that runs.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::settings::Admin;

const WITHIN: Duration = Duration::from_secs(10);
const ANSWER_MAX: usize = 64 << 20;

/// The answer of a page; an error says who was asked and what is wrong.
pub(super) fn ask(admin: &Admin, method: Method, path: &str, json: Option<String>) -> Result<Bytes, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let answer = runtime.block_on(async {
        match tokio::time::timeout(WITHIN, connect(admin, method, path, json)).await {
            Ok(answer) => answer,
            Err(_) => Err("no answer in time".to_owned()),
        }
    });
    answer.map_err(|reason| format!("{}: {reason}", admin.address))
}

async fn connect(admin: &Admin, method: Method, path: &str, json: Option<String>) -> Result<Bytes, String> {
    if let Some(socket) = admin.address.strip_prefix("unix:") {
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        return exchange(stream, "localhost", admin, method, path, json).await;
    }
    let address: SocketAddr = admin.address.parse().map_err(|_| "not an address".to_owned())?;
    // What listens everywhere is asked here.
    let address = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, v6.port())),
        other => other,
    };
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    exchange(stream, &address.to_string(), admin, method, path, json).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    host: &str,
    admin: &Admin,
    method: Method,
    path: &str,
    json: Option<String>,
) -> Result<Bytes, String> {
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let mut request = http::Request::builder().method(method).uri(path).header(http::header::HOST, host);
    if json.is_some() {
        request = request.header(http::header::CONTENT_TYPE, "application/json");
    }
    if let Some(token) = &admin.token {
        request = request.header(http::header::AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    let body = Full::new(Bytes::from(json.unwrap_or_default()));
    let request = request.body(body).map_err(|error| error.to_string())?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(format!("{status}: {}", String::from_utf8_lossy(&body))) }
    };
    // The sender goes with the exchange, and the connection with the sender.
    tokio::join!(exchange, connection).0
}

#[cfg(test)]
mod tests {
    use axum::extract::Json;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::post;

    use super::*;

    #[tokio::test]
    async fn asks_a_gateway_with_its_token() {
        let answer = |headers: HeaderMap, Json(asked): Json<serde_json::Value>| async move {
            match headers.get("authorization").is_some_and(|value| value == "Bearer t") {
                true => Ok(Json(serde_json::json!({ "got": asked["url"] }))),
                false => Err(StatusCode::UNAUTHORIZED),
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address").to_string();
        let server =
            tokio::spawn(axum::serve(listener, axum::Router::new().route("/explain", post(answer))).into_future());
        let ask = |token: &str| {
            let admin = Admin { address: address.clone(), token: Some(token.to_owned()), hosts: Default::default() };
            let json = serde_json::json!({ "url": "http://h/" }).to_string();
            async move { connect(&admin, Method::POST, "/explain", Some(json)).await }
        };
        assert_eq!(ask("t").await.expect("an answer"), r#"{"got":"http://h/"}"#);
        assert!(ask("wrong").await.is_err_and(|reason| reason.contains("401")));
        server.abort();
    }
}
