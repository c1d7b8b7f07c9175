//! Origins that speak HTTP well: HTTP/1, HTTP/2, TLS; they record what reached them and answer as scripted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{Body, Port, body, full};

/// A request as it reached an origin.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    /// Empty where the script reads the body itself.
    pub(crate) body: Bytes,
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
}

impl Seen {
    /// All values of a header, joined.
    pub(crate) fn header(&self, name: &str) -> String {
        let values: Vec<_> = self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        values.join(", ")
    }

    pub(crate) fn target(&self) -> &str {
        self.uri.path_and_query().map_or("", |target| target.as_str())
    }
}

type Script = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Result<Response<Body>, body::Error>> + Send + Sync>;

/// What an origin speaks.
#[derive(Clone)]
pub(crate) enum Wire {
    H1,
    /// Prior knowledge.
    H2,
    /// The version that ALPN agrees on.
    Tls(Arc<ServerConfig>),
}

/// A running origin; it can be killed and come back on the same port. Ends when dropped.
pub(crate) struct Origin {
    port: Port,
    wire: Wire,
    script: Script,
    log: Arc<Log>,
    running: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    open: AtomicUsize,
}

impl Origin {
    /// Answers 200 with this text, after reading the whole request.
    pub(crate) fn text(text: &'static str) -> Origin {
        Origin::replying(move |_| Response::new(full(text)))
    }

    /// Sends the request body back.
    pub(crate) fn echo() -> Origin {
        Origin::replying(|seen| Response::new(full(seen.body.clone())))
    }

    /// Answers from what it saw, after reading the whole request.
    pub(crate) fn replying(answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Origin {
        Origin::replying_at(Port::free(), Wire::H1, answer)
    }

    pub(crate) fn replying_at(
        port: Port,
        wire: Wire,
        answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> Origin {
        let answer = Arc::new(answer);
        Origin::start(port, wire, move |request| {
            let answer = answer.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let seen = Seen { body, ..Seen::of(&head) };
                let reply = answer(&seen);
                if let Some(log) = head.extensions.get::<Entry>() {
                    log.body(seen.body);
                }
                Ok(reply)
            }
        })
    }

    /// Full control: the script reads the body, or does not; an error breaks the connection off.
    pub(crate) fn scripted<F>(script: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Origin
    where
        F: Future<Output = Result<Response<Body>, body::Error>> + Send + 'static,
    {
        Origin::start(Port::free(), Wire::H1, script)
    }

    pub(crate) fn start<F>(
        port: Port,
        wire: Wire,
        script: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Origin
    where
        F: Future<Output = Result<Response<Body>, body::Error>> + Send + 'static,
    {
        let script: Script = Arc::new(move |request| Box::pin(script(request)));
        let mut origin = Origin { port, wire, script, log: Arc::default(), running: None };
        origin.revive();
        origin
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Every request so far, in the order their heads arrived.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.log.seen.lock().unwrap().len()
    }

    /// The latest request.
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("the origin saw nothing")
    }

    /// How many connections were accepted in all.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open now.
    pub(crate) fn open(&self) -> usize {
        self.log.open.load(Ordering::SeqCst)
    }

    /// Every connection is cut and new ones are refused.
    pub(crate) async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }

    /// Listens again.
    pub(crate) fn revive(&mut self) {
        let listener = self.port.listen();
        let (wire, script, log) = (self.wire.clone(), self.script.clone(), self.log.clone());
        self.running = Some(tokio::spawn(accept(listener, wire, script, log)));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

async fn accept(listener: TcpListener, wire: Wire, script: Script, log: Arc<Log>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((tcp, _)) = accepted else { return };
                connections.spawn(serve(tcp, wire.clone(), script.clone(), log.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(tcp: TcpStream, wire: Wire, script: Script, log: Arc<Log>) {
    let _ = tcp.set_nodelay(true);
    let connection = log.connections.fetch_add(1, Ordering::SeqCst);
    let _open = Open::new(log.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let entry = Entry::new(&log, &request, connection);
        request.extensions_mut().insert(entry);
        let reply = script(request);
        // One concrete error type: a boxed one keeps hyper's bounds from being general enough.
        async move { reply.await.map_err(std::io::Error::other) }
    });
    let h2 = || http2::Builder::new(TokioExecutor::new());
    let h1 = || http1::Builder::new().timer(TokioTimer::new()).clone();
    // A peer that goes away is no failure of the origin.
    let _ = match wire {
        Wire::H1 => h1().serve_connection(TokioIo::new(tcp), service).await,
        Wire::H2 => h2().serve_connection(TokioIo::new(tcp), service).await,
        Wire::Tls(config) => match TlsAcceptor::from(config).accept(tcp).await {
            Err(_) => return,
            Ok(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
                h2().serve_connection(TokioIo::new(tls), service).await
            }
            Ok(tls) => h1().serve_connection(TokioIo::new(tls), service).await,
        },
    };
}

struct Open(Arc<Log>);

impl Open {
    fn new(log: Arc<Log>) -> Open {
        log.open.fetch_add(1, Ordering::SeqCst);
        Open(log)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The place of one request in the log.
#[derive(Clone)]
struct Entry(Arc<Log>, usize);

impl Entry {
    fn new(log: &Arc<Log>, request: &Request<Incoming>, connection: usize) -> Entry {
        let mut all = log.seen.lock().unwrap();
        all.push(Seen {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            body: Bytes::new(),
            connection,
        });
        Entry(log.clone(), all.len() - 1)
    }

    fn body(&self, body: Bytes) {
        self.0.seen.lock().unwrap()[self.1].body = body;
    }
}

impl Seen {
    fn of(head: &http::request::Parts) -> Seen {
        let entry = head.extensions.get::<Entry>().unwrap();
        entry.0.seen.lock().unwrap()[entry.1].clone()
    }
}
