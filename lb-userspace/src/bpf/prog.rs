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
}

/// Runs a program of packets once on an empty frame, and returns what it returns.
pub(super) fn run(prog: BorrowedFd<'_>) -> io::Result<u32> {
    // The least that the kernel takes for a frame: an Ethernet header.
    let frame = [0u8; 14];
    let mut attr = RunAttr {
        prog_fd: prog.as_raw_fd() as u32,
        retval: 0,
        data_size_in: frame.len() as u32,
        data_size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: the frame outlives the call, and nothing is written but `attr`.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr) }?;
    Ok(attr.retval)
}
