//! One HTTP connection that is driven only while somebody waits on it.
//!
//! No task belongs to it: whoever awaits an answer polls the connection too, and dropping the wire ends everything.
//! HTTP/2 wants to spawn; what it spawns is kept here and polled with the rest.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;

use super::dial::Stream;
use crate::config::Protocol;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An HTTP connection without a task of its own.
pub(crate) struct Wire {
    sender: Sender,
    driver: Driver,
}

enum Sender {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

/// Everything that must be polled for the connection to move.
struct Driver {
    work: FuturesUnordered<Work>,
    spawned: Spawned,
}

/// Where HTTP/2 puts what it wants to run.
#[derive(Clone, Default)]
struct Spawned(Arc<Mutex<Vec<Work>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawned {
    fn execute(&self, future: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(future));
    }
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) {
        loop {
            let spawned = std::mem::take(&mut *self.spawned.0.lock().unwrap_or_else(PoisonError::into_inner));
            self.work.extend(spawned);
            while let Poll::Ready(Some(())) = self.work.poll_next_unpin(cx) {}
            if self.spawned.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return;
            }
        }
    }

    async fn drive<F: Future>(&mut self, waited: F) -> F::Output {
        let mut waited = std::pin::pin!(waited);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = waited.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            self.poll(cx);
            // What the connection did may have finished it without a wake-up.
            waited.as_mut().poll(cx)
        })
        .await
    }
}

impl Wire {
    pub(crate) async fn open(stream: Stream, protocol: Protocol) -> Result<Wire, hyper::Error> {
        let mut driver = Driver { work: FuturesUnordered::new(), spawned: Spawned::default() };
        let io = TokioIo::new(stream);
        let sender = match protocol {
            Protocol::H1 | Protocol::Auto => {
                let (sender, connection) = http1::Builder::new().handshake(io).await?;
                driver.work.push(Box::pin(async move {
                    // The request that suffers from it is told.
                    let _ = connection.await;
                }));
                Sender::H1(sender)
            }
            Protocol::H2 => {
                let spawned = driver.spawned.clone();
                let (sender, connection) = driver.drive(http2::Builder::new(spawned).handshake(io)).await?;
                driver.work.push(Box::pin(async move {
                    let _ = connection.await;
                }));
                Sender::H2(sender)
            }
        };
        Ok(Wire { sender, driver })
    }

    pub(crate) fn is_h2(&self) -> bool {
        matches!(self.sender, Sender::H2(_))
    }

    /// Sends a request and waits for the head of its answer. The error holds the request if none of it was sent.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        match &mut self.sender {
            Sender::H1(sender) => self.driver.drive(sender.try_send_request(request)).await,
            Sender::H2(sender) => self.driver.drive(sender.try_send_request(request)).await,
        }
    }

    /// Waits for something about an answer of this connection, such as its body.
    pub(crate) async fn drive<F: Future>(&mut self, waited: F) -> F::Output {
        self.driver.drive(waited).await
    }

    /// Whether it takes another request now. Looks at the socket: an end that arrived meanwhile is seen.
    pub(crate) async fn is_ready(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            self.driver.poll(cx);
            Poll::Ready(match &mut self.sender {
                Sender::H1(sender) => matches!(sender.poll_ready(cx), Poll::Ready(Ok(()))),
                Sender::H2(sender) => matches!(sender.poll_ready(cx), Poll::Ready(Ok(()))),
            })
        })
        .await
    }
}
