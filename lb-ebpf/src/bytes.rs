//! Reading and writing packet memory, which is aligned to nothing.
//!
//! LLVM splits an unaligned access into bytes on this target. Its feature
//! `allows-misaligned-mem-access` would help, but it also lets LLVM merge
//! stores into misaligned ones on the stack, which the verifier refuses. So the
//! instructions are named here: a packet access of any alignment is one load or
//! store (the verifier refuses the program where the CPU could not do it).

use core::{arch::asm, mem::MaybeUninit};

use bytemuck::{NoUninit, Pod, checked::CheckedBitPattern};

/// Offsets in a frame are below this and one more: the pipeline looks no further
/// than 511 bytes plus a header. The mask shows the verifier that an offset is
/// small where it has lost track of it, on the stack of a caller.
pub(crate) const MAX_OFF: u32 = 0x3ff;

macro_rules! access {
    ($load:ident $store:ident $int:ty, $insn:literal) => {
        /// Loads from packet memory.
        ///
        /// # Safety
        /// The bytes lie within the packet.
        #[inline(always)]
        unsafe fn $load(p: usize) -> $int {
            let value: u32;
            // SAFETY: the caller checked the bounds; nothing is written.
            unsafe {
                asm!(
                    concat!("{v} = *(", $insn, " *)({p} + 0)"),
                    v = out(wreg) value, p = in(reg) p,
                    options(pure, readonly, nostack, preserves_flags)
                );
            }
            value as $int
        }

        /// Stores to packet memory.
        ///
        /// # Safety
        /// The bytes lie within the packet.
        #[inline(always)]
        unsafe fn $store(p: usize, value: $int) {
            // SAFETY: the caller checked the bounds.
            unsafe {
                asm!(
                    concat!("*(", $insn, " *)({p} + 0) = {v}"),
                    v = in(wreg) u32::from(value), p = in(reg) p,
                    options(nostack, preserves_flags)
                );
            }
        }
    };
}
access!(load8 store8 u8, "u8");
access!(load16 store16 u16, "u16");
access!(load32 store32 u32, "u32");

/// Loads a value from packet memory. What of it is not used is not loaded.
///
/// # Safety
/// The bytes lie within the packet.
#[inline(always)]
pub(crate) unsafe fn load<T: CheckedBitPattern + Pod>(p: usize) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let to = value.as_mut_ptr().cast::<u8>();
    let size = size_of::<T>();
    let mut at = 0;
    // SAFETY: every byte of the value is written once, from within the packet;
    // any bytes are a valid T.
    unsafe {
        while at + 4 <= size {
            to.add(at).cast::<u32>().write_unaligned(load32(p + at));
            at += 4;
        }
        if at + 2 <= size {
            to.add(at).cast::<u16>().write_unaligned(load16(p + at));
            at += 2;
        }
        if at < size {
            to.add(at).write(load8(p + at));
        }
        value.assume_init()
    }
}

/// Stores a value to packet memory.
///
/// # Safety
/// The bytes lie within the packet.
#[inline(always)]
pub(crate) unsafe fn store<T: NoUninit>(p: usize, value: &T) {
    let from = core::ptr::from_ref(value).cast::<u8>();
    let size = size_of::<T>();
    let mut at = 0;
    // SAFETY: every byte of the value is read once, and T has no padding.
    unsafe {
        while at + 4 <= size {
            store32(p + at, from.add(at).cast::<u32>().read_unaligned());
            at += 4;
        }
        if at + 2 <= size {
            store16(p + at, from.add(at).cast::<u16>().read_unaligned());
            at += 2;
        }
        if at < size {
            store8(p + at, from.add(at).read());
        }
    }
}
