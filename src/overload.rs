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

/// How often lateness is measured, and over how long the least counts; it counts sooner where it is clear.
const TICK: Duration = Duration::from_millis(10);
const WINDOW: Duration = Duration::from_millis(100);
const CLEAR: u32 = 3;
/// Memory is looked at once in so many windows.
const MEMORY_EVERY: u32 = 5;
/// In thousandths: this share is added for a window that was late, up to the most where it was very late. Nothing is added
/// while lateness goes down: what waits already has to be done.
const MORE: u32 = 60;
const MORE_MAX: u32 = 250;
/// Taken off for a window that was not late: little, for what was too much a moment ago may be so again; more with each
/// after so many in a row.
const LESS: u32 = 4;
const LESS_MAX: u32 = 100;
const QUIET: u32 = 30;
/// Late windows in which turning away all that is sheddable has not helped.
const PATIENCE: u32 = 5;
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
    began: Instant,
    /// When the loop should come round next, in microseconds since then.
    due: AtomicU64,
}

/// What the windows before were like.
#[derive(Debug, Default)]
struct Trend {
    /// In a row, late or not.
    late: u32,
    quiet: u32,
    /// Late ones with all that is sheddable turned away.
    stuck: u32,
    before: Duration,
}

/// How late the loop was in a window.
#[derive(Clone, Copy, Debug)]
struct Measured {
    least: Duration,
    samples: u32,
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
            began: Instant::now(),
            due: AtomicU64::new(u64::MAX),
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
            Weight::Unknown => (level + self.late_now()).min(UNKNOWN),
            Weight::Sheddable => level + self.late_now(),
        };
        share > 0 && fastrand::u32(..1000) < share
    }

    /// What lateness adds at once: under overload a round of the loop can be many times longer than the one before, and a
    /// level that changes between rounds would be too late. All is turned away when it is late by half more than it may be.
    fn late_now(&self) -> u32 {
        let Some(max) = self.lag_max else { return 0 };
        let late = microseconds(self.began.elapsed()).saturating_sub(self.due.load(Ordering::Relaxed));
        let max = microseconds(max).max(1);
        u32::try_from(late.saturating_sub(max).saturating_mul(2000) / max).unwrap_or(SHEDDABLE).min(SHEDDABLE)
    }

    pub fn reading(&self) -> OverloadReading {
        OverloadReading {
            level: f64::from(self.level.load(Ordering::Relaxed)) / 1000.0,
            lag: Duration::from_micros(self.lag.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }

    /// Measures, as long as the gateway runs.
    pub async fn run(self: Arc<Self>) {
        let (mut windows, mut floor, mut trend) = (0_u32, 0, Trend::default());
        loop {
            let opened = Instant::now();
            let mut measured = Measured { least: Duration::MAX, samples: 0 };
            let is_clear =
                |measured: Measured| measured.samples >= CLEAR && self.lag_max.is_some_and(|max| measured.least > max);
            while opened.elapsed() < WINDOW && !is_clear(measured) {
                let due = Instant::now() + TICK;
                self.due.store(microseconds(due.duration_since(self.began)), Ordering::Relaxed);
                tokio::time::sleep_until(due).await;
                measured = Measured { least: measured.least.min(due.elapsed()), samples: measured.samples + 1 };
            }
            if windows.is_multiple_of(MEMORY_EVERY) {
                floor = self.memory_floor();
            }
            windows = windows.wrapping_add(1);
            self.window(measured, floor, &mut trend);
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

    fn window(&self, measured: Measured, floor: u32, trend: &mut Trend) {
        let Measured { least, samples } = measured;
        self.lag.store(microseconds(least), Ordering::Relaxed);
        let before = self.level.load(Ordering::Relaxed);
        let next = match self.lag_max {
            Some(max) if least > max => {
                (trend.late, trend.quiet) = (trend.late + 1, 0);
                let grows = trend.late == 1 || least.as_micros() * 10 > trend.before.as_micros() * 9;
                trend.stuck += u32::from(grows && before >= SHEDDABLE);
                let most = if trend.stuck >= PATIENCE { NORMAL } else { before.max(SHEDDABLE) };
                let more = u128::from(MORE_MAX) * least.as_micros() / (max.as_micros() * 4).max(1);
                let more = u32::try_from(more).unwrap_or(MORE_MAX).clamp(MORE, MORE_MAX);
                // The first alone may have been a machine that stood still.
                let more = if trend.late == 1 && samples < 2 { MORE } else { more };
                if grows { (before + more).min(most) } else { before }
            }
            Some(max) if least > max / 2 => {
                trend.late = 0;
                before.saturating_sub(LESS / 2)
            }
            _ => {
                (trend.late, trend.stuck, trend.quiet) = (0, 0, trend.quiet.saturating_add(1));
                let times = trend.quiet.saturating_sub(QUIET).max(1);
                before.saturating_sub(LESS.saturating_mul(times).min(LESS_MAX))
            }
        };
        trend.before = least;
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

fn microseconds(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
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

    fn windows(overload: &Overload, trend: &mut Trend, times: u32, least_ms: u64, samples: u32) {
        let measured = Measured { least: Duration::from_millis(least_ms), samples };
        (0..times).for_each(|_| overload.window(measured, 0, trend));
    }

    fn level(overload: &Overload) -> u32 {
        overload.level.load(Ordering::Relaxed)
    }

    #[test]
    fn the_least_important_go_first_and_come_back_last() {
        let (overload, mut trend) = (overload(None), Trend::default());
        assert_eq!(shed(&overload, Weight::Sheddable), 0);
        windows(&overload, &mut trend, 5, 30, 3);
        let half = MORE_MAX * 30 / 80 * 5;
        assert_eq!(level(&overload), half);
        let some = shed(&overload, Weight::Sheddable);
        assert!((half * 2 - 200..half * 2 + 200).contains(&some), "{some}");
        assert_eq!(shed(&overload, Weight::Normal), 0);
        windows(&overload, &mut trend, 10, 30, 3);
        assert_eq!((shed(&overload, Weight::Sheddable), shed(&overload, Weight::Normal)), (2_000, 0));
        windows(&overload, &mut trend, 100, 30, 3);
        assert_eq!((shed(&overload, Weight::Normal), shed(&overload, Weight::Critical)), (2_000, 0));
        // Below its bound it always comes down: slowly at first.
        windows(&overload, &mut trend, 10, 15, 10);
        assert_eq!(level(&overload), NORMAL - 10 * LESS / 2);
        windows(&overload, &mut trend, 30, 1, 10);
        assert_eq!(level(&overload), NORMAL - 5 * LESS - 30 * LESS);
        windows(&overload, &mut trend, 50, 1, 10);
        assert_eq!(level(&overload), 0);
    }

    #[test]
    fn a_machine_that_stood_still_is_no_overload_and_what_waits_is_no_reason_for_more() {
        let (overload, mut trend) = (overload(None), Trend::default());
        windows(&overload, &mut trend, 1, 1_000, 1);
        assert_eq!(level(&overload), MORE);
        windows(&overload, &mut trend, 1, 2_000, 1);
        assert_eq!(level(&overload), MORE + MORE_MAX);
        for least in [1_500, 1_000, 500] {
            windows(&overload, &mut trend, 1, least, 1);
        }
        assert_eq!(level(&overload), MORE + MORE_MAX, "it goes down already");
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_takes_too_long_turns_away_within_itself() {
        let overload = overload(None);
        overload.due.store(0, Ordering::Relaxed);
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(!overload.sheds(Weight::Sheddable), "only where there is overload");
        overload.level.store(1, Ordering::Relaxed);
        assert_eq!((shed(&overload, Weight::Sheddable), shed(&overload, Weight::Normal)), (2_000, 0));
        overload.due.store(90_000, Ordering::Relaxed);
        assert!(shed(&overload, Weight::Sheddable) < 50);
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
        full.window(Measured { least: Duration::ZERO, samples: 10 }, SHEDDABLE, &mut Trend::default());
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
