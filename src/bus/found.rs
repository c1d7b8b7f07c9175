//! Services that register themselves: which endpoints a service has, for as long as these say so.
//!
//! An endpoint is one value under `SERVICE.ID`, written again three times in its term. Whoever follows a service counts the
//! term by its own clock from the last write that it saw: no clocks are compared, and one that died is gone after its term.
//! While the bus is lost, what is known stays: nobody could have renewed it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::names::Fleet;
use super::{Bus, BusError, Entry, Follow, Seen};
use crate::tasks::jittered;

/// Endpoints of one service that are followed; what is registered beyond is left out.
pub const ENDPOINTS_MAX: usize = 1_000;

const TERM_S: u64 = 15;
const TERM_S_MIN: u64 = 3;
const TERM_S_MAX: u64 = 300;
/// Pauses between tries to register an endpoint, doubled from one to the next.
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// What could not be asked about is believed in for so much longer, and asked about again.
const RESPITE: Duration = Duration::from_secs(1);
/// Leaving, or asking about one endpoint, waits for the bus no longer.
const GOODBYE: Duration = Duration::from_secs(2);

/// An endpoint as it registers itself: the JSON under `SERVICE.ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// `1.2.3.4:80` or `[fdaa::3]:80`; no name, which would mean something else at each reader.
    pub address: SocketAddr,
    /// Share of the traffic of its service, 0 to 1000. Default 1.
    #[serde(default = "weight")]
    pub weight: u16,
    /// Where it is; gateways of the same region prefer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Seconds after which it is gone if it was not written again, 3 to 300. Default 15.
    #[serde(default = "term_s")]
    pub term_s: u64,
}

fn weight() -> u16 {
    1
}
fn term_s() -> u64 {
    TERM_S
}

/// Why an endpoint cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    #[error("`{0}` is no name of a service: letters, digits, `-` and `_`, 64 at most")]
    Service(String),
    #[error("it is not what a registration looks like: {0}")]
    Shape(String),
    /// Nobody, everybody, or whoever happens to be on the same link: never an endpoint of a service.
    #[error("{0} is not the address of an endpoint")]
    Address(SocketAddr),
    #[error("`{0}` is no name of an endpoint: letters, digits, `-` and `_`, 64 at most")]
    Id(String),
    /// It would be another machine for every gateway.
    #[error("{0} is this machine only, and the bus is not")]
    Loopback(SocketAddr),
    #[error("a weight of {0}; 1000 at most")]
    Weight(u16),
    #[error("a region of more than 64 bytes")]
    Region,
    #[error("a term of {0} s; {TERM_S_MIN} to {TERM_S_MAX}")]
    Term(u64),
}

impl Registration {
    pub fn new(address: SocketAddr) -> Registration {
        Registration { address, weight: 1, region: None, term_s: TERM_S }
    }

    /// Reads what somebody has written.
    pub fn read(value: &[u8]) -> Result<Registration, RegistrationError> {
        let read: Registration =
            serde_json::from_slice(value).map_err(|error| RegistrationError::Shape(error.to_string()))?;
        read.check()?;
        Ok(read)
    }

    pub fn check(&self) -> Result<(), RegistrationError> {
        let Registration { address, weight, region, term_s } = self;
        let nowhere = match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local(),
        };
        if nowhere || address.port() == 0 {
            return Err(RegistrationError::Address(*address));
        }
        if *weight > 1_000 {
            return Err(RegistrationError::Weight(*weight));
        }
        if region.as_ref().is_some_and(|region| region.len() > 64) {
            return Err(RegistrationError::Region);
        }
        if !(TERM_S_MIN..=TERM_S_MAX).contains(term_s) {
            return Err(RegistrationError::Term(*term_s));
        }
        Ok(())
    }

    fn term(&self) -> Duration {
        Duration::from_secs(self.term_s)
    }
}

/// Whether a service may be called so.
pub fn is_service(name: &str) -> bool {
    Fleet::is_name(name)
}

/// Keeps an endpoint registered until it is told to stop; then it takes it away. `id` is its own among those of the service;
/// the last who registers under it has it.
pub async fn register(
    bus: Bus,
    bucket: String,
    service: &str,
    id: &str,
    registration: Registration,
    stop: CancellationToken,
) -> Result<(), RegistrationError> {
    registration.check()?;
    if !is_service(service) {
        return Err(RegistrationError::Service(service.to_owned()));
    }
    if !is_service(id) {
        return Err(RegistrationError::Id(id.to_owned()));
    }
    let key = format!("{service}.{id}");
    let value = serde_json::to_vec(&registration).unwrap_or_default();
    let write = || async { bus.bucket(&bucket).await?.put(&key, value.clone().into()).await };
    let (third, address) = (registration.term() / 3, registration.address);
    let (mut last, mut failing, mut again) = (None, None, AGAIN_MIN);
    loop {
        let written = tokio::select! {
            written = timeout(third, write()) => written.unwrap_or(Err(BusError::Timeout(third))),
            () = stop.cancelled() => break,
        };
        let pause = match written {
            Ok(revision) => {
                if failing != Some(false) {
                    tracing::info!(service, %address, "registered");
                }
                (last, failing, again) = (Some(revision), Some(false), AGAIN_MIN);
                registration.term().mul_f64(0.27)
            }
            Err(error) => {
                if failing != Some(true) {
                    tracing::warn!(service, %address, %error, "not registered: it is tried again");
                }
                failing = Some(true);
                again = (again * 2).min(AGAIN_MAX);
                again / 2
            }
        };
        tokio::select! {
            () = sleep(jittered(pause)) => {}
            () = stop.cancelled() => break,
        }
    }
    if last.is_some() {
        // Only its own: another one may have come in its place.
        let leave = async { bus.bucket(&bucket).await?.remove(&key, last).await };
        if !matches!(timeout(GOODBYE, leave).await, Ok(Ok(()) | Err(BusError::Lost { .. }))) {
            tracing::warn!(service, "the registration could not be taken away: it ends with its term");
        }
    }
    Ok(())
}

/// A reading of the endpoints of a service that never ends.
pub struct Endpoints {
    bus: Bus,
    bucket: String,
    /// Whether endpoints on this machine are believed.
    local: bool,
    follow: Follow,
    service: String,
    standing: BTreeMap<String, Standing>,
    /// Read anew: told only when it is whole.
    anew: Option<BTreeMap<String, (Registration, u64)>>,
    away: bool,
    /// What cannot be used, said once each.
    refused: BTreeSet<String>,
    /// That there are too many was said.
    full: bool,
}

#[derive(Debug)]
struct Standing {
    registration: Registration,
    revision: u64,
    until: Instant,
}

/// What is known of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// All its endpoints.
    Endpoints(Vec<Registration>),
    /// They cannot be read now: those that were told last stay.
    Lost(String),
}

impl Endpoints {
    /// Of a service whose name was checked (`is_service`). `local` says that all who register are on this machine.
    pub fn of(bus: &Bus, bucket: &str, service: &str, local: bool) -> Endpoints {
        Endpoints {
            bus: bus.clone(),
            bucket: bucket.to_owned(),
            local,
            follow: bus.follow(bucket, format!("{service}.*")),
            service: service.to_owned(),
            standing: BTreeMap::new(),
            anew: None,
            away: true,
            refused: BTreeSet::new(),
            full: false,
        }
    }

    /// What is told next: the endpoints first, once they were read, and then whenever they change. May be dropped at any
    /// time without losing anything.
    pub async fn next(&mut self) -> Told {
        loop {
            let ends = self.standing.values().map(|standing| standing.until).min().filter(|_| !self.away);
            let end = async {
                match ends {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let changed = tokio::select! {
                seen = self.follow.next() => match seen {
                    Seen::Lost(reason) => {
                        self.away = true;
                        return Told::Lost(reason);
                    }
                    seen => self.take(seen),
                },
                () = end => self.end().await,
            };
            if changed {
                return Told::Endpoints(self.standing.values().map(|standing| standing.registration.clone()).collect());
            }
        }
    }

    /// Whether there is something to tell.
    fn take(&mut self, seen: Seen) -> bool {
        let now = Instant::now();
        match seen {
            Seen::Anew => {
                (self.anew, self.away) = (Some(BTreeMap::new()), true);
                false
            }
            Seen::Put(entry) => {
                let Some(registration) = self.read(&entry) else { return false };
                if let Some(anew) = &mut self.anew {
                    if anew.len() < ENDPOINTS_MAX {
                        anew.insert(entry.key, (registration, entry.revision));
                    }
                    return false;
                }
                self.stand(entry.key, registration, entry.revision)
            }
            Seen::Removed(key) => match &mut self.anew {
                Some(anew) => {
                    anew.remove(&key);
                    self.standing.remove(&key);
                    false
                }
                None => self.standing.remove(&key).is_some(),
            },
            Seen::Current => {
                let Some(anew) = self.anew.take() else { return false };
                self.away = false;
                // What is not there any more could not be renewed, perhaps: a server that lost all of it takes nothing away
                // before its term.
                for standing in self.standing.values_mut() {
                    standing.until = now + standing.registration.term();
                }
                for (key, (registration, revision)) in anew {
                    self.stand(key, registration, revision);
                }
                true
            }
            Seen::Lost(_) => false,
        }
    }

    /// A term begins. Whether that is news.
    fn stand(&mut self, key: String, registration: Registration, revision: u64) -> bool {
        if self.standing.len() >= ENDPOINTS_MAX && !self.standing.contains_key(&key) {
            if !self.full {
                tracing::warn!(service = self.service, "more than {ENDPOINTS_MAX} endpoints: the others are left out");
                self.full = true;
            }
            return false;
        }
        let until = Instant::now() + registration.term();
        let standing = Standing { registration: registration.clone(), revision, until };
        let before = self.standing.insert(key, standing);
        before.is_none_or(|before| before.registration != registration)
    }

    fn read(&mut self, entry: &Entry) -> Option<Registration> {
        let read =
            Registration::read(&entry.value).and_then(|read| match read.address.ip().to_canonical().is_loopback() {
                true if !self.local => Err(RegistrationError::Loopback(read.address)),
                _ => Ok(read),
            });
        match read {
            Ok(read) => Some(read),
            Err(error) => {
                if self.refused.len() < ENDPOINTS_MAX && self.refused.insert(entry.key.clone()) {
                    tracing::warn!(service = self.service, key = entry.key, %error, "a registration is left out");
                }
                None
            }
        }
    }

    /// Lets go what was not renewed, once the bus itself says so: a reading that hears nothing may be cut off somewhere.
    async fn end(&mut self) -> bool {
        let now = Instant::now();
        let over =
            |(key, standing): (&String, &Standing)| (standing.until <= now).then(|| (key.clone(), standing.revision));
        let over: Vec<(String, u64)> = self.standing.iter().filter_map(over).collect();
        let mut changed = false;
        for (key, revision) in over {
            let asking = async { self.bus.bucket(&self.bucket).await?.entry(&key).await };
            match timeout(GOODBYE, asking).await {
                Ok(Ok(Some(entry))) if entry.revision > revision => {
                    if let Some(registration) = self.read(&entry) {
                        changed |= self.stand(key, registration, entry.revision);
                    }
                }
                Ok(Ok(_)) => changed |= self.standing.remove(&key).is_some(),
                Ok(Err(_)) | Err(_) => {
                    // Nor can the others be asked about now.
                    let respite = Instant::now() + RESPITE;
                    self.standing.values_mut().for_each(|standing| standing.until = standing.until.max(respite));
                    break;
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests;
