//! Programs that stay pinned: an agent that starts again with the same maps takes them over. The
//! kernel's verifier would look at them for longer than all else takes.
//!
//! Which programs they are is a part of the pins' names: a hash of the object, of what the
//! programs are told at loading, and of the kernel's ids of the maps, which it gives to no other
//! map of the same boot.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::fd::{BorrowedFd, OwnedFd},
    path::PathBuf,
};

use super::{
    error::Error,
    pins::{Pins, list, pin_error, remove},
    recipe::Recipe,
    sys,
};

/// The pins of an object's programs, with certain maps.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pins: Pins,
    suffix: String,
}

impl Kept {
    /// Of programs with maps of these ids.
    pub(super) fn new(recipe: &Recipe, maps: &[u32]) -> Self {
        let mut hasher = DefaultHasher::new();
        (recipe.object, recipe.source, maps).hash(&mut hasher);
        Self {
            pins: recipe.pins.clone(),
            suffix: format!("_{:016x}", hasher.finish()),
        }
    }

    /// Where a program is pinned.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        let name = format!("{program}{}", self.suffix);
        self.pins.programs().join(name)
    }

    /// A program that is pinned.
    pub(super) fn open(&self, program: &str) -> Option<OwnedFd> {
        sys::obj_get(&self.path(program), 0).ok()
    }

    /// Pins a program.
    pub(super) fn keep(&self, program: &str, fd: BorrowedFd<'_>) -> Result<(), Error> {
        let path = self.path(program);
        remove(&path)?;
        sys::obj_pin(fd, &path).map_err(|source| pin_error("pin", &path, source))
    }

    /// Removes the pins of others: those of an object or of maps that are no longer used.
    pub(super) fn remove_others(&self) -> Result<(), Error> {
        for (name, path) in list(&self.pins.programs())? {
            if !name.ends_with(&self.suffix) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}
