//! Clocks: wall time, CPU time of all threads, the process's age and its peak memory.

use std::sync::OnceLock;
use std::time::Instant;

/// Durations of repeated work.
#[derive(Debug, Default)]
pub(super) struct Laps {
    times: Vec<(f64, f64)>,
    first_done: Option<f64>,
}

impl Laps {
    /// Times one repetition.
    ///
    /// # Errors
    /// Those of `work`.
    pub(super) fn lap<T, E>(&mut self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let (wall, cpu) = (Instant::now(), cpu_seconds());
        let result = work()?;
        let taken = wall.elapsed().as_secs_f64();
        self.times.push((taken, cpu_seconds() - cpu));
        // The kernel tells a start to a hundredth of a second, which may be longer than all of this took.
        self.first_done.get_or_insert_with(|| process_age().max(taken));
        Ok(result)
    }

    /// Wall and CPU seconds of each repetition.
    pub(super) fn times(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.times.iter().copied()
    }

    /// Age of the process, in seconds, when the first repetition was done.
    pub(super) fn first_done(&self) -> Option<f64> {
        self.first_done
    }
}

fn usage() -> libc::rusage {
    // SAFETY: `rusage` is plain numbers, for which zero is a value; `getrusage` writes to the one given and keeps nothing.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    }
}

/// User and system time of all threads so far.
fn cpu_seconds() -> f64 {
    let usage = usage();
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The most memory that the process has held, MiB.
pub(in crate::cli) fn peak_rss_mib() -> f64 {
    // Linux counts KiB, macOS bytes.
    let unit = if cfg!(target_os = "macos") { 1024.0 * 1024.0 } else { 1024.0 };
    own_peak_kib().unwrap_or(usage().ru_maxrss as f64) / unit
}

/// Linux's count for this program alone; `ru_maxrss` would be that of the program that started it, if that was larger.
fn own_peak_kib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Seconds since the kernel started the process, or since the first call where the kernel does not tell.
fn process_age() -> f64 {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    kernel_age().unwrap_or_else(|| STARTED.get_or_init(Instant::now).elapsed().as_secs_f64())
}

fn kernel_age() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The 22nd field, counted behind the program's name, which may hold anything but ends with the last bracket.
    let started: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime: f64 =
        std::fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    // SAFETY: `sysconf` reads a constant of the system.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(uptime - started / ticks as f64)
}
