//! The one door to `bpf(2)` for what aya has no call for: batches, elements of
//! maps that are known by their layout only, links of every kind by one call,
//! and their atomic replacement.
//!
//! The attributes are the prefixes of the kernel's `union bpf_attr`
//! (`include/uapi/linux/bpf.h`): the kernel takes a shorter attribute as one
//! that ends in zeros, so fields that came later need no mention here.

use std::{
    ffi::CString,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::bpf_cmd;

/// `BPF_F_RDONLY`: an object opened to be read only.
pub(super) const F_RDONLY: u32 = 1 << 3;
/// `BPF_NOEXIST`: create an element, never overwrite one.
pub(super) const NOEXIST: u64 = 1;

/// Executes one command of `bpf(2)`.
///
/// # Safety
/// `attr` is the attribute of `cmd`, and every pointer in it leads to memory
/// that is as large as the command makes it and lives until the call returns.
pub(super) unsafe fn bpf<T>(cmd: bpf_cmd, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller vouches for the attribute; its size is its type's.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, cmd as u32, attr as *mut T, size_of::<T>()) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ret as i32)
}

pub(super) fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor to us alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path contains a NUL byte"))
}

#[repr(C)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens a pinned map, program or link. `flags` is 0 or [`F_RDONLY`] (maps only).
pub(super) fn obj_get(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: flags,
    };
    // SAFETY: `pathname` is a C string that lives until the end of this function.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr) }.map(owned)
}

/// Pins a map, program or link at a path of a bpffs.
pub(super) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: fd.as_raw_fd() as u32,
        file_flags: 0,
    };
    // SAFETY: `pathname` is a C string that lives until the end of this function.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr) }.map(|_| ())
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// What the kernel knows of a map: the start of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapInfo {
    /// `enum bpf_map_type`.
    pub(super) kind: u32,
    /// The kernel's id of the map.
    pub(super) id: u32,
    /// Bytes of a key.
    pub(super) key_size: u32,
    /// Bytes of a value (of one CPU, in a per-CPU map).
    pub(super) value_size: u32,
    /// Most entries.
    pub(super) max_entries: u32,
    /// Flags of its creation.
    pub(super) flags: u32,
}

/// Asks the kernel for a map's layout.
pub(super) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MaybeUninit::<MapInfo>::zeroed();
    let mut attr = InfoAttr {
        bpf_fd: fd.as_raw_fd() as u32,
        info_len: size_of::<MapInfo>() as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: `info` has `info_len` bytes and outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    // SAFETY: all fields are integers, and the memory was zeroed before the call.
    Ok(unsafe { info.assume_init() })
}

/// What the kernel knows of a link: the start of `struct bpf_link_info`, whose
/// union holds (u32 ifindex, u32 attach type) for TCX, a u32 ifindex for XDP and
/// (u64 cgroup id, u32 attach type) for cgroups.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    _pad: u32,
    words: [u32; 4],
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkTarget {
    /// A device, by its index; 0 when the device is gone.
    Device(u32),
    /// A cgroup, by its id; 0 when the cgroup is gone.
    Cgroup(u64),
    /// Something this program never makes.
    Other,
}

/// What the kernel knows of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The kernel's id of the attached program.
    pub(super) prog_id: u32,
    /// Where it is attached.
    pub(super) target: LinkTarget,
}

// `enum bpf_link_type`.
const LINK_CGROUP: u32 = 3;
const LINK_XDP: u32 = 6;
const LINK_TCX: u32 = 11;

/// Asks the kernel for a link's target and program.
pub(super) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = MaybeUninit::<RawLinkInfo>::zeroed();
    let mut attr = InfoAttr {
        bpf_fd: fd.as_raw_fd() as u32,
        info_len: size_of::<RawLinkInfo>() as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: `info` has `info_len` bytes and outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    // SAFETY: all fields are integers, and the memory was zeroed before the call.
    let raw = unsafe { info.assume_init() };
    let target = match raw.kind {
        LINK_XDP | LINK_TCX => LinkTarget::Device(raw.words[0]),
        LINK_CGROUP => LinkTarget::Cgroup(bytemuck::cast([raw.words[0], raw.words[1]])),
        _ => LinkTarget::Other,
    };
    Ok(LinkInfo {
        prog_id: raw.prog_id,
        target,
    })
}

#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program: `target` is a cgroup's descriptor, or a device's index
/// for XDP and TCX. A TCX program is appended to those that are there.
pub(super) fn link_create(
    prog: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: prog.as_raw_fd() as u32,
        target,
        attach_type,
        flags,
    };
    // SAFETY: the attribute holds no pointers.
    unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr) }.map(owned)
}

#[repr(C)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Puts another program behind a link, atomically: every packet or call meets
/// the old one or the new one. Linux 5.7, commit f9d041271cf4.
pub(super) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: prog.as_raw_fd() as u32,
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the attribute holds no pointers.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }.map(|_| ())
}

/// Takes a link off what it is attached to, at once. Linux 5.9, commit
/// 73b11c2ab072.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = link.as_raw_fd() as u32;
    // SAFETY: the attribute is the link's descriptor alone.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) }.map(|_| ())
}

#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// What is done with one element.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ElemOp {
    /// Copy the value out.
    Lookup,
    /// Write the value.
    Update,
    /// Remove the element; the value is not touched.
    Delete,
}

/// One operation on one element.
///
/// # Safety
/// `key` has the map's key size; `value` has the size that the kernel copies for
/// this map, or is empty for [`ElemOp::Delete`].
pub(super) unsafe fn elem(
    map: BorrowedFd<'_>,
    op: ElemOp,
    key: &[u8],
    value: *mut u8,
    flags: u64,
) -> io::Result<()> {
    let cmd = match op {
        ElemOp::Lookup => bpf_cmd::BPF_MAP_LOOKUP_ELEM,
        ElemOp::Update => bpf_cmd::BPF_MAP_UPDATE_ELEM,
        ElemOp::Delete => bpf_cmd::BPF_MAP_DELETE_ELEM,
    };
    let mut attr = ElemAttr {
        map_fd: map.as_raw_fd() as u32,
        _pad: 0,
        key: key.as_ptr() as u64,
        value: value as u64,
        flags,
    };
    // SAFETY: the caller vouches for the sizes; both buffers outlive the call.
    unsafe { bpf(cmd, &mut attr) }.map(|_| ())
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

/// The buffers of a batch: as many keys and values as `count` says.
pub(super) struct BatchBuffers {
    /// First key.
    pub(super) keys: *mut u8,
    /// First value; null for a deletion.
    pub(super) values: *mut u8,
    /// Elements; on return those that were done.
    pub(super) count: u32,
}

/// A writing batch. Linux 5.6, commit aa2e93b8e58e. On an error
/// `buffers.count` elements were done and the next one failed.
///
/// # Safety
/// The buffers hold `count` keys and values of the map's own sizes.
pub(super) unsafe fn write_batch(
    map: BorrowedFd<'_>,
    op: ElemOp,
    buffers: &mut BatchBuffers,
) -> io::Result<()> {
    let cmd = match op {
        ElemOp::Delete => bpf_cmd::BPF_MAP_DELETE_BATCH,
        _ => bpf_cmd::BPF_MAP_UPDATE_BATCH,
    };
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: buffers.keys as u64,
        values: buffers.values as u64,
        count: buffers.count,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the caller vouches for the buffers.
    let result = unsafe { bpf(cmd, &mut attr) };
    // The kernel writes the number of elements done also when it fails; a call
    // that it refuses as a whole leaves the number as it was.
    let refused = result.is_err() && attr.count == buffers.count;
    buffers.count = if refused { 0 } else { attr.count };
    result.map(|_| ())
}

/// Room for a batch's position: a bucket's number, or a key of ours at most
/// ([`lb_common::CtKey6`] has 40 bytes).
pub(super) type Cursor = [u8; 64];

/// Reads the next elements of a map, from `cursor`, which is updated; `None`
/// starts. Returns whether this was the end.
///
/// # Safety
/// The buffers have room for `count` keys and values of the map's own sizes.
pub(super) unsafe fn read_batch(
    map: BorrowedFd<'_>,
    cursor: &mut Option<Cursor>,
    buffers: &mut BatchBuffers,
) -> io::Result<bool> {
    let mut next: Cursor = [0; 64];
    let mut attr = BatchAttr {
        in_batch: cursor.as_ref().map_or(0, |c| c.as_ptr() as u64),
        out_batch: next.as_mut_ptr() as u64,
        keys: buffers.keys as u64,
        values: buffers.values as u64,
        count: buffers.count,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the caller vouches for keys and values; both cursors are larger
    // than any key of ours and outlive the call.
    let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
    let end = match result {
        Ok(_) => false,
        // ENOENT is how the kernel says that this was the last batch.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    buffers.count = attr.count;
    *cursor = Some(next);
    Ok(end)
}
