//! What Pingora wants to know of a stream: identity, TLS, timing, addresses.

use std::fmt;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::stream::EdgeStream;

/// A client's socket, with or without TLS.
pub(crate) trait ClientIo: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    fn socket(&self) -> &TcpStream;
}

impl ClientIo for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl ClientIo for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// What Pingora asks for with every request of a connection, made once.
pub(super) type Digests = (Option<Arc<SslDigest>>, Arc<SocketDigest>);

impl<S: ClientIo> EdgeStream<S> {
    fn digests(&self) -> &Digests {
        self.digests.get_or_init(|| {
            let connection = self.connection();
            let tls = connection.tls.as_ref();
            let ssl = tls.map(|tls| Arc::new(SslDigest::new(tls.cipher, tls.version, None, None, Vec::new())));
            let socket = SocketDigest::from_raw_fd(self.io().socket().as_raw_fd());
            let _ = socket.peer_addr.set(Some(connection.peer.into()));
            (ssl, Arc::new(socket))
        })
    }
}

impl<S> fmt::Debug for EdgeStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EdgeStream")
    }
}

#[async_trait]
impl<S: ClientIo> Shutdown for EdgeStream<S> {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
        if self.connection().lingers() {
            self.drain_input().await;
        }
    }
}

impl<S: ClientIo> UniqueID for EdgeStream<S> {
    fn id(&self) -> UniqueIDType {
        self.io().socket().as_raw_fd()
    }
}

impl<S: ClientIo> Ssl for EdgeStream<S> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.digests().0.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.is_h2() { ALPN::H2 } else { ALPN::H1 })
    }
}

impl<S: ClientIo> GetTimingDigest for EdgeStream<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: SystemTime::now(), ..TimingDigest::default() })]
    }
}

impl<S: ClientIo> GetProxyDigest for EdgeStream<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<S: ClientIo> GetSocketDigest for EdgeStream<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digests().1.clone())
    }
}

impl<S: ClientIo> Peek for EdgeStream<S> {}
