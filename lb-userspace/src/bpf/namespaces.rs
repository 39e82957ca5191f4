//! The network namespaces of a node: a thread enters each.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    net::IpAddr,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    thread,
};

use crate::node;

/// Where container runtimes and `ip netns` keep network namespaces by name: in a
/// container without the node's processes this is the way to the pods'. A victim
/// is known by its cookie, so that a namespace of something else does no harm.
const NAMED: &str = "/run/netns";

/// Does something in every network namespace of the cgroup's processes, and in those that
/// have a name; what it gave. Where it failed is left out: a namespace may end meanwhile.
pub(super) fn each<T: Send>(
    cgroup: &Path,
    what: impl Fn() -> io::Result<T> + Sync,
) -> io::Result<Vec<T>> {
    let mut all = Vec::new();
    for namespace in namespaces(cgroup, Path::new(NAMED))? {
        // A network namespace is a thread's: this one ends with it.
        let done = thread::scope(|scope| {
            let worker = thread::Builder::new().name("namespace".to_owned());
            let worker = worker.spawn_scoped(scope, || {
                enter(&namespace)?;
                what()
            })?;
            let panicked = |_| io::Error::other("the thread in a network namespace panicked");
            worker.join().map_err(panicked)
        })?;
        match done {
            Ok(found) => all.push(found),
            Err(error) => tracing::debug!("a network namespace: {error}"),
        }
    }
    Ok(all)
}

/// The addresses of the namespaces, each with its namespace's cookie. Namespaces that know
/// nothing of each other may have the same address.
///
/// # Errors
/// Namespaces cannot be listed.
pub fn cookies(cgroup: &Path) -> io::Result<Vec<(IpAddr, u64)>> {
    let found = each(cgroup, || {
        let addresses = node::addresses::read()?.addresses;
        Ok((addresses, node::netns_cookie()?))
    })?;
    let pairs = found.into_iter().flat_map(|(addresses, cookie)| {
        let own = addresses.into_iter().filter(|ip| !ip.is_loopback());
        own.map(move |ip| (ip, cookie))
    });
    Ok(pairs.collect())
}

/// The network namespaces of the processes in a cgroup's subtree, those in a
/// directory, and our own, each once.
fn namespaces(cgroup: &Path, named: &Path) -> io::Result<Vec<fs::File>> {
    let mut pids = BTreeSet::new();
    collect_pids(cgroup, &mut pids)?;
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let own = PathBuf::from("/proc/thread-self/ns/net");
    let others = pids
        .iter()
        .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    let entries = fs::read_dir(named).into_iter().flatten().flatten();
    let named = entries.map(|entry| entry.path());
    for path in std::iter::once(own).chain(others).chain(named) {
        // A process may end meanwhile, and its namespace with it.
        let Ok(file) = fs::File::open(&path) else {
            continue;
        };
        if seen.insert(file.metadata()?.ino()) {
            found.push(file);
        }
    }
    Ok(found)
}

fn collect_pids(dir: &Path, pids: &mut BTreeSet<u32>) -> io::Result<()> {
    // A cgroup that vanishes meanwhile, or a threaded one, has none to tell.
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(
        text.lines()
            .filter_map(|line| line.parse::<u32>().ok())
            .filter(|pid| *pid != 0),
    );
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_pids(&entry.path(), pids)?;
        }
    }
    Ok(())
}

fn enter(namespace: &fs::File) -> io::Result<()> {
    // SAFETY: the descriptor is open; only the calling thread changes namespace.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_own_namespace_is_among_those_searched_once() {
        let none = tempfile::tempdir().unwrap();
        let found = namespaces(none.path(), none.path()).unwrap();
        let own = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        let inodes: Vec<u64> = found.iter().map(|f| f.metadata().unwrap().ino()).collect();
        assert_eq!(inodes, [own]);
    }

    #[test]
    fn a_namespace_with_a_name_is_found_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("named");
        fs::create_dir(&named).unwrap();
        fs::write(named.join("one"), "").unwrap();
        std::os::unix::fs::symlink("/proc/thread-self/ns/net", named.join("own")).unwrap();
        std::os::unix::fs::symlink("/nowhere", named.join("gone")).unwrap();
        let found = namespaces(dir.path(), &named).unwrap();
        let inodes: BTreeSet<u64> = found.iter().map(|f| f.metadata().unwrap().ino()).collect();
        let expected = ["/proc/thread-self/ns/net".into(), named.join("one")]
            .map(|p: PathBuf| fs::metadata(p).unwrap().ino());
        assert_eq!(found.len(), 2);
        assert_eq!(inodes, BTreeSet::from(expected));
    }
}
