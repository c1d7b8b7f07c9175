//! Steady load while something changes, counting everything that went wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Request;
use tokio::task::JoinSet;

use super::{Client, Reply, empty};

/// Clients that ask one URL again and again, each on a kept connection, some on a new one each time.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: JoinSet<Tally>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answers: usize,
    /// How often each body came.
    pub(crate) bodies: BTreeMap<String, usize>,
    /// Anything but a 200.
    pub(crate) failures: Vec<String>,
}

impl Load {
    /// Half of the clients keep their connection, the others open a new one for each request.
    pub(crate) fn start(address: SocketAddr, url: &str, clients: usize) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut set = JoinSet::new();
        for number in 0..clients {
            set.spawn(ask(address, url.to_owned(), number % 2 == 0, stop.clone(), done.clone()));
        }
        Load { stop, done, clients: set }
    }

    /// Answers so far.
    pub(crate) fn answers(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Waits for so many more answers.
    pub(crate) async fn more(&self, count: usize) {
        let goal = self.answers() + count;
        eventually!(self.answers() >= goal);
    }

    pub(crate) async fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let mut total = Tally::default();
        while let Some(tally) = self.clients.join_next().await {
            let tally = tally.unwrap();
            total.answers += tally.answers;
            total.failures.extend(tally.failures);
            for (body, count) in tally.bodies {
                *total.bodies.entry(body).or_default() += count;
            }
        }
        total
    }
}

impl Tally {
    /// Not one request failed.
    pub(crate) fn clean(self) -> Tally {
        let shown: Vec<_> = self.failures.iter().take(5).collect();
        assert!(self.failures.is_empty(), "{} of {} failed: {shown:#?}", self.failures.len(), self.answers);
        assert!(self.answers > 0, "no load at all");
        self
    }
}

async fn ask(address: SocketAddr, url: String, keep: bool, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> Tally {
    let mut tally = Tally::default();
    let mut kept = None;
    while !stop.load(Ordering::SeqCst) {
        tally.answers += 1;
        match once(address, &url, &mut kept).await {
            Ok(reply) if reply.status == 200 => {
                *tally.bodies.entry(reply.text().to_owned()).or_default() += 1;
                // A connection whose answer said so may not be used again (RFC 9112 9.6).
                if !keep || reply.header("connection") == "close" {
                    kept = None;
                }
            }
            Ok(reply) => tally.failures.push(format!("{reply:?}")),
            Err(error) => {
                tally.failures.push(error);
                kept = None;
            }
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    tally
}

async fn once(address: SocketAddr, url: &str, kept: &mut Option<Client>) -> Result<Reply, String> {
    let reused = kept.is_some();
    // A server may close an idle connection at any time; a client that keeps connections looks before it sends.
    let mut client = match kept.take().filter(|client| !client.is_closed()) {
        Some(client) => client,
        None => Client::try_h1(address).await.map_err(|error| format!("connect: {error}"))?,
    };
    let request = Request::get(url).body(empty()).unwrap();
    let reply = client.try_fetch(request).await.map_err(|error| format!("reused {reused}: {error:?}"))?;
    *kept = Some(client);
    Ok(reply)
}
