//! Ctrl-C and its kin: noted by a handler, and looked at between steps.

use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Result, bail};

static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// The run was ended by a signal: no failure of what it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended(pub i32);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ended by signal {}", self.0)
    }
}

impl std::error::Error for Ended {}

/// Notes SIGINT, SIGTERM and SIGHUP from now on. Calls that wait are interrupted.
pub(crate) fn install() {
    extern "C" fn note(signal: libc::c_int) {
        CAUGHT.store(signal, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: an all-zero sigaction is a valid value (no flags: waiting calls return).
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
        // SAFETY: `action` is valid for the call; the handler only stores to an atomic.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// Whether a signal came.
pub(crate) fn caught() -> Option<i32> {
    Some(CAUGHT.load(Ordering::Relaxed)).filter(|s| *s != 0)
}

/// Goes on, unless a signal came.
///
/// # Errors
/// [`Ended`], if one did.
pub(crate) fn check() -> Result<()> {
    match caught() {
        Some(signal) => bail!(Ended(signal)),
        None => Ok(()),
    }
}
