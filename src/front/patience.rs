//! How long a client is waited for.

use std::time::Duration;

use crate::settings::Limits;

/// Time bounds of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a head as a whole.
    pub(crate) head: Duration,
    /// Between two pieces of a body.
    pub(crate) body: Duration,
    /// Between two requests.
    pub(crate) keepalive: Duration,
    /// For the client to take something of an answer.
    pub(crate) write: Duration,
}

impl From<&Limits> for Patience {
    fn from(limits: &Limits) -> Patience {
        Patience {
            head: limits.head_timeout.0,
            body: limits.body_idle.0,
            keepalive: limits.keepalive.0,
            write: limits.write_idle.0,
        }
    }
}
