//! What the agent leaves for the command line in its state directory: names of
//! services, and its status. The agent never reads it: the maps are its memory.

mod names;
mod signs;

use std::{
    fs,
    io::{self, Write as _},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::fold::Standing;
use crate::log::recent::Line;
pub use names::ServiceNames;
pub use signs::Record;

/// A place that objects come from and that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// The place.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

/// A feature of the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Feature {
    /// What it is.
    pub name: String,
    /// Whether it is used.
    pub present: bool,
    /// Since when the kernel has it, and what happens without it.
    pub note: String,
}

/// A device with hooks, or one that should have some.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// `pod` or `uplink`.
    pub role: String,
    /// What serves it; empty for nothing.
    pub hooks: String,
    /// Why so, or what went wrong.
    pub note: String,
    /// Whether something went wrong.
    pub failed: bool,
}

/// A socket hook.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hook {
    /// Its program.
    pub program: String,
    /// Why it is not attached, if it is not.
    pub error: Option<String>,
}

/// What the datapath says about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Datapath {
    /// The kernel's release.
    pub kernel: String,
    /// Its features.
    pub features: Vec<Feature>,
    /// Which sockets connect straight to a backend.
    #[serde(default)]
    pub socket_lb: String,
    /// The hooks that do it.
    #[serde(default)]
    pub sockets: Vec<Hook>,
    /// The devices.
    pub devices: Vec<Device>,
    /// What a user ought to know besides.
    pub notes: Vec<String>,
    /// The modes of kube-proxy whose rules are in the kernel.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Connections that are left to the kernel's NAT.
    #[serde(default)]
    pub left: u64,
}

impl Datapath {
    /// The socket hooks that are not attached, and why.
    pub fn refused(&self) -> impl Iterator<Item = (&str, &str)> {
        let hooks = self.sockets.iter();
        hooks.filter_map(|hook| Some((hook.program.as_str(), hook.error.as_deref()?)))
    }
}

/// How the agent is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its process, in its own PID namespace.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Name of the node.
    pub node: String,
    /// When it started.
    pub started: String,
    /// Whether the maps have been programmed from complete sources.
    pub synced: bool,
    /// The kinds of objects that have not been read completely.
    pub waiting_for: Vec<String>,
    /// When the maps were last brought up to date.
    pub last_update: Option<String>,
    /// Services that it knows of.
    pub services: usize,
    /// Writes that wait to be tried again.
    pub pending_writes: usize,
    /// Places that cannot be read.
    pub troubles: Vec<Trouble>,
    /// Problems of objects, the first of them.
    pub problems: Vec<Standing>,
    /// How many there are.
    pub problem_count: usize,
    /// What the datapath says about itself.
    pub datapath: Datapath,
}

const LOCK: &str = "agent.lock";
const STATUS: &str = "status.json";
const NAMES: &str = "names.json";
const LOG: &str = "log.json";
const CONFIG: &str = "config.json";
/// Names the bpffs that an agent has mounted.
const MOUNTED: &str = "mounted";
/// Whoever [looks](StateDir::is_claimed) at the lock holds it for a moment: it is tried
/// so often, with such pauses.
const TRIES: (u32, Duration) = (20, Duration::from_millis(10));

/// The state directory.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// A directory, made when something is written.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Claims the directory for this agent, until the file is closed. A lock, and
    /// not a process id, because a process id means nothing in another container.
    ///
    /// # Errors
    /// If another agent has it, or it cannot be made.
    pub fn claim(&self) -> io::Result<fs::File> {
        fs::create_dir_all(&self.0)?;
        let path = self.0.join(LOCK);
        let file = fs::File::options().create(true).append(true).open(&path)?;
        let mut locked = file.try_lock();
        for _ in 0..TRIES.0 {
            if !matches!(locked, Err(fs::TryLockError::WouldBlock)) {
                break;
            }
            thread::sleep(TRIES.1);
            locked = file.try_lock();
        }
        locked.map_err(|e| match e {
            fs::TryLockError::WouldBlock => io::Error::other(format!(
                "{}: another agent runs with this state directory: end it, or give another one with --state-dir",
                path.display()
            )),
            fs::TryLockError::Error(e) => e,
        })?;
        Ok(file)
    }

    /// Whether an agent runs that has claimed the directory.
    pub fn is_claimed(&self) -> bool {
        let file = fs::File::open(self.0.join(LOCK));
        file.is_ok_and(|f| matches!(f.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Notes that the agent has mounted a bpffs, for [`Self::mounted`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_mounted(&self, bpffs: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        fs::write(self.0.join(MOUNTED), bpffs.as_os_str().as_encoded_bytes())
    }

    /// The bpffs that an agent has mounted, if one did.
    pub fn mounted(&self) -> Option<PathBuf> {
        let path = fs::read(self.0.join(MOUNTED)).ok()?;
        Some(std::ffi::OsString::from_vec(path).into())
    }

    /// Removes the files of agents, and the directory if nothing else is in it.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        let signs = [signs::RECORD, signs::STAND_IN];
        for name in [LOCK, STATUS, NAMES, LOG, CONFIG, MOUNTED]
            .into_iter()
            .chain(signs)
        {
            let path = self.0.join(name);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display())));
                }
                _ => {}
            }
        }
        // Somebody else's files, or a mount of the directory itself, stay.
        let _ = fs::remove_dir(&self.0);
        Ok(())
    }

    /// Writes the status.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_status(&self, status: &Status) -> io::Result<()> {
        self.write(STATUS, status)
    }

    /// The status that the agent wrote last, and when; `None` if it never did.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_status(&self) -> io::Result<Option<Status>> {
        self.read(STATUS)
    }

    /// Writes the last lines of the log.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_log(&self, lines: &[Line]) -> io::Result<()> {
        self.write(LOG, &lines)
    }

    /// The last lines of the agent's log; none if it has left none.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_log(&self) -> io::Result<Vec<Line>> {
        Ok(self.read(LOG)?.unwrap_or_default())
    }

    /// Writes the configuration in effect, without secrets.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_config(&self, config: &serde_json::Value) -> io::Result<()> {
        self.write(CONFIG, config)
    }

    /// The configuration of the agent that ran last; `None` if none did.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_config(&self) -> io::Result<Option<serde_json::Value>> {
        self.read(CONFIG)
    }

    /// Replaces a file in one step, so that no reader sees half of it.
    fn write(&self, name: &str, content: &impl Serialize) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let new = self.0.join(format!(".{name}.{}", std::process::id()));
        // Piece by piece: as a whole some would be large beside the agent.
        let mut file = io::BufWriter::new(fs::File::create(&new)?);
        serde_json::to_writer(&mut file, content)?;
        file.flush()?;
        fs::rename(&new, self.0.join(name)).inspect_err(|_| {
            // What is left of a failed try is of no use; the error is the rename's.
            let _ = fs::remove_file(&new);
        })
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let path = self.0.join(name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| io::Error::other(format!("{}: {e}", path.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_seen_and_ends_with_its_file() {
        let dir = tempfile::TempDir::new().unwrap();
        let state = StateDir::new(dir.path());
        assert!(!state.is_claimed());
        let claim = state.claim().unwrap();
        assert!(state.is_claimed());
        let error = state.claim().unwrap_err().to_string();
        assert!(error.contains("--state-dir"), "{error}");
        drop(claim);
        assert!(!state.is_claimed());
        assert!(state.claim().is_ok());
    }
}
