//! Serves pages on one listener: HTTP/1.1, few connections, a deadline on every head.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections open at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// Time to send a head; a connection without requests is closed after it, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for answers under way when the process leaves.
const GRACE: Duration = Duration::from_secs(2);
/// Pause after a failed accept: descriptors may have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Where pages are served.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// https.
    Tls(TcpListener, Arc<ServerConfig>),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Listener {
        Listener::Unix(listener)
    }
}

/// The address of ours that a client has connected to; none on a socket file. An extension of every request.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalAddress(pub(super) Option<IpAddr>);

/// Who is connected. An extension of every request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    pub address: Option<IpAddr>,
    /// It came over TLS.
    pub encrypted: bool,
    /// It has shown a certificate that the listener trusts.
    pub proven: bool,
}

/// Cancelled when the process leaves: answers without an end end. An extension of every request.
#[derive(Clone, Debug)]
pub struct Leaving(pub CancellationToken);

/// Serves until `shutdown`, then lets answers under way finish for a moment. Dropping it ends all connections.
pub async fn serve(listener: impl Into<Listener>, router: Router, shutdown: CancellationToken) {
    let listener = listener.into();
    let router = router.layer(Extension(Leaving(shutdown.clone())));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await.ok();
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            Some(_) = connections.join_next() => continue,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, local, peer)) => {
                let (router, shutdown) = (router.clone().layer(Extension(LocalAddress(local))), shutdown.clone());
                let tls = match &listener {
                    Listener::Tls(_, config) => Some(TlsAcceptor::from(config.clone())),
                    Listener::Tcp(_) | Listener::Unix(_) => None,
                };
                connections.spawn(async move {
                    if let Some((stream, peer)) = greet(stream, peer, tls).await {
                        converse(stream, router.layer(Extension(peer)), shutdown).await;
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin or health listener cannot accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Listener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<IpAddr>, Peer)> {
        match self {
            Listener::Tcp(listener) | Listener::Tls(listener, _) => {
                let (stream, from) = listener.accept().await?;
                let local = stream.local_addr()?.ip();
                Ok((Box::new(stream), Some(local), Peer { address: Some(from.ip()), ..Peer::default() }))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), None, Peer::default()))
            }
        }
    }
}

/// The handshake, if there is one.
async fn greet(stream: Box<dyn Stream>, peer: Peer, tls: Option<TlsAcceptor>) -> Option<(Box<dyn Stream>, Peer)> {
    let Some(tls) = tls else { return Some((stream, peer)) };
    match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let proven = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
            Some((Box::new(stream), Peer { encrypted: true, proven, ..peer }))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            None
        }
        Err(_) => None,
    }
}

async fn converse(stream: Box<dyn Stream>, router: Router, shutdown: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin or health listener broke");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_and_a_silent_connection_are_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Router::new(), CancellationToken::new()));
        for bytes in ["", "GET / HTTP/1.1\r\nHost: local"] {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let mut answer = String::new();
            tokio::time::timeout(HEAD_TIMEOUT * 2, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(begun.elapsed() >= HEAD_TIMEOUT && !answer.contains("200 OK"), "{answer}");
        }
    }
}
