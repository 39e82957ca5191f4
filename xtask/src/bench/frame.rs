//! Frames to measure with, and the form in which the front program holds them.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use bytemuck::{Pod, Zeroable};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

/// First port of the clients: flow `n` has this plus `n % 4096`, and an address
/// whose last two bytes are `n / 4096`.
const CLIENT_PORT: u16 = 2048;
/// Most flows that a frame stands for.
pub(super) const MAX_FLOWS: u32 = 1 << 28;
/// Length of every IPv4 frame: the least that Ethernet has, less its checksum.
const LEN4: usize = 60;
/// Length of every IPv6 frame.
const LEN6: usize = 80;

/// What the front program of `lb-ebpf/src/bin/bench/main.rs` does; the layout is that
/// program's `Front`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Front {
    link: u64,
    ip: u64,
    rest: [u64; 2],
    src: [u32; 4],
    dst: [u32; 4],
    link_end: u32,
    ethertype: u32,
    ip_end: u32,
    ports: u32,
    len: u32,
    next: u32,
    mask: u32,
    base: u32,
}

/// A frame that the front program writes whole; the layout is that program's `Whole`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Whole {
    len: u32,
    link: [u32; 4],
    words: [u32; 31],
}

impl Whole {
    /// A frame's length, and its first 138 bytes.
    ///
    /// # Errors
    /// It has no Ethernet header.
    pub(super) fn of(frame: &[u8]) -> Result<Self> {
        ensure!(frame.len() >= 14, "a frame has no Ethernet header");
        let (link, rest) = frame.split_at(14);
        let mut whole = Self::zeroed();
        whole.len = frame.len() as u32;
        bytemuck::bytes_of_mut(&mut whole.link)[..14].copy_from_slice(link);
        let words = bytemuck::bytes_of_mut(&mut whole.words);
        let len = rest.len().min(words.len());
        words[..len].copy_from_slice(&rest[..len]);
        Ok(whole)
    }
}

/// A transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum L4 {
    /// A segment that opens a connection.
    Syn,
    /// A segment in mid-life.
    Ack,
    /// A datagram.
    Udp,
}

/// A frame between a client, of which there are many, and a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Address and port that the client dials, or a backend that answers.
    pub(super) server: (IpAddr, u16),
    /// Transport header.
    pub(super) l4: L4,
    /// From the server to the client.
    pub(super) reply: bool,
}

impl Frame {
    /// Whether it is IPv6.
    pub(super) fn is_v6(&self) -> bool {
        self.server.0.is_ipv6()
    }

    /// The frame of flow 0, built by a packet library of others.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let client = match self.server.0 {
            IpAddr::V4(_) => "172.20.0.0".parse::<IpAddr>(),
            IpAddr::V6(_) => "fd00:20::".parse(),
        };
        let client = (client?, CLIENT_PORT);
        match self.reply {
            true => between(self.server, client, self.l4),
            false => between(client, self.server, self.l4),
        }
    }

    /// The frame as the front program writes it, for `flows` flows from flow
    /// `first` on.
    pub(super) fn front(&self, flows: u32, first: u32) -> Result<Front> {
        ensure!(
            flows.is_power_of_two() && flows <= MAX_FLOWS,
            "{flows} flows: a power of two is needed, {MAX_FLOWS} at most"
        );
        let bytes = self.bytes()?;
        let at = |off: usize| -> Result<u32> {
            let word = bytes.get(off..off + 4).context("a frame is too short")?;
            Ok(bytemuck::pod_read_unaligned(word))
        };
        let long = |off: usize| -> Result<u64> {
            let word = bytes.get(off..off + 8).context("a frame is too short")?;
            Ok(bytemuck::pod_read_unaligned(word))
        };
        let (mut src, mut dst) = ([0; 4], [0; 4]);
        let l4 = if self.is_v6() {
            for i in 0..4 {
                src[i] = at(22 + 4 * i)?;
                dst[i] = at(38 + 4 * i)?;
            }
            54
        } else {
            (src[3], dst[3]) = (at(26)?, at(30)?);
            34
        };
        // The first port is the upper one on a big-endian machine, which nobody has.
        let ports = at(l4)? & if self.reply { 0x0000_ffff } else { 0xffff_0000 };
        Ok(Front {
            link: long(0)?,
            ip: long(14)?,
            rest: [long(l4 + 4)?, long(l4 + 12)?],
            src,
            dst,
            link_end: at(8)?,
            ethertype: at(12)? & 0xffff,
            ip_end: at(22)?,
            ports,
            len: bytes.len() as u32,
            next: first,
            mask: flows - 1,
            base: u32::from(CLIENT_PORT),
        })
    }
}

/// A frame from the one to the other, built by a packet library of others.
///
/// # Errors
/// They are of different families.
pub(super) fn between(src: (IpAddr, u16), dst: (IpAddr, u16), l4: L4) -> Result<Vec<u8>> {
    let ip = addressed(src.0, dst.0)?;
    let len = if src.0.is_ipv6() { LEN6 } else { LEN4 };
    let mut out = Vec::with_capacity(len);
    let written = match l4 {
        L4::Syn => {
            let tcp = ip.tcp(src.1, dst.1, 1, 64_240).syn();
            let payload = vec![0; len - tcp.size(0)];
            tcp.write(&mut out, &payload)
        }
        L4::Ack => {
            let tcp = ip.tcp(src.1, dst.1, 1, 64_240).ack(1);
            let payload = vec![0; len - tcp.size(0)];
            tcp.write(&mut out, &payload)
        }
        L4::Udp => {
            let udp = ip.udp(src.1, dst.1);
            let payload = vec![0; len - udp.size(0)];
            udp.write(&mut out, &payload)
        }
    };
    written.context("cannot build a frame")?;
    Ok(out)
}

/// A frame's headers up to that of IP.
///
/// # Errors
/// The addresses are of different families.
pub(super) fn addressed(src: IpAddr, dst: IpAddr) -> Result<PacketBuilderStep<IpHeaders>> {
    // To the loopback device's address, by which test runs come: what is for
    // another station is none of ours.
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [0; 6]);
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => Ok(link.ipv4(s.octets(), d.octets(), 64)),
        (IpAddr::V6(s), IpAddr::V6(d)) => Ok(link.ipv6(s.octets(), d.octets(), 64)),
        _ => bail!("client and server are of different families"),
    }
}

/// Where a frame goes: its destination address and port.
pub(super) fn destination(frame: &[u8]) -> Option<(IpAddr, u16)> {
    let v6 = frame.get(12..14)? == [0x86, 0xdd];
    let (addr, port) = if v6 {
        let addr: [u8; 16] = frame.get(38..54)?.try_into().ok()?;
        (IpAddr::from(addr), frame.get(56..58)?)
    } else {
        let addr: [u8; 4] = frame.get(30..34)?.try_into().ok()?;
        (IpAddr::from(addr), frame.get(36..38)?)
    };
    Some((addr, u16::from_be_bytes([port[0], port[1]])))
}

/// Where a frame comes from: its source address and port.
pub(super) fn source(frame: &[u8]) -> Option<(IpAddr, u16)> {
    let v6 = frame.get(12..14)? == [0x86, 0xdd];
    let (addr, port) = if v6 {
        let addr: [u8; 16] = frame.get(22..38)?.try_into().ok()?;
        (IpAddr::from(addr), frame.get(54..56)?)
    } else {
        let addr: [u8; 4] = frame.get(26..30)?.try_into().ok()?;
        (IpAddr::from(addr), frame.get(34..36)?)
    };
    Some((addr, u16::from_be_bytes([port[0], port[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(server: &str, l4: L4, reply: bool) -> Frame {
        Frame {
            server: (server.parse().unwrap(), 80),
            l4,
            reply,
        }
    }

    #[test]
    fn frames_go_where_they_are_said_to_go() {
        for server in ["10.96.0.1", "fd00:96::1"] {
            for l4 in [L4::Syn, L4::Ack, L4::Udp] {
                let to = frame(server, l4, false).bytes().unwrap();
                assert_eq!(destination(&to), Some((server.parse().unwrap(), 80)));
                let from = frame(server, l4, true).bytes().unwrap();
                assert_eq!(source(&from), Some((server.parse().unwrap(), 80)));
                assert_eq!(destination(&from).unwrap().1, CLIENT_PORT);
                assert_eq!(to.len(), if server.contains(':') { LEN6 } else { LEN4 });
            }
        }
    }

    #[test]
    fn the_front_leaves_room_for_the_clients() {
        let front = frame("10.96.0.1", L4::Syn, false).front(4096, 7).unwrap();
        assert_eq!(front.src[3].to_ne_bytes(), [172, 20, 0, 0]);
        assert_eq!(front.dst[3].to_ne_bytes(), [10, 96, 0, 1]);
        assert_eq!(front.ports.to_ne_bytes(), [0, 0, 0, 80]);
        assert_eq!((front.next, front.mask), (7, 4095));
        let front = frame("10.96.0.1", L4::Syn, true).front(1, 0).unwrap();
        assert_eq!(front.ports.to_ne_bytes(), [0, 80, 0, 0]);
        assert!(frame("10.96.0.1", L4::Syn, true).front(3, 0).is_err());
    }
}
