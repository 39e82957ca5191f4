//! Programs of a few instructions, and their runs: to ask the kernel what it can
//! do, and to read what only programs can.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_cmd;

use super::sys::{bpf, owned};

#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// Loads a program, given as the eight bytes of each instruction.
pub(super) fn load(prog_type: u32, insns: &[u64]) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        prog_type,
        insn_cnt: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: the instructions and the licence outlive the call.
    unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr) }.map(owned)
}

/// Loads a program of two instructions, `return 0`, to ask what can be done
/// with a program of this type.
pub(super) fn trivial(prog_type: u32) -> io::Result<OwnedFd> {
    // r0 = 0; exit
    load(prog_type, &[0x0000_0000_0000_00b7, 0x0000_0000_0000_0095])
}

/// The part of `union bpf_attr` that is for `BPF_PROG_TEST_RUN`.
#[repr(C)]
struct RunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

/// Runs a program of packets once on an empty frame, and returns what it returns.
pub(super) fn run(prog: BorrowedFd<'_>) -> io::Result<u32> {
    // The least that the kernel takes for a frame: an Ethernet header.
    let (returned, _) = run_on(prog, &[0; 14], &mut [], &mut [])?;
    Ok(returned)
}

/// Runs a program of packets once on a frame, with the words of its context, which are then
/// as it leaves them: what it returns, and how many bytes of `out` the frame takes. Where
/// there is no room for either, it is not asked for.
pub(super) fn run_on(
    prog: BorrowedFd<'_>,
    frame: &[u8],
    out: &mut [u8],
    context: &mut [u32],
) -> io::Result<(u32, usize)> {
    // An address without a size is wrong, or stands for any size (net/bpf/test_run.c).
    let given = |address: u64, size: usize| if size == 0 { 0 } else { address };
    let (frame_size, out_size, size) = (frame.len(), out.len(), size_of_val(context));
    let words = given(context.as_mut_ptr() as u64, size);
    let mut attr = RunAttr {
        prog_fd: prog.as_raw_fd() as u32,
        retval: 0,
        data_size_in: frame_size as u32,
        data_size_out: out_size as u32,
        data_in: given(frame.as_ptr() as u64, frame_size),
        data_out: given(out.as_mut_ptr() as u64, out_size),
        repeat: 1,
        duration: 0,
        ctx_size_in: size as u32,
        ctx_size_out: size as u32,
        // The kernel has read it before it writes it.
        ctx_in: words,
        ctx_out: words,
    };
    // SAFETY: the buffers outlive the call and are as long as they are said to be; what the
    // kernel writes to is borrowed mutably.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr) }?;
    Ok((attr.retval, attr.data_size_out as usize))
}
