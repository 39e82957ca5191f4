//! What a proxy's processes use of the machine.

use std::fs;

use anyhow::{Context as _, Result, ensure};

/// A process and all below it.
fn tree(pid: u32) -> Vec<u32> {
    // proc_pid_task(5): children of the thread, on one line.
    let file = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(file).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|n| n.parse().ok());
    std::iter::once(pid)
        .chain(children.flat_map(tree))
        .collect()
}

/// Seconds that processes were on a CPU, for themselves and in the kernel.
///
/// # Errors
/// One is gone.
pub(super) fn cpu(pid: u32) -> Result<f64> {
    // SAFETY: sysconf has no preconditions.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let of = |pid| {
        let file = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        ticks(&stat).with_context(|| format!("{file} has no times"))
    };
    let all: Result<Vec<u64>> = tree(pid).into_iter().map(of).collect();
    Ok(all?.iter().sum::<u64>() as f64 / hertz)
}

/// utime and stime of proc_pid_stat(5), behind the name, which may have anything in it.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// MiB that processes have in memory; what two share counts once (Pss).
///
/// # Errors
/// One is gone.
pub(super) fn memory(pid: u32) -> Result<f64> {
    let of = |pid| {
        let file = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        kibibytes(&text).with_context(|| format!("{file} tells no Pss"))
    };
    let all: Result<Vec<u64>> = tree(pid).into_iter().map(of).collect();
    Ok(all?.iter().sum::<u64>() as f64 / 1024.0)
}

fn kibibytes(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Lets this process and its children have as many open files as they may; `least` they need.
///
/// # Errors
/// They may not have so many.
pub(super) fn many_files(least: u64) -> Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is a valid structure that outlives the call.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let most = limit.rlim_max;
    ensure!(
        got == 0 && most >= least,
        "the limit of open files is {most}, and {least} are needed: `ulimit -Hn`"
    );
    limit.rlim_cur = most;
    // SAFETY: as above.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    ensure!(
        done == 0,
        "the limit of open files cannot be raised: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_behind_the_name() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194560 1 2 3 4 700 34 5 6 20 0 1 0 99 1 2";
        assert_eq!(ticks(stat), Some(734));
        assert_eq!(ticks("12 (a) S 1"), None);
    }

    #[test]
    fn memory_that_is_shared_counts_once() {
        let text = "55d0-7ffc ---p 00000000 00:00 0    [rollup]\nRss:   10 kB\nPss:   7 kB\nPss_Dirty: 3 kB\n";
        assert_eq!(kibibytes(text), Some(7));
    }

    #[test]
    fn this_process_uses_something() {
        let own = std::process::id();
        assert!(tree(own).contains(&own));
        assert!(memory(own).unwrap() > 0.1);
        assert!(cpu(own).is_ok());
    }
}
