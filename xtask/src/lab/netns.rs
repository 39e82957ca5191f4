//! Network namespaces: made and entered, and processes started in them.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

/// Where iproute2 keeps named namespaces.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// Runs `ip` with the commands of `script` (one a line), in `netns` if one is given.
///
/// # Errors
/// One of the commands failed: the error shows it with what `ip` said.
pub(crate) fn ip(netns: Option<&str>, script: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip`: install iproute2")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that fails ends `ip` early: its own message says more than the broken pipe.
        let _ = stdin.write_all(script.as_bytes());
    }
    let out = child.wait_with_output().context("cannot wait for `ip`")?;
    if out.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&out.stderr);
    let at = stderr
        .split("Command failed -:")
        .nth(1)
        .and_then(|n| n.trim().parse::<usize>().ok());
    let line = at.and_then(|n| script.lines().nth(n - 1)).unwrap_or("?");
    bail!(
        "`ip {line}` in {} failed: {}",
        netns.unwrap_or("the host"),
        stderr.trim()
    )
}

/// Makes a namespace, its settings, and its loopback device.
///
/// # Errors
/// `ip` failed, or a setting could not be written.
pub(crate) fn add(netns: &str, forwards: bool) -> Result<()> {
    ip(None, &format!("netns add {netns}\n"))?;
    // The settings come first: devices take their own from `default` when they are made.
    let forward = if forwards { "1" } else { "0" };
    let settings = [
        ("ipv4/ip_forward", forward),
        ("ipv6/conf/all/forwarding", forward),
        ("ipv6/conf/default/forwarding", forward),
        // Replies leave by another device than the one that a route back would name.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // Addresses are of use at once, without a second of duplicate detection.
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        // An error for every packet that cannot go on: the default is one a second.
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/icmp/ratelimit", "0"),
        // The fabric routes between hosts on one bridge: they need not be told of each other.
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        ("ipv6/conf/all/accept_redirects", "0"),
        ("ipv6/conf/default/accept_redirects", "0"),
        // Equal routes are chosen by ports as well, as a router of a data centre does.
        ("ipv4/fib_multipath_hash_policy", "1"),
        ("ipv6/fib_multipath_hash_policy", "1"),
    ];
    inside(netns, || {
        settings.iter().try_for_each(|(name, value)| {
            let path = format!("/proc/sys/net/{name}");
            std::fs::write(&path, value)
                .with_context(|| format!("cannot write {value} to {path} in {netns}"))
        })
    })??;
    ip(Some(netns), "link set lo up\n")
}

/// Runs `f` on a thread of its own in the namespace.
///
/// # Errors
/// There is no such namespace, or it cannot be entered.
pub(crate) fn inside<T: Send>(netns: &str, f: impl FnOnce() -> T + Send) -> Result<T> {
    let file = open(netns)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: `file` is an open descriptor of a namespace; setns changes this thread only.
            if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(f())
        });
        let outcome = thread
            .join()
            .map_err(|_| anyhow!("a thread in namespace {netns} panicked"))?;
        outcome.with_context(|| format!("cannot enter namespace {netns}"))
    })
}

fn open(netns: &str) -> Result<File> {
    let path = Path::new(NETNS_DIR).join(netns);
    File::open(&path).with_context(|| format!("cannot open {}", path.display()))
}

/// Starts `command` in a namespace and a cgroup, in a process group of its own (so that
/// Ctrl-C reaches the lab only, which ends it in order). It is killed when this process
/// ends, however that comes: to be called from the main thread, since the kernel watches
/// the thread.
///
/// # Errors
/// The namespace or the cgroup is missing, or the program cannot be started.
pub(crate) fn spawn(mut command: Command, netns: &str, cgroup: &Path) -> Result<Child> {
    let namespace = open(netns)?;
    let procs: PathBuf = cgroup.join("cgroup.procs");
    let procs = File::options()
        .write(true)
        .open(&procs)
        .with_context(|| format!("cannot open {}", procs.display()))?;
    let parent = std::process::id();
    // SAFETY: the closure runs between fork and exec and makes only system calls, on
    // descriptors that it owns.
    unsafe {
        command.process_group(0).pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
                || libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
                || libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) != 0
            {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have died before prctl.
            if libc::getppid().cast_unsigned() != parent {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            Ok(())
        });
    }
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .spawn()
        .with_context(|| format!("cannot start {program} in namespace {netns}"))
}
