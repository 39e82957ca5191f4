//! The programs of the object, loaded.

use std::{
    collections::HashMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    panic::resume_unwind,
    sync::OnceLock,
    thread,
};

use aya::{
    Ebpf,
    programs::{Program, ProgramError, SchedClassifier},
};

use super::{
    error::{Error, chain},
    kept::Kept,
    recipe::Recipe,
};

/// XDP on uplinks.
const XDP: &str = "lb_xdp";

/// TC egress of all devices.
const EGRESS: &str = "lb_egress";

/// The hooks of a device's two directions: packets that come from the pod or
/// the network, and packets that go there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DeviceHooks {
    /// Program of TC ingress.
    pub(super) ingress: &'static str,
    /// Program of TC egress.
    pub(super) egress: &'static str,
}

/// Hooks of a pod's device.
pub(super) const POD: DeviceHooks = DeviceHooks {
    ingress: "lb_pod_ingress",
    egress: EGRESS,
};
/// Hooks of an uplink.
pub(super) const UPLINK: DeviceHooks = DeviceHooks {
    ingress: "lb_up_ingress",
    egress: EGRESS,
};

/// Every program of TC.
const TC: [&str; 3] = [POD.ingress, UPLINK.ingress, EGRESS];

/// What every node needs.
fn always() -> impl Iterator<Item = &'static str> {
    TC.into_iter().chain(SOCKET.map(|(name, _)| name))
}

/// The socket hooks, with their `enum bpf_attach_type`
/// (include/uapi/linux/bpf.h).
pub(super) const SOCKET: [(&str, u32); 8] = [
    ("lb_connect4", 10),
    ("lb_connect6", 11),
    ("lb_sendmsg4", 14),
    ("lb_sendmsg6", 15),
    ("lb_recvmsg4", 19),
    ("lb_recvmsg6", 20),
    ("lb_getpeer4", 29),
    ("lb_getpeer6", 30),
];

/// The loaded programs, each pinned.
#[derive(Debug)]
pub(super) struct Programs {
    kept: Kept,
    recipe: Recipe,
    fds: HashMap<&'static str, OwnedFd>,
    /// XDP's descriptor, or why it is not to be had; empty until a device wants it.
    xdp: OnceLock<Result<OwnedFd, String>>,
}

impl Programs {
    /// Takes over those that are pinned; `None` if any is missing that every node needs.
    pub(super) fn take_over(kept: &Kept, recipe: &Recipe) -> Option<Self> {
        let mut fds = HashMap::new();
        for name in always() {
            fds.insert(name, kept.open(name)?);
        }
        let xdp = kept.open(XDP).map(|fd| OnceLock::from(Ok(fd)));
        Some(Self {
            kept: kept.clone(),
            recipe: recipe.clone(),
            fds,
            xdp: xdp.unwrap_or_default(),
        })
    }

    /// Loads what every node needs, and XDP too if it `has_xdp` already: where no
    /// device can run it, it would be a quarter of the verifier's work for nothing.
    pub(super) fn load(
        mut ebpf: Ebpf,
        has_xdp: bool,
        (kept, recipe): (Kept, Recipe),
    ) -> Result<Self, Error> {
        let names: Vec<_> = always().chain(has_xdp.then_some(XDP)).collect();
        let mut loaded = load_all(&mut ebpf, &names);
        let mut pinned = |name| {
            let program = loaded.remove(name).unwrap_or_else(|| Err(absent(name)))?;
            kept.keep(name, program.as_fd())?;
            Ok(program)
        };
        let mut fds = HashMap::new();
        for name in always() {
            fds.insert(name, pinned(name)?);
        }
        let xdp = has_xdp.then(|| OnceLock::from(or_without(pinned(XDP))));
        kept.remove_others()?;
        Ok(Self {
            kept,
            recipe,
            fds,
            xdp: xdp.unwrap_or_default(),
        })
    }

    /// The descriptor of [`XDP`], which is loaded when it is first asked for.
    ///
    /// # Errors
    /// Why it is not to be had.
    pub(super) fn xdp(&self) -> Result<BorrowedFd<'_>, String> {
        let load = || {
            let mut ebpf = self.recipe.load(true)?;
            let program = ebpf.program_mut(XDP).ok_or_else(|| absent(XDP))?;
            let fd = load_one(XDP, program)?;
            self.kept.keep(XDP, fd.as_fd())?;
            Ok(fd)
        };
        let loaded = self.xdp.get_or_init(|| or_without(load())).as_ref();
        loaded.map(OwnedFd::as_fd).map_err(Clone::clone)
    }

    /// A program's descriptor.
    pub(super) fn fd(&self, name: &'static str) -> Result<BorrowedFd<'_>, Error> {
        let fd = self.fds.get(name).ok_or_else(|| absent(name))?;
        Ok(fd.as_fd())
    }

    /// A program of TC as aya's, which attaches by netlink.
    ///
    /// # Errors
    /// Its pin cannot be opened.
    pub(super) fn classifier(&self, name: &'static str) -> Result<SchedClassifier, ProgramError> {
        SchedClassifier::from_pin(self.kept.path(name))
    }

    /// What they are loaded from.
    pub(super) fn recipe(&self) -> &Recipe {
        &self.recipe
    }
}

pub(super) fn absent(program: &'static str) -> Error {
    Error::Program {
        program,
        problem: "the eBPF object does not have it; build it with: cargo xtask build".to_owned(),
    }
}

/// XDP is an accelerator: without it the TC hooks do all the work, so its failure is
/// kept as a reason.
fn or_without(xdp: Result<OwnedFd, Error>) -> Result<OwnedFd, String> {
    xdp.map_err(|error| {
        tracing::warn!("{error}; the TC hooks serve the uplinks alone");
        error.to_string()
    })
}

/// Loads programs, each on a thread of its own: nearly all of the time of a start is
/// the kernel's verifier, which walks as many programs at a time as there are CPUs.
fn load_all(
    ebpf: &mut Ebpf,
    names: &[&'static str],
) -> HashMap<&'static str, Result<OwnedFd, Error>> {
    thread::scope(|scope| {
        let found = ebpf.programs_mut().filter_map(|(name, program)| {
            Some((*names.iter().find(|wanted| **wanted == name)?, program))
        });
        let threads: Vec<_> = found
            .map(|(name, program)| (name, scope.spawn(move || load_one(name, program))))
            .collect();
        let join = |(name, thread): (_, thread::ScopedJoinHandle<'_, _>)| {
            let loaded = thread.join();
            (name, loaded.unwrap_or_else(|panic| resume_unwind(panic)))
        };
        threads.into_iter().map(join).collect()
    })
}

pub(super) fn load_one(name: &'static str, program: &mut Program) -> Result<OwnedFd, Error> {
    let refused = |error: ProgramError| Error::Program {
        program: name,
        problem: explain(&error),
    };
    match program {
        Program::Xdp(p) => p.load(),
        Program::SchedClassifier(p) => p.load(),
        Program::CgroupSockAddr(p) => p.load(),
        other => {
            let kind = other.prog_type();
            let problem = format!("the object has it as {kind:?}, which the agent cannot attach");
            return Err(Error::Program {
                program: name,
                problem,
            });
        }
    }
    .map_err(refused)?;
    let fd = program.fd().map_err(refused)?;
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|error| Error::Program {
            program: name,
            problem: error.to_string(),
        })
}

/// A loading error in one line: the verifier's log can have thousands, and its
/// last ones say what it objects to.
fn explain(error: &ProgramError) -> String {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return chain(error);
    };
    let log = verifier_log.to_string();
    let tail: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let tail = &tail[tail.len().saturating_sub(6)..];
    tracing::debug!("verifier: {log}");
    format!("the kernel refused it ({io_error}): {}", tail.join(" | "))
}
