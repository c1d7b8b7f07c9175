//! One endpoint of a pool: its counts, which outlive tables, specs and resolutions.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::eject::Outlier;
use super::lease::StickyToken;
use super::transport::Transport;
use crate::config::Protocol;

/// One address of a pool.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    token: StickyToken,
    in_flight: AtomicUsize,
    connections: AtomicUsize,
    /// The newest period of `connections.max_age`, and the open connections that began in it.
    young: Mutex<(u64, usize)>,
    multiplexed: AtomicBool,
    pub(crate) requests: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) outlier: Outlier,
    /// Round robin's account of this endpoint (`balance::round_robin`).
    pub(crate) turn: AtomicI64,
}

/// Counts one open connection until dropped.
#[derive(Debug)]
pub struct ConnectionGuard {
    endpoint: Arc<Endpoint>,
    period: u64,
}

impl Endpoint {
    pub(crate) fn new(pool: &str, address: SocketAddr) -> Endpoint {
        Endpoint {
            address,
            token: StickyToken::of(pool, address),
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            young: Mutex::default(),
            multiplexed: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            outlier: Outlier::default(),
            turn: AtomicI64::new(0),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn token(&self) -> StickyToken {
        self.token
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Open connections, idle ones included.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a connection as open until the guard drops; `None` if `most` (0: any number) are open that may take requests.
    /// Those of an earlier period take none any more and do not stand in the way of their successors.
    pub fn connection_opened(self: &Arc<Self>, most: u32, period: u64) -> Option<ConnectionGuard> {
        let mut young = self.young.lock().unwrap_or_else(PoisonError::into_inner);
        if young.0 != period {
            *young = (period, 0);
        }
        if most > 0 && young.1 >= most as usize {
            return None;
        }
        young.1 += 1;
        self.connections.fetch_add(1, Ordering::Relaxed);
        Some(ConnectionGuard { endpoint: self.clone(), period })
    }

    /// Counts a connection of our own calls (`exchange`), which take none from requests.
    pub fn connection_counted(self: &Arc<Self>) -> ConnectionGuard {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard { endpoint: self.clone(), period: u64::MAX }
    }

    /// With `protocol = "auto"`: whether the endpoint chose HTTP/2, so that one connection carries many requests.
    pub fn negotiated(&self, protocol: Protocol) {
        self.multiplexed.store(protocol == Protocol::H2, Ordering::Relaxed);
    }

    /// Most requests in flight for which `connections.max` connections are enough. Every request holds a connection (or
    /// a stream of one), so bounding requests bounds connections, without a race between picking and connecting.
    pub(crate) fn most_in_flight(&self, transport: &Transport) -> usize {
        let connections = &transport.connections;
        if connections.max == 0 {
            return usize::MAX;
        }
        let multiplexed = match transport.protocol {
            Protocol::H1 => false,
            Protocol::H2 => true,
            Protocol::Auto => self.multiplexed.load(Ordering::Relaxed),
        };
        let streams = if multiplexed { connections.streams as usize } else { 1 };
        (connections.max as usize).saturating_mul(streams)
    }

    /// Takes one place in flight, if fewer than `most` are taken.
    pub(crate) fn enter(&self, most: usize) -> bool {
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        let entered = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        if entered {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionGuard {
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut young = self.endpoint.young.lock().unwrap_or_else(PoisonError::into_inner);
        if young.0 == self.period {
            young.1 = young.1.saturating_sub(1);
        }
        self.endpoint.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
