//! Handing the listening sockets to a new binary, without a moment in which nobody accepts.
//!
//! ```text
//! old (QUIT)                                  new (run --upgrade)
//!                    ◀── hello ──             connects, may wait for the QUIT
//! sockets, by name   ──────────▶              starts up whole: document applied, accepting
//!                    ◀── serving ──           both accept on the same sockets meanwhile
//! drains, exits 0    ── leaving ──▶           alone
//! ```
//! Until `serving` has come the old process gives up nothing: if the new one fails, is late or goes away, the old one
//! goes on and is ready for another try. It tells a late one (`withdrawn`), so that two never believe to be the one.
//! This file knows sockets and names, nothing of HTTP.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout, timeout_at};

mod wire;
use wire::Message;

/// Raised when messages change their meaning: binaries that do not understand each other refuse.
const PROTOCOL: u32 = 1;
/// Far more listeners than anybody has.
const SOCKETS_MAX: usize = 1024;
const RETRY: Duration = Duration::from_millis(50);
/// For a message to a peer that runs and has nothing to wait for.
const AT_ONCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("hand-over socket {path}: {cause}")]
    Socket { path: PathBuf, cause: io::Error },
    #[error("hand-over socket {0}: anybody may write to its directory")]
    Directory(PathBuf),
    #[error("hand-over socket {0}: another gateway is listening there; start with --upgrade to take over from it")]
    InUse(PathBuf),
    #[error("no new gateway came to take over within {0:?}")]
    NoSuccessor(Duration),
    #[error("no gateway handed over at {path} within {waited:?}; it does so on QUIT")]
    NoPredecessor { path: PathBuf, waited: Duration },
    #[error("the new gateway was not serving within {0:?}")]
    Late(Duration),
    #[error("the other gateway went away: {0}")]
    Lost(io::Error),
    #[error("the other process belongs to user {0}")]
    Stranger(u32),
    #[error("the other gateway speaks another hand-over protocol ({0})")]
    Protocol(String),
    #[error("the old gateway goes on serving: {0}")]
    Withdrawn(String),
}

/// The socket at which this process hands over when it is told to.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Offer {
    /// Listens at the path, for our own user only. What a crash left there is removed.
    pub fn bind(path: &Path) -> Result<Offer, HandoverError> {
        let failed = |cause| HandoverError::Socket { path: path.to_owned(), cause };
        check_directory(path)?;
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(HandoverError::InUse(path.to_owned()));
        }
        remove_socket(path).map_err(failed)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let inode = std::fs::symlink_metadata(path).map_err(failed)?.ino();
        Ok(Offer { listener, path: path.to_owned(), inode })
    }

    /// Hands the sockets over: waits for a new process, and until it says that it serves. On an error nothing has changed
    /// and it may be tried again. After `Ok` this process must drain. The copies of the sockets given here are closed
    /// in either case.
    pub async fn hand_over(&mut self, sockets: Vec<(String, OwnedFd)>, within: Duration) -> Result<(), HandoverError> {
        let stream = self.pass(&sockets, within).await?;
        match timeout(within, wire::receive(&stream)).await {
            Ok(Ok((Message::Serving, _))) => {}
            Ok(Ok((other, _))) => return Err(withdraw(&stream, HandoverError::Protocol(format!("{other:?}"))).await),
            Ok(Err(error)) => return Err(withdraw(&stream, HandoverError::Lost(error)).await),
            Err(_) => return Err(withdraw(&stream, HandoverError::Late(within)).await),
        }
        // Gone before the new process hears of it: it binds the same path next.
        self.unlink();
        // Whether it still hears us changes nothing: it serves, we leave.
        let _ = timeout(AT_ONCE, wire::send(&stream, &Message::Leaving, None)).await;
        Ok(())
    }

    /// Finds a process that takes all sockets. Those that waited for us and left meanwhile are passed over.
    async fn pass(&self, sockets: &[(String, OwnedFd)], within: Duration) -> Result<UnixStream, HandoverError> {
        let deadline = Instant::now() + within;
        loop {
            let (stream, _) = timeout_at(deadline, self.listener.accept())
                .await
                .map_err(|_| HandoverError::NoSuccessor(within))?
                .map_err(|cause| HandoverError::Socket { path: self.path.clone(), cause })?;
            match timeout(AT_ONCE, pass_to(&stream, sockets)).await {
                Ok(Ok(())) => return Ok(stream),
                Ok(Err(error)) => tracing::warn!(%error, "hand-over: passed over a process that asked"),
                Err(_) => tracing::warn!("hand-over: passed over a process that asked and said nothing"),
            }
        }
    }

    fn unlink(&self) {
        // Another process may have put its own there.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.unlink();
    }
}

async fn pass_to(stream: &UnixStream, sockets: &[(String, OwnedFd)]) -> Result<(), HandoverError> {
    check_peer(stream)?;
    match wire::receive(stream).await.map_err(HandoverError::Lost)? {
        (Message::Hello { protocol: PROTOCOL, version }, _) => {
            tracing::info!(version, sockets = sockets.len(), "hand-over: a new gateway takes the sockets");
        }
        (other, _) => {
            let refusal = HandoverError::Protocol(format!("{other:?}"));
            return Err(withdraw(stream, refusal).await);
        }
    }
    for (name, socket) in sockets {
        let message = Message::Socket { name: name.clone() };
        wire::send(stream, &message, Some(socket.as_fd())).await.map_err(HandoverError::Lost)?;
    }
    wire::send(stream, &Message::All { sockets: sockets.len() }, None).await.map_err(HandoverError::Lost)
}

async fn withdraw(stream: &UnixStream, why: HandoverError) -> HandoverError {
    let message = Message::Withdrawn { reason: why.to_string() };
    let _ = timeout(AT_ONCE, wire::send(stream, &message, None)).await;
    why
}

/// Listening sockets that came from the process before, by name. Those not taken are closed with it.
#[derive(Debug, Default)]
pub struct Inherited(BTreeMap<String, OwnedFd>);

impl Inherited {
    /// The listener of the name, if it listens at this address (port 0: at any port of it).
    pub fn take_tcp(&mut self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        let listener = TcpListener::from(self.0.remove(name)?);
        let is = listener.local_addr().ok()?;
        let same = is.ip() == address.ip() && (is.port() == address.port() || address.port() == 0);
        if !same {
            tracing::info!(name, %is, wanted = %address, "hand-over: the address has changed, listening anew");
        }
        (same && listener.set_nonblocking(true).is_ok()).then_some(listener)
    }

    /// The listener of the name, if it listens at this path.
    pub fn take_unix(&mut self, name: &str, path: &Path) -> Option<StdUnixListener> {
        let listener = StdUnixListener::from(self.0.remove(name)?);
        let same = listener.local_addr().ok()?.as_pathname() == Some(path);
        (same && listener.set_nonblocking(true).is_ok()).then_some(listener)
    }

    /// What nobody has taken.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Held by the new process until it serves.
#[derive(Debug)]
pub struct Successor(UnixStream);

/// Asks the process at the path for its listening sockets. It answers once it is sent QUIT; until then this waits.
pub async fn take_over(path: &Path, within: Duration) -> Result<(Inherited, Successor), HandoverError> {
    timeout(within, take_over_now(path))
        .await
        .unwrap_or_else(|_| Err(HandoverError::NoPredecessor { path: path.to_owned(), waited: within }))
}

async fn take_over_now(path: &Path) -> Result<(Inherited, Successor), HandoverError> {
    let stream = loop {
        match UnixStream::connect(path).await {
            Ok(stream) => break stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                sleep(RETRY).await;
            }
            Err(cause) => return Err(HandoverError::Socket { path: path.to_owned(), cause }),
        }
    };
    check_peer(&stream)?;
    let hello = Message::Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() };
    wire::send(&stream, &hello, None).await.map_err(HandoverError::Lost)?;
    let mut inherited = Inherited::default();
    loop {
        match wire::receive(&stream).await.map_err(HandoverError::Lost)? {
            (Message::Socket { name }, Some(socket)) if inherited.0.len() < SOCKETS_MAX => {
                inherited.0.insert(name, socket);
            }
            (Message::All { sockets }, _) if sockets == inherited.0.len() => return Ok((inherited, Successor(stream))),
            (Message::Withdrawn { reason }, _) => return Err(HandoverError::Withdrawn(reason)),
            (other, _) => return Err(HandoverError::Protocol(format!("{other:?}"))),
        }
    }
}

impl Successor {
    /// Tells the old process that this one serves; it leaves then. On an error the old one goes on serving and this one
    /// must drain what it has accepted and end. An old process that is gone (a crash) is no error.
    pub async fn serving(self) -> Result<(), HandoverError> {
        let _ = timeout(AT_ONCE, wire::send(&self.0, &Message::Serving, None)).await;
        match timeout(AT_ONCE, wire::receive(&self.0)).await {
            Ok(Ok((Message::Withdrawn { reason }, _))) => Err(HandoverError::Withdrawn(reason)),
            Ok(Ok((Message::Leaving, _))) => Ok(()),
            Ok(Ok((other, _))) => Err(HandoverError::Protocol(format!("{other:?}"))),
            Ok(Err(error)) => {
                tracing::warn!(%error, "hand-over: the old gateway is gone without a word");
                Ok(())
            }
            Err(_) => {
                tracing::warn!("hand-over: the old gateway does not say that it leaves");
                Ok(())
            }
        }
    }
}

fn check_directory(path: &Path) -> Result<(), HandoverError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let metadata =
        std::fs::metadata(directory).map_err(|cause| HandoverError::Socket { path: path.to_owned(), cause })?;
    let (others_write, sticky) = (metadata.mode() & 0o002 != 0, metadata.mode() & 0o1000 != 0);
    if others_write && !sticky { Err(HandoverError::Directory(path.to_owned())) } else { Ok(()) }
}

fn remove_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else than a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whoever gets or gives listening sockets is our own user or root: in a shared directory a path proves nothing.
fn check_peer(stream: &UnixStream) -> Result<(), HandoverError> {
    let uid = stream.peer_cred().map_err(HandoverError::Lost)?.uid();
    let own = rustix::process::geteuid().as_raw();
    if uid == own || uid == 0 { Ok(()) } else { Err(HandoverError::Stranger(uid)) }
}

#[cfg(test)]
#[path = "handover/tests.rs"]
mod tests;
