//! Where requests go: the list grows here.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::redirect::Redirect;
use super::respond::Respond;
use super::split::Split;
use crate::upstream::Pool;

/// Exactly one per route.
#[derive(Debug)]
pub enum Destination {
    Upstream(Arc<Pool>),
    Split(Split),
    Redirect(Redirect),
    Respond(Respond),
}

/// A copy of requests for another upstream.
#[derive(Debug)]
pub struct Mirror {
    pub pool: Arc<Pool>,
    /// Longest request body that is copied, and how much of the answers is compared, in bytes.
    pub body_max: usize,
    pub compare_headers: Box<[HeaderName]>,
    pub timeout: Duration,
    /// 0 to 100.
    pub(super) percent: f64,
    pub(super) in_flight_max: usize,
    permits: Arc<Semaphore>,
}

impl Mirror {
    pub(super) fn new(
        pool: Arc<Pool>,
        words: &crate::config::Mirror,
        compare_headers: Box<[HeaderName]>,
        in_flight_max: usize,
    ) -> Mirror {
        Mirror {
            pool,
            body_max: usize::try_from(words.body_max.0).unwrap_or(usize::MAX),
            compare_headers,
            timeout: words.timeout.0,
            percent: words.percent,
            in_flight_max,
            permits: Arc::new(Semaphore::new(in_flight_max)),
        }
    }

    pub fn percent(&self) -> f64 {
        self.percent
    }

    /// Whether this request is one of those that are copied.
    pub fn sampled(&self) -> bool {
        self.percent >= 100.0 || fastrand::f64() * 100.0 < self.percent
    }

    /// Room for one more copy; given back when dropped. `None`: too many are under way.
    pub fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().ok()
    }

    /// Copies under way still count after a change, unless the bound itself has changed.
    pub(super) fn inherit(&mut self, previous: &Mirror) {
        if self.in_flight_max == previous.in_flight_max {
            self.permits = previous.permits.clone();
        }
    }
}
