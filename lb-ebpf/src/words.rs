//! Map memory that other CPUs read and write meanwhile.
//!
//! `core::sync::atomic` has loads and stores only on this target; the kernel has
//! the other instructions since Linux 5.12 (commit 5ffa25502b5a), and this is how
//! they are named.

use core::arch::asm;

use lb_datapath::Words;

/// Words of a map's value.
#[derive(Clone, Copy)]
pub(crate) struct Memory(*mut u64);

impl Memory {
    /// The memory of a map's value.
    ///
    /// # Safety
    /// The value is aligned to words and stays valid while the program runs, and
    /// only words within it are asked for.
    #[inline(always)]
    pub(crate) unsafe fn new(value: *mut u64) -> Self {
        Self(value)
    }

    /// Address of a word.
    #[inline(always)]
    fn word(self, at: usize) -> *mut u64 {
        self.0.wrapping_add(at)
    }
}

impl Words for Memory {
    #[inline(always)]
    fn from(self, word: usize) -> Self {
        Self(self.word(word))
    }
    #[inline(always)]
    fn load(self, word: usize) -> u64 {
        // SAFETY: as `new` demands. Volatile: one load, of what is there now.
        unsafe { self.word(word).read_volatile() }
    }
    #[inline(always)]
    fn store(self, word: usize, value: u64) {
        // SAFETY: as `new` demands. Volatile: one store.
        unsafe { self.word(word).write_volatile(value) }
    }
    #[inline(always)]
    fn publish(self, word: usize, value: u64) {
        // An exchange is a full barrier (Documentation/bpf/standardization,
        // "Atomic operations").
        // SAFETY: as `new` demands.
        unsafe {
            asm!(
                "{v} = xchg_64({p} + 0, {v})",
                v = inout(reg) value => _, p = in(reg) self.word(word),
                options(nostack)
            );
        }
    }
    #[inline(always)]
    fn set(self, word: usize, bits: u64) {
        // SAFETY: as `new` demands.
        unsafe {
            asm!(
                "lock *(u64 *)({p} + 0) |= {v}",
                v = in(reg) bits, p = in(reg) self.word(word),
                options(nostack)
            );
        }
    }
    #[inline(always)]
    fn keep(self, word: usize, bits: u64) {
        // SAFETY: as `new` demands.
        unsafe {
            asm!(
                "lock *(u64 *)({p} + 0) &= {v}",
                v = in(reg) bits, p = in(reg) self.word(word),
                options(nostack)
            );
        }
    }
    #[inline(always)]
    fn compare_exchange(self, word: usize, old: u64, new: u64) -> u64 {
        let mut found = old;
        // SAFETY: as `new` demands.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({p} + 0, r0, {v})",
                inout("r0") found, v = in(reg) new, p = in(reg) self.word(word),
                options(nostack)
            );
        }
        found
    }
}
