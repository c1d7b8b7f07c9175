//! A program under test: on its own core, its CPU time and memory read from the kernel.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends with its children when dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a program on `CORE` (taskset of util-linux) and leaves its output in a file.
    pub(crate) fn start(
        program: impl AsRef<OsStr>,
        arguments: &[&OsStr],
        environment: &[(&str, &OsStr)],
        log: &Path,
    ) -> Process {
        let output = std::fs::File::create(log).expect("a log file");
        let child = Command::new("taskset")
            .args(["-c", super::CORE])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output)
            .spawn()
            .expect("taskset (util-linux)");
        Process(child)
    }

    /// Waits until the program listens there.
    pub(crate) fn listens(mut self, address: SocketAddr, log: &Path) -> Process {
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = self.0.try_wait().expect("a child").is_some();
            let late = began.elapsed() > Duration::from_secs(20);
            assert!(!ended && !late, "not listening: {}", std::fs::read_to_string(log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(10));
        }
        self
    }

    /// The program and what it has started.
    fn family(&self) -> Vec<u32> {
        let mut family = vec![self.0.id()];
        let mut next = 0;
        while let Some(&parent) = family.get(next) {
            next += 1;
            let children = PathBuf::from(format!("/proc/{parent}/task/{parent}/children"));
            let text = std::fs::read_to_string(children).unwrap_or_default();
            family.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        family
    }

    /// CPU time of all its threads so far (proc_pid_schedstat: nanoseconds on a core).
    pub(crate) fn cpu(&self) -> Duration {
        let threads = self.family().into_iter().flat_map(|pid| {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            tasks.map(|task| task.path().join("schedstat")).collect::<Vec<_>>()
        });
        let nanoseconds =
            threads.filter_map(|file| std::fs::read_to_string(file).ok()?.split(' ').next()?.parse::<u64>().ok());
        Duration::from_nanos(nanoseconds.sum())
    }

    /// Resident memory in MiB.
    pub(crate) fn memory(&self) -> f64 {
        let resident = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim();
            line.strip_suffix("kB")?.trim().parse::<f64>().ok()
        };
        self.family().into_iter().filter_map(resident).sum::<f64>() / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for pid in self.family() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.0.wait();
    }
}

/// Moves this process off `CORE`, if there is another one.
pub(crate) fn leave_the_core() {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores < 2 {
        println!("one core only: load and program share it, latencies mean little");
        return;
    }
    let own = format!("1-{}", cores - 1);
    let pid = std::process::id().to_string();
    let status = Command::new("taskset").args(["-a", "-p", "-c", &own, &pid]).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "taskset (util-linux)");
}

/// A port that was free a moment ago, for programs that cannot say which one they chose.
pub(crate) fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("an address")
}
