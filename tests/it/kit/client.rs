//! HTTP clients: one connection each, HTTP/1 or HTTP/2, cleartext or TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Body, empty, tls, within};

/// A connection to the gateway.
pub(crate) struct Client(Sender);

enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Client {
    pub(crate) async fn h1(address: SocketAddr) -> Client {
        Client::try_h1(address).await.unwrap()
    }

    /// The error is that of connecting.
    pub(crate) async fn try_h1(address: SocketAddr) -> std::io::Result<Client> {
        Ok(Client::h1_over(TcpStream::connect(address).await?).await)
    }

    /// HTTP/2 by prior knowledge.
    pub(crate) async fn h2c(address: SocketAddr) -> Client {
        Client::h2_over(TcpStream::connect(address).await.unwrap()).await
    }

    /// Over TLS; the version is the one ALPN agrees on.
    pub(crate) async fn tls(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> std::io::Result<Client> {
        let stream = tls::connect(TcpStream::connect(address).await?, name, config).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(if h2 { Client::h2_over(stream).await } else { Client::h1_over(stream).await })
    }

    async fn h1_over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Client {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        Client(Sender::H1(sender))
    }

    pub(crate) async fn h2_over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Client {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        Client(Sender::H2(sender))
    }

    /// The head of the answer; the body is still to come. The URI is absolute, its authority becomes Host or `:authority`.
    pub(crate) async fn send(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        within("an answer", async {
            match &mut self.0 {
                Sender::H1(sender) => {
                    sender.ready().await?;
                    origin_form(&mut request);
                    sender.send_request(request).await
                }
                Sender::H2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        })
        .await
    }

    pub(crate) async fn try_fetch(&mut self, request: Request<Body>) -> hyper::Result<Reply> {
        Reply::read(self.send(request).await?).await
    }

    pub(crate) async fn fetch(&mut self, request: Request<Body>) -> Reply {
        self.try_fetch(request).await.unwrap()
    }

    pub(crate) async fn get(&mut self, url: &str) -> Reply {
        self.fetch(Request::get(url).body(empty()).unwrap()).await
    }

    pub(crate) fn is_closed(&self) -> bool {
        match &self.0 {
            Sender::H1(sender) => sender.is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        }
    }
}

/// On a connection of its own.
pub(crate) async fn get(address: SocketAddr, url: &str) -> Reply {
    Client::h1(address).await.get(url).await
}

fn origin_form(request: &mut Request<Body>) {
    let uri = request.uri().clone();
    if let Some(authority) = uri.authority() {
        let host = authority.as_str().parse().unwrap();
        request.headers_mut().entry(http::header::HOST).or_insert(host);
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        *request.uri_mut() = target.parse::<Uri>().unwrap();
    }
}

impl Reply {
    pub(crate) async fn read(response: Response<Incoming>) -> hyper::Result<Reply> {
        let (head, body) = response.into_parts();
        let collected = within("the rest of the body", body.collect()).await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let body = collected.to_bytes();
        Ok(Reply { status: head.status, version: head.version, headers: head.headers, body, trailers })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The one field of the name, or an empty text.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut all = self.headers.get_all(name).iter();
        let first = all.next().map_or("", |value| value.to_str().unwrap());
        assert!(all.next().is_none(), "{name} is repeated: {self:?}");
        first
    }

    /// The code of an answer the gateway gave by itself; checks its shape (RFC 9457).
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        assert!(problem["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{problem}");
        problem["code"].as_str().unwrap().to_owned()
    }

    /// Checks status and code at once, with the whole answer when they are others.
    pub(crate) fn is_rejected(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.code().as_str()), (status, code), "{self:?}");
    }
}
