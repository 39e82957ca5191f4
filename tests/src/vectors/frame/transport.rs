//! What an IP header carries, with its checksum.

use std::net::IpAddr;

use etherparse::{Icmpv4Header, Icmpv6Header, TcpHeader, UdpHeader};

use super::{Csum, Frame, L4, Tcp, flag};
use crate::vectors::reference;

impl Frame {
    pub(super) fn transport(&self) -> Vec<u8> {
        let header: Vec<u8> = match &self.l4 {
            L4::Tcp(sport, dport, rest) => self.tcp_header(*sport, *dport, rest),
            L4::Udp(sport, dport) => self.udp_header(*sport, *dport),
            L4::Sctp(sport, dport, kind) => self.sctp_header((*sport, *dport), *kind),
            L4::Icmp4(kind) => Icmpv4Header::with_checksum(kind.clone(), &self.payload)
                .to_bytes()
                .to_vec(),
            L4::Icmp6(kind) => {
                let (IpAddr::V6(src), IpAddr::V6(dst)) = (self.src, self.dst) else {
                    panic!("ICMPv6 is of IPv6");
                };
                let (src, dst) = (src.octets(), dst.octets());
                Icmpv6Header::with_checksum(*kind, src, dst, &self.payload)
                    .expect("it fits")
                    .to_bytes()
                    .to_vec()
            }
            L4::Raw(_) => Vec::new(),
        };
        [&header[..], &self.payload].concat()
    }

    fn field(&self, right: u16, len: usize) -> u16 {
        match self.csum {
            Csum::Right => right,
            Csum::Is(field) => field,
            Csum::Partial => {
                let len = u16::try_from(len).expect("it fits");
                reference::pseudo_sum(self.src, self.dst, self.proto(), len)
            }
        }
    }

    fn tcp_header(&self, sport: u16, dport: u16, rest: &Tcp) -> Vec<u8> {
        let mut h = TcpHeader::new(sport, dport, rest.seq, rest.window);
        h.acknowledgment_number = rest.ack;
        h.fin = rest.flags & flag::FIN != 0;
        h.syn = rest.flags & flag::SYN != 0;
        h.rst = rest.flags & flag::RST != 0;
        h.psh = rest.flags & flag::PSH != 0;
        h.ack = rest.flags & flag::ACK != 0;
        h.set_options_raw(&rest.options).expect("whole words");
        let right = match (self.src, self.dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                h.calc_checksum_ipv4_raw(s.octets(), d.octets(), &self.payload)
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                h.calc_checksum_ipv6_raw(s.octets(), d.octets(), &self.payload)
            }
            _ => panic!("{} and {} are of two families", self.src, self.dst),
        };
        let len = h.header_len() + self.payload.len();
        h.checksum = self.field(right.expect("it fits"), len);
        h.to_bytes().to_vec()
    }

    /// The common header and that of the chunk (RFC 9260, sections 3.1 and 3.2).
    fn sctp_header(&self, (sport, dport): (u16, u16), kind: u8) -> Vec<u8> {
        let len = u16::try_from(4 + self.payload.len()).expect("it fits");
        let mut header = [
            &sport.to_be_bytes()[..],
            &dport.to_be_bytes(),
            &0x1122_3344u32.to_be_bytes(),
            &[0; 4],
            &[kind, 0],
            &len.to_be_bytes(),
        ]
        .concat();
        let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
        let right = crc.checksum(&[&header[..], &self.payload].concat());
        let field = match self.csum {
            Csum::Right => right,
            Csum::Is(field) => u32::from(field),
            // Whoever leaves the checksum to a device leaves nothing in its place.
            Csum::Partial => 0,
        };
        header[8..12].copy_from_slice(&field.to_le_bytes());
        header
    }

    fn udp_header(&self, sport: u16, dport: u16) -> Vec<u8> {
        let len = UdpHeader::LEN + self.payload.len();
        let mut h = UdpHeader {
            source_port: sport,
            destination_port: dport,
            length: u16::try_from(len).expect("it fits"),
            checksum: 0,
        };
        let right = match (self.src, self.dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                h.calc_checksum_ipv4_raw(s.octets(), d.octets(), &self.payload)
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                h.calc_checksum_ipv6_raw(s.octets(), d.octets(), &self.payload)
            }
            _ => panic!("{} and {} are of two families", self.src, self.dst),
        };
        h.checksum = self.field(right.expect("it fits"), len);
        h.to_bytes().to_vec()
    }
}
