//! A node's cgroups: a subtree of its own in every hierarchy of this machine, so that the
//! kubelets do not share one, and a cgroup program sees exactly one node.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::topology::{Node, PREFIX};

/// The group below a node's in which its processes are: with cgroup2 alone, a group that
/// hands controllers on to its children has no processes itself.
const LEAF: &str = "host";

/// A mounted hierarchy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub place: PathBuf,
    /// Its options in a mount: `cpu`, `name=systemd`; none of cgroup2.
    pub v1: Option<String>,
}

/// The hierarchies of this machine.
///
/// # Errors
/// The table of mounts cannot be read, or has none.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let found = parse(&mounts);
    if !found.iter().any(|h| h.v1.is_none()) {
        bail!("no cgroup2 hierarchy is mounted: `mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified`");
    }
    Ok(found)
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(place), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let general = |o: &&str| {
            matches!(
                *o,
                "rw" | "ro" | "relatime" | "nosuid" | "nodev" | "noexec" | "xattr"
            )
        };
        let v1 = match kind {
            "cgroup" => Some(
                options
                    .split(',')
                    .filter(|o| !general(o))
                    .collect::<Vec<_>>()
                    .join(","),
            ),
            "cgroup2" => None,
            _ => continue,
        };
        // A hierarchy can be mounted twice: the first is as good.
        if !found.iter().any(|h| h.v1 == v1) {
            found.push(Hierarchy {
                place: place.into(),
                v1,
            });
        }
    }
    found
}

/// Makes the groups of a node.
///
/// # Errors
/// One cannot be made.
pub(crate) fn make(node: Node) -> Result<()> {
    for hierarchy in hierarchies()? {
        let top = hierarchy.place.join(node.id());
        for dir in [&top, &top.join(LEAF)] {
            fs::create_dir_all(dir)
                .with_context(|| format!("cannot make cgroup {}", dir.display()))?;
            // A cpuset is empty when it is made, and nothing can join it then.
            for name in ["cpuset.cpus", "cpuset.mems"] {
                let above = hierarchy.place.join(name);
                if hierarchy.v1.is_some() && above.exists() {
                    copy(&above, &dir.join(name))?;
                }
            }
        }
        if hierarchy.v1.is_none() {
            hand_on(&hierarchy.place)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let text =
        fs::read_to_string(from).with_context(|| format!("cannot read {}", from.display()))?;
    fs::write(to, text.trim()).with_context(|| format!("cannot write {}", to.display()))
}

/// Gives the children of a group of cgroup2 all its controllers.
fn hand_on(group: &Path) -> Result<()> {
    let file = group.join("cgroup.controllers");
    let all =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let wanted: Vec<_> = all.split_whitespace().map(|c| format!("+{c}")).collect();
    let file = group.join("cgroup.subtree_control");
    fs::write(&file, wanted.join(" ")).with_context(|| format!("cannot write {}", file.display()))
}

/// The group of cgroup2 that a process is in, open for joining.
///
/// # Errors
/// The process has ended.
pub(crate) fn open_of(pid: i32) -> Result<File> {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .with_context(|| format!("process {pid} has ended"))?;
    let group = own.lines().find_map(|l| l.strip_prefix("0::/"));
    let group = group.with_context(|| format!("process {pid} is in no group of cgroup2"))?;
    let unified = hierarchies()?.into_iter().find(|h| h.v1.is_none());
    let place = unified.context("no cgroup2 hierarchy is mounted")?.place;
    let procs = place.join(group).join("cgroup.procs");
    let file = File::options().write(true).open(&procs);
    file.with_context(|| format!("cannot open {}", procs.display()))
}

/// The groups of a node's processes, open for joining.
///
/// # Errors
/// One is missing.
pub(crate) fn open(node: Node) -> Result<Vec<File>> {
    let procs = hierarchies()?
        .into_iter()
        .map(|h| procs(&h.place.join(node.id()).join(LEAF)));
    procs.collect()
}

/// The tops of a node's groups, open for joining: a cgroup namespace is rooted where the
/// process is that makes it.
///
/// # Errors
/// One is missing.
pub(crate) fn open_tops(node: Node) -> Result<Vec<File>> {
    let procs = hierarchies()?
        .into_iter()
        .map(|h| procs(&h.place.join(node.id())));
    procs.collect()
}

fn procs(group: &Path) -> Result<File> {
    let file = group.join("cgroup.procs");
    File::options()
        .write(true)
        .open(&file)
        .with_context(|| format!("cannot open {}", file.display()))
}

/// Moves this process, the first of a node, from the top to the processes' group; the
/// hierarchies are those that the node has mounted.
///
/// # Errors
/// One cannot be joined.
pub(crate) fn enter_leaf() -> Result<()> {
    for hierarchy in hierarchies()? {
        let file = hierarchy.place.join(LEAF).join("cgroup.procs");
        fs::write(&file, "0").with_context(|| format!("cannot join {}", file.display()))?;
    }
    Ok(())
}

/// Moves the last process, the parent of a node's first, from the tops to the processes'
/// groups, and lets the kubelet's groups have the controllers.
///
/// # Errors
/// A group cannot be joined or written.
pub(crate) fn settle(node: Node, parent: i32) -> Result<()> {
    for hierarchy in hierarchies()? {
        let top = hierarchy.place.join(node.id());
        let file = top.join(LEAF).join("cgroup.procs");
        fs::write(&file, parent.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
        if hierarchy.v1.is_none() {
            hand_on(&top)?;
        }
    }
    Ok(())
}

/// Removes all groups of a node; its processes have ended.
///
/// # Errors
/// One is busy still.
pub(crate) fn unmake(node: Node) -> Result<()> {
    let groups = hierarchies()?.into_iter().map(|h| h.place.join(node.id()));
    groups.filter(|g| g.exists()).try_for_each(|g| remove(&g))
}

/// Removes all groups of all nodes; their processes have ended.
///
/// # Errors
/// One is busy still.
pub(crate) fn remove_all() -> Result<()> {
    for hierarchy in hierarchies()? {
        let entries = fs::read_dir(&hierarchy.place)
            .with_context(|| format!("cannot read {}", hierarchy.place.display()))?;
        let ours = entries.flatten().filter(|e| {
            e.file_name()
                .to_string_lossy()
                .starts_with(&format!("{PREFIX}-n"))
        });
        for entry in ours {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a group with all below it. The kernel may take a moment to see that it is empty.
fn remove(group: &Path) -> Result<()> {
    let mut last = None;
    for _ in 0..100 {
        match remove_now(group) {
            Ok(()) => return Ok(()),
            Err(e) => last = Some(e),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    last.map_or(Ok(()), |e| {
        Err(e).with_context(|| format!("cannot remove cgroup {}", group.display()))
    })
}

fn remove_now(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_now(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_a_machine_with_both_versions() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,nosuid,xattr,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime,nsdelegate 0 0\n\
            cgroup2 /elsewhere cgroup2 rw,relatime 0 0\n\
            proc /proc proc rw 0 0\n";
        let found: Vec<_> = parse(mounts).into_iter().map(|h| (h.place, h.v1)).collect();
        assert_eq!(
            found,
            [
                ("/sys/fs/cgroup/cpu".into(), Some("cpu,cpuacct".to_owned())),
                (
                    "/sys/fs/cgroup/systemd".into(),
                    Some("name=systemd".to_owned())
                ),
                ("/sys/fs/cgroup/unified".into(), None),
            ]
        );
    }
}
