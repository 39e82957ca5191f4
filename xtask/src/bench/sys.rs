//! The calls of `bpf(2)` that aya has no function for. The attributes are
//! prefixes of the kernel's `union bpf_attr` (`include/uapi/linux/bpf.h`).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

const MAP_UPDATE_ELEM: libc::c_long = 2;

#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
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

/// Zeroes an array that can be mapped, of so many bytes.
///
/// # Errors
/// The kernel's.
pub(super) fn zero(map: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice, of which only
    // what the kernel granted is written, and nothing refers to it afterwards.
    unsafe {
        let memory = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            prot,
            libc::MAP_SHARED,
            map.as_raw_fd(),
            0,
        );
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        memory.cast::<u8>().write_bytes(0, bytes);
        libc::munmap(memory, bytes);
    }
    Ok(())
}
