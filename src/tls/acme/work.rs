//! What the one task does: order what is due, a few at a time, and ask CAs when to renew.
//!
//! Everything that blocks is done elsewhere. Whoever orders holds the right to in the store, and writes down how it went
//! before it gives that back: gateways that share a store fail together, not each on its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use instant_acme::CertificateIdentifier;
use tokio_util::sync::CancellationToken;

use super::account::Authority;
use super::certificate::{Parsed, State};
use super::order::{Means, Standing, Wanted, obtain, proofs};
use super::schedule::Record;
use super::store::Lock;
use super::{ADVICE_AFTER, Acme, AcmeCertificate, Failure, Wish};

/// Orders under way at once: of one CA, and in all.
const ORDERS_MAX: usize = 4;
const ORDERS_MAX_ALL: usize = 16;
/// An order that takes longer is given up; the wait for records comes on top.
const ORDER_WITHIN: Duration = Duration::from_secs(180);
/// The clock of the machine may be set: nothing is slept through for longer than this.
const LOOK: Duration = Duration::from_secs(60);
/// Failures at one CA before the next one is asked.
const FAILURES_EACH: u32 = 2;
/// Another gateway orders: what comes of it is looked at after this long.
const HELD: Duration = Duration::from_secs(2);
/// A CA that says that it is asked too often is left alone for this long.
const LIMITED: Duration = Duration::from_secs(3_600);
/// Advice is asked for again after this long at most (RFC 9773 4.3.2).
const ADVICE_AFTER_MAX: Duration = Duration::from_secs(86_400);
/// A name that clients asked for is given up after so many failures, if it never had a certificate or that has run out.
const DEMAND_FAILURES: u32 = 2;
/// It is not renewed when nobody has asked for it for this long.
const DEMAND_UNUSED: Duration = Duration::from_secs(7 * 86_400);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Order,
    Advice,
}

/// What came of an order.
enum Outcome {
    Obtained(Parsed),
    /// Another gateway that shares the store was first.
    Found(Parsed),
    /// Another gateway has failed meanwhile.
    Failed(Record),
    /// Not now: another gateway orders, or the CA is left alone.
    Later(SystemTime),
}

impl Acme {
    /// Orders what is due until told to stop; what is under way then is brought to its end.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        self.clear_leftovers().await;
        let mut work = FuturesUnordered::new();
        loop {
            let (due, wait) = match stop.is_cancelled() {
                true if work.is_empty() => return,
                true => (Vec::new(), LOOK),
                false => self.due(SystemTime::now(), ORDERS_MAX_ALL - work.len().min(ORDERS_MAX_ALL)),
            };
            for (certificate, kind) in due {
                certificate.lock().busy = true;
                work.push(self.clone().attend(certificate, kind));
            }
            tokio::select! {
                Some(()) = work.next(), if !work.is_empty() => {}
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled(), if !stop.is_cancelled() => {}
            }
        }
    }

    /// What is due, at most `room` of it, and how long there is nothing else to do.
    fn due(&self, now: SystemTime, room: usize) -> (Vec<(Arc<AcmeCertificate>, Work)>, Duration) {
        let mut waiting: Vec<(SystemTime, Arc<AcmeCertificate>, Work)> = Vec::new();
        let mut busy: ahash::AHashMap<Box<str>, usize> = ahash::AHashMap::new();
        for certificate in self.all() {
            let mut state = certificate.lock();
            if state.busy {
                *busy.entry(certificate.wish.ca.clone()).or_default() += 1;
            }
            let unused = || now.duration_since(certificate.used()).is_ok_and(|idle| idle > DEMAND_UNUSED);
            if state.demanded && !state.wanted && state.life.is_some() && unused() {
                tracing::info!(
                    event = "certificate.forgotten",
                    name = certificate.wish.name(),
                    "nobody asks for it any more"
                );
                state.demanded = false;
            }
            let State { wanted, demanded, busy, life, advice_at, .. } = state.clone();
            if !(wanted || demanded) || busy {
                continue;
            }
            let order = certificate.due(&state, now);
            drop(state);
            let advised = self.authorities.get(&*certificate.wish.ca).is_some_and(Authority::gives_advice);
            match advice_at.unwrap_or(now) {
                advice if advised && life.is_some() && advice < order => {
                    waiting.push((advice, certificate, Work::Advice));
                }
                _ => waiting.push((order, certificate, Work::Order)),
            }
        }
        waiting.sort_by_key(|(at, ..)| *at);
        let next = waiting.iter().find(|(at, ..)| *at > now).map(|(at, ..)| at.duration_since(now).unwrap_or_default());
        let due = waiting.into_iter().filter(|(at, ..)| *at <= now);
        // A CA that is slow holds up its own names only.
        let due = due.filter(|(_, certificate, _)| {
            let busy = busy.entry(certificate.wish.ca.clone()).or_default();
            *busy += 1;
            *busy <= ORDERS_MAX
        });
        let due = due.take(room).map(|(_, certificate, work)| (certificate, work)).collect();
        (due, next.unwrap_or(LOOK).min(LOOK))
    }

    async fn attend(self: Arc<Self>, certificate: Arc<AcmeCertificate>, work: Work) {
        match work {
            Work::Order => self.clone().attempt(&certificate).await,
            Work::Advice => self.take_advice(&certificate).await,
        }
        certificate.lock().busy = false;
        certificate.news.notify_waiters();
    }

    /// How it went, for the next start and for others.
    async fn keep_record(self: &Arc<Self>, wish: &Wish, record: Record) {
        let (acme, wish) = (self.clone(), wish.clone());
        let write = move || {
            let json = serde_json::to_vec(&record).unwrap_or_default();
            if let Err(error) = acme.store.write(&wish.ca, &format!("{}.json", wish.key()), &json) {
                tracing::error!(ca = %wish.ca, name = wish.name(), %error, "how the order went is not kept");
            }
        };
        let _ = tokio::task::spawn_blocking(write).await;
    }

    /// The CAs that are asked for a certificate, one after the other; those that cannot prove the names are left out.
    fn chain(&self, wish: &Wish) -> Vec<&Authority> {
        let mut seen: Vec<&str> = Vec::new();
        let mut chain = Vec::new();
        let mut next = self.authorities.get_key_value(&*wish.ca);
        while let Some((name, authority)) = next.filter(|(name, _)| !seen.contains(&name.as_str())) {
            seen.push(name);
            let wildcard = wish.names.iter().any(|name| name.starts_with("*."));
            if !wildcard || authority.words.dns.is_some() {
                chain.push(authority);
            }
            next = authority.words.fallback.as_ref().and_then(|name| self.authorities.get_key_value(name));
        }
        chain
    }

    async fn attempt(self: Arc<Self>, certificate: &AcmeCertificate) {
        let (wish, name) = (&certificate.wish, certificate.wish.name());
        let chain = self.chain(wish);
        let failures = certificate.lock().record.failures;
        let turn = usize::try_from(failures / FAILURES_EACH).unwrap_or(0) % chain.len().max(1);
        let wait = self.authorities.get(&*wish.ca).map_or(LOOK, |authority| authority.words.retry.0);
        let right = self.right(wish).await;
        let outcome = match (&right, chain.get(turn)) {
            (Ok(None), _) => Ok(Outcome::Later(SystemTime::now() + HELD)),
            (Err(error), _) => Err(Failure::Kept(std::io::Error::other(error.to_string()))),
            (Ok(Some(_)), Some(authority)) => self.order(certificate, authority).await,
            (Ok(Some(_)), None) => Err(Failure::NoAuthority(wish.ca.to_string())),
        };
        let ca = chain.get(turn).map_or(&*wish.ca, |authority| authority.name());
        let now = SystemTime::now();
        let before = certificate.lock().record;
        match outcome {
            Ok(Outcome::Later(at)) => certificate.lock().held_until = Some(at),
            Ok(Outcome::Failed(record)) => certificate.lock().record = record,
            Ok(Outcome::Obtained(parsed)) => {
                let until = crate::telemetry::access::rfc3339(parsed.life.not_after);
                certificate.take_up(parsed);
                tracing::info!(event = "certificate.obtained", ca, name, until, "certificate obtained");
                succeeded(certificate, Record::succeeded(now, wait));
            }
            Ok(Outcome::Found(parsed)) => {
                certificate.take_up(parsed);
                tracing::info!(event = "certificate.changed", ca, name, "taken up: another gateway obtained it");
                succeeded(certificate, Record::succeeded(now, wait));
            }
            Err(failure) => self.failed(certificate, ca, &failure, chain.len()).await,
        }
        let (record, given_up) = {
            let state = certificate.lock();
            (state.record, !state.wanted && !state.demanded)
        };
        if given_up {
            self.forget_record(wish).await;
        } else if record != before {
            self.keep_record(wish, record).await;
        }
        drop(right);
    }

    async fn failed(&self, certificate: &AcmeCertificate, ca: &str, failure: &Failure, cas: usize) {
        let (wish, name, now) = (&certificate.wish, certificate.wish.name(), SystemTime::now());
        let wait = self.authorities.get(&*wish.ca).map_or(LOOK, |authority| authority.words.retry.0);
        let limited = matches!(failure, Failure::Order(error) if error.is_rate_limit());
        if let Some(authority) = self.authorities.get(ca) {
            if matches!(failure, Failure::Order(error) if error.is_unknown_account()) {
                authority.forget().await;
            }
            // What one name is told holds for all.
            match failure {
                _ if limited => authority.pause(now + LIMITED),
                Failure::Order(error) if error.is_silence() => authority.pause(now + authority.words.retry.0.min(LOOK)),
                Failure::Late => authority.pause(now + authority.words.retry.0.min(LOOK)),
                _ => {}
            }
        }
        let mut state = certificate.lock();
        // A CA that is asked too often is left alone: by waiting, or by asking the next one.
        let mut record = state.record.failed(now, wait, limited && cas < 2, name);
        if limited && cas > 1 {
            record.failures = record.failures.next_multiple_of(FAILURES_EACH);
        }
        state.record = record;
        state.last_error = Some(failure.to_string());
        let over = state.life.is_none_or(|life| life.not_after <= now);
        if state.demanded && !state.wanted && over && record.failures >= DEMAND_FAILURES {
            tracing::warn!(
                event = "certificate.forgotten",
                name,
                "given up: no CA gives the name a certificate, whoever asked for it"
            );
            state.demanded = false;
        }
        tracing::error!(
            event = "certificate.failed",
            ca,
            name,
            error = %failure,
            failures = record.failures,
            "no certificate"
        );
    }

    async fn right(self: &Arc<Self>, wish: &Wish) -> std::io::Result<Option<Box<dyn Lock>>> {
        let (acme, wish) = (self.clone(), wish.clone());
        let lock = tokio::task::spawn_blocking(move || acme.store.lock(&wish.ca, &wish.key())).await;
        lock.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    async fn forget_record(self: &Arc<Self>, wish: &Wish) {
        let (acme, wish) = (self.clone(), wish.clone());
        let work = move || {
            for end in ["json", "lock"] {
                let _ = acme.store.remove(&wish.ca, &format!("{}.{end}", wish.key()));
            }
        };
        let _ = tokio::task::spawn_blocking(work).await;
    }

    /// With the right to order: what is kept is read again, since whoever had it before may have written it.
    async fn order(self: &Arc<Self>, certificate: &AcmeCertificate, authority: &Authority) -> Result<Outcome, Failure> {
        let wish = &certificate.wish;
        let (mine, life) = {
            let state = certificate.lock();
            (state.record, state.life)
        };
        let (acme, read) = (self.clone(), wish.clone());
        let kept = tokio::task::spawn_blocking(move || (acme.kept(&read), acme.kept_record(&read))).await;
        let (kept, record) = kept.map_err(|error| Failure::Kept(std::io::Error::other(error)))?;
        let now = SystemTime::now();
        if let Ok(Some(kept)) = kept
            && kept.covers(wish)
            && life.is_none_or(|life| kept.life.not_before > life.not_before)
            && kept.life.not_after > now
        {
            return Ok(Outcome::Found(kept));
        }
        if let Some(record) = record.filter(|record| *record != mine && record.forbids(now)) {
            return Ok(Outcome::Failed(record));
        }
        if let Some(until) = authority.paused().filter(|until| *until > now) {
            return Ok(Outcome::Later(until));
        }
        let kinds = proofs(&wish.names, authority.words.dns.is_some());
        let tried = usize::try_from(mine.failures % FAILURES_EACH).unwrap_or(0);
        let Some(proof) = kinds.get(tried % kinds.len()).copied() else { return Err(Failure::Late) };
        let account = within(ORDER_WITHIN, authority.account()).await?;
        let means = Means { proof, challenges: &self.challenges, dns: authority.words.dns.as_ref() };
        // The CA may not know the one it stands for: after a failure it is not named.
        let current = certificate.current().filter(|_| mine.failures == 0 && certificate.lock().advice.is_some());
        let replaces = current.as_ref().and_then(|current| CertificateIdentifier::try_from(current.cert.first()?).ok());
        let profile = authority.words.profile.as_deref().filter(|wanted| {
            let offered = account.profiles().any(|profile| profile.name == *wanted);
            if !offered {
                tracing::warn!(
                    ca = authority.name(),
                    profile = wanted,
                    "the CA offers no such profile: ordered without"
                );
            }
            offered
        });
        let wanted = Wanted { names: &wish.names, profile, replaces };
        let mut standing = Standing::new(self.clone(), authority.name());
        let time = ORDER_WITHIN + authority.words.dns.as_ref().map_or(Duration::ZERO, |dns| dns.settle.0);
        let outcome = within(time, async { Ok(obtain(&account, wanted, &means, &mut standing).await?) }).await;
        standing.clear(&means).await;
        let pem = outcome?;
        let parsed = Parsed::read(pem.as_bytes()).map_err(Failure::Unusable)?;
        let (acme, wish) = (self.clone(), wish.clone());
        let write = move || acme.store.write(&wish.ca, &format!("{}.pem", wish.key()), pem.as_bytes());
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            // It is shown all the same; to order another one would not make room.
            let (ca, name) = (authority.name(), certificate.wish.name());
            tracing::error!(ca, name, %error, "the certificate is in force and NOT KEPT: a restart orders another one");
        }
        Ok(Outcome::Obtained(parsed))
    }

    /// Asks the CA when it would have the certificate renewed (ARI, RFC 9773).
    async fn take_advice(self: &Arc<Self>, certificate: &AcmeCertificate) {
        let wish = &certificate.wish;
        let Some(authority) = self.authorities.get(&*wish.ca) else { return };
        let advice = async {
            let account = authority.account().await?;
            let current = certificate.current();
            let leaf = current.as_ref().and_then(|current| current.cert.first());
            let id = leaf.and_then(|leaf| CertificateIdentifier::try_from(leaf).ok());
            let Some(id) = id else { return Ok(None) };
            match account.renewal_info(&id).await {
                Ok(advice) => Ok(Some(advice)),
                Err(instant_acme::Error::Unsupported(_)) => {
                    authority.has_no_advice();
                    Ok(None)
                }
                Err(error) => Err(Failure::from(error)),
            }
        };
        let now = SystemTime::now();
        let outcome: Result<_, Failure> = within(ORDER_WITHIN, advice).await;
        let before = certificate.lock().record;
        let record = {
            let mut state = certificate.lock();
            state.advice_at = Some(now + ADVICE_AFTER);
            match outcome {
                Ok(Some((info, again))) => {
                    let window = (info.suggested_window.start.into(), info.suggested_window.end.into());
                    if state.advice != Some(window) {
                        state.advice = Some(window);
                        state.record = state.record.advised(window.0, window.1);
                    }
                    let least = authority.words.retry.0.min(ADVICE_AFTER_MAX);
                    state.advice_at = Some(now + again.clamp(least, ADVICE_AFTER_MAX));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(ca = %wish.ca, name = wish.name(), %error, "the CA does not say when to renew");
                }
            }
            state.record
        };
        if record != before {
            self.keep_record(wish, record).await;
        }
    }
}

fn succeeded(certificate: &AcmeCertificate, record: Record) {
    let mut state = certificate.lock();
    state.record = record;
    (state.last_error, state.advice_at, state.advice, state.held_until) = (None, None, None, None);
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(time, work).await.unwrap_or(Err(Failure::Late))
}
