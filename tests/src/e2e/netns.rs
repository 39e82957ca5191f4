//! Network namespaces: made, entered and removed, and processes started in them.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A network namespace of a test's own, removed with it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

/// Where devices may have addresses of use at once, and errors are not rationed.
const SETTINGS: [(&str, &str); 12] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/icmp/ratelimit", "0"),
    // 500 connections a second fill the default range before TIME_WAIT ends.
    ("ipv4/ip_local_port_range", "1024 65000"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("ipv4/ip_forward", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv6/conf/default/forwarding", "0"),
];

impl Netns {
    /// Makes a namespace with a loopback device.
    ///
    /// # Panics
    /// It cannot be made: this needs root.
    #[must_use]
    pub fn new(name: &str) -> Self {
        ip(None, &format!("netns add {name}\n"));
        let netns = Self {
            name: name.to_owned(),
        };
        netns.set(&SETTINGS);
        netns.ip("link set lo up\n");
        netns
    }

    /// A namespace that forwards, as a node does, and keeps the kernel's own range of ports.
    #[must_use]
    pub fn router(name: &str) -> Self {
        let netns = Self::new(name);
        netns.set(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/forwarding", "1"),
            ("ipv4/ip_local_port_range", "32768 60999"),
        ]);
        netns
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes settings below `/proc/sys/net`.
    ///
    /// # Panics
    /// One cannot be written.
    pub fn set(&self, settings: &[(&str, &str)]) {
        self.inside(|| {
            for (name, value) in settings {
                let path = format!("/proc/sys/net/{name}");
                std::fs::write(&path, value).unwrap_or_else(|e| panic!("{path}: {e}"));
            }
        });
    }

    /// Runs commands of `ip`, one a line, here.
    ///
    /// # Panics
    /// One fails.
    pub fn ip(&self, script: &str) {
        ip(Some(&self.name), script);
    }

    /// Runs a function here, on a thread of its own.
    ///
    /// # Panics
    /// The namespace cannot be entered, or the function panics.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let file = self.open();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                enter(&file);
                f()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a program here and in a cgroup. It ends with the calling thread.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn spawn(&self, mut command: Command, cgroup: &Path) -> Child {
        let namespace = self.open();
        let procs: PathBuf = cgroup.join("cgroup.procs");
        let procs = File::options()
            .write(true)
            .open(&procs)
            .unwrap_or_else(|e| panic!("{}: {e}", procs.display()));
        // SAFETY: the closure runs between fork and exec and makes only system calls, on
        // descriptors that it owns.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
                    || libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
                    || libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) != 0
                {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let program = command.get_program().to_string_lossy().into_owned();
        command
            .spawn()
            .unwrap_or_else(|e| panic!("{program} in {}: {e}", self.name))
    }

    fn open(&self) -> File {
        let path = Path::new("/run/netns").join(&self.name);
        File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn enter(namespace: &File) {
    // SAFETY: the descriptor is open; setns changes this thread only.
    let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(entered, 0, "setns: {}", std::io::Error::last_os_error());
}

fn ip(netns: Option<&str>, script: &str) {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    // A command that fails ends `ip` early: its message says more than the broken pipe.
    let _ = child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(script.as_bytes());
    let out = child.wait_with_output().expect("a child can be waited for");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "ip in {netns:?}: {stderr}\n{script}");
}
