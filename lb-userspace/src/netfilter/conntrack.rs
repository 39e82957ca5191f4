//! Connections whose destination the kernel translates, by ctnetlink.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use lb_common::proto;
use netlink_packet_core::{DefaultNla, NLM_F_DUMP, Nla as _};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Status,
        Tuple,
    },
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::netlink::ask;

/// include/uapi/linux/netfilter/nfnetlink_conntrack.h. The mask filters since
/// Linux 5.9.
const CTA_ZONE: u16 = 18;
const CTA_STATUS_MASK: u16 = 26;

/// From where to where the packets of a direction go, as they come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ends {
    /// The source.
    pub src: SocketAddr,
    /// The destination.
    pub dst: SocketAddr,
}

/// What a connection of TCP has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tcp {
    /// Nobody has answered.
    Opening,
    /// It is open, at one side at least.
    Open,
    /// Both sides have finished.
    Closed,
    /// It was reset.
    Reset,
}

/// A connection whose destination the kernel translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translated {
    /// IP protocol number.
    pub proto: u8,
    /// The client's packets.
    pub original: Ends,
    /// The backend's.
    pub reply: Ends,
    /// Whether the backend has answered.
    pub answered: bool,
    /// Of TCP, how far it is.
    pub tcp: Option<Tcp>,
    /// Seconds until the kernel forgets it, if no packet comes: of two in the same state
    /// the one with more was used later.
    pub expires: u32,
}

/// Every such connection of the network namespace.
///
/// # Errors
/// The kernel refuses the list: it has no conntrack, or the process no
/// `CAP_NET_ADMIN`.
pub fn translated() -> io::Result<Vec<Translated>> {
    let mut found = Vec::new();
    let status = u32::to_be_bytes(Status::DstNat.bits()).to_vec();
    let attributes = vec![
        ConntrackAttribute::CtaStatus(Status::DstNat),
        ConntrackAttribute::Other(DefaultNla::new(CTA_STATUS_MASK, status)),
    ];
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let request = NetfilterMessage::new(header, ConntrackMessage::Get(attributes));
    ask(NETLINK_NETFILTER, request, NLM_F_DUMP, |answer| {
        found.extend(connection(&answer));
    })?;
    Ok(found)
}

/// The connection that a message tells of, if it is one whose destination is
/// translated.
fn connection(message: &NetfilterMessage) -> Option<Translated> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = &message.inner else {
        return None;
    };
    let (mut original, mut reply) = (None, None);
    let (mut status, mut state, mut expires) = (Status::empty(), None, 0);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = ends(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = ends(tuple),
            ConntrackAttribute::CtaStatus(found) => status = *found,
            ConntrackAttribute::CtaTimeout(seconds) => expires = *seconds,
            ConntrackAttribute::CtaProtoInfo(info) => state = tcp_state(info),
            // Another zone has tuples of its own: not what a packet of ours carries.
            ConntrackAttribute::Other(other) if other.kind() == CTA_ZONE => return None,
            _ => {}
        }
    }
    let ((protocol, original), (_, reply)) = (original?, reply?);
    (status.contains(Status::DstNat) && original.dst != reply.src).then_some(Translated {
        proto: protocol,
        original,
        reply,
        answered: status.contains(Status::SeenReply),
        tcp: (protocol == proto::TCP).then(|| tcp(state)),
        expires,
    })
}

/// Protocol and ends of a tuple with ports.
fn ends(tuple: &[Tuple]) -> Option<(u8, Ends)> {
    let (mut src, mut dst) = (None::<IpAddr>, None::<IpAddr>);
    let (mut sport, mut dport, mut protocol) = (None, None, None);
    for part in tuple {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(ip) => src = Some(*ip),
                        IPTuple::DestinationAddress(ip) => dst = Some(*ip),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(p) => protocol = Some(u8::from(*p)),
                        ProtoTuple::SourcePort(port) => sport = Some(*port),
                        ProtoTuple::DestinationPort(port) => dport = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let ends = Ends {
        src: SocketAddr::new(src?, sport?),
        dst: SocketAddr::new(dst?, dport?),
    };
    Some((protocol?, ends))
}

fn tcp_state(info: &[ProtoInfo]) -> Option<u8> {
    info.iter().find_map(|info| match info {
        ProtoInfo::TCP(parts) => parts.iter().find_map(|part| match part {
            ProtoInfoTCP::State(state) => Some(*state),
            _ => None,
        }),
        _ => None,
    })
}

/// `enum tcp_conntrack`, include/uapi/linux/netfilter/nf_conntrack_tcp.h.
fn tcp(state: Option<u8>) -> Tcp {
    match state {
        // SYN_SENT, SYN_RECV, SYN_SENT2
        Some(1 | 2 | 9) => Tcp::Opening,
        // LAST_ACK, TIME_WAIT
        Some(6 | 7) => Tcp::Closed,
        // CLOSE
        Some(8) => Tcp::Reset,
        _ => Tcp::Open,
    }
}

#[cfg(test)]
#[path = "conntrack_tests.rs"]
mod tests;
