//! Arrays of the kernel as memory (`BPF_F_MMAPABLE`, Linux 5.5, commit
//! fc9702273e2e): a write is a store, not a call.
//!
//! # Order
//! The programs read these arrays without locks, on other CPUs. Two rules make
//! that sound:
//! - Within an element the last 8-byte word is the one that makes it valid (a
//!   backend's flags lie in it; a word of the filter is one). It is written last,
//!   with release order, and taken back first. Slots, of which an element holds
//!   many (`Kind::Packed`), are each written alone, by one store of 4 bytes.
//! - An element is written before what leads to it: backends before slots,
//!   slots before the frontend. The frontend is written by `bpf(2)`, which
//!   publishes it in its hash bucket with release order, so a program that finds
//!   the frontend (and follows it by dependent loads) sees everything behind it.
//!
//! An element is a whole number of 8-byte words (`lb_common::schema` checks it), so
//! the kernel pads nothing (`array_map_alloc`): values lie end to end and aligned,
//! and no word is ever torn.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use super::{map::BpfMap, store::out_of_range, table::Table};

/// Bytes of a value of which an element holds many.
const PACKED: usize = size_of::<u32>();

/// A range of values of an array, mapped for as long as this lives.
#[derive(Debug)]
pub(super) struct Window {
    base: NonNull<libc::c_void>,
    bytes: usize,
    // Where the first value lies, in bytes from `base`.
    skip: usize,
    // [`PACKED`], or whole words.
    value_size: usize,
    count: usize,
}

// SAFETY: the window owns its mapping, and every access to it is atomic.
unsafe impl Send for Window {}

impl Window {
    /// Maps `count` values from `first` on. The caller has checked that the array
    /// has them and that they have `value_size` bytes: 4, or a multiple of 8.
    pub(super) fn new(
        map: BorrowedFd<'_>,
        value_size: usize,
        first: u32,
        count: u32,
        writable: bool,
    ) -> io::Result<Self> {
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let start = first as usize * value_size;
        let offset = start / page * page;
        let bytes = start - offset + count as usize * value_size;
        let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // memory that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes.max(1),
                prot,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base).ok_or_else(|| io::Error::other("mmap returned null"))?;
        Ok(Self {
            base,
            bytes: bytes.max(1),
            skip: start - offset,
            value_size,
            count: count as usize,
        })
    }

    /// Words of a value; 0 if they are packed.
    fn stride(&self) -> usize {
        self.value_size / size_of::<u64>()
    }

    /// The words of all values; none if they are packed. For who changes them the
    /// window must be writable.
    pub(super) fn elements(&self) -> &[AtomicU64] {
        if self.value_size == PACKED {
            return &[];
        }
        // SAFETY: the mapping is page-aligned, readable, holds `count` values of
        // `stride` words after `skip` bytes, which are whole words as the values
        // are, and lives as long as `self`. A window that is mapped read-only is
        // only loaded from: who writes asks for another.
        unsafe {
            std::slice::from_raw_parts(
                self.base.as_ptr().byte_add(self.skip).cast::<AtomicU64>(),
                self.count * self.stride(),
            )
        }
    }

    /// The words of a value, as [`Self::elements`]; `at` counts from the window's
    /// first.
    pub(super) fn element(&self, at: usize) -> &[AtomicU64] {
        let stride = self.stride();
        &self.elements()[at * stride..(at + 1) * stride]
    }

    /// The values themselves if they are packed, as [`Self::elements`].
    fn packed(&self) -> Option<&[AtomicU32]> {
        // SAFETY: as in `elements`; `skip` is a multiple of 4, as the values' size is,
        // and 4 bytes are always accessed as 4.
        (self.value_size == PACKED).then(|| unsafe {
            std::slice::from_raw_parts(
                self.base.as_ptr().byte_add(self.skip).cast::<AtomicU32>(),
                self.count,
            )
        })
    }

    /// Writes consecutive values; `at` counts from the window's first.
    pub(super) fn write(&self, at: usize, values: &[u8]) {
        if let Some(packed) = self.packed() {
            for (value, slot) in values.as_chunks().0.iter().zip(&packed[at..]) {
                slot.store(u32::from_ne_bytes(*value), Ordering::Relaxed);
            }
            fence(Ordering::Release);
            return;
        }
        let stride = self.stride();
        for (value, words) in values
            .chunks_exact(self.value_size)
            .zip(self.elements()[at * stride..].chunks_exact(stride))
        {
            write_element(words, value);
        }
    }

    /// Appends consecutive values to `out`.
    pub(super) fn read(&self, at: usize, count: usize, out: &mut Vec<u8>) {
        if let Some(packed) = self.packed() {
            for slot in &packed[at..at + count] {
                out.extend_from_slice(&slot.load(Ordering::Acquire).to_ne_bytes());
            }
            return;
        }
        let stride = self.stride();
        for word in &self.elements()[at * stride..(at + count) * stride] {
            out.extend_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr(), self.bytes) };
    }
}

/// Arrays up to this size are mapped whole. The kernel maps every page of a
/// window at once, and all of them count as the agent's resident memory.
const WHOLE: usize = 8 << 20;
/// Larger ones are mapped in pieces of this size, one at a time.
const PIECE: usize = 2 << 20;

/// An array of any size as memory, of which a piece is mapped at a time.
#[derive(Debug)]
pub(super) struct Mapped {
    value_size: usize,
    values: u32,
    writable: bool,
    piece: Option<(u32, Window)>,
}

impl Mapped {
    /// A map's array, whose layout is the schema's; nothing is mapped yet.
    pub(super) fn of(table: Table, map: &BpfMap, writable: bool) -> Self {
        Self {
            value_size: table.def().value_size as usize,
            values: table.def().values(map.info().max_entries),
            writable,
            piece: None,
        }
    }

    /// How many values the array has.
    pub(super) fn values(&self) -> u32 {
        self.values
    }

    /// The window that holds value `index`, the value's place in it, and how many
    /// follow there, itself included.
    pub(super) fn at(
        &mut self,
        map: BorrowedFd<'_>,
        index: u32,
    ) -> io::Result<(&Window, usize, usize)> {
        let holds = |(first, window): &(u32, Window)| {
            index >= *first && ((index - first) as usize) < window.count
        };
        if index >= self.values {
            return Err(out_of_range());
        }
        if !self.piece.as_ref().is_some_and(holds) {
            let whole = self.value_size * self.values as usize <= WHOLE;
            let len = if whole {
                self.values
            } else {
                (PIECE / self.value_size) as u32
            };
            let first = index / len * len;
            let count = len.min(self.values - first);
            // The old piece goes first: two at once would double the memory.
            self.piece = None;
            let window = Window::new(map, self.value_size, first, count, self.writable)?;
            self.piece = Some((first, window));
        }
        let (first, window) = self.piece.as_ref().ok_or_else(out_of_range)?;
        let at = (index - first) as usize;
        Ok((window, at, window.count - at))
    }

    /// Appends consecutive values to `out`. The caller has checked that the array
    /// has them.
    pub(super) fn read(
        &mut self,
        map: BorrowedFd<'_>,
        (first, count): (u32, u32),
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < count {
            let (window, at, left) = self.at(map, first + done)?;
            let here = left.min((count - done) as usize);
            window.read(at, here, out);
            done += here as u32;
        }
        Ok(())
    }
}

/// Writes one element so that no reader meets a mixture of two: see the module.
fn write_element(words: &[AtomicU64], value: &[u8]) {
    let Some((last, body)) = words.split_last() else {
        return;
    };
    let new = |index: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&value[index * 8..index * 8 + 8]);
        u64::from_ne_bytes(word)
    };
    let changed = body
        .iter()
        .enumerate()
        .any(|(i, w)| w.load(Ordering::Relaxed) != new(i));
    if changed {
        if last.load(Ordering::Relaxed) != 0 {
            last.store(0, Ordering::Relaxed);
            // Readers must not see the new body with the old last word.
            fence(Ordering::Release);
        }
        for (index, word) in body.iter().enumerate() {
            word.store(new(index), Ordering::Relaxed);
        }
    }
    last.store(new(body.len()), Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_takes_whole_words_in_their_order() {
        let words: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
        let value: Vec<u8> = (1..=24).collect();
        write_element(&words, &value);
        let bytes: Vec<u8> = words
            .iter()
            .flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        assert_eq!(bytes, value);
    }
}
