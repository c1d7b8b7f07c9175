//! Tokens that are taken no longer although they have not ended: in force at once, kept over a restart, forgotten at their end.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use super::issuer::LEEWAY_MAX;
use super::unix_now;
use crate::durable;
use crate::facts::{Proven, Subject};

/// Most revocations at a time. Whoever needs more has `issued_before`.
const REVOCATIONS_MAX: usize = 50_000;
/// Longest text of one.
const TEXT_MAX: usize = 512;
/// Streams that are not looked through for those that have ended.
const PURGE_MIN: usize = 256;
const FILE: &str = "revocations.json";

/// What is revoked: tokens of which all of this is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Of which issuer (`iss`). Without it: of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// Tokens whose `iat` is before this, in seconds of the Unix epoch, and those that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<u64>,
    /// When the last of these tokens ends (`exp`): the revocation is forgotten then (and `leeway`). Without it: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// For those who read the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why something is not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    #[error("it is not said what is revoked: give `jti`, `sub`, `kid` or `issued_before`")]
    Nothing,
    #[error("a text is empty or longer than {TEXT_MAX} bytes")]
    Text,
    #[error("`expires` is over: there is nothing left to revoke")]
    Over,
    #[error("there are {REVOCATIONS_MAX} revocations already; take some back, or use `issued_before`")]
    Full,
    #[error("it is in force, but not kept for the next start: {0}")]
    Kept(std::io::Error),
}

/// What was revoked, and who waits to hear of it. One for all documents of a process.
#[derive(Debug, Default)]
pub struct Revocations {
    index: ArcSwap<Index>,
    /// Held while something changes.
    file: Mutex<Kept>,
    streams: Mutex<Streams>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

/// Where revocations are kept.
#[derive(Debug, Default)]
struct Kept {
    path: Option<PathBuf>,
    /// What is in force could not be written.
    behind: bool,
}

/// Who is there, and when to look for those who have gone.
#[derive(Debug, Default)]
struct Streams {
    list: Vec<Weak<Watched>>,
    purge_at: usize,
}

#[derive(Debug, Default)]
struct Index {
    all: BTreeMap<String, Revocation>,
    jti: HashMap<String, Vec<Revocation>>,
    sub: HashMap<String, Vec<Revocation>>,
    kid: HashMap<String, Vec<Revocation>>,
    /// Those of times alone.
    times: Vec<Revocation>,
}

/// Somebody who was let in and is still there.
#[derive(Debug)]
pub struct Watched {
    subject: Arc<Subject>,
    revoked: AtomicBool,
}

impl Watched {
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }
}

impl Revocation {
    /// The same for the same tokens.
    pub fn id(&self) -> String {
        let Revocation { issuer, jti, sub, kid, issued_before, expires: _, reason: _ } = self;
        let text = serde_json::to_vec(&(issuer, jti, sub, kid, issued_before)).unwrap_or_default();
        let digest = digest::digest(&digest::SHA256, &text);
        digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    fn check(&self, now: u64) -> Result<(), RevocationError> {
        let Revocation { issuer, jti, sub, kid, issued_before, expires: _, reason } = self;
        if jti.is_none() && sub.is_none() && kid.is_none() && issued_before.is_none() {
            return Err(RevocationError::Nothing);
        }
        let mut texts = [issuer, jti, sub, kid, reason].into_iter().flatten();
        if texts.any(|text| text.is_empty() || text.len() > TEXT_MAX) {
            return Err(RevocationError::Text);
        }
        if !self.lasts(now) {
            return Err(RevocationError::Over);
        }
        Ok(())
    }

    /// Whether it holds for longer than another of the same tokens.
    pub fn outlasts(&self, other: &Revocation) -> bool {
        match (self.expires, other.expires) {
            (None, other) => other.is_some(),
            (Some(_), None) => false,
            (Some(this), Some(other)) => this > other,
        }
    }

    /// Whether there is nothing left to revoke.
    pub fn is_over(&self, now: u64) -> bool {
        !self.lasts(now)
    }

    /// Tokens are good for a while after their end.
    fn lasts(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires.saturating_add(LEEWAY_MAX))
    }

    fn covers(&self, subject: &Subject, now: u64) -> bool {
        let Revocation { issuer, jti, sub, kid, issued_before, expires: _, reason: _ } = self;
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| value.is_some_and(|value| value == wanted))
        };
        self.lasts(now)
            // By the name of its block, too, as it was kept once.
            && (is(issuer, claim(subject, "iss")) || is(issuer, Some(&subject.source)))
            && is(jti, claim(subject, "jti"))
            && is(sub, claim(subject, "sub"))
            && is(kid, subject.key.as_deref())
            && issued_before.is_none_or(|before| issued_at(subject).is_none_or(|at| at < before as f64))
    }
}

fn claim<'s>(subject: &'s Subject, name: &str) -> Option<&'s str> {
    subject.claims.get(name)?.as_str()
}

fn issued_at(subject: &Subject) -> Option<f64> {
    subject.claims.get("iat").and_then(Value::as_f64)
}

impl Index {
    fn of(all: BTreeMap<String, Revocation>) -> Index {
        let mut index = Index::default();
        for one in all.values() {
            let Revocation { jti, sub, kid, .. } = one;
            let list = match (jti, sub, kid) {
                (Some(jti), _, _) => index.jti.entry(jti.clone()).or_default(),
                (None, Some(sub), _) => index.sub.entry(sub.clone()).or_default(),
                (None, None, Some(kid)) => index.kid.entry(kid.clone()).or_default(),
                (None, None, None) => &mut index.times,
            };
            list.push(one.clone());
        }
        Index { all, ..index }
    }

    fn covers(&self, subject: &Subject, now: u64) -> bool {
        if self.all.is_empty() || subject.by != Proven::Jwt {
            return false;
        }
        let found = |map: &HashMap<String, Vec<Revocation>>, value: Option<&str>| {
            let list = value.and_then(|value| map.get(value));
            list.is_some_and(|list| list.iter().any(|one| one.covers(subject, now)))
        };
        found(&self.jti, claim(subject, "jti"))
            || found(&self.sub, claim(subject, "sub"))
            || found(&self.kid, subject.key.as_deref())
            || self.times.iter().any(|one| one.covers(subject, now))
    }
}

impl Revocations {
    /// Takes up what was kept. A file that cannot be read is an error: what it holds must not pass.
    pub fn open(folder: &Path, now: u64) -> std::io::Result<Revocations> {
        let path = folder.join(FILE);
        let index = ArcSwap::from_pointee(Index::of(lasting(read(&path)?, now)));
        let file = Mutex::new(Kept { path: Some(path), behind: false });
        Ok(Revocations { index, file, ..Revocations::default() })
    }

    /// Whether revocations outlive the process.
    pub fn are_kept(&self) -> bool {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).path.is_some()
    }

    /// Revokes, from now on, and ends what is open. Waits for the disk.
    pub fn add(&self, revocation: Revocation, now: u64) -> Result<String, RevocationError> {
        revocation.check(now)?;
        let id = revocation.id();
        let done = self.change(now, |all| {
            if all.len() >= REVOCATIONS_MAX && !all.contains_key(&id) {
                return Err(RevocationError::Full);
            }
            all.insert(id.clone(), revocation);
            Ok(())
        });
        // It may be in force although it is not kept.
        self.end_streams(now);
        done.map(|()| id)
    }

    /// Takes a revocation back; `false` if there is none of this id.
    pub fn remove(&self, id: &str, now: u64) -> Result<bool, RevocationError> {
        let mut there = false;
        self.change(now, |all| {
            there = all.remove(id).is_some();
            Ok(())
        })?;
        Ok(there)
    }

    /// What another process has written meanwhile, as when one takes over from another. What could not be written before, or
    /// is not there any more, is written again: nothing that is in force is lost by looking.
    pub fn look_again(&self, now: u64) -> std::io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = file.path.clone() else { return Ok(()) };
        let known = lasting(self.index.load().all.clone(), now);
        let missing = !path.exists() && !known.is_empty();
        if file.behind || missing {
            let _alone = durable::lock(&path.with_extension("lock"))?;
            let mut all = lasting(read(&path)?, now);
            all.extend(known);
            durable::replace(&path, &serde_json::to_vec_pretty(&all)?)?;
            self.index.store(Arc::new(Index::of(all)));
            file.behind = false;
            drop(file);
            self.changed.send_modify(|count| *count += 1);
            self.end_streams(now);
            return Ok(());
        }
        let all = lasting(read(&path)?, now);
        if all != known {
            self.index.store(Arc::new(Index::of(all)));
            drop(file);
            self.changed.send_modify(|count| *count += 1);
            self.end_streams(now);
        }
        Ok(())
    }

    fn end_streams(&self, now: u64) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).list.retain(|weak| {
            let Some(watched) = weak.upgrade() else { return false };
            if self.covers(&watched.subject, now) {
                watched.revoked.store(true, Ordering::Relaxed);
            }
            true
        });
    }

    /// The file is the truth where there is one: two processes may write it.
    fn change(
        &self,
        now: u64,
        edit: impl FnOnce(&mut BTreeMap<String, Revocation>) -> Result<(), RevocationError>,
    ) -> Result<(), RevocationError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let path = file.path.clone();
        let alone = path.as_ref().map(|path| durable::lock(&path.with_extension("lock"))).transpose();
        let written = match &path {
            Some(path) => alone.as_ref().map_err(|error| error.kind().into()).and_then(|_| read(path)),
            None => Ok(BTreeMap::new()),
        };
        let known = self.index.load().all.clone();
        let mut all = lasting(
            match &written {
                Ok(written) if path.is_some() && !file.behind => written.clone(),
                Ok(written) => known.into_iter().chain(written.clone()).collect(),
                Err(_) => known,
            },
            now,
        );
        edit(&mut all)?;
        let bytes = serde_json::to_vec_pretty(&all).map_err(std::io::Error::other);
        self.index.store(Arc::new(Index::of(all)));
        self.changed.send_modify(|count| *count += 1);
        let Some(path) = path else { return Ok(()) };
        let kept = written.and(bytes).and_then(|bytes| durable::replace(&path, &bytes));
        file.behind = kept.is_err();
        kept.map_err(RevocationError::Kept)
    }

    /// Tells whenever something is revoked or taken back.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// All that have not ended, by id.
    pub fn all(&self, now: u64) -> BTreeMap<String, Revocation> {
        lasting(self.index.load().all.clone(), now)
    }

    pub fn covers(&self, subject: &Subject, now: u64) -> bool {
        self.index.load().covers(subject, now)
    }

    /// For as long as it is held: whether the subject has been revoked meanwhile.
    pub fn watch(&self, subject: &Arc<Subject>) -> Arc<Watched> {
        let watched = Arc::new(Watched { subject: subject.clone(), revoked: AtomicBool::new(false) });
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.list.len() >= streams.purge_at {
            streams.list.retain(|weak| weak.strong_count() > 0);
            streams.purge_at = (streams.list.len() * 2).max(PURGE_MIN);
        }
        streams.list.push(Arc::downgrade(&watched));
        drop(streams);
        // It may have happened since the token was looked at.
        if self.covers(subject, unix_now()) {
            watched.revoked.store(true, Ordering::Relaxed);
        }
        watched
    }
}

fn read(path: &Path) -> std::io::Result<BTreeMap<String, Revocation>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

fn lasting(mut all: BTreeMap<String, Revocation>, now: u64) -> BTreeMap<String, Revocation> {
    all.retain(|_, one| one.lasts(now));
    all
}

#[cfg(test)]
#[path = "revoked_tests.rs"]
mod tests;
