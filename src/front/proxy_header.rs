//! A PROXY header off a socket: to its last byte and no further, so that the handshake finds its own bytes.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::proxy_protocol::{Header, Read, read};

/// The client's address by the header; `None` where the proxy speaks for itself. Whoever calls bounds the wait.
pub(super) async fn receive(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut bytes = Vec::with_capacity(128);
    loop {
        match read(&bytes) {
            Read::Whole(Header { source, .. }) => return Ok(source),
            Read::Broken(why) => return Err(io::Error::new(ErrorKind::InvalidData, why)),
            Read::Needs(more) => {
                let more = u64::try_from(more).unwrap_or(u64::MAX);
                if socket.take(more).read_to_end(&mut bytes).await? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}
