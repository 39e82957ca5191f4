//! A kernel that refuses some of `bpf(2)`, as far as a process can tell.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

// include/uapi/linux/bpf_common.h
const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
// Offsets in `struct seccomp_data`: the number of the call, its first argument's lower half on
// a little-endian machine.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

/// Makes `bpf(2)` fail with `errno` in the process that `command` starts: one of its commands
/// (`enum bpf_cmd`), or all of them.
pub fn refuse_bpf(command: &mut Command, bpf_cmd: Option<u32>, errno: i32) {
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let refusal = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    let number = u32::try_from(libc::SYS_bpf).expect("numbers of calls are small");
    let last = match bpf_cmd {
        Some(cmd) => op(JUMP_EQUAL, 0, 1, cmd),
        None => op(JUMP_EQUAL, 0, 0, 0),
    };
    let filter = [
        op(LOAD_WORD, 0, 0, NUMBER),
        op(JUMP_EQUAL, 0, 3, number),
        op(LOAD_WORD, 0, 0, FIRST_ARGUMENT),
        last,
        op(RETURN, 0, 0, refusal),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: the program and its filter outlive the calls.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        done.then_some(()).ok_or_else(std::io::Error::last_os_error)
    };
    // SAFETY: the closure runs between fork and exec and makes only system calls.
    unsafe {
        command.pre_exec(install);
    }
}
