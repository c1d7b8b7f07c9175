//! What the process uses, read from the kernel when somebody scrapes. A value that cannot be read is left out.

use super::exposition::Exposition;
use super::family;

pub(super) fn expose(out: &mut Exposition) {
    if let Some(bytes) = resident_bytes() {
        out.value(&family::PROCESS_MEMORY, &[], bytes as f64);
    }
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    out.value(&family::PROCESS_CPU, &[], cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
    if let Some(number) = open_fds() {
        out.value(&family::PROCESS_FDS, &[], number as f64);
    }
}

/// `VmRSS` of proc_pid_status(5).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Entries of proc_pid_fd(5), without the one that reading it opens.
fn open_fds() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}
