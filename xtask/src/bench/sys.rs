//! The calls of `bpf(2)` that aya has no function for. The attributes are
//! prefixes of the kernel's `union bpf_attr` (`include/uapi/linux/bpf.h`).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;
/// Elements that one call takes out of a map.
const BATCH: usize = 16_384;

#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Calls `bpf(2)`.
///
/// # Safety
/// The attribute is the command's, and its pointers lead to memory that is as
/// large as the command makes it.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<()> {
    // SAFETY: the caller's.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Writes one element of a map with keys and values of these sizes.
///
/// # Errors
/// The kernel's.
pub(super) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    // The kernel rounds values up to 8 bytes; it copies the value's own size only.
    let mut attr = ElemAttr {
        map_fd: map.as_raw_fd() as u32,
        pad: 0,
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: both slices outlive the call; the caller gives the map's own sizes.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }
}

/// Empties a hash; returns how many elements it had.
///
/// # Errors
/// The kernel's.
pub(super) fn clear(map: BorrowedFd<'_>, key_size: usize, value_size: usize) -> io::Result<usize> {
    let mut keys = vec![0u8; BATCH * key_size];
    let mut values = vec![0u8; BATCH * value_size.next_multiple_of(8)];
    let mut cursor = [0u64; 8];
    let mut started = false;
    let mut total = 0;
    loop {
        let mut next = [0u64; 8];
        let mut attr = BatchAttr {
            in_batch: if started { cursor.as_ptr() as u64 } else { 0 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the buffers hold a batch of the map's keys and values, and the
        // cursors more than any key of ours.
        match unsafe { bpf(MAP_LOOKUP_AND_DELETE_BATCH, &mut attr) } {
            Ok(()) => total += attr.count as usize,
            // This is how the kernel says that this was the last batch.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                return Ok(total + attr.count as usize);
            }
            Err(e) => return Err(e),
        }
        cursor = next;
        started = true;
    }
}
