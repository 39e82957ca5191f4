//! Features of the kernel that nothing can take the place of: asked for before
//! anything is made, so that a node which cannot be served is told why in one
//! sentence.

use std::io;

use aya::{
    programs::{ProgramError, ProgramType},
    sys::is_program_supported,
};
use aya_obj::generated::bpf_cmd;

use super::{error::Error, sys};

/// A feature without a fallback.
struct Required {
    name: &'static str,
    /// The first kernel that has it.
    since: &'static str,
    /// The option with which that kernel must have been built.
    config: &'static str,
    ask: fn() -> io::Result<()>,
}

const REQUIRED: [Required; 4] = [
    Required {
        name: "programs of TC",
        since: "4.1",
        config: "CONFIG_NET_CLS_ACT",
        ask: || supported(ProgramType::SchedClassifier),
    },
    Required {
        name: "socket hooks of cgroups",
        since: "4.17",
        config: "CONFIG_CGROUP_BPF",
        ask: || supported(ProgramType::CgroupSockAddr),
    },
    Required {
        name: "map operations in batches",
        since: "5.6",
        config: "CONFIG_BPF_SYSCALL",
        ask: || knows(bpf_cmd::BPF_MAP_LOOKUP_BATCH),
    },
    Required {
        name: "links that can be detached",
        since: "5.9",
        config: "CONFIG_BPF_SYSCALL",
        ask: || knows(bpf_cmd::BPF_LINK_DETACH),
    },
];

/// Refuses to go on without a required feature.
pub(super) fn check() -> Result<(), Error> {
    REQUIRED
        .iter()
        .try_for_each(|required| (required.ask)().map_err(|source| refusal(required, &source)))
}

fn refusal(required: &Required, source: &io::Error) -> Error {
    match source.raw_os_error() {
        // The capabilities are there: that was checked before.
        Some(libc::EPERM | libc::EACCES) => Error::Forbidden {
            call: "bpf(2)",
            problem: source.to_string(),
        },
        _ => Error::Feature {
            feature: required.name,
            needed: required.since,
            config: required.config,
            problem: source.to_string(),
        },
    }
}

fn supported(kind: ProgramType) -> io::Result<()> {
    match is_program_supported(kind) {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        Err(ProgramError::SyscallError(error)) => Err(error.io_error),
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

/// Asks for a command with a descriptor that cannot be: a kernel that knows the
/// command looks for the descriptor (EBADF), another one refuses the command.
fn knows(cmd: bpf_cmd) -> io::Result<()> {
    /// A `union bpf_attr` for both commands: the descriptor of a link is the first
    /// word, that of a batch's map the tenth.
    #[repr(C)]
    struct Attr([u32; 14]);
    let mut attr = Attr([0; 14]);
    match cmd {
        bpf_cmd::BPF_MAP_LOOKUP_BATCH => attr.0[9] = u32::MAX,
        _ => attr.0[0] = u32::MAX,
    }
    // SAFETY: the attribute is as long as both commands want it, and has no pointers.
    match unsafe { sys::bpf(cmd, &mut attr) } {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("it was granted without a descriptor")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(errno: i32) -> String {
        refusal(&REQUIRED[2], &io::Error::from_raw_os_error(errno)).to_string()
    }

    #[test]
    fn a_refusal_names_the_feature_the_kernel_and_the_remedy() {
        let old = told(libc::EINVAL);
        for part in [
            "map operations in batches",
            "5.6",
            "CONFIG_BPF_SYSCALL",
            "kernel",
        ] {
            assert!(old.contains(part), "{part} in {old}");
        }
        let forbidden = told(libc::EPERM);
        for part in ["bpf(2)", "seccomp", "lockdown"] {
            assert!(forbidden.contains(part), "{part} in {forbidden}");
        }
    }
}
