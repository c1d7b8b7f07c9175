//! The store of a whole fleet, on the bus: sealed, so that whoever holds the bus holds no key.
//!
//! What stands on the bus is mirrored here: reading never waits, and an answer to a challenge that one node offers any node
//! gives. Values are sealed with AES-256-GCM under a key the operator gives, each bound to its place. The right to order is
//! a lease: a node that dies in the middle is succeeded after its term. Without the bus nobody orders.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::store::{Directory, Lock, Store};
use crate::bus::{Bus, BusError, Entry, Lease, Seen, Sighting};
use crate::seal::Seal;

/// How long others wait for a node that died while it ordered.
const TERM: Duration = Duration::from_secs(15);

/// A CA looks at once, and at whichever node it reaches.
const SETTLING: Duration = Duration::from_millis(300);

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    bus: Bus,
    bucket: String,
    seal: Seal,
    /// Unique to this process: one that was started again with the same name holds no lease of the one before.
    holder: String,
    /// What was mirrored, kept for a start without the bus.
    kept: Option<Directory>,
    mirror: Mutex<BTreeMap<String, Zeroizing<Vec<u8>>>>,
    /// The whole of it has been read once.
    whole: AtomicBool,
    /// Leases of others, and since when they stand.
    seen: Mutex<BTreeMap<String, Sighting>>,
    /// Counts changes that others have made.
    changed: watch::Sender<u64>,
    runtime: Handle,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

/// Dots part the levels of a key on the bus, so they are written as `=`, which stands nowhere else.
fn place(shelf: &str, key: &str) -> io::Result<String> {
    let legal = |part: &str| {
        let bytes = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        !part.is_empty() && part.bytes().all(bytes) && !matches!(part, "." | "..")
    };
    match legal(shelf) && legal(key) {
        true => Ok(format!("acme.{}.{}", shelf.replace('.', "="), key.replace('.', "="))),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "not a legal key")),
    }
}

fn parts(place: &str) -> Option<(String, String)> {
    let (shelf, key) = place.strip_prefix("acme.")?.split_once('.')?;
    Some((shelf.replace('=', "."), key.replace('=', ".")))
}

fn failed(error: BusError) -> io::Error {
    io::Error::other(error)
}

impl Shared {
    /// `node` is the name of this one in the fleet; `kept` the state directory, if there is one. Must be called on a runtime.
    pub fn new(bus: Bus, bucket: String, seal: Seal, node: &str, kept: Option<&std::path::Path>) -> io::Result<Shared> {
        Ok(Shared(Arc::new(Inner {
            bus,
            bucket,
            seal,
            holder: format!("{node}-{:016x}", fastrand::u64(..)),
            kept: kept.map(Directory::open).transpose()?,
            mirror: Mutex::default(),
            whole: AtomicBool::new(false),
            seen: Mutex::default(),
            changed: watch::Sender::new(0),
            runtime: Handle::current(),
        })))
    }

    /// Tells whenever another node has changed something.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    fn mirror(&self) -> MutexGuard<'_, BTreeMap<String, Zeroizing<Vec<u8>>>> {
        self.0.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mirrors the bus, for as long as the process lives.
    pub async fn follow(self) {
        let mut follow = self.0.bus.follow(self.0.bucket.clone(), "acme.>");
        let mut told = BTreeMap::new();
        let mut anew = true;
        loop {
            match follow.next().await {
                Seen::Anew => {
                    told.clear();
                    anew = true;
                }
                Seen::Put(entry) => {
                    let Some(value) = self.opened(&entry) else { continue };
                    match anew {
                        true => drop(told.insert(entry.key, value)),
                        false => {
                            let known = self.mirror().insert(entry.key.clone(), value.clone());
                            // Its own echo is no news.
                            if known.as_ref() != Some(&value) {
                                self.0.changed.send_modify(|count| *count += 1);
                                self.keep(&entry.key, Some(&value)).await;
                            }
                        }
                    }
                }
                Seen::Removed(key) if anew => drop(told.remove(&key)),
                Seen::Removed(key) => {
                    self.mirror().remove(&key);
                    self.0.changed.send_modify(|count| *count += 1);
                    self.keep(&key, None).await;
                }
                Seen::Current if anew => {
                    anew = false;
                    *self.mirror() = told.clone();
                    self.0.whole.store(true, Ordering::Release);
                    self.0.changed.send_modify(|count| *count += 1);
                    for (key, value) in std::mem::take(&mut told) {
                        self.keep(&key, Some(&value)).await;
                    }
                }
                Seen::Current => {}
                // What is mirrored stays.
                Seen::Lost(_) => {}
            }
        }
    }

    fn opened(&self, entry: &Entry) -> Option<Zeroizing<Vec<u8>>> {
        match self.0.seal.open(&entry.key, &entry.value) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::error!(key = entry.key, %error, "what stands on the bus cannot be used");
                None
            }
        }
    }

    /// Accounts, certificates and how orders went outlive a restart without the bus; answers to challenges do not matter then.
    async fn keep(&self, place: &str, value: Option<&Zeroizing<Vec<u8>>>) {
        let (Some(kept), Some((shelf, key))) = (self.0.kept.clone(), parts(place)) else { return };
        if shelf.starts_with('.') {
            return;
        }
        let value = value.cloned();
        let write = move || match value {
            Some(value) => kept.write(&shelf, &key, &value),
            None => kept.remove(&shelf, &key),
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(%error, "what the fleet keeps is not kept here, too");
        }
    }

    /// Reads a value again whoever wrote it last: with the right to order, what was written before it was given back.
    async fn refresh(&self, shelf: &str, key: &str) -> io::Result<()> {
        let place = place(shelf, key)?;
        let bucket = self.0.bus.bucket(&self.0.bucket).await.map_err(failed)?;
        match bucket.entry(&place).await.map_err(failed)? {
            // What cannot be opened is ordered anew, and takes its place.
            Some(entry) => match self.opened(&entry) {
                Some(value) => {
                    self.mirror().insert(place.clone(), value.clone());
                    self.keep(&place, Some(&value)).await;
                }
                None => drop(self.mirror().remove(&place)),
            },
            None => drop(self.mirror().remove(&place)),
        }
        Ok(())
    }
}

impl Store for Shared {
    fn read(&self, shelf: &str, key: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let found = self.mirror().get(&place(shelf, key)?).cloned();
        match (&found, &self.0.kept) {
            (None, Some(kept)) if !self.0.whole.load(Ordering::Acquire) => kept.read(shelf, key),
            _ => Ok(found),
        }
    }

    /// When it returns every node can have read it. Blocks: not for threads that carry requests.
    fn write(&self, shelf: &str, key: &str, value: &[u8]) -> io::Result<()> {
        let place = place(shelf, key)?;
        let sealed = self.0.seal.seal(&place, value)?;
        self.0.runtime.block_on(async {
            let bucket = self.0.bus.bucket(&self.0.bucket).await.map_err(failed)?;
            bucket.put(&place, sealed).await.map_err(failed)
        })?;
        self.mirror().insert(place, Zeroizing::new(value.to_vec()));
        // Its own it need not wait to hear of.
        if let Some(kept) = self.0.kept.as_ref().filter(|_| !shelf.starts_with('.'))
            && let Err(error) = kept.write(shelf, key, value)
        {
            tracing::warn!(%error, "what the fleet keeps is not kept here, too");
        }
        Ok(())
    }

    fn settling(&self) -> Duration {
        SETTLING
    }

    fn list(&self, shelf: &str) -> io::Result<Vec<String>> {
        let keys = self.mirror().keys().filter_map(|place| parts(place)).collect::<Vec<_>>();
        Ok(keys.into_iter().filter(|(of, _)| of == shelf).map(|(_, key)| key).collect())
    }

    /// Here at once, on the bus soon.
    fn remove(&self, shelf: &str, key: &str) -> io::Result<()> {
        let place = place(shelf, key)?;
        self.mirror().remove(&place);
        let (bus, bucket) = (self.0.bus.clone(), self.0.bucket.clone());
        self.0.runtime.spawn(async move {
            let removing = async { bus.bucket(&bucket).await?.remove(&place, None).await };
            if let Err(error) = removing.await {
                tracing::warn!(%error, key = place, "it still stands on the bus");
            }
        });
        Ok(())
    }

    fn lock(&self, shelf: &str, key: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let name = place(shelf, key)?;
        let lease = Lease::new(self.0.bus.clone(), self.0.bucket.clone(), &name, self.0.holder.clone(), TERM);
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&name).unwrap_or_default();
        let taken = self.0.runtime.block_on(lease.attempt(&mut seen));
        let held = match taken {
            Ok(Some(held)) => held,
            // Without the bus nobody orders: it is tried again.
            Ok(None) | Err(_) => {
                self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name, seen);
                return Ok(None);
            }
        };
        // The ones before may have written these and died before anybody was told.
        self.0.runtime.block_on(async {
            self.refresh(shelf, &format!("{key}.pem")).await?;
            self.refresh(shelf, &format!("{key}.json")).await
        })?;
        let given_back = CancellationToken::new();
        let over = given_back.clone();
        self.0.runtime.spawn(async move {
            if lease.during(held, over.cancelled()).await.is_none() {
                tracing::warn!("the right to order was lost: another node may order the same");
            }
        });
        Ok(Some(Box::new(Right(given_back))))
    }
}

#[derive(Debug)]
struct Right(CancellationToken);

impl Lock for Right {}

impl Drop for Right {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Bucket, Local};
    use crate::scalar::Secret;

    fn seal(text: &str) -> Seal {
        Seal::new(&Secret::new(text)).unwrap()
    }

    const SECRET: &str = "a secret of thirty-two characters";

    async fn store(bus: &Bus, node: &str, secret: &str) -> Shared {
        bus.make_bucket(&Bucket { name: "s".to_owned(), max_age: Duration::ZERO }).await.unwrap();
        let store = Shared::new(bus.clone(), "s".to_owned(), seal(secret), node, None).unwrap();
        let mut changes = store.changes();
        tokio::spawn(store.clone().follow());
        changes.changed().await.unwrap();
        store
    }

    async fn off<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    #[tokio::test]
    async fn what_one_node_writes_all_read_and_nobody_else() {
        let bus = Bus::new(Local::default());
        let (one, two) = (store(&bus, "one", SECRET).await, store(&bus, "two", SECRET).await);
        let stranger = store(&bus, "three", "another secret of thirty-two chars").await;
        let mut told = two.changes();
        let writer = one.clone();
        off(move || writer.write("le", "a.test.pem", b"KEY").unwrap()).await;
        told.changed().await.unwrap();
        assert_eq!(two.read("le", "a.test.pem").unwrap().unwrap().as_slice(), b"KEY");
        assert_eq!(two.list("le").unwrap(), ["a.test.pem"]);
        assert_eq!(stranger.read("le", "a.test.pem").unwrap(), None);
        let raw = bus.bucket("s").await.unwrap().entry("acme.le.a=test=pem").await.unwrap().unwrap();
        assert!(!raw.value.windows(3).any(|window| window == b"KEY"));
        // A sealed value stands for its own place only.
        bus.bucket("s").await.unwrap().put("acme.le.b=test=pem", raw.value).await.unwrap();
        two.remove("le", "a.test.pem").unwrap();
        assert_eq!(two.read("le", "a.test.pem").unwrap(), None);
        let mut gone = one.changes();
        while one.read("le", "a.test.pem").unwrap().is_some() {
            gone.changed().await.unwrap();
        }
        assert_eq!(one.read("le", "b.test.pem").unwrap(), None);
        for key in ["..", "", "a/b", "a=b"] {
            assert!(one.read("le", key).is_err(), "{key}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_orders_and_is_succeeded_when_it_dies() {
        let bus = Bus::new(Local::default());
        let (one, two) = (store(&bus, "one", SECRET).await, store(&bus, "two", SECRET).await);
        let lock = |store: &Shared| {
            let store = store.clone();
            off(move || store.lock("le", "a.test").unwrap())
        };
        let held = lock(&one).await.unwrap();
        assert!(lock(&two).await.is_none());
        drop(held);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(lock(&two).await.is_some());
        // A lease that nobody renews: the node that wrote it is dead.
        tokio::time::sleep(Duration::from_secs(1)).await;
        bus.bucket("s").await.unwrap().put("lease.acme.le.a=test", "dead".into()).await.unwrap();
        assert!(lock(&two).await.is_none());
        tokio::time::sleep(TERM * 2).await;
        assert!(lock(&two).await.is_some());
    }
}
