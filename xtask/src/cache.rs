//! What is built or fetched once, and kept for all checkouts of a user: tools, the programs of
//! Kubernetes, the images of its tests.
//!
//! An entry is a directory, named after what it is made from: another version or another
//! go.sum is another entry, and none is ever changed. It is made beside its place under a lock
//! and renamed when it is whole, so that two users at once or an end in the middle do no harm.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::{paths, ui};

/// Names the cache's directory, in place of the user's.
pub(crate) const VARIABLE: &str = "BASCULE_CACHE";
/// Digits of a key: enough to tell apart what one user ever has.
const DIGITS: usize = 12;

/// Where all entries are.
pub(crate) fn root() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    root_by(&variable).unwrap_or_else(|| paths::root().join("target/cache"))
}

/// By the variables of the environment: our own, then those of
/// <https://specifications.freedesktop.org/basedir-spec/latest/>, which says that a path that
/// is not absolute is none.
fn root_by(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    if let Some(own) = variable(VARIABLE) {
        return std::path::absolute(own).ok();
    }
    let cache = variable("XDG_CACHE_HOME").filter(absolute);
    let home = || Some(variable("HOME").filter(absolute)?.join(".cache"));
    Some(cache.or_else(home)?.join("bascule"))
}

/// A directory of the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry(String);

impl Entry {
    /// The entry called `name` that is made from `inputs`: versions, flags, files' contents.
    pub(crate) fn new<I: AsRef<[u8]>>(name: &str, inputs: impl IntoIterator<Item = I>) -> Self {
        let mut hash = Sha256::new();
        hash.update(std::env::consts::ARCH);
        for input in inputs {
            // With its length: `ab, c` is not `a, bc`.
            hash.update((input.as_ref().len() as u64).to_le_bytes());
            hash.update(input.as_ref());
        }
        let key: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self(format!("{name}-{}", &key[..DIGITS]))
    }

    /// Its name with its key: what is made from it has this among its inputs.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Where it is, once it was made.
    pub(crate) fn dir(&self) -> PathBuf {
        root().join(&self.0)
    }

    /// Makes it unless it is there; `make` fills the first directory, and has the second for
    /// what nobody needs afterwards.
    ///
    /// # Errors
    /// It cannot be made: nothing is there then.
    pub(crate) fn ensure(&self, make: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<PathBuf> {
        self.ensure_in(&root(), make)
    }

    fn ensure_in(
        &self,
        root: &Path,
        make: impl FnOnce(&Path, &Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let place = root.join(&self.0);
        if place.is_dir() {
            return Ok(place);
        }
        let partial = root.join(format!("{}.partial", self.0));
        let _lock = self.lock(root)?;
        // Somebody else may have made it meanwhile.
        if place.is_dir() {
            return Ok(place);
        }
        let (whole, scratch) = (partial.join("whole"), partial.join("scratch"));
        remake(&whole)?;
        remake(&scratch)?;
        make(&whole, &scratch)?;
        fs::rename(&whole, &place)
            .with_context(|| format!("cannot rename {} to {}", whole.display(), place.display()))?;
        remove(&partial)?;
        Ok(place)
    }

    /// Held until the file is closed; the kernel gives it up with a process that dies.
    fn lock(&self, root: &Path) -> Result<File> {
        fs::create_dir_all(root).with_context(|| {
            format!(
                "cannot make {}: {VARIABLE} names another directory",
                root.display()
            )
        })?;
        let path = root.join(format!("{}.lock", self.0));
        let failed = || format!("cannot lock {}", path.display());
        let file = File::create(&path).with_context(failed)?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        ui::say(format!("waiting for another process to make {}", self.0));
        file.lock().with_context(failed)?;
        Ok(file)
    }
}

/// Makes a directory that has nothing in it.
///
/// # Errors
/// It cannot be made or emptied.
pub(crate) fn remake(dir: &Path) -> Result<()> {
    remove(dir)?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Removes a directory with all that is in it; it may be gone.
///
/// # Errors
/// It cannot be removed.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            remake(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn root_with(variables: &[(&str, &str)]) -> Option<PathBuf> {
        root_by(&|name| {
            let found = variables.iter().find(|(n, _)| *n == name)?;
            Some(found.1.into())
        })
    }

    #[test]
    fn the_users_variables_say_where_it_is() {
        let home = ("HOME", "/home/u");
        let xdg = ("XDG_CACHE_HOME", "/c");
        assert_eq!(root_with(&[]), None);
        assert_eq!(root_with(&[home]), Some("/home/u/.cache/bascule".into()));
        assert_eq!(root_with(&[home, xdg]), Some("/c/bascule".into()));
        let relative = ("XDG_CACHE_HOME", "c");
        assert_eq!(root_with(&[home, relative]), root_with(&[home]));
        let own = (VARIABLE, "/own");
        assert_eq!(root_with(&[home, xdg, own]), Some("/own".into()));
    }

    #[test]
    fn other_inputs_are_another_entry() {
        let entry = Entry::new("tool", ["1.0", "flags"]);
        assert_eq!(entry, Entry::new("tool", ["1.0", "flags"]));
        assert_ne!(entry, Entry::new("tool", ["1.1", "flags"]));
        assert_ne!(entry, Entry::new("tool", ["1.0f", "lags"]));
        assert_ne!(entry, Entry::new("tools", ["1.0", "flags"]));
    }

    #[test]
    fn an_entry_is_made_once_even_for_many() {
        let root = Temporary::new("cache-once");
        let made = AtomicU32::new(0);
        let entry = Entry::new("thing", ["1"]);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let place = entry.ensure_in(&root.0, |whole, _| {
                        made.fetch_add(1, Ordering::Relaxed);
                        fs::write(whole.join("file"), "all of it").context("a file")
                    });
                    let text = fs::read_to_string(place.unwrap().join("file"));
                    assert_eq!(text.unwrap(), "all of it");
                });
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_was_begun_and_not_ended_is_begun_anew() {
        let root = Temporary::new("cache-anew");
        let entry = Entry::new("thing", ["1"]);
        let failed = entry.ensure_in(&root.0, |whole, scratch| {
            fs::write(whole.join("half"), "")?;
            fs::write(scratch.join("half"), "")?;
            anyhow::bail!("the power is gone")
        });
        assert!(failed.is_err());
        assert!(!root.0.join(entry.name()).exists());
        let place = entry.ensure_in(&root.0, |whole, scratch| {
            assert!(!whole.join("half").exists() && !scratch.join("half").exists());
            fs::write(whole.join("file"), "").context("a file")
        });
        let left: Vec<_> = fs::read_dir(place.unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1);
        assert!(!root.0.join(format!("{}.partial", entry.name())).exists());
    }
}
