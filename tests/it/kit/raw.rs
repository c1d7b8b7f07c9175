//! Bytes as they are: a connection read and written by hand, on either side of the gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use super::{Port, within};

/// A connection and what was read from it but not yet taken.
pub(crate) struct Raw<S = TcpStream> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

/// An HTTP/1 message, its body unframed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// Start line and fields, without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Raw::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) fn over(stream: S) -> Raw<S> {
        Raw { stream, buffer: Vec::new() }
    }

    /// `false`: the peer has gone.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("room to write", self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// One more piece. `false` at the end, however it comes.
    async fn more(&mut self) -> bool {
        self.stream.read_buf(&mut self.buffer).await.is_ok_and(|count| count > 0)
    }

    /// Everything up to and including the mark, or `None` if the peer ends before.
    pub(crate) async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        within("the mark", async {
            loop {
                if let Some(at) = memchr::memmem::find(&self.buffer, mark) {
                    return Some(self.buffer.drain(..at + mark.len()).collect());
                }
                if !self.more().await {
                    return None;
                }
            }
        })
        .await
    }

    pub(crate) async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        within("so many bytes", async {
            while self.buffer.len() < count {
                if !self.more().await {
                    return None;
                }
            }
            Some(self.buffer.drain(..count).collect())
        })
        .await
    }

    /// Everything until the peer ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        within("the end of the connection", async {
            while self.more().await {}
            std::mem::take(&mut self.buffer)
        })
        .await
    }

    /// Nothing more comes, and the peer ends.
    pub(crate) async fn ends(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "unexpected: {}", String::from_utf8_lossy(&rest));
    }

    /// A head, without the empty line.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let head = self.until(b"\r\n\r\n").await?;
        Some(String::from_utf8_lossy(&head[..head.len() - 4]).into_owned())
    }

    /// A whole message, request or response. An answer without framing ends with the connection.
    pub(crate) async fn message(&mut self) -> Option<Message> {
        let mut message = Message { head: self.head().await?, body: Vec::new() };
        let status = message.head.starts_with("HTTP/").then(|| message.status());
        message.body = if message.field("transfer-encoding").is_some_and(|value| value.ends_with("chunked")) {
            self.chunks().await?
        } else if let Some(length) = message.field("content-length") {
            self.exactly(length.parse().unwrap()).await?
        } else if status.is_none_or(|status| status < 200 || status == 204 || status == 304) {
            Vec::new()
        } else {
            self.rest().await
        };
        Some(message)
    }

    /// As `message`, for what must come.
    pub(crate) async fn answer(&mut self) -> Message {
        self.message().await.expect("the connection ended without an answer")
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            let line = String::from_utf8(line).unwrap();
            let size = usize::from_str_radix(line.trim_end().split(';').next().unwrap(), 16).unwrap();
            let chunk = self.exactly(size).await?;
            body.extend(chunk);
            let end = self.until(b"\r\n").await?;
            if size == 0 {
                let mut field = end;
                while field != b"\r\n" {
                    field = self.until(b"\r\n").await?;
                }
                return Some(body);
            }
            assert_eq!(end, b"\r\n", "the chunk is longer than it said");
        }
    }
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{}", self.head))
    }

    /// The first field of the name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The code of an answer the gateway gave by itself.
    pub(crate) fn code(&self) -> String {
        let problem: serde_json::Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no problem: {self:?}"));
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// An origin that speaks byte by byte, as its script says. Ends when dropped.
pub(crate) struct RawOrigin {
    port: Port,
    connections: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

impl RawOrigin {
    /// The script gets each connection with its number, from 0.
    pub(crate) fn start<F>(script: impl Fn(Raw, usize) -> F + Send + Sync + 'static) -> RawOrigin
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let port = Port::free();
        let listener = port.listen();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        let running = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        let _ = stream.set_nodelay(true);
                        open.spawn(script(Raw::over(stream), counter.fetch_add(1, Ordering::SeqCst)));
                    }
                    Some(_) = open.join_next() => {}
                }
            }
        });
        RawOrigin { port, connections, running }
    }

    /// Answers every request with these bytes.
    pub(crate) fn answering(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> RawOrigin {
        let bytes = Arc::new(bytes);
        RawOrigin::start(move |mut connection, _| {
            let bytes = bytes.clone();
            async move {
                while connection.message().await.is_some() {
                    connection.send(bytes.as_ref().as_ref()).await;
                }
            }
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.running.abort();
    }
}
