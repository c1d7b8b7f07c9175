//! What is turned away when there is more than the gateway can do.
//!
//! Two signs: how late the event loop is (requests then wait for their turn, each for a bit longer than the one before), and
//! memory near its bound. A loop that is late throughout a whole window is a queue that does not drain, as CoDel has it
//! (RFC 8289); one that is late now and then is a burst, and left alone. While the sign lasts a growing share of requests
//! is turned away, least important first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::settings;
use crate::telemetry::metrics::OverloadReading;

/// How often lateness is measured, and over how long the least counts.
const TICK: Duration = Duration::from_millis(10);
const WINDOW: Duration = Duration::from_millis(100);
/// Memory is looked at once in so many windows.
const MEMORY_EVERY: u32 = 5;
/// In thousandths: at least this share is added for a window that was late, and more the later it was; no more than the
/// most at once.
const MORE: u32 = 60;
const MORE_MAX: u32 = 500;
/// Taken off for a window that was not: little at first, for what was too much a moment ago may be so again, and more with
/// each that follows.
const LESS: u32 = 5;
const LESS_MAX: u32 = 100;
/// Windows in which turning away all that is sheddable has not helped.
const PATIENCE: u32 = 3;
/// All that is sheddable; all that is normal, too.
const SHEDDABLE: u32 = 1000;
const NORMAL: u32 = 2000;
/// Some of those that nobody knows yet are always looked at.
const UNKNOWN: u32 = 900;

/// How important a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Critical,
    Normal,
    /// It may be normal, if somebody found out.
    Unknown,
    Sheddable,
}

/// One per gateway.
#[derive(Debug)]
pub struct Overload {
    lag_max: Option<Duration>,
    memory_max: Option<u64>,
    /// 0 to 1000: that share of what is sheddable; to 2000: and of what is normal.
    level: AtomicU32,
    lag: AtomicU64,
    /// Windows in a row that were late, and that were not.
    late: AtomicU32,
    quiet: AtomicU32,
}

impl Overload {
    pub fn new(settings: &settings::Overload) -> Overload {
        let settings::Overload { lag, memory } = settings;
        Overload {
            lag_max: Some(lag.0).filter(|lag| !lag.is_zero()),
            memory_max: match memory {
                Some(bound) => Some(bound.0).filter(|bound| *bound > 0),
                None => cgroup_max().map(|max| max / 10 * 9),
            },
            level: AtomicU32::new(0),
            lag: AtomicU64::new(0),
            late: AtomicU32::new(0),
            quiet: AtomicU32::new(0),
        }
    }

    /// Whether a request of this weight is turned away now.
    pub fn sheds(&self, weight: Weight) -> bool {
        let level = self.level.load(Ordering::Relaxed);
        if level == 0 {
            return false;
        }
        let share = match weight {
            Weight::Critical => 0,
            Weight::Normal => level.saturating_sub(SHEDDABLE),
            Weight::Unknown => level.min(UNKNOWN),
            Weight::Sheddable => level,
        };
        share > 0 && fastrand::u32(..1000) < share
    }

    pub fn reading(&self) -> OverloadReading {
        OverloadReading {
            level: f64::from(self.level.load(Ordering::Relaxed)) / 1000.0,
            lag: Duration::from_micros(self.lag.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }

    /// Measures, as long as the gateway runs.
    pub async fn run(self: Arc<Self>) {
        let (mut windows, mut floor) = (0_u32, 0);
        loop {
            let (began, mut least) = (Instant::now(), Duration::MAX);
            // A loop that is late by more than a window is measured once.
            while began.elapsed() < WINDOW {
                let due = Instant::now() + TICK;
                tokio::time::sleep_until(due).await;
                least = least.min(due.elapsed());
            }
            if windows.is_multiple_of(MEMORY_EVERY) {
                floor = self.memory_floor();
            }
            windows = windows.wrapping_add(1);
            self.window(least, floor);
        }
    }

    /// What memory alone asks for: from nine tenths of the bound on a growing share of what is sheddable, beyond the bound of
    /// what is normal.
    fn memory_floor(&self) -> u32 {
        let (Some(bound), Some(used)) = (self.memory_max, resident()) else { return 0 };
        let tenth = (bound / 10).max(1);
        let over = used.saturating_sub(bound / 10 * 9);
        u32::try_from(over.saturating_mul(1000) / tenth).unwrap_or(NORMAL).min(NORMAL)
    }

    fn window(&self, least: Duration, floor: u32) {
        self.lag.store(u64::try_from(least.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let before = self.level.load(Ordering::Relaxed);
        let count = |counter: &AtomicU32, other: &AtomicU32| {
            other.store(0, Ordering::Relaxed);
            counter.fetch_add(1, Ordering::Relaxed) + 1
        };
        let next = match self.lag_max {
            Some(max) if least > max => {
                let late = count(&self.late, &self.quiet);
                let times = u32::try_from(least.as_micros() / max.as_micros().max(1)).unwrap_or(u32::MAX);
                // One that is very late, and the first, may have been a machine that stood still.
                let more = if late == 1 { MORE } else { MORE.saturating_mul(times.max(1)).min(MORE_MAX) };
                let most = if late > PATIENCE && before >= SHEDDABLE { NORMAL } else { before.max(SHEDDABLE) };
                (before + more).min(most)
            }
            Some(max) if least > max / 2 => before.saturating_sub(LESS),
            _ => before.saturating_sub((LESS * count(&self.quiet, &self.late)).min(LESS_MAX)),
        };
        let next = next.max(floor);
        self.level.store(next, Ordering::Relaxed);
        match (before, next) {
            (0, 1..) => {
                let memory = floor > 0;
                tracing::warn!(
                    event = "overload.begun",
                    lag_ms = least.as_millis(),
                    memory,
                    "requests are turned away"
                );
            }
            (1.., 0) => tracing::warn!(event = "overload.ended", "no request is turned away any more"),
            _ => {}
        }
    }
}

/// Bytes of memory that the process has in use.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The bound that the container has, if there is one.
fn cgroup_max() -> Option<u64> {
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let bound = files.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())?;
    // Version 1 writes a number near the largest where there is none.
    (bound < 1 << 50).then_some(bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar::{Size, Span};

    fn overload(memory: Option<u64>) -> Overload {
        Overload::new(&settings::Overload { lag: Span::from_millis(20), memory: memory.map(Size) })
    }

    fn shed(overload: &Overload, weight: Weight) -> u32 {
        (0..2_000).filter(|_| overload.sheds(weight)).count() as u32
    }

    fn windows(overload: &Overload, times: u32, least_ms: u64) {
        (0..times).for_each(|_| overload.window(Duration::from_millis(least_ms), 0));
    }

    fn level(overload: &Overload) -> u32 {
        overload.level.load(Ordering::Relaxed)
    }

    #[test]
    fn the_least_important_go_first_and_come_back_last() {
        let overload = overload(None);
        assert_eq!(shed(&overload, Weight::Sheddable), 0);
        windows(&overload, 8, 30);
        let some = shed(&overload, Weight::Sheddable);
        assert!((800..1_200).contains(&some), "{some}");
        assert_eq!(shed(&overload, Weight::Normal), 0);
        windows(&overload, 9, 30);
        assert_eq!((shed(&overload, Weight::Sheddable), shed(&overload, Weight::Normal)), (2_000, 0));
        windows(&overload, 100, 30);
        assert_eq!((shed(&overload, Weight::Normal), shed(&overload, Weight::Critical)), (2_000, 0));
        // Below its bound it always comes down: near it slowly, else slowly at first.
        windows(&overload, 10, 15);
        assert_eq!(level(&overload), NORMAL - 10 * LESS);
        windows(&overload, 4, 1);
        assert_eq!(level(&overload), NORMAL - 20 * LESS);
        windows(&overload, 40, 1);
        assert_eq!(level(&overload), 0);
    }

    #[test]
    fn a_loop_that_is_very_late_again_is_answered_at_once() {
        let overload = overload(None);
        // A machine that stood still for a moment.
        windows(&overload, 1, 1_000);
        assert_eq!(level(&overload), MORE);
        windows(&overload, 1, 1_000);
        assert_eq!(level(&overload), MORE + MORE_MAX);
        windows(&overload, 1, 1_000);
        assert_eq!(level(&overload), SHEDDABLE, "what is normal has its turn only when that does not help");
        windows(&overload, 1, 1_000);
        assert_eq!(level(&overload), SHEDDABLE + MORE_MAX);
    }

    #[test]
    fn memory_near_its_bound_is_overload() {
        let used = resident().unwrap();
        for (bound, expect) in [(used / 2, NORMAL..=NORMAL), (used / 95 * 100, 400..=600), (used * 4, 0..=0)] {
            let floor = overload(Some(bound)).memory_floor();
            assert!(expect.contains(&floor), "{floor} with {bound} of {used}");
        }
        assert_eq!(overload(Some(0)).memory_floor(), 0, "no bound");
        let full = overload(None);
        full.window(Duration::ZERO, SHEDDABLE);
        assert_eq!((shed(&full, Weight::Sheddable), shed(&full, Weight::Normal)), (2_000, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_keeps_its_time_sheds_nothing() {
        let overload = Arc::new(overload(Some(0)));
        let run = tokio::spawn(overload.clone().run());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(overload.reading().level, 0.0);
        run.abort();
    }
}
