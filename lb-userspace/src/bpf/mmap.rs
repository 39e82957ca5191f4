//! Arrays of the kernel as memory (`BPF_F_MMAPABLE`, Linux 5.5, commit
//! fc9702273e2e): a write is a store, not a call.
//!
//! # Order
//! The programs read these arrays without locks, on other CPUs. Two rules make
//! that sound:
//! - Within an element the last 8-byte word is the one that makes it valid (a
//!   backend's flags lie in it; a slot and a word of the filter are one word).
//!   It is written last, with release order, and taken back first.
//! - An element is written before what leads to it: backends before slots,
//!   slots before the frontend. The frontend is written by `bpf(2)`, which
//!   publishes it in its hash bucket with release order, so a program that finds
//!   the frontend (and follows it by dependent loads) sees everything behind it.
//!
//! The kernel rounds an element up to 8 bytes (`array_map_alloc`), so an element
//! is a whole number of aligned words, and no word is ever torn.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

/// A range of elements of an array, mapped for as long as this lives.
#[derive(Debug)]
pub(super) struct Window {
    base: NonNull<libc::c_void>,
    bytes: usize,
    // Where the first element lies, in words from `base`.
    skip: usize,
    // Words of an element.
    stride: usize,
    value_size: usize,
    count: usize,
}

// SAFETY: the window owns its mapping, and every access to it is atomic.
unsafe impl Send for Window {}

impl Window {
    /// Maps `count` elements from `first` on. The caller has checked that the
    /// array has them and that its values have `value_size` bytes.
    pub(super) fn new(
        map: BorrowedFd<'_>,
        value_size: usize,
        first: u32,
        count: u32,
        writable: bool,
    ) -> io::Result<Self> {
        let stride = value_size.div_ceil(8);
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let start = first as usize * stride * 8;
        let offset = start / page * page;
        let bytes = start - offset + count as usize * stride * 8;
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
            skip: (start - offset) / 8,
            stride,
            value_size,
            count: count as usize,
        })
    }

    /// The words of the window.
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, readable, holds `skip + count *
        // stride` words, and lives as long as `self`. A window that is mapped
        // read-only is only loaded from: who writes asks for another.
        unsafe {
            std::slice::from_raw_parts(
                self.base.as_ptr().cast::<AtomicU64>().add(self.skip),
                self.count * self.stride,
            )
        }
    }

    /// The words of an element; `at` counts from the window's first. For who changes
    /// them the window must be writable.
    pub(super) fn element(&self, at: usize) -> &[AtomicU64] {
        &self.words()[at * self.stride..(at + 1) * self.stride]
    }

    /// The words of all elements, as [`Self::element`].
    pub(super) fn elements(&self) -> &[AtomicU64] {
        self.words()
    }

    /// Writes consecutive elements; `at` counts from the window's first.
    pub(super) fn write(&self, at: usize, values: &[u8]) {
        if self.value_size == 4 {
            // Slots: millions of them, each one word, half of it padding.
            let words = &self.words()[at..];
            for (value, word) in values.chunks_exact(4).zip(words) {
                let padded = [value[0], value[1], value[2], value[3], 0, 0, 0, 0];
                word.store(u64::from_ne_bytes(padded), Ordering::Relaxed);
            }
            std::sync::atomic::fence(Ordering::Release);
            return;
        }
        for (value, words) in values
            .chunks_exact(self.value_size)
            .zip(self.words()[at * self.stride..].chunks(self.stride))
        {
            write_element(words, value);
        }
    }

    /// Appends the values of consecutive elements to `out`.
    pub(super) fn read(&self, at: usize, count: usize, out: &mut Vec<u8>) {
        for words in self.words()[at * self.stride..]
            .chunks(self.stride)
            .take(count)
        {
            let end = out.len() + self.value_size;
            for word in words {
                out.extend_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
            }
            out.truncate(end);
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
    entries: u32,
    writable: bool,
    piece: Option<(u32, Window)>,
}

impl Mapped {
    /// An array with these values and entries; nothing is mapped yet.
    pub(super) fn new(value_size: usize, entries: u32, writable: bool) -> Self {
        Self {
            value_size,
            entries,
            writable,
            piece: None,
        }
    }

    /// The window that holds element `index`, the element's place in it, and how
    /// many elements follow there, itself included.
    pub(super) fn at(
        &mut self,
        map: BorrowedFd<'_>,
        index: u32,
    ) -> io::Result<(&Window, usize, usize)> {
        let holds = |(first, window): &(u32, Window)| {
            index >= *first && ((index - first) as usize) < window.count
        };
        if !self.piece.as_ref().is_some_and(holds) {
            let stride = self.value_size.next_multiple_of(8);
            let whole = stride * self.entries as usize <= WHOLE;
            let len = if whole {
                self.entries
            } else {
                (PIECE / stride) as u32
            };
            let first = index / len * len;
            let count = len.min(self.entries - first);
            // The old piece goes first: two at once would double the memory.
            self.piece = None;
            let window = Window::new(map, self.value_size, first, count, self.writable)?;
            self.piece = Some((first, window));
        }
        let (first, window) = self.piece.as_ref().ok_or_else(super::store::out_of_range)?;
        let at = (index - first) as usize;
        Ok((window, at, window.count - at))
    }

    /// Appends the values of consecutive elements to `out`. The caller has
    /// checked that the array has them.
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
        let bytes = &value[index * 8..value.len().min(index * 8 + 8)];
        word[..bytes.len()].copy_from_slice(bytes);
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
            std::sync::atomic::fence(Ordering::Release);
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
    fn an_element_takes_whole_words_and_pads_with_zeros() {
        let words: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
        let value: Vec<u8> = (1..=20).collect();
        write_element(&words, &value);
        let bytes: Vec<u8> = words
            .iter()
            .flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        assert_eq!(bytes[..20], value);
        assert_eq!(bytes[20..], [0; 4]);
    }
}
