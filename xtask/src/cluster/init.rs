//! The first process of a node, in fresh mount, pid, uts, ipc and cgroup namespaces: gives the
//! node a view of its own of what kubelet and containerd use, then reaps orphans.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::cgroup::{self, Hierarchy};
use super::topology::Node;

/// The file in a node's directory that says that the node's view is complete.
pub(crate) const READY: &str = "ready";

/// Directories of which every node has its own.
pub(crate) const OWN: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// Becomes the first process of a node; never returns but for an error.
///
/// # Errors
/// A mount failed; or this is no first process, whose mounts would be the machine's.
pub(crate) fn run(number: u8) -> Result<()> {
    ensure!(
        std::process::id() == 1,
        "this is for the first process of a node only: `cargo xtask cluster up` starts it"
    );
    let node = Node(number);
    let hierarchies = cgroup::hierarchies()?;
    mounts(node, &hierarchies)?;
    cgroup::enter_leaf()?;
    let name = node.name();
    // SAFETY: the pointer and the length are of a live string.
    if unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot set the host's name");
    }
    let ready = node.dir().join(READY);
    fs::write(&ready, "").with_context(|| format!("cannot write {}", ready.display()))?;
    // Children that are ignored leave no zombies: the node's orphans need no wait().
    // SAFETY: both are system calls on numbers.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        loop {
            libc::pause();
        }
    }
}

fn mounts(node: Node, hierarchies: &[Hierarchy]) -> Result<()> {
    // Nothing reaches this machine; what a node mounts reaches its containers, as kubelet asks.
    propagate(libc::MS_PRIVATE)?;
    propagate(libc::MS_SHARED)?;
    mount("proc", "proc", "/proc", "")?;
    mount("sysfs", "sysfs", "/sys", "")?;
    mount("bpf", "bpf", "/sys/fs/bpf", "")?;
    mount_cgroups(hierarchies)?;
    mount("tmpfs", "tmpfs", "/run", "mode=755")?;
    make("/run/netns")?;
    make("/run/lock")?;
    for (name, place) in [("lib", "/var/lib"), ("log", "/var/log")] {
        let own = node.dir().join(name);
        make(&own)?;
        bind(&own, place)?;
    }
    [
        "/var/lib/kubelet",
        "/var/lib/containerd",
        "/var/log/pods",
        "/var/log/containers",
    ]
    .iter()
    .try_for_each(make)
}

/// Mounts the hierarchies where the machine has them: the namespace shows the node's part.
fn mount_cgroups(hierarchies: &[Hierarchy]) -> Result<()> {
    if hierarchies.iter().any(|h| h.v1.is_some()) {
        mount("tmpfs", "tmpfs", "/sys/fs/cgroup", "mode=755")?;
    }
    for hierarchy in hierarchies {
        make(&hierarchy.place)?;
        let place = hierarchy.place.to_string_lossy();
        match &hierarchy.v1 {
            None => mount("cgroup2", "cgroup2", &place, "")?,
            Some(name) if name.starts_with("name=") => {
                mount("cgroup", "cgroup", &place, &format!("none,{name}"))?
            }
            Some(controllers) => mount("cgroup", "cgroup", &place, controllers)?,
        }
    }
    Ok(())
}

fn make(dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

fn propagate(how: libc::c_ulong) -> Result<()> {
    call(None, "/", None, libc::MS_REC | how, "")
}

fn mount(source: &str, kind: &str, place: &str, options: &str) -> Result<()> {
    call(Some(source), place, Some(kind), 0, options)
}

fn bind(from: &Path, place: &str) -> Result<()> {
    call(
        Some(&from.to_string_lossy()),
        place,
        None,
        libc::MS_BIND,
        "",
    )
}

fn call(
    source: Option<&str>,
    place: &str,
    kind: Option<&str>,
    flags: libc::c_ulong,
    options: &str,
) -> Result<()> {
    let text = |s: &str| CString::new(s).context("a path with a NUL");
    let source = source.map(text).transpose()?;
    let kind = kind.map(text).transpose()?;
    let target = text(place)?;
    let options = text(options)?;
    let pointer = |s: &Option<CString>| s.as_ref().map_or(std::ptr::null(), |s| s.as_ptr());
    // SAFETY: all pointers are null or of strings that live to the end of the call.
    let done = unsafe {
        libc::mount(
            pointer(&source),
            target.as_ptr(),
            pointer(&kind),
            flags,
            options.as_ptr().cast(),
        )
    };
    if done == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error())
        .with_context(|| format!("cannot mount {place} of the node"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_of_the_machine_mounts_nothing() {
        let error = super::run(1).unwrap_err().to_string();
        assert!(error.contains("first process of a node only"), "{error}");
    }
}
