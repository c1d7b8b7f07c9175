//! Rates: at most `burst + rate * w` within any time `w` (GCRA, as governor computes it).

use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use crate::bounded::{Bounded, Change, Key};

/// How far the keys of a limit have used it up: for every key the time when it will have all of it again. Keys that have
/// all of it are forgotten first, by being idle.
#[derive(Debug)]
pub struct Rates {
    times: Bounded<u64>,
    epoch: Instant,
}

impl Rates {
    /// For about so many keys; at the bound the one that was idle longest is forgotten.
    pub fn new(keys: usize) -> Rates {
        Rates { times: Bounded::new(keys), epoch: Instant::now() }
    }

    pub fn keys(&self) -> &Bounded<u64> {
        &self.times
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What stands between governor and the map.
#[derive(Clone, Debug)]
struct Times {
    rates: Arc<Rates>,
    /// Nobody has used more than this rule gives, in nanoseconds: who had to wait long under another one must not. `None`:
    /// there was no other.
    most: Option<u64>,
}

impl StateStore for Times {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let latest = self.most.map(|most| nanoseconds(self.rates.epoch.elapsed()).saturating_add(most));
        let within = |time: u64| latest.map_or(time, |latest| time.min(latest));
        self.rates.times.with(*key, |held| {
            let known = held.copied().map(within);
            match decide(known.map(Nanos::new)) {
                Ok((out, next)) => (Ok(out), Change::Put(next.as_u64())),
                // A refusal changes nothing; what was not there is not made. What was too much is put right.
                Err(refused) => match known.filter(|known| held != Some(known)) {
                    Some(known) => (Err(refused), Change::Put(known)),
                    None => (Err(refused), Change::Keep),
                },
            }
        })
    }
}

/// Nanoseconds since the epoch of the state: a rule that is made anew, because the document changed, goes on counting from
/// the same point. governor reads the clock once when a limiter is made and counts from there, so the first reading is the
/// epoch itself.
#[derive(Debug)]
struct Since {
    epoch: Instant,
    started: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(u64);

impl Add<Nanos> for Moment {
    type Output = Moment;
    fn add(self, more: Nanos) -> Moment {
        Moment(self.0.saturating_add(more.as_u64()))
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Moment) -> Nanos {
        Nanos::new(self.0.saturating_sub(earlier.0))
    }

    fn saturating_sub(&self, duration: Nanos) -> Moment {
        Moment(self.0.checked_sub(duration.as_u64()).unwrap_or(self.0))
    }
}

impl Since {
    fn read(&self) -> Moment {
        Moment(nanoseconds(self.epoch.elapsed()))
    }
}

impl Clock for Since {
    type Instant = Moment;
    fn now(&self) -> Moment {
        match self.started.load(Ordering::Relaxed) {
            true => self.read(),
            false => {
                self.started.store(true, Ordering::Relaxed);
                Moment(0)
            }
        }
    }
}

/// A rate with its state.
#[derive(Debug)]
pub struct Rule {
    limiter: RateLimiter<Key, Times, Since, StateInformationMiddleware>,
    state: Arc<Rates>,
    burst: u32,
    per_cell: Duration,
}

/// How a limit stands after a request was let through, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How much of that is left.
    pub remaining: u32,
    /// How long it takes until one more is there; nothing where all is.
    pub next_in: Duration,
}

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When it will be let through, if nothing else is until then. `None`: never, it costs more than there can be.
    pub wait: Option<Duration>,
    /// How much is left, less than it costs.
    pub remaining: u32,
}

impl Rule {
    /// One cell comes back every `per_cell`, up to `burst` of them.
    /// `changed`: what the state knows may be by another rule's measure.
    pub fn new(per_cell: Duration, burst: NonZeroU32, state: &Arc<Rates>, changed: bool) -> Rule {
        let per_cell = per_cell.max(Duration::from_nanos(1));
        let quota = Quota::with_period(per_cell).unwrap_or(Quota::per_second(burst)).allow_burst(burst);
        let most = changed.then(|| nanoseconds(per_cell.saturating_mul(burst.get())));
        let times = Times { rates: state.clone(), most };
        let clock = Since { epoch: state.epoch, started: AtomicBool::new(false) };
        let limiter = RateLimiter::<_, _, _, StateInformationMiddleware>::new(quota, times, clock);
        Rule { limiter, state: state.clone(), burst: burst.get(), per_cell }
    }

    /// How long it takes for all of the burst to come back.
    pub fn window(&self) -> Duration {
        self.per_cell.saturating_mul(self.burst)
    }

    /// Takes so many cells, or none of them.
    pub fn take(&self, key: Key, cost: NonZeroU32) -> Result<Window, Refused> {
        match self.limiter.check_key_n(&key, cost) {
            Ok(Ok(snapshot)) => {
                let remaining = snapshot.remaining_burst_capacity();
                let next_in = if remaining < self.burst { self.per_cell } else { Duration::ZERO };
                Ok(Window { remaining, next_in })
            }
            Ok(Err(until)) => {
                let wait = until.wait_time_from(self.limiter.clock().read());
                // So many cells are missing as come back until then.
                let missing = wait.as_nanos().div_ceil(self.per_cell.as_nanos().max(1));
                let remaining = cost.get().saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX));
                Err(Refused { wait: Some(wait), remaining })
            }
            Err(_) => Err(Refused { wait: None, remaining: 0 }),
        }
    }

    /// Takes what was used elsewhere, there or not: it must be waited for. No more than ten windows of it.
    pub fn spend(&self, key: Key, cost: NonZeroU32) {
        let span = nanoseconds(self.per_cell.saturating_mul(cost.get()));
        let now = nanoseconds(self.state.epoch.elapsed());
        let latest = now.saturating_add(nanoseconds(self.window().saturating_mul(10)));
        self.state.times.with(key, |held| {
            let time = held.copied().unwrap_or_default().max(now).saturating_add(span).min(latest);
            ((), Change::Put(time))
        });
    }

    /// Gives back what was taken for a request that another limit has refused.
    pub fn give_back(&self, key: Key, cost: NonZeroU32) {
        let span = nanoseconds(self.per_cell.saturating_mul(cost.get()));
        self.state
            .times
            .with(key, |held| ((), held.map_or(Change::Keep, |time| Change::Put(time.saturating_sub(span)))));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let state = Arc::new(Rates::new(100));
        let rule = Rule::new(Duration::from_secs(3_600), number(3), &state, false);
        let key = state.keys().key("a");
        assert_eq!(rule.take(key, ONE).unwrap().remaining, 2);
        assert_eq!(rule.take(key, number(2)).unwrap().remaining, 0);
        let refused = rule.take(key, ONE).unwrap_err();
        assert!(refused.wait.is_some_and(|wait| wait > Duration::from_secs(3_500)), "{refused:?}");
        assert!(rule.take(state.keys().key("b"), ONE).is_ok(), "others have their own");
        assert_eq!(rule.take(key, number(4)).unwrap_err().wait, None, "more than there can be");
        assert_eq!(state.keys().len(), 2, "who was refused takes no place");
    }

    /// A rule that is made anew, as when the document changes, knows what was used.
    #[test]
    fn state_outlives_the_rule() {
        let state = Arc::new(Rates::new(100));
        let key = state.keys().key("a");
        let first = Rule::new(Duration::from_secs(60), number(2), &state, false);
        assert!(first.take(key, number(2)).is_ok());
        drop(first);
        let second = Rule::new(Duration::from_secs(60), number(2), &state, false);
        assert!(second.take(key, ONE).is_err());
        let wider = Rule::new(Duration::from_secs(60), number(4), &state, false);
        assert!(wider.take(key, number(2)).is_ok());
        assert!(wider.take(key, ONE).is_err());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let state = Arc::new(Rates::new(100));
        let rule = Rule::new(Duration::from_secs(60), number(2), &state, false);
        let key = state.keys().key("a");
        assert!(rule.take(key, number(2)).is_ok());
        rule.give_back(key, ONE);
        assert!(rule.take(key, ONE).is_ok() && rule.take(key, ONE).is_err());
    }

    #[test]
    fn what_was_spent_elsewhere_is_missing_here() {
        let state = Arc::new(Rates::new(100));
        let rule = Rule::new(Duration::from_secs(60), number(3), &state, false);
        let key = state.keys().key("a");
        rule.spend(key, number(2));
        assert!(rule.take(key, ONE).is_ok() && rule.take(key, ONE).is_err());
        rule.spend(key, number(1_000));
        let wait = rule.take(key, ONE).unwrap_err().wait.unwrap();
        assert!(wait <= rule.window() * 10, "{wait:?}");
    }

    #[test]
    fn a_wider_rule_forgives() {
        let state = Arc::new(Rates::new(100));
        let key = state.keys().key("a");
        let slow = Rule::new(Duration::from_secs(3_600), number(100), &state, false);
        assert!(slow.take(key, number(100)).is_ok());
        let quick = Rule::new(Duration::from_millis(10), number(100), &state, true);
        let refused = quick.take(key, ONE).unwrap_err();
        assert!(refused.wait.is_some_and(|wait| wait <= Duration::from_millis(10)), "{refused:?}");
    }

    #[test]
    fn says_how_much_is_left_and_when_more_is() {
        let state = Arc::new(Rates::new(100));
        let rule = Rule::new(Duration::from_secs(60), number(10), &state, false);
        let key = state.keys().key("a");
        let window = rule.take(key, number(7)).unwrap();
        assert_eq!((window.remaining, window.next_in), (3, Duration::from_secs(60)));
        let refused = rule.take(key, number(5)).unwrap_err();
        assert_eq!(refused.remaining, 3);
        assert!(refused.wait.is_some_and(|wait| wait > Duration::from_secs(110)), "{refused:?}");
    }

    #[test]
    fn ten_threads_never_exceed_it() {
        let state = Arc::new(Rates::new(100));
        let rule = Arc::new(Rule::new(Duration::from_micros(500), number(50), &state, false));
        let key = state.keys().key("a");
        let allowed = Arc::new(AtomicU32::new(0));
        let began = Instant::now();
        let threads: Vec<_> = (0..10)
            .map(|_| {
                let (rule, allowed) = (rule.clone(), allowed.clone());
                thread::spawn(move || {
                    for _ in 0..2_000 {
                        if rule.take(key, ONE).is_ok() {
                            allowed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let most = 50.0 + began.elapsed().as_secs_f64() * 2_000.0;
        let allowed = f64::from(allowed.load(Ordering::Relaxed));
        assert!(allowed >= 50.0 && allowed <= most + 1.0, "{allowed} of {most}");
    }

    proptest! {
        /// Over any window of a run, what is let through is within burst + rate x window.
        #[test]
        fn any_window_is_within_burst_and_rate(
            per_cell_us in 50_u64..2_000,
            burst in 1_u32..20,
            costs in prop::collection::vec((1_u32..4, 0_u64..300), 1..120),
        ) {
            let state = Arc::new(Rates::new(100));
            let rule = Rule::new(Duration::from_micros(per_cell_us), number(burst), &state, false);
            let key = state.keys().key(1);
            let mut taken: Vec<(Instant, Instant, u32)> = Vec::new();
            for (cost, spin_us) in costs {
                let spin = Instant::now();
                while spin.elapsed() < Duration::from_micros(spin_us) {
                    std::hint::spin_loop();
                }
                let before = Instant::now();
                if rule.take(key, number(cost)).is_ok() {
                    taken.push((before, Instant::now(), cost));
                }
            }
            for (from, (began, ..)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (_, ended, cost) in &taken[from..] {
                    sum += cost;
                    let window = ended.duration_since(*began).as_secs_f64();
                    let most = f64::from(burst) + window * 1e6 / per_cell_us as f64;
                    prop_assert!(f64::from(sum) <= most + 1e-6, "{sum} in {window} s, at most {most}");
                }
            }
        }
    }

    #[test]
    fn a_check_allocates_nothing() {
        let state = Arc::new(Rates::new(100));
        let rule = Rule::new(Duration::from_micros(1), number(1_000), &state, false);
        let key = state.keys().key("a");
        rule.take(key, ONE).unwrap();
        let info = allocation_counter::measure(|| {
            for _ in 0..100 {
                let _ = rule.take(key, ONE);
            }
        });
        assert_eq!(info.count_total, 0);
    }
}
