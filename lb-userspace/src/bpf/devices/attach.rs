//! Hooks on one device: TCX or clsact for every one, XDP besides on uplinks.

use std::{io, os::fd::BorrowedFd, path::PathBuf, sync::Arc};

use serde::Serialize;

use super::{
    super::{
        error::Error,
        links::{Place, attach, end, pinned},
        pins::Pins,
        programs::{DeviceHooks, POD, Programs, UPLINK},
        settings::XdpMode,
        sys::LinkTarget,
    },
    filters,
    rules::{Device, Role},
};

// `enum bpf_attach_type`, include/uapi/linux/bpf.h.
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
// include/uapi/linux/if_link.h
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

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
    /// Serves a device that nothing serves yet by what takes no time, until it is
    /// its turn to be covered. `None` if covering it takes no time either.
    fn bridge(&mut self, device: &Device, role: Role) -> Result<Option<Hooks>, CoverError>;

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

pub(super) fn index_of(pin: &str) -> Option<u32> {
    pin.strip_prefix("dev_")?.split_once('_')?.0.parse().ok()
}

/// Whether a pin is that of an XDP link.
pub(in super::super) fn is_xdp(pin: &str) -> bool {
    let xdp = [Slot::XdpNative, Slot::XdpGeneric].map(Slot::suffix);
    index_of(pin).is_some() && pin.rsplit('_').next().is_some_and(|s| xdp.contains(&s))
}

pub(super) fn vanished(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::ENODEV | libc::ENXIO))
}

pub(super) fn failed(what: &str, error: &dyn std::fmt::Display) -> CoverError {
    CoverError::Failed(format!("{what}: {error}"))
}

fn hooks_of(role: Role) -> DeviceHooks {
    match role {
        Role::Pod => POD,
        Role::Uplink => UPLINK,
    }
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

    fn cover_xdp(&self, device: &Device) -> (Option<&'static str>, String) {
        let index = device.index;
        if self.xdp == XdpMode::Off {
            self.unlink(index, Slot::XdpNative);
            self.unlink(index, Slot::XdpGeneric);
            return (None, "turned off (--xdp)".to_owned());
        }
        let generic_too = self.xdp == XdpMode::Generic;
        let native = if device.is_pair() {
            Err("veth loses unfinished checksums and TSO to XDP".to_owned())
        } else if generic_too && self.pin(index, Slot::XdpGeneric).exists() {
            // So an earlier agent has found, and the hook must not be empty for
            // as long as it takes to find it again.
            Err(NO_XDP.to_owned())
        } else {
            self.unlink(index, Slot::XdpGeneric);
            self.link_xdp(index, Slot::XdpNative)
        };
        let Err(reason) = native else {
            return (Some("native"), "its driver has it".to_owned());
        };
        self.unlink(index, Slot::XdpNative);
        if !generic_too {
            self.unlink(index, Slot::XdpGeneric);
            return (None, reason);
        }
        match self.link_xdp(index, Slot::XdpGeneric) {
            Ok(()) => (Some("generic"), format!("asked for (--xdp); {reason}")),
            Err(error) => (None, format!("{reason}; generic: {error}")),
        }
    }

    fn link_xdp(&self, index: u32, slot: Slot) -> Result<(), String> {
        let program = self.programs.xdp()?;
        self.link(index, slot, program)
            .map_err(|error| xdp_reason(&error))
    }
}

impl Attach for KernelAttach {
    /// For a new TCX link the kernel waits until no processor runs the list of
    /// programs that it replaces, 5 to 50 ms, and holds back everybody's changes
    /// of devices meanwhile (kernel/bpf/tcx.c, `tcx_entry_sync`). A pod's two
    /// links take twice that, and the twentieth of pods that start together would
    /// wait half a second. A filter of a clsact qdisc is there at once.
    fn bridge(&mut self, device: &Device, role: Role) -> Result<Option<Hooks>, CoverError> {
        // What has a link already gets another program without a wait.
        if !self.tcx || self.pin(device.index, Slot::Ingress).exists() {
            return Ok(None);
        }
        filters::cover(&self.programs, device, hooks_of(role))?;
        Ok(Some(Hooks {
            tc: filters::NAME,
            xdp: None,
            xdp_reason: "TCX and XDP follow".to_owned(),
        }))
    }

    fn cover(&mut self, device: &Device, role: Role) -> Result<Hooks, CoverError> {
        let hooks = hooks_of(role);
        let tc = if self.tcx {
            self.cover_tcx(device, hooks)?;
            // Of the bridge, or of an agent with another setting. A packet that
            // met both hooks has found nothing more to do in the second.
            filters::remove(&device.name);
            "tcx"
        } else {
            filters::cover(&self.programs, device, hooks)?;
            self.unlink(device.index, Slot::Ingress);
            self.unlink(device.index, Slot::Egress);
            filters::NAME
        };
        let (xdp, xdp_reason) = match role {
            Role::Uplink => self.cover_xdp(device),
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
            filters::remove(name);
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

    #[test]
    fn pins_tell_whether_a_device_has_xdp() {
        assert!(is_xdp("dev_12_xdp") && is_xdp("dev_3_xdpgeneric"));
        assert!(!is_xdp("dev_12_ingress") && !is_xdp("lb_xdp"));
    }
}
