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
/// An endpoint that could not be registered is registered again after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// Leaving waits for the bus no longer.
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

/// Keeps an endpoint registered until it is told to stop; then it takes it away. `id` is its own among those of the service.
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
    let key = format!("{service}.{}", super::names::level(id));
    let value = serde_json::to_vec(&registration).unwrap_or_default();
    let write = || async { bus.bucket(&bucket).await?.put(&key, value.clone().into()).await };
    let mut failing: Option<bool> = None;
    loop {
        let written: Result<u64, BusError> =
            timeout(registration.term() / 3, write()).await.unwrap_or(Err(BusError::Timeout(registration.term() / 3)));
        match &written {
            Ok(_) if failing != Some(false) => {
                tracing::info!(service, address = %registration.address, "registered");
            }
            Err(error) if failing != Some(true) => {
                tracing::warn!(service, address = %registration.address, %error, "not registered: it is tried again");
            }
            _ => {}
        }
        failing = Some(written.is_err());
        let pause = if written.is_ok() { registration.term().mul_f64(0.27) } else { AGAIN };
        tokio::select! {
            () = sleep(jittered(pause)) => {}
            () = stop.cancelled() => break,
        }
    }
    let leave = async { bus.bucket(&bucket).await?.remove(&key, None).await };
    if !matches!(timeout(GOODBYE, leave).await, Ok(Ok(()))) {
        tracing::warn!(service, "the registration could not be taken away: it ends with its term");
    }
    Ok(())
}

/// A reading of the endpoints of a service that never ends.
pub struct Endpoints {
    follow: Follow,
    service: String,
    standing: BTreeMap<String, Standing>,
    /// Read anew: told only when it is whole.
    anew: Option<BTreeMap<String, Registration>>,
    away: bool,
    /// What cannot be used, said once each.
    refused: BTreeSet<String>,
}

#[derive(Debug)]
struct Standing {
    registration: Registration,
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
    /// Of a service whose name was checked (`is_service`).
    pub fn of(bus: &Bus, bucket: impl Into<String>, service: &str) -> Endpoints {
        Endpoints {
            follow: bus.follow(bucket, format!("{service}.*")),
            service: service.to_owned(),
            standing: BTreeMap::new(),
            anew: None,
            away: true,
            refused: BTreeSet::new(),
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
                () = end => self.end(),
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
                        anew.insert(entry.key, registration);
                    }
                    return false;
                }
                if !self.has_room_for(&entry.key) {
                    return false;
                }
                let until = now + registration.term();
                let before = self.standing.insert(entry.key, Standing { registration: registration.clone(), until });
                before.is_none_or(|before| before.registration != registration)
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
                for (key, registration) in anew {
                    if self.has_room_for(&key) {
                        let until = now + registration.term();
                        self.standing.insert(key, Standing { registration, until });
                    }
                }
                true
            }
            Seen::Lost(_) => false,
        }
    }

    fn has_room_for(&self, key: &str) -> bool {
        self.standing.len() < ENDPOINTS_MAX || self.standing.contains_key(key)
    }

    fn read(&mut self, entry: &Entry) -> Option<Registration> {
        match Registration::read(&entry.value) {
            Ok(read) => Some(read),
            Err(error) => {
                if self.refused.len() < ENDPOINTS_MAX && self.refused.insert(entry.key.clone()) {
                    tracing::warn!(service = self.service, key = entry.key, %error, "a registration is left out");
                }
                None
            }
        }
    }

    /// Lets go what was not renewed.
    fn end(&mut self) -> bool {
        let (now, before) = (Instant::now(), self.standing.len());
        self.standing.retain(|_, standing| standing.until > now);
        self.standing.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Bucket, Local};

    async fn bus() -> Bus {
        let bus = Bus::new(Local::default());
        bus.make_bucket(&Bucket { name: "found".to_owned(), max_age: Duration::ZERO }).await.unwrap();
        bus
    }

    fn at(port: u16) -> Registration {
        Registration::new(([10, 0, 0, 1], port).into())
    }

    fn ports(told: Told) -> Vec<u16> {
        match told {
            Told::Endpoints(all) => all.iter().map(|one| one.address.port()).collect(),
            Told::Lost(reason) => panic!("{reason}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_there_while_it_says_so() {
        let bus = bus().await;
        let mut endpoints = Endpoints::of(&bus, "found", "builder");
        assert_eq!(ports(endpoints.next().await), [0_u16; 0]);
        let stop = CancellationToken::new();
        let keep = |port: u16, stop: CancellationToken| {
            let bus = bus.clone();
            tokio::spawn(async move {
                register(bus, "found".to_owned(), "builder", &port.to_string(), at(port), stop).await.unwrap();
            })
        };
        let one = keep(1, stop.clone());
        assert_eq!(ports(endpoints.next().await), [1]);
        let dies = keep(2, CancellationToken::new());
        assert_eq!(ports(endpoints.next().await), [1, 2]);
        let quiet = timeout(Duration::from_secs(120), endpoints.next()).await;
        assert!(quiet.is_err(), "renewing is no news: {quiet:?}");
        let died = Instant::now();
        dies.abort();
        assert_eq!(ports(endpoints.next().await), [1]);
        let took = died.elapsed();
        assert!(took <= Duration::from_secs(TERM_S) && took > Duration::from_secs(TERM_S / 2), "{took:?}");
        let left = Instant::now();
        stop.cancel();
        assert_eq!(ports(endpoints.next().await), [0_u16; 0]);
        assert!(left.elapsed() < Duration::from_secs(1), "who leaves says so");
        one.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_registration_changes_nothing() {
        let bus = bus().await;
        let bucket = bus.bucket("found").await.unwrap();
        bucket.put("builder.a", serde_json::to_vec(&at(1)).unwrap().into()).await.unwrap();
        bucket.put("other.a", serde_json::to_vec(&at(9)).unwrap().into()).await.unwrap();
        let mut endpoints = Endpoints::of(&bus, "found", "builder");
        assert_eq!(ports(endpoints.next().await), [1]);
        for text in [
            "",
            "{}",
            r#"{"address":"builder.internal:80"}"#,
            r#"{"address":"0.0.0.0:80"}"#,
            r#"{"address":"169.254.169.254:80"}"#,
            r#"{"address":"[::ffff:169.254.169.254]:80"}"#,
            r#"{"address":"10.0.0.1:0"}"#,
            r#"{"address":"10.0.0.1:1","weight":1001}"#,
            r#"{"address":"10.0.0.1:1","term_s":2}"#,
        ] {
            assert!(Registration::read(text.as_bytes()).is_err(), "{text}");
            bucket.put("builder.b", text.to_owned().into()).await.unwrap();
        }
        let told = timeout(Duration::from_secs(1), endpoints.next()).await;
        assert!(told.is_err(), "{told:?}");
        bucket.put("builder.b", r#"{"address":"10.0.0.1:2","weight":3}"#.into()).await.unwrap();
        assert_eq!(ports(endpoints.next().await), [1, 2]);
    }
}
