//! Connections of our own to endpoints, for checks and exchanges: TCP, TLS when the transport wants it.
//!
//! Nothing here has a deadline: whoever dials bounds the whole of what it does.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::transport::Transport;
use crate::config::Protocol;
use crate::proxy_protocol;

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens a connection as the transport wants it. Says whether HTTP/1 or HTTP/2 is spoken on it.
pub(crate) async fn dial(address: SocketAddr, transport: &Transport) -> io::Result<(Stream, Protocol)> {
    let tcp = connect(address, transport).await?;
    let Some(tls) = &transport.tls else {
        let protocol = if transport.protocol == Protocol::H2 { Protocol::H2 } else { Protocol::H1 };
        return Ok((Stream::Clear(tcp), protocol));
    };
    let stream = handshake(tcp, tls.client_config().clone(), &tls.server_name).await?;
    let protocol = if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Protocol::H2 } else { Protocol::H1 };
    if transport.protocol == Protocol::H2 && protocol != Protocol::H2 {
        return Err(io::Error::other("the endpoint does not offer HTTP/2"));
    }
    Ok((Stream::Tls(Box::new(stream)), protocol))
}

/// As `dial`, for HTTP/2 and nothing else, whatever the transport prefers.
pub(crate) async fn dial_h2(address: SocketAddr, transport: &Transport) -> io::Result<Stream> {
    let tcp = connect(address, transport).await?;
    let Some(tls) = &transport.tls else { return Ok(Stream::Clear(tcp)) };
    let stream = handshake(tcp, tls.h2_config(), &tls.server_name).await?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the endpoint does not offer HTTP/2"));
    }
    Ok(Stream::Tls(Box::new(stream)))
}

/// TCP, and a PROXY header where the transport wants one: of our own, since no client stands behind it.
pub(crate) async fn connect(address: SocketAddr, transport: &Transport) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    if let Some(version) = transport.announces {
        stream.write_all(&proxy_protocol::write(version, None)).await?;
    }
    Ok(stream)
}

async fn handshake(
    tcp: TcpStream,
    config: Arc<rustls::ClientConfig>,
    server_name: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(server_name.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, tcp).await
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
