//! The directory of pins: `bascule/` of a bpffs, with a file for each map,
//! `links/` for what is attached, `programs/` for programs that the next start takes
//! over or that are run to be asked, and `staged/` for maps that are being filled before they take the place of others.

use std::{
    env,
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use lb_common::monitor::{self, MonitorMap};

use super::{error::Error, map::BpfMap, sys, table::Table};

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// A variable that every container of a pod has: what it mounts is its own, and
/// not the node's.
const IN_A_POD: &str = "KUBERNETES_SERVICE_HOST";
/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The pins of one node.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// Makes the directories, on a bpffs, which is mounted if it has to be.
    pub(super) fn prepare(bpffs: &Path, dir: PathBuf) -> Result<Self, Error> {
        mount_bpffs(bpffs)?;
        let pins = Self { dir };
        for sub in [
            pins.dir.clone(),
            pins.links(),
            pins.programs(),
            pins.staged(),
        ] {
            fs::create_dir_all(&sub).map_err(|source| pin_error("create", &sub, source))?;
        }
        // What a start that was cut short has left: nothing uses it.
        for (_, path) in list(&pins.staged())? {
            remove(&path)?;
        }
        Ok(pins)
    }

    /// The pins as they are, to look at.
    pub(super) fn existing(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, table: Table) -> PathBuf {
        self.dir.join(table.name())
    }

    /// Where a map is pinned until it takes its place.
    pub(super) fn staged_map(&self, table: Table) -> PathBuf {
        self.staged().join(table.name())
    }

    /// Where a map of the monitor is pinned.
    pub(super) fn monitor(&self, map: MonitorMap) -> PathBuf {
        self.dir.join(map.pin)
    }

    /// The directory of links.
    pub(super) fn links(&self) -> PathBuf {
        self.dir.join("links")
    }

    /// The directory of programs.
    pub(super) fn programs(&self) -> PathBuf {
        self.dir.join("programs")
    }

    fn staged(&self) -> PathBuf {
        self.dir.join("staged")
    }

    /// Opens a pinned map; `None` if there is no such pin.
    pub(super) fn open(&self, table: Table, flags: u32) -> Result<Option<BpfMap>, Error> {
        open_map(&self.map(table), flags)
    }

    /// Puts a staged map in its place, atomically.
    pub(super) fn promote(&self, table: Table) -> Result<(), Error> {
        let (from, to) = (self.staged_map(table), self.map(table));
        fs::rename(&from, &to).map_err(|source| pin_error("rename", &from, source))
    }

    /// Pins in the directory that belong to another version: those of maps of
    /// ours, and those that are no business of ours.
    pub(super) fn foreign(&self) -> Result<Vec<(PathBuf, Foreign)>, Error> {
        let mut found = Vec::new();
        for (name, path) in list(&self.dir)? {
            if let Some(kind) = foreign(&name) {
                found.push((path, kind));
            }
        }
        Ok(found)
    }

    /// Removes every pin, and with them everything that only they hold: links,
    /// programs, maps.
    pub(super) fn remove_all(&self) -> Result<(), Error> {
        for dir in [
            self.links(),
            self.programs(),
            self.staged(),
            self.dir.clone(),
        ] {
            for (_, path) in list(&dir)? {
                remove(&path)?;
            }
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(pin_error("remove", &dir, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A pin that is not one of this version's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Foreign {
    /// A map of ours in another version of its layout.
    Version(Table),
    /// A map of the monitor in another version of its layout.
    Monitor,
    /// Nothing that we know.
    Unknown,
}

/// What a name in the directory of pins stands for; `None` for what belongs there.
fn foreign(name: &str) -> Option<Foreign> {
    if matches!(name, "links" | "programs" | "staged")
        || monitor::MAPS.iter().any(|map| map.pin == name)
        || Table::ALL.iter().any(|table| table.name() == name)
    {
        return None;
    }
    let stem = |name: &str| {
        let (stem, version) = name.rsplit_once("_v")?;
        version
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| stem.to_owned())
    };
    let of = stem(name);
    if of.is_some() && monitor::MAPS.iter().any(|map| stem(map.pin) == of) {
        return Some(Foreign::Monitor);
    }
    let table = Table::ALL
        .iter()
        .find(|table| of.is_some() && stem(table.name()) == of);
    Some(table.map_or(Foreign::Unknown, |table| Foreign::Version(*table)))
}

/// Opens the map that is pinned at a path.
pub(super) fn open_map(path: &Path, flags: u32) -> Result<Option<BpfMap>, Error> {
    match sys::obj_get(path, flags).and_then(BpfMap::new) {
        Ok(map) => Ok(Some(map)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(pin_error("open the map pinned at", path, source)),
    }
}

/// Names and paths of a directory's entries but its sub-directories; a directory
/// that is not there is empty.
pub(super) fn list(dir: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let fail = |source| pin_error("list", dir, source);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(fail)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if !entry.file_type().map_err(fail)?.is_dir() {
            found.push((
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            ));
        }
    }
    Ok(found)
}

/// Removes a pin. One that is not there counts as removed.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(pin_error("remove", path, error))
        }
        _ => Ok(()),
    }
}

pub(super) fn pin_error(call: &'static str, path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => Error::Denied { call, path },
        _ => Error::Pin { call, path, source },
    }
}

fn fs_type(path: &Path) -> io::Result<u64> {
    let c_path = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path is a C string and `stat` has room for the answer.
    if unsafe { libc::statfs(c_path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all fields are integers; the memory was zeroed, then filled.
    let stat = unsafe { stat.assume_init() };
    // glibc has it signed, musl unsigned.
    Ok(stat.f_type as u64)
}

/// Makes sure that a directory is on a bpffs; mounts one there if not. Returns
/// whether it did.
///
/// # Errors
/// The directory cannot be made, or nothing can be mounted there.
pub fn mount_bpffs(path: &Path) -> Result<bool, Error> {
    let fail = |problem: String| Error::Bpffs {
        path: path.to_owned(),
        mount: path.to_owned(),
        problem,
    };
    fs::create_dir_all(path).map_err(|error| fail(format!("cannot be created ({error})")))?;
    let kind = fs_type(path).map_err(|error| fail(error.to_string()))?;
    if kind == BPF_FS_MAGIC {
        return Ok(false);
    }
    if env::var_os(IN_A_POD).is_some() {
        return Err(fail(
            "not a bpffs, and one that a pod mounts goes with it".to_owned(),
        ));
    }
    let target = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| fail("its name contains a NUL byte".to_owned()))?;
    // SAFETY: all arguments are C strings that outlive the call, or null.
    let mounted = unsafe {
        let bpf = c"bpf".as_ptr();
        libc::mount(bpf, target.as_ptr(), bpf, 0, std::ptr::null())
    };
    if mounted != 0 {
        let error = io::Error::last_os_error();
        return Err(fail(format!(
            "not a bpffs, and mounting one there failed ({error})"
        )));
    }
    tracing::info!("{}: mounted a bpffs", path.display());
    Ok(true)
}

/// Unmounts a bpffs, unless something is pinned there: with the mount it would
/// end.
///
/// # Errors
/// It cannot be looked at, or is in use.
pub fn unmount_bpffs(path: &Path) -> io::Result<()> {
    // The kernel's own iterators are in every bpffs: kernel/bpf/preload.
    let own =
        |e: &fs::DirEntry| !matches!(e.file_name().to_str(), Some("maps.debug" | "progs.debug"));
    let used = fs::read_dir(path)?.flatten().any(|e| own(&e));
    if used || fs_type(path)? != BPF_FS_MAGIC {
        return Ok(());
    }
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that outlives the call.
    match unsafe { libc::umount(c_path.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Opens a directory of a cgroup2 mount.
pub(super) fn open_cgroup(path: &Path) -> Result<fs::File, Error> {
    let fail = |problem: String| Error::Cgroup {
        path: path.to_owned(),
        problem,
    };
    let kind = fs_type(path).map_err(|error| fail(error.to_string()))?;
    if kind != CGROUP2_MAGIC {
        return Err(fail("not a directory of a cgroup2 mount".to_owned()));
    }
    fs::File::open(path).map_err(|error| fail(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_other_versions_are_told_from_ours_and_from_strangers() {
        assert_eq!(foreign("lb_frontends_v1"), None);
        assert_eq!(foreign("links"), None);
        assert_eq!(
            foreign("lb_frontends_v2"),
            Some(Foreign::Version(Table::lb_frontends_v1))
        );
        assert_eq!(
            foreign("lb_ct4_v17"),
            Some(Foreign::Version(Table::lb_ct4_v1))
        );
        assert_eq!(foreign("lb_mon_ring_v2"), None);
        assert_eq!(foreign("lb_mon_ring_v1"), Some(Foreign::Monitor));
        assert_eq!(foreign("lb_ct5_v1"), Some(Foreign::Unknown));
        assert_eq!(foreign("lb_frontends_vx"), Some(Foreign::Unknown));
        assert_eq!(foreign("mine"), Some(Foreign::Unknown));
    }

    #[test]
    fn a_directory_elsewhere_is_no_cgroup() {
        let error = open_cgroup(Path::new("/proc/self"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("/proc/self: not a directory of a cgroup2 mount;"),
            "{error}"
        );
    }
}
