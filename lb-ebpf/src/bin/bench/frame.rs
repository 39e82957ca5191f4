//! The frame of a run: its bounds, and stores and loads as the datapath's.

use core::arch::asm;

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::generated::{bpf_skb_change_tail, bpf_xdp_adjust_tail},
};

macro_rules! store {
    ($name:ident $int:ty, $class:ident, $insn:literal) => {
        /// Stores to packet memory, which is aligned to nothing, by one instruction.
        ///
        /// # Safety
        /// The bytes lie within the packet.
        #[inline(always)]
        pub(crate) unsafe fn $name(p: usize, value: $int) {
            // SAFETY: the caller checked the bounds.
            unsafe {
                asm!(
                    concat!("*(", $insn, " *)({p} + 0) = {v}"),
                    v = in($class) value, p = in(reg) p,
                    options(nostack, preserves_flags)
                );
            }
        }
    };
}
store!(store16 u32, wreg, "u16");
store!(store32 u32, wreg, "u32");
store!(store64 u64, reg, "u64");

/// Loads from packet memory.
///
/// # Safety
/// The bytes lie within the packet.
#[inline(always)]
pub(crate) unsafe fn load32(p: usize) -> u32 {
    let value: u32;
    // SAFETY: the caller checked the bounds; nothing is written.
    unsafe {
        asm!(
            "{v} = *(u32 *)({p} + 0)",
            v = out(wreg) value, p = in(reg) p,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    value
}

/// A frame's start and end, and how to make it longer or shorter.
pub(crate) trait Frame: Copy {
    fn bounds(self) -> (usize, usize);
    fn resize(self, len: u32) -> bool;
    fn len(self) -> u32;
}

impl Frame for *mut xdp_md {
    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        // SAFETY: the kernel hands every XDP program a valid context. Volatile, because LLVM
        // takes the two for numbers of 32 bits.
        unsafe {
            (
                (&raw const (*self).data).read_volatile() as usize,
                (&raw const (*self).data_end).read_volatile() as usize,
            )
        }
    }
    #[inline(always)]
    fn resize(self, len: u32) -> bool {
        // Without this LLVM adds and subtracts the pointers in another order, which the
        // verifier does not allow.
        let delta = len.wrapping_sub(core::hint::black_box(self.len())) as i32;
        // SAFETY: the context is valid; the helper refuses what does not fit.
        unsafe { bpf_xdp_adjust_tail(self, delta) == 0 }
    }
    #[inline(always)]
    fn len(self) -> u32 {
        let (data, end) = self.bounds();
        (end - data) as u32
    }
}

impl Frame for *mut __sk_buff {
    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        // SAFETY: as for XDP.
        unsafe {
            (
                (&raw const (*self).data).read_volatile() as usize,
                (&raw const (*self).data_end).read_volatile() as usize,
            )
        }
    }
    #[inline(always)]
    fn resize(self, len: u32) -> bool {
        // SAFETY: the context is valid; the helper refuses what does not fit.
        unsafe { bpf_skb_change_tail(self, len, 0) == 0 }
    }
    #[inline(always)]
    fn len(self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { (*self).len }
    }
}
