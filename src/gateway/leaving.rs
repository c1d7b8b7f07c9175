//! The loop of a running gateway: signals, and how it ends.

use std::pin::Pin;
use std::time::Duration;

use super::Gateway;
use crate::control::signals::{Signal, Signals};
use crate::front::handover::{HandoverError, Offer};

/// For connections to notice that they are cut off, and for operators to get their last answer.
const CUT_OFF: Duration = Duration::from_secs(1);
/// For log lines and spans to leave after the last request.
const FLUSH: Duration = Duration::from_secs(2);
/// How long the bus may take to hear that this gateway is gone.
const GOODBYE: Duration = Duration::from_millis(500);

type Handing = Pin<Box<dyn Future<Output = (Offer, Result<(), HandoverError>)> + Send>>;

/// How a gateway ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request was done.
    Drained,
    /// Some were cut off: the grace period was over, or a second INT came.
    CutOff,
}

impl Gateway {
    /// Serves until told to leave and the last request is done.
    pub async fn run(mut self, mut signals: Signals) -> Ended {
        let mut handing: Option<Handing> = None;
        let mut interrupted = false;
        loop {
            tokio::select! {
                // A hand-over that is under way holds the sockets open: whoever is told to leave lets go of it.
                signal = signals.next() => match signal {
                    Signal::Terminate => {
                        handing = None;
                        self.leave(self.settings.drain.delay.0);
                    }
                    Signal::Interrupt if interrupted => self.drain.force_now(),
                    Signal::Interrupt => {
                        interrupted = true;
                        handing = None;
                        self.leave(self.settings.drain.delay.0);
                    }
                    Signal::Reload => self.control.reload(),
                    Signal::ReopenLogs => self.telemetry.access.reopen(),
                    Signal::HandOver if handing.is_some() => {}
                    Signal::HandOver => match self.hand_over() {
                        Some(offering) => handing = Some(Box::pin(offering)),
                        None => self.leave(self.settings.drain.delay.0),
                    },
                },
                (offer, done) = under_way(&mut handing) => {
                    handing = None;
                    match done {
                        Ok(()) => {
                            tracing::info!("hand-over: the new gateway serves, this one leaves");
                            drop(offer);
                            self.operators_stop.cancel();
                            self.leave(Duration::ZERO);
                        }
                        Err(error) => {
                            tracing::error!(%error, "hand-over failed, serving on");
                            self.offer = Some(offer);
                        }
                    }
                }
                ended = self.drained() => return self.end(ended).await,
            }
        }
    }

    /// `delay` is for load balancers to notice; a successor needs none.
    pub(super) fn leave(&self, delay: Duration) {
        self.drain.begin(&self.tasks, self.settings.drain.grace.0, delay);
    }

    /// Returns when the last connection is done after draining began, or the rest is cut off.
    pub(super) async fn drained(&mut self) -> Ended {
        self.drain.begun().await;
        // HTTP/1 answers say `Connection: close`, HTTP/2 sends GOAWAY.
        self.shutdown.send_replace(true);
        self.drain.stop_accepting().cancelled().await;
        // The sockets refuse once their last duplicate is closed; a successor has its own.
        self.sockets.clear();
        self.acceptors.close();
        self.acceptors.wait().await;
        self.connections.close();
        tokio::select! {
            biased;
            () = self.connections.wait() => Ended::Drained,
            () = self.drain.force().cancelled() => Ended::CutOff,
        }
    }

    pub(super) async fn end(self, ended: Ended) -> Ended {
        if ended == Ended::CutOff {
            tracing::warn!(connections = self.connections.len(), "cutting off what is left");
            let _ = tokio::time::timeout(CUT_OFF, self.connections.wait()).await;
        }
        self.drain.done();
        self.operators_stop.cancel();
        self.operators.close();
        let _ = tokio::time::timeout(CUT_OFF, self.operators.wait()).await;
        self.telemetry.flush(FLUSH).await;
        tracing::info!(event = "gateway.gone", ?ended, "gone");
        if let Some(post) = &self.post {
            let _ = tokio::time::timeout(GOODBYE, post.told()).await;
        }
        self.tasks.stop().await;
        ended
    }
}

async fn under_way(handing: &mut Option<Handing>) -> (Offer, Result<(), HandoverError>) {
    match handing {
        Some(handing) => handing.await,
        None => std::future::pending().await,
    }
}
