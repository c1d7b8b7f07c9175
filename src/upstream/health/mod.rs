//! Active health checks.

/// What active checks know about one address.
#[derive(Debug)]
pub(crate) struct Probe {
    healthy: std::sync::atomic::AtomicBool,
}

impl Probe {
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn failure(&self) -> Option<String> {
        None
    }
}
