//! The first packet of a connection, to ask the dry program about.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, PacketBuilder};
use lb_common::proto;

/// Whoever sends a packet: locally administered, and nobody's.
const SENDER: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
/// Index and link address of the loopback device, which is in every namespace.
pub const LOOPBACK: (u32, [u8; 6]) = (1, [0; 6]);
/// The first of the ports that clients dial from (RFC 6335, section 6).
pub const CLIENT_PORT: u16 = 49_152;
/// What Linux sends.
const TTL: u8 = 64;

/// Who dials whom, and by which IP protocol: TCP, UDP or SCTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The client.
    pub from: SocketAddr,
    /// Whom it dials; of the same family.
    pub to: SocketAddr,
    /// One of [`proto`].
    pub proto: u8,
}

/// The frame of the first packet, for a device with this link address; `None` where the
/// families differ.
pub fn first(ends: &Ends, device: [u8; 6]) -> Option<Vec<u8>> {
    let link = PacketBuilder::ethernet2(SENDER, device);
    let ip = match (ends.from.ip(), ends.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), TTL),
        _ => return None,
    };
    let (from, to) = (ends.from.port(), ends.to.port());
    let mut frame = Vec::new();
    let written = match ends.proto {
        proto::TCP => ip
            .tcp(from, to, 1, u16::MAX)
            .syn()
            .write(&mut frame, &[])
            .ok(),
        proto::UDP => ip.udp(from, to).write(&mut frame, &[0; 8]).ok(),
        _ => ip.write(&mut frame, IpNumber::SCTP, &init(from, to)).ok(),
    };
    written.map(|()| frame)
}

/// SCTP's INIT (RFC 9260, section 3.3.2), without its checksum: no hook looks at it.
fn init(from: u16, to: u16) -> Vec<u8> {
    /// Type and length of the chunk, tag, window, streams, first TSN.
    const CHUNK: [u8; 20] = [1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    // Verification tag and checksum.
    bytes.extend([0; 8]);
    bytes.extend(CHUNK);
    bytes
}

#[cfg(test)]
mod tests {
    use etherparse::SlicedPacket;

    use super::*;

    const DEVICE: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn frame(from: &str, to: &str, proto: u8) -> Option<Vec<u8>> {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        first(&Ends { from, to, proto }, DEVICE)
    }

    #[test]
    fn frames_open_connections() {
        let tcp = frame("192.0.2.1:4000", "192.0.2.9:80", proto::TCP).unwrap();
        let parsed = SlicedPacket::from_ethernet(&tcp).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = parsed.transport else {
            panic!("{parsed:?}");
        };
        assert!(tcp.syn() && !tcp.ack() && tcp.destination_port() == 80);
        let udp = frame("[2001:db8::1]:4000", "[2001:db8::2]:53", proto::UDP).unwrap();
        assert_eq!((&udp[..6], &udp[12..14]), (&DEVICE[..], &[0x86, 0xdd][..]));
        let sctp = frame("192.0.2.1:4000", "192.0.2.9:80", proto::SCTP).unwrap();
        // Protocol of the IPv4 header, and the ports behind it.
        assert_eq!(sctp[23], 132);
        assert_eq!(sctp[34..38], [0x0f, 0xa0, 0, 80]);
        assert_eq!(sctp.len(), 14 + 20 + 12 + 20);
    }

    #[test]
    fn families_do_not_mix() {
        assert_eq!(frame("192.0.2.1:1", "[2001:db8::2]:1", proto::TCP), None);
    }
}
