//! Load: clients that ask as fast as they are answered, or at a steady rate, and the latencies they saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// How clients ask.
#[derive(Clone)]
pub(crate) enum Wire {
    H1,
    /// With this request instead of the usual one.
    H1Asking(Arc<[u8]>),
    H1Tls(Arc<ClientConfig>),
    /// Streams at once on each connection.
    H2Tls(Arc<ClientConfig>, usize),
    /// A new connection for every request, for one of so many names (`h0.bench.test` and on; 0: `bench.test`).
    Handshakes(Arc<ClientConfig>, u32),
}

/// What one client or all of them saw.
pub(crate) struct Seen {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    /// In microseconds.
    pub(crate) latency: Histogram<u64>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

const ASK: &[u8] = b"GET /bench/path HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";

impl Seen {
    fn new() -> Seen {
        Seen { requests: 0, failures: 0, latency: Histogram::new(3).expect("three digits") }
    }

    fn answered(&mut self, since: Instant) {
        self.requests += 1;
        // Grows as it must: the histogram has no upper bound.
        let _ = self.latency.record(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX));
    }

    fn add(&mut self, other: &Seen) {
        self.requests += other.requests;
        self.failures += other.failures;
        let _ = self.latency.add(&other.latency);
    }
}

/// So many clients ask until the time is over.
pub(crate) async fn run(address: SocketAddr, wire: &Wire, clients: usize, time: Duration) -> Seen {
    let until = Instant::now() + time;
    let mut set = JoinSet::new();
    for _ in 0..clients {
        let wire = wire.clone();
        set.spawn(async move {
            let mut seen = Seen::new();
            while Instant::now() < until {
                // A connection that ends early counts as one failure, and the client goes on with another.
                if client(address, &wire, until, &mut seen).await.is_err() {
                    seen.failures += 1;
                }
            }
            seen
        });
    }
    let mut total = Seen::new();
    while let Some(seen) = set.join_next().await {
        total.add(&seen.expect("a client"));
    }
    total
}

async fn client(address: SocketAddr, wire: &Wire, until: Instant, seen: &mut Seen) -> Result<()> {
    match wire {
        Wire::H1 => asking(tcp(address).await?, ASK, until, seen).await,
        Wire::H1Asking(request) => asking(tcp(address).await?, request, until, seen).await,
        Wire::H1Tls(config) => asking(tls(address, config).await?, ASK, until, seen).await,
        Wire::H2Tls(config, streams) => streaming(tls(address, config).await?, *streams, until, seen).await,
        Wire::Handshakes(config, names) => {
            let since = Instant::now();
            let mut stream = match names {
                0 => tls(address, config).await?,
                names => tls_to(&format!("h{}.bench.test", fastrand::u32(..names)), address, config).await?,
            };
            ask(&mut stream, ASK, &mut Vec::new()).await?;
            seen.answered(since);
            Ok(())
        }
    }
}

async fn tcp(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection with its handshake done.
pub(crate) async fn tls(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    tls_to("bench.test", address, config).await
}

async fn tls_to(
    name: &str,
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned())?;
    Ok(TlsConnector::from(config.clone()).connect(name, tcp(address).await?).await?)
}

async fn asking(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
    until: Instant,
    seen: &mut Seen,
) -> Result<()> {
    let mut buffer = Vec::with_capacity(4 << 10);
    while Instant::now() < until {
        let since = Instant::now();
        ask(&mut stream, request, &mut buffer).await?;
        seen.answered(since);
    }
    Ok(())
}

/// One request and its whole answer, whose length the origin declares and every program under test keeps.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8], buffer: &mut Vec<u8>) -> Result<()> {
    stream.write_all(request).await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the connection ended".into());
        }
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            if !buffer.starts_with(b"HTTP/1.1 200") {
                return Err("not a 200".into());
            }
            if buffer.len() >= end + 4 + 1024 {
                return Ok(());
            }
        }
    }
}

async fn streaming(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    streams: usize,
    until: Instant,
    seen: &mut Seen,
) -> Result<()> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let running = tokio::spawn(connection);
    let mut set = JoinSet::new();
    for _ in 0..streams {
        let mut sender = sender.clone();
        set.spawn(async move {
            let mut seen = Seen::new();
            while Instant::now() < until {
                let since = Instant::now();
                let request = Request::get("https://bench.test/bench/path").body(Empty::<Bytes>::new())?;
                let answer = sender.send_request(request).await?;
                let ok = answer.status() == 200;
                if !ok || answer.into_body().collect().await?.to_bytes().len() != 1024 {
                    return Err(Failure::from("not a 200 with 1 KiB"));
                }
                seen.answered(since);
            }
            Ok(seen)
        });
    }
    let mut failed = None;
    while let Some(ended) = set.join_next().await {
        match ended? {
            Ok(one) => seen.add(&one),
            Err(error) => failed = Some(error),
        }
    }
    running.abort();
    failed.map_or(Ok(()), Err)
}

/// A steady number of requests per second over kept connections; latency counts from when a request was due, so that a
/// stall is seen by all who would have asked meanwhile.
pub(crate) async fn steady(address: SocketAddr, clients: u32, rate: u32, time: Duration) -> Seen {
    let began = Instant::now();
    let (gap, until) = (Duration::from_secs(1) * clients / rate, began + time);
    let mut set = JoinSet::new();
    for number in 0..clients {
        set.spawn(async move {
            let mut seen = Seen::new();
            let Ok(mut stream) = tcp(address).await else { return seen };
            let mut buffer = Vec::with_capacity(4 << 10);
            let mut due = began + gap * number / clients;
            while due < until {
                // Behind schedule because an answer was late: that counts. Woken late by the timer: that does not.
                let since = if Instant::now() > due {
                    due
                } else {
                    tokio::time::sleep_until(due.into()).await;
                    Instant::now()
                };
                match ask(&mut stream, ASK, &mut buffer).await {
                    Ok(()) => seen.answered(since),
                    Err(_) => seen.failures += 1,
                }
                due += gap;
            }
            seen
        });
    }
    let mut total = Seen::new();
    while let Some(seen) = set.join_next().await {
        total.add(&seen.expect("a client"));
    }
    total
}

/// What came of a request that may be turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Answered,
    TurnedAway,
    Failed,
}

/// Requests at a rate that does not wait for answers: each has a connection for itself while it lasts. Tells of each what
/// came of it and when, counted from when it was due.
pub(crate) async fn offer(address: SocketAddr, request: Arc<[u8]>, rate: u32, time: Duration) -> Vec<(Came, Duration)> {
    let (gap, began) = (Duration::from_secs(1) / rate, Instant::now());
    let idle: Arc<std::sync::Mutex<Vec<TcpStream>>> = Arc::default();
    let (mut due, mut set) = (began, JoinSet::new());
    while due < began + time {
        tokio::time::sleep_until(due.into()).await;
        let (idle, request, since) = (idle.clone(), request.clone(), due);
        set.spawn(async move {
            let kept = idle.lock().expect("a list").pop();
            let came = tokio::time::timeout(Duration::from_secs(10), async {
                let mut stream = match kept {
                    Some(stream) => stream,
                    None => tcp(address).await?,
                };
                let came = ask_any(&mut stream, &request).await?;
                idle.lock().expect("a list").push(stream);
                Ok::<Came, Failure>(came)
            });
            let came = came.await.ok().and_then(Result::ok).unwrap_or(Came::Failed);
            (came, since.elapsed())
        });
        due += gap;
    }
    let mut all = Vec::new();
    while let Some(one) = set.join_next().await {
        all.extend(one);
    }
    all
}

pub(crate) async fn ask_any(stream: &mut TcpStream, request: &[u8]) -> Result<Came> {
    stream.write_all(request).await?;
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut end = None;
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err("the connection ended".into());
        }
        if end.is_none() {
            end = memchr::memmem::find(&buffer, b"\r\n\r\n");
        }
        let Some(end) = end else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let whole = match length {
            Some(length) => buffer.len() >= end + 4 + length,
            None => buffer.ends_with(b"0\r\n\r\n"),
        };
        if whole {
            return Ok(if head.starts_with("http/1.1 200") { Came::Answered } else { Came::TurnedAway });
        }
    }
}
