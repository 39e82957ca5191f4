//! Features of bpf(2), tried out with programs of two instructions that are never attached.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use super::kernel::{Feature, State};

// Numbers of include/uapi/linux/bpf.h.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_FUNC_SET_RETVAL: i32 = 187;
/// `lo` has it in every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// All that bpf(2) can tell.
pub(super) fn features() -> Vec<Feature> {
    let load = |name, kind, attach| required(name, load_program(kind, attach, &RETURN_ONE));
    vec![
        required("bpf(2)", create_array()),
        load("XDP", BPF_PROG_TYPE_XDP, 0),
        load("TC programs", BPF_PROG_TYPE_SCHED_CLS, 0),
        load(
            "socket hooks",
            BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            BPF_CGROUP_INET4_CONNECT,
        ),
        newer(
            "TCX (6.6)",
            query_tcx(),
            "TC programs attach through clsact",
        ),
        newer(
            "set_retval (5.18)",
            load_program(
                BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
                BPF_CGROUP_INET4_CONNECT,
                &SET_RETVAL,
            ),
            "socket hooks refuse with EPERM in place of ECONNREFUSED",
        ),
    ]
}

fn required(name: &'static str, result: io::Result<()>) -> Feature {
    match result {
        Ok(()) => Feature::new(name, State::Present, "works"),
        Err(e) => Feature::new(name, State::Missing, format!("refused: {e}")),
    }
}

fn newer(name: &'static str, result: io::Result<()>, instead: &str) -> Feature {
    match result {
        Ok(()) => Feature::new(name, State::Present, "works"),
        Err(e) => Feature::new(
            name,
            State::Fallback,
            format!("not in this kernel ({e}): {instead}"),
        ),
    }
}

/// One instruction (struct bpf_insn): opcode, registers, offset, immediate.
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    regs: u8,
    off: i16,
    imm: i32,
}

const fn insn(code: u8, regs: u8, imm: i32) -> Insn {
    Insn {
        code,
        regs,
        off: 0,
        imm,
    }
}

const MOV64_IMM: u8 = 0xb7;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// `return 1`: allow for a socket hook, XDP_DROP for XDP (it is never attached).
const RETURN_ONE: [Insn; 2] = [insn(MOV64_IMM, 0, 1), insn(EXIT, 0, 0)];
/// `bpf_set_retval(-ECONNREFUSED); return 0`.
const SET_RETVAL: [Insn; 4] = [
    insn(MOV64_IMM, 1, -libc::ECONNREFUSED),
    insn(CALL, 0, BPF_FUNC_SET_RETVAL),
    insn(MOV64_IMM, 0, 0),
    insn(EXIT, 0, 0),
];

/// The head of `union bpf_attr` for BPF_MAP_CREATE.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD, up to `expected_attach_type`.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The head of `union bpf_attr` for BPF_PROG_QUERY, up to `revision`.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

fn create_array() -> io::Result<()> {
    let mut attr = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
    };
    // SAFETY: the attributes of BPF_MAP_CREATE hold no pointers.
    let fd = unsafe { bpf(BPF_MAP_CREATE, &mut attr) }?;
    close(fd);
    Ok(())
}

fn load_program(prog_type: u32, expected_attach_type: u32, insns: &[Insn]) -> io::Result<()> {
    let mut attr = ProgLoad {
        prog_type,
        insn_cnt: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"bascule_probe\0\0\0",
        prog_ifindex: 0,
        expected_attach_type,
    };
    // SAFETY: `insns` has `insn_cnt` instructions and `license` ends in NUL; both outlive the call.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attr) }?;
    close(fd);
    Ok(())
}

/// Kernels before 6.6 do not know this attach type for a query.
fn query_tcx() -> io::Result<()> {
    let mut attr = ProgQuery {
        target: LOOPBACK_INDEX,
        attach_type: BPF_TCX_INGRESS,
        ..ProgQuery::default()
    };
    // SAFETY: the pointers are null, which asks for the count only.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }.map(drop)
}

/// # Safety
/// Pointers within `attr` must be valid for what `command` does with them.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_int> {
    let attr: *mut T = attr;
    // SAFETY: `attr` is valid for its size; the kernel takes what follows as zero. The caller
    // answers for the pointers in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as libc::c_int)
    }
}

fn close(fd: libc::c_int) {
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}
