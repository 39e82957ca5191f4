//! Namespaces that end with the thread that measures: nothing is left behind,
//! however the benchmark ends.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context as _, Result, ensure};

use crate::paths;
use crate::sh::Sh;

/// Runs `measure` on a thread with network and mount namespaces of its own, in
/// which `target/bench` is an empty directory in memory, with a bpffs and the
/// cgroup2 hierarchy in it. Children inherit all of it.
///
/// # Errors
/// The namespaces cannot be made, or what `measure` says.
pub(super) fn run<T: Send + 'static>(
    measure: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let isolated = move || {
        // SAFETY: the call changes this thread only, which nobody else uses.
        let own = unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) };
        ensure!(
            own == 0,
            "cannot make namespaces: {}",
            std::io::Error::last_os_error()
        );
        let dir = directory()?;
        Sh::new("ip").args(["link", "set", "lo", "up"]).read()?;
        measure(&dir)
    };
    std::thread::spawn(isolated)
        .join()
        .map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
}

fn directory() -> Result<PathBuf> {
    mount(
        "none",
        Path::new("/"),
        None,
        libc::MS_REC | libc::MS_PRIVATE,
    )?;
    let dir = paths::root().join("target/bench");
    let places = [("tmpfs", ""), ("bpf", "bpf"), ("cgroup2", "cgroup")];
    for (kind, path) in places.map(|(kind, name)| (kind, dir.join(name))) {
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        mount(kind, &path, Some(kind), 0)?;
    }
    Ok(dir)
}

/// Mounts a file system, in the calling thread's namespace.
///
/// # Errors
/// The kernel's.
pub(super) fn mount(
    what: &str,
    path: &Path,
    kind: Option<&str>,
    flags: libc::c_ulong,
) -> Result<()> {
    let source = CString::new(what)?;
    let target = CString::new(path.as_os_str().as_bytes())?;
    let kind = CString::new(kind.unwrap_or_default())?;
    // SAFETY: the strings outlive the call; no file system here takes data.
    let done = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            std::ptr::null(),
        )
    };
    ensure!(
        done == 0,
        "cannot mount {what} at {}: {}",
        path.display(),
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// A process that is ended with this.
pub(super) struct Running(pub(super) Child);

impl Running {
    /// Kills it, as a crash does.
    pub(super) fn kill(self) {
        self.signal(libc::SIGKILL);
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: the process is our child and was not waited for, so that its
        // number is its own.
        unsafe { libc::kill(self.0.id() as libc::pid_t, signal) };
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(libc::SIGTERM);
        // It is gone, or it was already.
        let _ = self.0.wait();
    }
}
