//! Servers on loopback: HTTP/1, HTTP/2, gRPC health, each with an answer the test can change.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// What a request was, as the origin saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) line: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An HTTP server that answers every request with one status and its own body.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    pub(super) status: Arc<AtomicU16>,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
    body: Bytes,
    stop: CancellationToken,
}

impl Origin {
    pub(super) async fn h1() -> Origin {
        Origin::start(false, None, Bytes::from_static(b"hello")).await
    }

    pub(super) async fn h2() -> Origin {
        Origin::start(true, None, Bytes::from_static(b"hello")).await
    }

    pub(super) async fn start(h2: bool, tls: Option<TlsAcceptor>, body: Bytes) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin {
            address: listener.local_addr().unwrap(),
            status: Arc::new(AtomicU16::new(200)),
            connections: Arc::default(),
            seen: Arc::default(),
            body,
            stop: CancellationToken::new(),
        };
        tokio::spawn(origin.clone().stop.run_until_cancelled_owned(origin.clone().accept(listener, h2, tls)));
        origin
    }

    /// Refuses connections and cuts those there are.
    pub(super) fn kill(&self) {
        self.stop.cancel();
    }

    pub(super) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    pub(super) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    async fn accept(self, listener: TcpListener, h2: bool, tls: Option<TlsAcceptor>) {
        while let Ok((stream, _)) = listener.accept().await {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let (origin, stop, tls) = (self.clone(), self.stop.clone(), tls.clone());
            tokio::spawn(stop.run_until_cancelled_owned(async move {
                match tls {
                    None => origin.serve(TokioIo::new(stream), h2).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            origin.serve(TokioIo::new(stream), h2).await;
                        }
                    }
                }
            }));
        }
    }

    async fn serve(self, io: impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static, h2: bool) {
        let respond = service_fn(move |request| {
            let origin = self.clone();
            async move { origin.respond(request).await }
        });
        let _ = if h2 {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, respond).await
        } else {
            hyper::server::conn::http1::Builder::new().serve_connection(io, respond).await
        };
    }

    async fn respond(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let line = format!("{} {} {:?}", parts.method, parts.uri, parts.version);
        self.seen.lock().unwrap().push(Seen { line, headers: parts.headers, body });
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.status_mut() = self.status.load(Ordering::Relaxed).try_into().unwrap();
        Ok(response)
    }
}

/// A server of grpc.health.v1; `status` is the serving status, or with 100 added the grpc-status of a failing call.
pub(super) async fn grpc_health(status: Arc<AtomicU16>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(grpc_connection(stream, status.clone()));
        }
    });
    address
}

async fn grpc_connection(stream: tokio::net::TcpStream, status: Arc<AtomicU16>) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let head = || Response::builder().header("content-type", "application/grpc");
        let status = status.load(Ordering::Relaxed);
        if status >= 100 {
            respond.send_response(head().header("grpc-status", status - 100).body(()).unwrap(), true)?;
            continue;
        }
        let mut body = respond.send_response(head().body(()).unwrap(), false)?;
        body.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status as u8]), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        body.send_trailers(trailers)?;
    }
    Ok(())
}

/// A certificate authority and a server configuration for a name it certifies.
pub(super) fn certified(name: &str, alpn: &[&[u8]]) -> (String, TlsAcceptor) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new([name.to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    (pem, TlsAcceptor::from(Arc::new(config)))
}
