//! Signals of the process, as a stream that a test can speak into.

use std::io;

use tokio::signal::unix::{Signal as Listener, SignalKind, signal};
use tokio::sync::mpsc;

/// What an operator tells a running gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM: drain.
    Terminate,
    /// INT: drain; a second one ends at once.
    Interrupt,
    /// HUP: read the document, what it refers to, and certificates again.
    Reload,
    /// QUIT: hand the listening sockets to a new binary.
    HandOver,
    /// USR1: reopen log files.
    ReopenLogs,
}

pub struct Signals(Origin);

enum Origin {
    Process { terminate: Listener, interrupt: Listener, reload: Listener, hand_over: Listener, reopen_logs: Listener },
    Injected(mpsc::Receiver<Signal>),
}

impl Signals {
    /// Those of this process. From now on none of them ends it by itself.
    pub fn of_process() -> io::Result<Signals> {
        Ok(Signals(Origin::Process {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            hand_over: signal(SignalKind::quit())?,
            reopen_logs: signal(SignalKind::user_defined1())?,
        }))
    }

    /// Those that are sent into the channel.
    pub fn injected() -> (mpsc::Sender<Signal>, Signals) {
        let (sender, receiver) = mpsc::channel(16);
        (sender, Signals(Origin::Injected(receiver)))
    }

    /// The next one. May be dropped at any time without losing one.
    pub async fn next(&mut self) -> Signal {
        match &mut self.0 {
            Origin::Process { terminate, interrupt, reload, hand_over, reopen_logs } => tokio::select! {
                Some(()) = terminate.recv() => Signal::Terminate,
                Some(()) = interrupt.recv() => Signal::Interrupt,
                Some(()) = reload.recv() => Signal::Reload,
                Some(()) = hand_over.recv() => Signal::HandOver,
                Some(()) = reopen_logs.recv() => Signal::ReopenLogs,
                else => std::future::pending().await,
            },
            Origin::Injected(receiver) => match receiver.recv().await {
                Some(signal) => signal,
                None => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn yields_what_the_process_is_sent() {
        let mut signals = Signals::of_process().unwrap();
        let own = rustix::process::getpid();
        for (number, expect) in [
            (rustix::process::Signal::HUP, Signal::Reload),
            (rustix::process::Signal::USR1, Signal::ReopenLogs),
            (rustix::process::Signal::QUIT, Signal::HandOver),
        ] {
            rustix::process::kill_process(own, number).unwrap();
            assert_eq!(signals.next().await, expect);
        }
    }

    #[tokio::test]
    async fn yields_what_is_injected() {
        let (sender, mut signals) = Signals::injected();
        sender.send(Signal::Interrupt).await.unwrap();
        assert_eq!(signals.next().await, Signal::Interrupt);
        drop(sender);
        let next = signals.next();
        tokio::pin!(next);
        assert!(futures_util::poll!(next.as_mut()).is_pending());
    }
}
