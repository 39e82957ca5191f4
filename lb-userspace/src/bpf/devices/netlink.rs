//! Devices, addresses and default routes, by rtnetlink. Only what the rules ask
//! for is parsed: a kernel that says more, or says it differently, does no harm.

use std::{
    io,
    net::IpAddr,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use netlink_packet_core::NlasIterator;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{super::error::Error, rules::Device};
use crate::netlink::DATAGRAM;

// include/uapi/linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const GROUPS: [u32; 5] = [
    1,  // RTNLGRP_LINK
    5,  // RTNLGRP_IPV4_IFADDR
    9,  // RTNLGRP_IPV6_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    11, // RTNLGRP_IPV6_ROUTE
];
const RTN_UNICAST: u8 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTM_F_CLONED: u32 = 0x200;
// include/uapi/linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
// include/uapi/linux/if_link.h
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_NEW_NETNSID: u16 = 45;
// include/uapi/linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const HEADER: usize = 16;

/// Bytes that the kernel may have in store for us before it drops events and
/// says so (ENOBUFS): some thousand of them.
const RECEIVE_BUFFER: libc::c_int = 8 << 20;

/// Something that the rules want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A device is there, or changed.
    Device(Device),
    /// A device is gone, by its index.
    Gone(u32),
    /// A device has moved to another network namespace, by its index.
    Moved(u32),
    /// A device has an address.
    Address(u32, IpAddr),
    /// A default route leads out by a device.
    DefaultRoute(u32),
    /// Events were lost: ask for everything again.
    Lost,
}

/// A socket that is told of changes.
#[derive(Debug)]
pub(super) struct Netlink {
    events: Socket,
}

impl Netlink {
    /// Subscribes. Everything that happens from here on is told.
    pub(super) fn subscribe() -> Result<Self, Error> {
        let events = open()?;
        let fail = |call| move |source| Error::Netlink { call, source };
        for group in GROUPS {
            events.add_membership(group).map_err(fail("subscribe"))?;
        }
        if let Err(error) = events.set_rx_buf_sz(RECEIVE_BUFFER) {
            tracing::debug!("netlink: the receive buffer stays small: {error}");
        }
        Ok(Self { events })
    }

    /// Everything as it is now.
    pub(super) fn dump(&self) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        for (kind, body) in [(RTM_GETLINK, 16), (RTM_GETADDR, 8), (RTM_GETROUTE, 12)] {
            events.extend(dump(kind, body)?);
        }
        Ok(events)
    }

    /// What happened since the last call; waits for something to happen, for the
    /// time to pass, or for `wake` to be readable. Of what the kernel tells only
    /// what the rules ask for is returned: it tells of routes by the thousand.
    pub(super) fn wait(&self, wake: &UnixStream, timeout: Duration) -> Result<Vec<Event>, Error> {
        poll([self.events.as_raw_fd(), wake.as_raw_fd()], timeout)?;
        let mut told = Vec::new();
        let mut buffer = Vec::with_capacity(DATAGRAM);
        loop {
            buffer.clear();
            match self.events.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {
                    parse(&buffer, &mut told);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(told),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    told.push(Event::Lost);
                }
                Err(source) => {
                    return Err(Error::Netlink {
                        call: "receive",
                        source,
                    });
                }
            }
        }
    }
}

fn open() -> Result<Socket, Error> {
    let fail = |call| move |source| Error::Netlink { call, source };
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(fail("socket"))?;
    socket.bind_auto().map_err(fail("bind"))?;
    Ok(socket)
}

/// Waits until one of two descriptors is readable.
fn poll(fds: [RawFd; 2], timeout: Duration) -> Result<(), Error> {
    let mut polled = fds.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // Upwards: a part of a millisecond is no reason to return at once.
    let millis = timeout.as_micros().div_ceil(1000);
    let millis = libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX);
    // SAFETY: the array holds as many pollfds as the call is told.
    if unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, millis) } < 0 {
        let source = io::Error::last_os_error();
        if source.kind() != io::ErrorKind::Interrupted {
            return Err(Error::Netlink {
                call: "poll",
                source,
            });
        }
    }
    Ok(())
}

/// One dump, by a socket of its own: its answers do not mix with events.
fn dump(kind: u16, body: usize) -> Result<Vec<Event>, Error> {
    let socket = open()?;
    let fail = |call| move |source| Error::Netlink { call, source };
    let len = (HEADER + body) as u32;
    let mut request = Vec::with_capacity(len as usize);
    request.extend(len.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.extend([0; 8]);
    request.resize(len as usize, 0);
    let kernel = SocketAddr::new(0, 0);
    socket
        .send_to(&request, &kernel, 0)
        .map_err(fail("request"))?;
    let mut events = Vec::new();
    let mut buffer = Vec::with_capacity(DATAGRAM);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                return Err(Error::Netlink {
                    call: "receive",
                    source,
                });
            }
        }
        match parse(&buffer, &mut events) {
            Progress::More => {}
            Progress::Done => return Ok(events),
            Progress::Failed(errno) => {
                let source = io::Error::from_raw_os_error(errno);
                return Err(Error::Netlink {
                    call: "dump",
                    source,
                });
            }
        }
    }
}

/// Whether a dump goes on.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    More,
    Done,
    Failed(i32),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Parses the messages of a datagram; what cannot be parsed is left out.
fn parse(mut bytes: &[u8], events: &mut Vec<Event>) -> Progress {
    while let (Some(len), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let len = len as usize;
        let Some(body) = bytes.get(HEADER..len) else {
            break;
        };
        match kind {
            NLMSG_DONE => return Progress::Done,
            NLMSG_ERROR => {
                return match u32_at(body, 0).map(|errno| errno as i32) {
                    Some(0) | None => Progress::Done,
                    Some(errno) => Progress::Failed(-errno),
                };
            }
            RTM_NEWLINK => events.extend(device(body).map(Event::Device)),
            RTM_DELLINK => events.extend(gone(body)),
            RTM_NEWADDR => events.extend(address(body)),
            RTM_NEWROUTE => events.extend(default_route(body)),
            _ => {}
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Progress::More
}

/// Kinds and values of the attributes after a header of `skip` bytes.
fn attributes(body: &[u8], skip: usize) -> Vec<(u16, &[u8])> {
    let Some(rest) = body.get(skip..) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    // The iterator ends at the first attribute that is broken.
    for nla in NlasIterator::new(rest).map_while(Result::ok) {
        let kind = nla.kind();
        let nla: &[u8] = nla.into_inner();
        let len = u16_at(nla, 0).unwrap_or(0) as usize;
        found.push((kind, nla.get(4..len).unwrap_or_default()));
    }
    found
}

/// An RTM_DELLINK, which since Linux 4.15 (commit 38e01b30563a) says of a device
/// that moved where it is now; bridges send one of their own family when a port leaves them,
/// which is not the device's end.
fn gone(body: &[u8]) -> Option<Event> {
    (body.first()? == &(libc::AF_UNSPEC as u8)).then_some(())?;
    let index = u32_at(body, 4)?;
    let attributes = attributes(body, 16);
    let moved = attributes.iter().any(|(kind, _)| *kind == IFLA_NEW_NETNSID);
    Some(match moved {
        true => Event::Moved(index),
        false => Event::Gone(index),
    })
}

fn device(body: &[u8]) -> Option<Device> {
    (body.first()? == &(libc::AF_UNSPEC as u8)).then_some(())?;
    let flags = u32_at(body, 8)?;
    let mut device = Device {
        index: u32_at(body, 4)?,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        ..Device::default()
    };
    for (kind, value) in attributes(body, 16) {
        match kind {
            IFLA_IFNAME => device.name = text(value),
            IFLA_LINKINFO => {
                let nested = attributes(value, 0);
                let info = nested.iter().find(|(kind, _)| *kind == IFLA_INFO_KIND);
                device.kind = info.map(|(_, value)| text(value));
            }
            IFLA_LINK => device.peer = u32_at(value, 0).unwrap_or(0),
            IFLA_LINK_NETNSID => device.peer_elsewhere = true,
            _ => {}
        }
    }
    Some(device)
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn address(body: &[u8]) -> Option<Event> {
    let index = u32_at(body, 4)?;
    let attributes = attributes(body, 8);
    // On a point-to-point device IFA_ADDRESS is the other end's.
    let value = |of| {
        attributes
            .iter()
            .find(|(kind, _)| *kind == of)
            .map(|(_, value)| *value)
    };
    let bytes = value(IFA_LOCAL).or_else(|| value(IFA_ADDRESS))?;
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(Event::Address(index, ip))
}

/// The devices of a route, if it is a default route.
fn default_route(body: &[u8]) -> Vec<Event> {
    let (prefix_len, kind, flags) = (body.get(1), body.get(7), u32_at(body, 8));
    if prefix_len != Some(&0)
        || kind != Some(&RTN_UNICAST)
        || flags.is_none_or(|flags| flags & RTM_F_CLONED != 0)
    {
        return Vec::new();
    }
    let mut devices = Vec::new();
    for (kind, value) in attributes(body, 12) {
        match kind {
            RTA_OIF => devices.extend(u32_at(value, 0)),
            RTA_MULTIPATH => devices.extend(next_hops(value)),
            _ => {}
        }
    }
    devices.into_iter().map(Event::DefaultRoute).collect()
}

/// The devices of `struct rtnexthop`s: length, flags, hops, device.
fn next_hops(mut bytes: &[u8]) -> Vec<u32> {
    let mut devices = Vec::new();
    while let (Some(len), Some(index)) = (u16_at(bytes, 0), u32_at(bytes, 4)) {
        devices.push(index);
        if len < 8 {
            break;
        }
        bytes = bytes
            .get((len as usize).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    devices
}

#[cfg(test)]
#[path = "netlink_tests.rs"]
mod tests;
