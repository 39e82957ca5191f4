//! What can go wrong between the agent and the kernel. Each message names the
//! object and the remedy.

use std::{io, path::PathBuf};

/// Why the datapath could not be loaded, attached or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A capability is missing.
    #[error(
        "missing privilege: {missing}; run the agent as root, or give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Privilege {
        /// What is missing.
        missing: String,
    },
    /// The bpffs directory cannot be used.
    #[error("{path}: {problem}; mount it with: mount -t bpf bpf {mount}", path = path.display(), mount = mount.display())]
    Bpffs {
        /// The directory that was asked for.
        path: PathBuf,
        /// Where a bpffs would have to be mounted.
        mount: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The cgroup directory cannot be used.
    #[error("{path}: {problem}; name a directory of a cgroup2 mount with --cgroup, or mount one with: mount -t cgroup2 none /sys/fs/cgroup", path = path.display())]
    Cgroup {
        /// The directory that was asked for.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A pin may not be used by this user.
    #[error(
        "{call} {path}: not permitted: run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        path = path.display()
    )]
    Denied {
        /// What was tried.
        call: &'static str,
        /// The pin, or the directory of all.
        path: PathBuf,
    },
    /// A file or a pin could not be read, written, renamed or removed.
    #[error("{call} {path}: {source}", path = path.display())]
    Pin {
        /// What was tried.
        call: &'static str,
        /// The file or pin.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A call on a map failed.
    #[error("map {map}: {call}: {source}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// What was tried.
        call: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A map of the object differs from the schema: agent and programs were not
    /// built from the same sources.
    #[error(
        "map {map} of the programs is {found}, the agent expects {expected}; build both from one source with: cargo xtask build"
    )]
    Schema {
        /// The map's name.
        map: &'static str,
        /// Its layout in the object.
        found: String,
        /// Its layout in the schema.
        expected: String,
    },
    /// A pinned map is not as this build lays it out.
    #[error(
        "the pinned map {map} is of another build ({found}; expected {expected}): look with that agent's own binary, or restart the agent with this one"
    )]
    OtherBuild {
        /// The map's name.
        map: &'static str,
        /// Its layout.
        found: String,
        /// Its layout in the schema.
        expected: String,
    },
    /// Nobody can look at packets.
    #[error("{problem}")]
    Monitor {
        /// Why, and what to do.
        problem: String,
    },
    /// The kernel refused the object as a whole.
    #[error("the eBPF object could not be loaded: {problem}")]
    Object {
        /// The loader's error, with its causes.
        problem: String,
    },
    /// The kernel refused a program.
    #[error("program {program}: {problem}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// The loader's error, with its causes.
        problem: String,
    },
    /// A program could not be attached.
    #[error("program {program} on {target}: {problem}")]
    Attach {
        /// The program's name.
        program: &'static str,
        /// A device or a cgroup.
        target: String,
        /// Why, and what to do.
        problem: String,
    },
    /// The kernel is too old for something that has no fallback.
    #[error(
        "this kernel is {found}; {feature} needs Linux {needed} or newer: update the node's kernel"
    )]
    Kernel {
        /// The running kernel.
        found: String,
        /// What is missing.
        feature: &'static str,
        /// The first kernel that has it.
        needed: &'static str,
    },
    /// The kernel lacks something that has no fallback, whatever its version says.
    #[error(
        "this kernel refuses {feature} ({problem}): they need Linux {needed} or newer, built with {config}: boot a kernel that has them"
    )]
    Feature {
        /// What is missing.
        feature: &'static str,
        /// The first kernel that has it.
        needed: &'static str,
        /// The option of the kernel's build.
        config: &'static str,
        /// How it was refused.
        problem: String,
    },
    /// Something forbids a call to a process that has the capabilities for it.
    #[error(
        "{call} is forbidden ({problem}) although the agent has the capabilities: allow it in the seccomp profile of the agent's container, and lift the kernel's lockdown (/sys/kernel/security/lockdown)"
    )]
    Forbidden {
        /// The call.
        call: &'static str,
        /// How it was refused.
        problem: String,
    },
    /// A netlink socket failed.
    #[error("netlink: {call}: {source}")]
    Netlink {
        /// What was tried.
        call: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// An error with all its causes, in one line: aya's own messages name the call,
/// and only their sources say why it failed.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_bpffs_names_the_command_that_mounts_it() {
        let error = Error::Bpffs {
            path: "/sys/fs/bpf/node1".into(),
            mount: "/sys/fs/bpf".into(),
            problem: "not a bpffs".into(),
        };
        assert_eq!(
            error.to_string(),
            "/sys/fs/bpf/node1: not a bpffs; mount it with: mount -t bpf bpf /sys/fs/bpf"
        );
    }

    #[test]
    fn a_chain_tells_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("`bpf_prog_load` failed")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(
            chain(&error),
            "`bpf_prog_load` failed: Operation not permitted (os error 1)"
        );
    }
}
