//! The node's addresses, by rtnetlink: a NodePort answers on an address that the
//! node gains later too, as when keepalived moves one here.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::{sync::mpsc, time};

use super::Facts;

/// `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR`, include/uapi/linux/rtnetlink.h.
const GROUPS: [u32; 2] = [5, 9];
/// Addresses come in bunches when a device comes up.
const QUIET: Duration = Duration::from_millis(5);
/// Default routes may change without any address doing so.
const COMPARE: Duration = Duration::from_secs(10);
/// Enough for any answer of the kernel to a dump.
const BUFFER: usize = 64 * 1024;

/// Sends the facts whenever they change, until their receiver is gone.
///
/// # Errors
/// If netlink cannot be used.
pub async fn follow(mut last: Facts, facts: mpsc::Sender<Facts>) -> io::Result<()> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind_auto()?;
    for group in GROUPS {
        socket.socket_mut().add_membership(group)?;
    }
    loop {
        let now = read()?;
        if now != last {
            last = now.clone();
            if facts.send(now).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            // What the message says does not matter, and an error may only mean
            // that messages were lost: either way, read anew.
            _ = socket.recv_from_full() => {
                while time::timeout(QUIET, socket.recv_from_full()).await.is_ok_and(|m| m.is_ok()) {}
            }
            () = time::sleep(COMPARE) => {}
            () = facts.closed() => return Ok(()),
        }
    }
}

/// Reads the facts.
///
/// # Errors
/// If netlink cannot be used.
pub fn read() -> io::Result<Facts> {
    Ok(Facts {
        addresses: dump()?.into_iter().collect(),
        default_sources: default_sources(),
    })
}

/// The source addresses that the kernel would choose towards the outside. The
/// destinations are for documentation (RFC 5737, RFC 3849); no packet is sent.
fn default_sources() -> Vec<IpAddr> {
    let outside: [(&str, SocketAddr); 2] = [
        ("0.0.0.0:0", SocketAddr::from(([192, 0, 2, 1], 9))),
        (
            "[::]:0",
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9)),
        ),
    ];
    let source = |(any, to): (&str, SocketAddr)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        let usable = !ip.is_unspecified() && !ip.is_loopback() && !is_link_local(ip);
        usable.then_some(ip)
    };
    outside.into_iter().filter_map(source).collect()
}

fn dump() -> io::Result<BTreeSet<IpAddr>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(request));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = BTreeSet::new();
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        if take(&buffer, &mut found)? {
            return Ok(found);
        }
    }
}

/// Takes the addresses out of one answer; `true` when it was the last one.
fn take(mut bytes: &[u8], found: &mut BTreeSet<IpAddr>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
            .map_err(|e| io::Error::other(format!("rtnetlink: an answer cannot be read: {e}")))?;
        // Messages are aligned to 4 bytes: NLMSG_ALIGN.
        let length = (message.header.length as usize).next_multiple_of(4);
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(e) => return Err(e.to_io()),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                found.extend(own_address(&address));
            }
            _ => {}
        }
        match bytes.get(length..) {
            Some(rest) if length > 0 => bytes = rest,
            _ => break,
        }
    }
    Ok(false)
}

/// The device's own address: of a point-to-point device, `Address` is the peer's.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut own = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => own = Some(*ip),
            AddressAttribute::Address(ip) => own = own.or(Some(*ip)),
            _ => {}
        }
    }
    own.filter(|ip| !is_link_local(*ip))
}

/// 169.254.0.0/16 and fe80::/10 mean another host on every link.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_addresses_are_read() {
        let facts = read().unwrap();
        assert!(
            facts.addresses.contains(&"127.0.0.1".parse().unwrap()),
            "{facts:?}"
        );
        assert!(
            facts.addresses.iter().all(|ip| !is_link_local(*ip)),
            "{facts:?}"
        );
        for source in &facts.default_sources {
            assert!(facts.addresses.contains(source), "{facts:?}");
        }
    }
}
