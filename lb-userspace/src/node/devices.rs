//! The devices of this network namespace and their qdiscs, to look at, by rtnetlink: sysfs
//! shows those of the namespace in which it was mounted.

use std::io;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp},
    tc::{TcAttribute, TcMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use serde::Serialize;

use crate::netlink::ask;

/// A device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link address; zeros where it has none.
    #[serde(skip)]
    pub address: [u8; 6],
    /// `veth`, `bridge` and the like; none for hardware.
    pub kind: Option<String>,
    /// Whether it is up.
    pub up: bool,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Index of the bridge or bond that it belongs to.
    pub controller: Option<u32>,
    /// Index of its other end, of a veth.
    pub link: Option<u32>,
    /// Id of the network namespace of its other end, if that is another one.
    pub link_namespace: Option<i32>,
    /// How XDP is attached, and which programs.
    pub xdp: Vec<String>,
    /// Queues to receive.
    pub receive_queues: Option<u32>,
}

/// A qdisc.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Qdisc {
    /// Index of its device.
    pub device: i32,
    /// `clsact`, `fq_codel` and the like.
    pub kind: String,
    /// Its handle.
    pub handle: String,
    /// Its parent.
    pub parent: String,
}

/// The devices.
///
/// # Errors
/// Netlink cannot be used; the same holds for [`qdiscs`].
pub fn devices() -> io::Result<Vec<Device>> {
    let mut found = Vec::new();
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    ask(NETLINK_ROUTE, request, NLM_F_DUMP, |answer| {
        if let RouteNetlinkMessage::NewLink(message) = answer {
            found.push(device(&message));
        }
    })?;
    Ok(found)
}

/// The qdiscs of all devices.
///
/// # Errors
/// As [`devices`].
pub fn qdiscs() -> io::Result<Vec<Qdisc>> {
    let mut found = Vec::new();
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    ask(NETLINK_ROUTE, request, NLM_F_DUMP, |answer| {
        if let RouteNetlinkMessage::NewQueueDiscipline(message) = answer {
            found.push(qdisc(&message));
        }
    })?;
    Ok(found)
}

/// The name of the device with an index.
pub fn name_of(devices: &[Device], index: u32) -> String {
    let found = devices.iter().find(|device| device.index == index);
    found.map_or_else(|| format!("device {index}"), |device| device.name.clone())
}

fn device(message: &LinkMessage) -> Device {
    let mut device = Device {
        index: message.header.index,
        name: String::new(),
        address: [0; 6],
        kind: None,
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: None,
        controller: None,
        link: None,
        link_namespace: None,
        xdp: Vec::new(),
        receive_queues: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                device.address = bytes.as_slice().try_into().unwrap_or_default();
            }
            LinkAttribute::Mtu(mtu) => device.mtu = Some(*mtu),
            LinkAttribute::Controller(index) => device.controller = Some(*index),
            LinkAttribute::Link(index) => device.link = Some(*index),
            LinkAttribute::LinkNetNsId(id) => device.link_namespace = Some(*id),
            LinkAttribute::NumRxQueues(count) => device.receive_queues = Some(*count),
            LinkAttribute::Xdp(all) => {
                let of_note = all.iter().filter(|x| !matches!(x, LinkXdp::Fd(_)));
                device.xdp = of_note.map(|x| format!("{x:?}")).collect();
            }
            LinkAttribute::LinkInfo(all) => {
                device.kind = all.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    device
}

fn qdisc(message: &TcMessage) -> Qdisc {
    let kind = message.attributes.iter().find_map(|a| match a {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    });
    let handle = |h: netlink_packet_route::tc::TcHandle| format!("{:x}:{:x}", h.major, h.minor);
    Qdisc {
        device: message.header.index,
        kind: kind.unwrap_or_default(),
        handle: handle(message.header.handle),
        parent: handle(message.header.parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_found() {
        let devices = devices().unwrap();
        let lo = devices.iter().find(|d| d.name == "lo").unwrap();
        assert_eq!((lo.index, lo.mtu), (1, Some(65_536)));
        assert_eq!(lo.address, [0; 6]);
        assert_eq!(name_of(&devices, 1), "lo");
        assert_eq!(name_of(&devices, u32::MAX), "device 4294967295");
        assert!(qdiscs().unwrap().iter().all(|q| q.device > 0));
    }
}
