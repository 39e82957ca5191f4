//! The lab's one place on the machine: its lock, what it leaves behind, and the removal of
//! all of it, whether by this process or of an earlier one that was killed.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::netns::NETNS_DIR;
use super::topology::{PREFIX, STATE_DIR};

/// How long processes and cgroups get to vanish after they were killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lab's lock: on its directory, so that it leaves no file of its own, and is gone with
/// the process that holds it.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Closing it releases the lock.
    _dir: File,
}

impl Lock {
    /// Takes the lock, and makes the directory.
    ///
    /// # Errors
    /// Another lab runs, or the directory cannot be made.
    pub(crate) fn take() -> Result<Self> {
        Self::take_at(Path::new(STATE_DIR))
    }

    fn take_at(path: &Path) -> Result<Self> {
        loop {
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
            let Ok(dir) = File::open(path) else { continue };
            // SAFETY: `dir` is an open descriptor.
            if unsafe { libc::flock(dir.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
                bail!(
                    "a lab runs already on this machine ({} is locked): end it with Ctrl-C in its terminal",
                    path.display()
                );
            }
            // A lab that just ended may have removed the directory between the two calls.
            let ours = dir
                .metadata()
                .context("cannot look at the lab's directory")?
                .ino();
            if fs::metadata(path).is_ok_and(|m| m.ino() == ours) {
                return Ok(Self { _dir: dir });
            }
        }
    }
}

/// Where the machine's cgroup2 hierarchy is mounted.
///
/// # Errors
/// There is none.
pub(crate) fn cgroup_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    cgroup_mount_in(&mounts)
        .context("no cgroup2 hierarchy is mounted: `mount -t cgroup2 none /sys/fs/cgroup`")
}

fn cgroup_mount_in(mounts: &str) -> Option<PathBuf> {
    let mut words = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    words
        .find(|w| w.get(2) == Some(&"cgroup2"))
        .map(|w| PathBuf::from(w[1]))
}

/// The lab's own cgroup.
///
/// # Errors
/// There is no cgroup2 hierarchy.
pub(crate) fn cgroup() -> Result<PathBuf> {
    Ok(cgroup_mount()?.join(PREFIX))
}

/// Everything of a lab that is there: one line each. Empty after a clean end.
pub(crate) fn leftovers() -> Vec<String> {
    let mut found: Vec<String> = namespaces()
        .into_iter()
        .map(|n| format!("network namespace {n}"))
        .collect();
    found.extend(
        mounts()
            .into_iter()
            .map(|m| format!("mount {}", m.display())),
    );
    if let Ok(cgroup) = cgroup() {
        found.extend(
            processes(&cgroup)
                .into_iter()
                .map(|pid| format!("process {pid}")),
        );
        if cgroup.exists() {
            found.push(format!("cgroup {}", cgroup.display()));
        }
    }
    let entries = fs::read_dir(STATE_DIR).into_iter().flatten().flatten();
    found.extend(entries.map(|e| format!("file {}", e.path().display())));
    found
}

/// Removes everything of a lab. Must be called with the lock held.
///
/// # Errors
/// Something is still there: the error lists it.
pub(crate) fn remove_all() -> Result<()> {
    if let Ok(cgroup) = cgroup() {
        kill_all(&cgroup);
    }
    for netns in namespaces() {
        // What a user started there by hand keeps the namespace alive, but without its name.
        let _ = Command::new("ip").args(["netns", "del", &netns]).output();
    }
    for mount in mounts() {
        unmount(&mount);
    }
    if let Ok(cgroup) = cgroup() {
        remove_cgroups(&cgroup);
    }
    if mounts().is_empty() {
        // Not across a mount that could not be undone.
        for entry in fs::read_dir(STATE_DIR).into_iter().flatten().flatten() {
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }
    let left = leftovers();
    if left.is_empty() {
        // The lock's own directory goes last: from now on another lab may come.
        let _ = fs::remove_dir(STATE_DIR);
        return Ok(());
    }
    bail!(
        "the lab could not be taken down whole; left are:\n  {}",
        left.join("\n  ")
    )
}

fn namespaces() -> Vec<String> {
    let entries = fs::read_dir(NETNS_DIR).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    names
        .filter(|n| n.starts_with(&format!("{PREFIX}-")))
        .collect()
}

/// Mounts below the lab's directory, the last one first.
fn mounts() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts_below(&text, STATE_DIR)
}

fn mounts_below(mounts: &str, dir: &str) -> Vec<PathBuf> {
    let points = mounts
        .lines()
        .rev()
        .filter_map(|line| line.split(' ').nth(1));
    points
        .filter(|p| Path::new(p).starts_with(dir))
        .map(PathBuf::from)
        .collect()
}

fn unmount(path: &Path) {
    let Ok(name) = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()) else {
        return;
    };
    // SAFETY: `name` is a string that ends with NUL. A failure shows in `leftovers`.
    unsafe { libc::umount2(name.as_ptr(), libc::MNT_DETACH) };
}

/// Processes in a cgroup and below it.
fn processes(cgroup: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    for dir in tree(cgroup) {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    }
    pids
}

/// The cgroup and all below it, the deepest last.
fn tree(cgroup: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    if cgroup.is_dir() {
        all.push(cgroup.to_owned());
        let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
        for dir in entries.map(|e| e.path()).filter(|p| p.is_dir()) {
            all.extend(tree(&dir));
        }
    }
    all
}

fn kill_all(cgroup: &Path) {
    let end = Instant::now() + PATIENCE;
    loop {
        let pids = processes(cgroup);
        if pids.is_empty() || Instant::now() > end {
            return;
        }
        // 0 stands for a process of another PID namespace.
        for pid in pids.into_iter().filter(|pid| *pid > 0) {
            // SAFETY: a system call without memory.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn remove_cgroups(cgroup: &Path) {
    let end = Instant::now() + PATIENCE;
    // The kernel lets go of a dead process a moment after it was waited for.
    while cgroup.exists() && Instant::now() < end {
        for dir in tree(cgroup).iter().rev() {
            let _ = fs::remove_dir(dir);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_among_the_mounts() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(
            cgroup_mount_in(hybrid),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(
            cgroup_mount_in("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"),
            None
        );
    }

    #[test]
    fn only_mounts_of_the_lab_are_undone_and_the_last_first() {
        let text = "bpf /sys/fs/bpf bpf rw 0 0\nbpf /run/lab/n1/bpf bpf rw 0 0\nbpf /run/lab/n2/bpf bpf rw 0 0\n\
                    bpf /run/lab-other/bpf bpf rw 0 0\n";
        let found = mounts_below(text, "/run/lab");
        assert_eq!(
            found,
            [
                PathBuf::from("/run/lab/n2/bpf"),
                PathBuf::from("/run/lab/n1/bpf")
            ]
        );
    }

    #[test]
    fn a_second_lab_is_refused_until_the_first_ends() {
        let dir = std::env::temp_dir().join(format!("bascule-lock-{}", std::process::id()));
        let first = Lock::take_at(&dir).unwrap();
        let error = Lock::take_at(&dir).unwrap_err().to_string();
        assert!(error.contains("a lab runs already"), "{error}");
        drop(first);
        let second = Lock::take_at(&dir).unwrap();
        fs::remove_dir(&dir).unwrap();
        drop(second);
    }
}
