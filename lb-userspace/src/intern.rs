//! One copy of each string: the names of nodes, zones, namespaces and ports
//! repeat in every endpoint.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

/// A set of strings that are in use.
#[derive(Default, Debug)]
pub struct Interner {
    strings: Mutex<Strings>,
}

#[derive(Default, Debug)]
struct Strings {
    set: HashSet<Arc<str>>,
    sweep_at: usize,
}

/// Below this many strings a sweep is not worth its time.
const SWEEP_MIN: usize = 4096;

impl Interner {
    /// The shared copy of a string.
    pub fn get(&self, text: &str) -> Arc<str> {
        // A panic elsewhere cannot leave the set half-written: it only grows or
        // shrinks by whole strings.
        let mut strings = self.strings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = strings.set.get(text) {
            return known.clone();
        }
        if strings.set.len() >= strings.sweep_at.max(SWEEP_MIN) {
            strings.set.retain(|s| Arc::strong_count(s) > 1);
            strings.sweep_at = strings.set.len() * 2;
        }
        let new: Arc<str> = text.into();
        strings.set.insert(new.clone());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_share_one_copy_and_unused_ones_are_dropped() {
        let interner = Interner::default();
        let kept = interner.get("node-1");
        assert!(Arc::ptr_eq(&kept, &interner.get("node-1")));
        for i in 0..3 * SWEEP_MIN {
            interner.get(&format!("gone-{i}"));
        }
        let held = interner.strings.lock().unwrap().set.len();
        assert!(held <= SWEEP_MIN, "{held} strings are held");
        assert!(Arc::ptr_eq(&kept, &interner.get("node-1")));
    }
}
