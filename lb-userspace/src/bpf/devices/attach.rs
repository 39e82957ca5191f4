//! Hooks on one device: TCX or clsact for every one, XDP besides on uplinks.

use std::{io, os::fd::BorrowedFd, path::PathBuf, sync::Arc};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    links::Link as _,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use serde::Serialize;

use super::{
    super::{
        error::{Error, chain},
        links::{Place, attach, end, pinned},
        pins::Pins,
        programs::{DeviceHooks, POD, Programs, UPLINK, XDP},
        settings::XdpMode,
        sys::LinkTarget,
    },
    rules::{Device, Role},
};

// `enum bpf_attach_type`, include/uapi/linux/bpf.h.
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
// include/uapi/linux/if_link.h
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Where our filters stand in a clsact qdisc: fixed, so that the next agent
/// replaces them in place. The number only has to be one that nobody else uses.
const PRIORITY: u16 = 0xba5c;
const HANDLE: TcHandle = TcHandle::new(0, 0xba5c);

const NO_XDP: &str = "its driver does not have XDP";

/// What serves a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hooks {
    /// `tcx` or `clsact`.
    pub tc: &'static str,
    /// `native` or `generic`, if XDP serves it too.
    pub xdp: Option<&'static str>,
    /// Why XDP does, or does not.
    pub xdp_reason: String,
}

/// Why a device could not be covered.
#[derive(Debug)]
pub(super) enum CoverError {
    /// It vanished meanwhile.
    Gone,
    /// Something that a user ought to know.
    Failed(String),
}

/// Puts hooks on devices. The seam between the watcher and the kernel.
pub(super) trait Attach {
    /// Makes a device served as its role wants it, whatever serves it now.
    fn cover(&mut self, device: &Device, role: Role) -> Result<Hooks, CoverError>;

    /// Ends what serves a device. `name` is its name if it is still there.
    fn uncover(&mut self, index: u32, name: Option<&str>);

    /// Indexes of the devices that an earlier agent has left hooks on.
    fn covered(&mut self) -> Vec<u32>;
}

/// The running kernel.
#[derive(Debug)]
pub(super) struct KernelAttach {
    pub(super) programs: Arc<Programs>,
    pub(super) pins: Pins,
    pub(super) tcx: bool,
    pub(super) xdp: XdpMode,
}

/// Which link of a device.
#[derive(Clone, Copy)]
enum Slot {
    Ingress,
    Egress,
    XdpNative,
    XdpGeneric,
}

impl Slot {
    const ALL: [Self; 4] = [
        Self::Ingress,
        Self::Egress,
        Self::XdpNative,
        Self::XdpGeneric,
    ];

    fn suffix(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::XdpNative => "xdp",
            Self::XdpGeneric => "xdpgeneric",
        }
    }
}

fn index_of(pin: &str) -> Option<u32> {
    pin.strip_prefix("dev_")?.split_once('_')?.0.parse().ok()
}

fn vanished(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::ENODEV | libc::ENXIO))
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> CoverError {
    CoverError::Failed(format!("{what}: {error}"))
}

impl KernelAttach {
    fn pin(&self, index: u32, slot: Slot) -> PathBuf {
        self.pins
            .links()
            .join(format!("dev_{index}_{}", slot.suffix()))
    }

    fn link(&self, index: u32, slot: Slot, program: BorrowedFd<'_>) -> io::Result<()> {
        let (attach_type, flags) = match slot {
            Slot::Ingress => (BPF_TCX_INGRESS, 0),
            Slot::Egress => (BPF_TCX_EGRESS, 0),
            Slot::XdpNative => (BPF_XDP, XDP_FLAGS_DRV_MODE),
            Slot::XdpGeneric => (BPF_XDP, XDP_FLAGS_SKB_MODE),
        };
        let pin = self.pin(index, slot);
        let target = LinkTarget::Device(index);
        let place = Place {
            target,
            handle: index,
            attach_type,
            flags,
            pin: &pin,
        };
        attach(&place, program).map(|_| ())
    }

    fn unlink(&self, index: u32, slot: Slot) {
        if let Err(error) = end(&self.pin(index, slot)) {
            tracing::warn!("{error}");
        }
    }

    fn program(&self, name: &'static str) -> Result<BorrowedFd<'_>, CoverError> {
        self.programs
            .fd(name)
            .map_err(|error| failed("attach", &error))
    }

    fn cover_tcx(&self, device: &Device, hooks: DeviceHooks) -> Result<(), CoverError> {
        let both = [(Slot::Egress, hooks.egress), (Slot::Ingress, hooks.ingress)];
        for (slot, name) in both {
            self.link(device.index, slot, self.program(name)?)
                .map_err(|error| match vanished(error.raw_os_error()) {
                    true => CoverError::Gone,
                    false => failed(name, &error),
                })?;
        }
        Ok(())
    }

    /// Replies first: a flow that is translated on its way in must find its way
    /// back.
    fn cover_clsact(&self, device: &Device, hooks: DeviceHooks) -> Result<(), CoverError> {
        match qdisc_add_clsact(&device.name) {
            Ok(()) => {}
            Err(error) => match netlink_errno(&error) {
                Some(libc::EEXIST) => {}
                errno if vanished(errno) => return Err(CoverError::Gone),
                _ => return Err(failed("clsact", &chain(&error))),
            },
        }
        let both = [
            (TcAttachType::Egress, hooks.egress),
            (TcAttachType::Ingress, hooks.ingress),
        ];
        let mut ebpf = self.programs.aya();
        for (direction, name) in both {
            let program = ebpf
                .program_mut(name)
                .and_then(|p| <&mut SchedClassifier>::try_from(p).ok());
            let program = program.ok_or_else(|| failed(name, &"not loaded"))?;
            filter(program, &device.name, direction).map_err(|error| {
                let errno = program_errno(&error);
                if vanished(errno) {
                    CoverError::Gone
                } else {
                    failed(name, &chain(&error))
                }
            })?;
        }
        Ok(())
    }

    fn cover_xdp(&self, device: &Device) -> Result<(Option<&'static str>, String), CoverError> {
        let index = device.index;
        if self.xdp == XdpMode::Off {
            self.unlink(index, Slot::XdpNative);
            self.unlink(index, Slot::XdpGeneric);
            return Ok((None, "turned off (--xdp)".to_owned()));
        }
        if let Err(reason) = self.programs.xdp_available() {
            return Ok((None, reason));
        }
        let program = self.program(XDP)?;
        let generic_too = self.xdp == XdpMode::Generic;
        let native = if device.is_pair() {
            Err("veth loses unfinished checksums and TSO to XDP".to_owned())
        } else if generic_too && self.pin(index, Slot::XdpGeneric).exists() {
            // So an earlier agent has found, and the hook must not be empty for
            // as long as it takes to find it again.
            Err(NO_XDP.to_owned())
        } else {
            self.unlink(index, Slot::XdpGeneric);
            self.link(index, Slot::XdpNative, program)
                .map_err(|error| xdp_reason(&error))
        };
        let Err(reason) = native else {
            return Ok((Some("native"), "its driver has it".to_owned()));
        };
        self.unlink(index, Slot::XdpNative);
        if !generic_too {
            self.unlink(index, Slot::XdpGeneric);
            return Ok((None, reason));
        }
        match self.link(index, Slot::XdpGeneric, program) {
            Ok(()) => Ok((Some("generic"), format!("asked for (--xdp); {reason}"))),
            Err(error) => Ok((None, format!("{reason}; generic: {}", xdp_reason(&error)))),
        }
    }
}

impl Attach for KernelAttach {
    fn cover(&mut self, device: &Device, role: Role) -> Result<Hooks, CoverError> {
        let hooks = if role == Role::Pod { POD } else { UPLINK };
        let tc = if self.tcx {
            self.cover_tcx(device, hooks)?;
            // An agent on an older kernel, or with another setting, left these.
            remove_filters(&device.name);
            "tcx"
        } else {
            self.cover_clsact(device, hooks)?;
            self.unlink(device.index, Slot::Ingress);
            self.unlink(device.index, Slot::Egress);
            "clsact"
        };
        let (xdp, xdp_reason) = match role {
            Role::Uplink => self.cover_xdp(device)?,
            Role::Pod => {
                self.unlink(device.index, Slot::XdpNative);
                self.unlink(device.index, Slot::XdpGeneric);
                (None, "only uplinks have it".to_owned())
            }
        };
        Ok(Hooks {
            tc,
            xdp,
            xdp_reason,
        })
    }

    fn uncover(&mut self, index: u32, name: Option<&str>) {
        for slot in Slot::ALL {
            self.unlink(index, slot);
        }
        if let Some(name) = name {
            remove_filters(name);
        }
    }

    fn covered(&mut self) -> Vec<u32> {
        let links = pinned(&self.pins.links()).unwrap_or_else(|error: Error| {
            tracing::warn!("{error}");
            Vec::new()
        });
        let mut found: Vec<u32> = links
            .iter()
            .filter_map(|link| index_of(&link.name))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Puts a program into our filter of a direction: in the place of the one that
/// is there, which the kernel does atomically, else into a new one.
fn filter(
    program: &mut SchedClassifier,
    device: &str,
    direction: TcAttachType,
) -> Result<(), ProgramError> {
    let present = SchedClassifierLink::attached(device, direction, PRIORITY, HANDLE, None)?;
    let link = match program.attach_to_link(present) {
        Err(error) if program_errno(&error) == Some(libc::ENOENT) => {
            let options = NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            };
            program.attach_with_options(device, direction, TcAttachOptions::Netlink(options))?
        }
        other => other?,
    };
    // A filter stays when the agent goes; aya's link would take it along.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

/// Removes our filters from a device, if there are any.
pub(super) fn remove_filters(device: &str) {
    for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
        let link = SchedClassifierLink::attached(device, direction, PRIORITY, HANDLE, None);
        if let Ok(link) = link {
            // ENOENT and EINVAL: no such filter, no such qdisc.
            let _none = link.detach();
        }
    }
}

fn netlink_errno(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}

fn program_errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::TcError(error) => netlink_errno(error),
        ProgramError::NetlinkError(error) => error.raw_os_error(),
        ProgramError::IOError(error) => error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn xdp_reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EINVAL) => NO_XDP.to_owned(),
        Some(libc::EBUSY) => "another XDP program is attached to it".to_owned(),
        Some(libc::ERANGE | libc::EMSGSIZE) => "its MTU is too large for XDP".to_owned(),
        _ => format!("XDP could not be attached: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_devices_name_their_index() {
        assert_eq!(index_of("dev_12_ingress"), Some(12));
        assert_eq!(index_of("dev_3_xdpgeneric"), Some(3));
        assert_eq!(index_of("lb_connect4"), None);
        assert_eq!(index_of("dev_x_ingress"), None);
    }
}
