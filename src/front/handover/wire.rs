//! Messages of a hand-over: a length, JSON, and at most one descriptor riding on the first byte of the length.
//!
//! One descriptor per message keeps clear of the kernel's limit per message, and of the question which of them belongs to
//! which name.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A name and a few words fit; nothing of ours is longer.
const MESSAGE_MAX: usize = 4096;
/// What the length takes.
const LENGTH: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// New to old: who asks.
    Hello { protocol: u32, version: String },
    /// Old to new: a socket; the descriptor rides along.
    Socket { name: String },
    /// Old to new: these were all.
    All { sockets: usize },
    /// New to old: accepting on every one of them.
    Serving,
    /// Old to new: it leaves now.
    Leaving,
    /// Old to new: it goes on serving, the new one must not.
    Withdrawn { reason: String },
}

pub(super) async fn send(stream: &UnixStream, message: &Message, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    let mut rest = bytes.as_slice();
    let mut riding = socket;
    while !rest.is_empty() {
        let sent = stream.async_io(Interest::WRITABLE, || send_once(stream, rest, riding)).await?;
        riding = None;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

fn send_once(stream: &UnixStream, bytes: &[u8], socket: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<BorrowedFd<'_>> = socket.into_iter().collect();
    if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // NOSIGNAL: a peer that is gone is an error here, not a SIGPIPE.
    Ok(rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// The next message. `UnexpectedEof` if the peer is gone.
pub(super) async fn receive(stream: &UnixStream) -> io::Result<(Message, Option<OwnedFd>)> {
    let mut length = [0; LENGTH];
    let socket = fill(stream, &mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MESSAGE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
    }
    let mut body = vec![0; length];
    fill(stream, &mut body).await?;
    Ok((serde_json::from_slice(&body)?, socket))
}

/// Fills the buffer; yields the descriptor that came with it, closing any beyond the first.
async fn fill(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<Option<OwnedFd>> {
    let mut filled = 0;
    let mut socket = None;
    while let Some(rest @ [_, ..]) = buffer.get_mut(filled..) {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || receive_once(stream, rest)) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((received, came)) => {
                filled += received;
                socket = socket.or(came);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(socket)
}

fn receive_once(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(stream.as_fd(), &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
    let socket = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    Ok((received.bytes, socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn carries_messages_and_descriptors_in_order() {
        let (left, right) = UnixStream::pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let named = |name: &str| Message::Socket { name: name.to_owned() };
        send(&left, &named("a"), Some(listener.as_fd())).await.unwrap();
        send(&left, &named("b"), None).await.unwrap();
        send(&left, &named("c"), Some(listener.as_fd())).await.unwrap();
        for (name, with) in [("a", true), ("b", false), ("c", true)] {
            let (message, socket) = receive(&right).await.unwrap();
            assert_eq!(message, named(name));
            assert_eq!(socket.is_some(), with, "{name}");
            if let Some(socket) = socket {
                let same = std::net::TcpListener::from(socket);
                assert_eq!(same.local_addr().unwrap(), listener.local_addr().unwrap());
            }
        }
        drop(left);
        assert_eq!(receive(&right).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn refuses_what_is_no_message() {
        use tokio::io::AsyncWriteExt as _;
        for bytes in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02{]", b"\0\0\0\x04\"hi\""] {
            let (mut left, right) = UnixStream::pair().unwrap();
            left.write_all(bytes).await.unwrap();
            assert_eq!(receive(&right).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
