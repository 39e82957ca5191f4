//! The clock of the programs.
//!
//! Times in conntrack and affinity are ticks of 2^30 ns, made of the kernel's
//! jiffies: reading these is one load in a program, where the coarse monotonic
//! clock is a call of 11 ns. Jiffies are not to be had in user space, so the agent
//! reads them as the programs do, by running one; how long one lasts is the
//! resolution of the coarse clocks (kernel/time/posix-timers.c,
//! `posix_get_coarse_res`).

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::OnceLock,
    time::Duration,
};

use lb_common::conntrack::TICK_SHIFT;

use super::prog;

/// `BPF_PROG_TYPE_SOCKET_FILTER`: the type that every kernel can run.
const SOCKET_FILTER: u32 = 1;
/// `call bpf_jiffies64` (Linux 5.6).
const CALL_JIFFIES: u64 = 0x0000_0076_0000_0085;
/// `exit`.
const EXIT: u64 = 0x0000_0000_0000_0095;

#[derive(Debug)]
struct Clock {
    jiffies: OwnedFd,
    ns_per_jiffy: u64,
}

static CLOCK: OnceLock<Result<Clock, String>> = OnceLock::new();

impl Clock {
    fn open() -> io::Result<Self> {
        Ok(Self {
            jiffies: prog::load(SOCKET_FILTER, &[CALL_JIFFIES, EXIT])?,
            ns_per_jiffy: resolution()?,
        })
    }

    fn get() -> Result<&'static Self, &'static str> {
        let opened = CLOCK.get_or_init(|| Self::open().map_err(|error| error.to_string()));
        opened.as_ref().map_err(String::as_str)
    }

    /// Jiffies start close below 2^32, so their upper half is 0 or, since boot,
    /// counts from 1; it is known by the time since boot.
    fn now(&self) -> io::Result<u32> {
        let low = prog::run(self.jiffies.as_fd())?;
        let guess = INITIAL + uptime().as_nanos() as u64 / self.ns_per_jiffy;
        let jiffies = nearest(low, guess);
        Ok(((jiffies * self.ns_per_jiffy) >> TICK_SHIFT) as u32)
    }
}

/// `INITIAL_JIFFIES` is `(u32) -300 * HZ`; that offset is small beside 2^32.
const INITIAL: u64 = 1 << 32;

/// The number with these lower 32 bits that is nearest to another.
fn nearest(low: u32, guess: u64) -> u64 {
    let delta = low.wrapping_sub(guess as u32) as i32;
    guess.wrapping_add_signed(i64::from(delta))
}

/// Time since boot, without what was spent suspended, as jiffies count.
pub(super) fn uptime() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer leads to a timespec; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds of a jiffy (`TICK_NSEC`).
fn resolution() -> io::Result<u64> {
    let mut res = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer leads to a timespec.
    match unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut res) } {
        0 => Ok(res.tv_nsec as u64),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Nanoseconds of a jiffy: what the programs are told when they are loaded.
///
/// # Errors
/// The kernel does not run a program of two instructions for us.
pub(super) fn ns_per_jiffy() -> io::Result<u64> {
    Clock::get()
        .map(|clock| clock.ns_per_jiffy)
        .map_err(io::Error::other)
}

/// Now, in ticks, by the clock of the programs. Where it cannot be read, 0: no
/// entry has been idle then, and nothing is collected.
pub fn now() -> u32 {
    let read = Clock::get()
        .map_err(io::Error::other)
        .and_then(|clock| clock.now());
    read.unwrap_or_else(|error| {
        tracing::error!("the kernel's jiffies cannot be read: {error}");
        0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_half_of_jiffies_is_found_by_a_guess() {
        assert_eq!(nearest(5, (1 << 32) + 7), (1 << 32) + 5);
        assert_eq!(nearest(u32::MAX, (1 << 32) + 7), (1 << 32) - 1);
        assert_eq!(nearest(3, (1 << 33) - 2), (1 << 33) + 3);
    }

    #[test]
    fn a_jiffy_is_of_a_frequency_that_kernels_are_built_with() {
        // kernel/Kconfig.hz
        let known = [100, 250, 300, 1000].map(|hz| 1_000_000_000 / hz);
        assert!(known.contains(&resolution().unwrap()));
    }
}
