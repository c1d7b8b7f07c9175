//! One line per measurement, and the median over rounds.

use std::time::Duration;

use super::driver::Seen;
use super::process::Process;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Line {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) cpu_us: f64,
    pub(crate) memory_mib: f64,
}

impl Line {
    pub(crate) fn of(seen: &Seen, time: Duration, cpu: Duration, process: &Process) -> Line {
        assert!(seen.requests > 0, "no request was answered");
        assert!(seen.failures * 1_000 <= seen.requests, "{} of {} failed", seen.failures, seen.requests);
        let quantile = |part| seen.latency.value_at_quantile(part) as f64;
        let requests = seen.requests as f64;
        Line {
            per_second: requests / time.as_secs_f64(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            cpu_us: cpu.as_secs_f64() * 1e6 / requests,
            memory_mib: process.memory(),
        }
    }

    /// The median of each figure.
    pub(crate) fn median(lines: &[Line]) -> Line {
        let of = |field: fn(&Line) -> f64| {
            let mut values: Vec<f64> = lines.iter().map(field).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        Line {
            per_second: of(|line| line.per_second),
            p50_us: of(|line| line.p50_us),
            p99_us: of(|line| line.p99_us),
            p999_us: of(|line| line.p999_us),
            cpu_us: of(|line| line.cpu_us),
            memory_mib: of(|line| line.memory_mib),
        }
    }
}

pub(crate) fn head() {
    println!(
        "{:<24} {:>10} {:>9} {:>9} {:>9} {:>12} {:>8}",
        "", "requests/s", "p50 us", "p99 us", "p99.9 us", "CPU us/req", "MiB"
    );
}

pub(crate) fn line(name: &str, line: &Line) {
    let Line { per_second, p50_us, p99_us, p999_us, cpu_us, memory_mib } = line;
    println!(
        "{name:<24} {per_second:>10.0} {p50_us:>9.0} {p99_us:>9.0} {p999_us:>9.0} {cpu_us:>12.1} {memory_mib:>8.1}"
    );
}
