//! The hashes of the contract: golden values, which every node and every version
//! must agree on, and a reimplementation in unbounded integers.

use std::net::IpAddr;

use bascule_tests::vectors::{
    frame::{flag, tcp, udp},
    net::ip,
    reference::{self, Bit},
};
use etherparse::PacketBuilder;
use lb_common::{Addr, Be16, Be32, hash, limits::FILTER_WORDS};
use proptest::prelude::*;

type End = (&'static str, u16);

/// Source, destination, protocol, hash. Computed once, by other code in another
/// language. A change of one of these breaks every cluster that is upgraded node
/// by node.
const FLOWS: [(End, End, u8, u32); 12] = [
    (("203.0.113.5", 40000), ("10.96.0.1", 80), 6, 0x55bedd30),
    (("203.0.113.5", 40000), ("10.96.0.1", 80), 17, 0x6d8e77d7),
    (("203.0.113.5", 0), ("10.96.0.1", 0), 6, 0x40c1f7d9),
    (("0.0.0.0", 0), ("0.0.0.0", 0), 0, 0x00000000),
    (
        ("255.255.255.255", 65535),
        ("255.255.255.255", 65535),
        255,
        0x6f699f54,
    ),
    (("10.0.1.3", 40001), ("10.96.0.1", 443), 6, 0xe4046e83),
    (("2001:db8:c::5", 40000), ("fd00:96::1", 80), 6, 0xba37d0cc),
    (("2001:db8:c::5", 40000), ("fd00:96::1", 80), 17, 0x290c99b4),
    (("2001:db8:c::5", 0), ("fd00:96::1", 0), 6, 0x1e31fb56),
    (("::", 0), ("::", 0), 0, 0x9ca066f1),
    (
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
        255,
        0x1587f1f2,
    ),
    (("fd00:1::3", 40001), ("fd00:96::1", 443), 6, 0x9126a7dc),
];

/// Cookie, frontend, protocol, hash.
const SOCKETS: [(u64, End, u8, u32); 5] = [
    (0x1, ("10.96.0.1", 80), 6, 0x564fbef2),
    (0x1234567890abcdef, ("10.96.0.1", 80), 17, 0x88ed1096),
    (0x1, ("fd00:96::1", 80), 6, 0x7305f5f8),
    (0xffffffffffffffff, ("fd00:96::1", 65535), 17, 0x1314e216),
    (0x0, ("::", 0), 0, 0x00000000),
];

/// Kind, address, port, protocol, bit.
const BITS: [(u32, &str, u16, u8, u32); 8] = [
    (0, "10.96.0.1", 0, 0, 713091),
    (2, "10.96.0.1", 80, 6, 1304236),
    (2, "10.96.0.1", 80, 17, 935712),
    (3, "10.0.1.7", 8080, 6, 1096107),
    (0, "fd00:96::1", 0, 0, 630006),
    (2, "fd00:96::1", 80, 6, 1071386),
    (3, "fd00:1::7", 8080, 17, 393333),
    (0, "::", 0, 0, 0),
];

fn flow(src: (IpAddr, u16), dst: (IpAddr, u16), proto: u8) -> u32 {
    let (sport, dport) = (Be16::new(src.1), Be16::new(dst.1));
    match (src.0, dst.0) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let (s, d) = (Be32::new(s.to_bits()), Be32::new(d.to_bits()));
            hash::flow4(s, d, sport, dport, proto)
        }
        (s, d) => hash::flow6(s.into(), d.into(), sport, dport, proto),
    }
}

#[test]
fn flows_have_their_golden_hashes() {
    for (src, dst, proto, golden) in FLOWS {
        let (src, dst) = ((ip(src.0), src.1), (ip(dst.0), dst.1));
        assert_eq!(flow(src, dst, proto), golden, "{src:?} > {dst:?} {proto}");
        assert_eq!(reference::flow(src, dst, proto), golden);
    }
}

#[test]
fn sockets_have_their_golden_hashes() {
    for (cookie, dst, proto, golden) in SOCKETS {
        let addr: Addr = ip(dst.0).into();
        let found = hash::socket(cookie, addr, Be16::new(dst.1), proto);
        assert_eq!(found, golden, "{cookie} > {dst:?} {proto}");
        assert_eq!(reference::socket(cookie, (ip(dst.0), dst.1), proto), golden);
    }
}

#[test]
fn the_filter_has_its_golden_bits() {
    assert_eq!(hash::filter_kind::VIP, Bit::Vip as u32);
    assert_eq!(hash::filter_kind::FRONTEND, Bit::Frontend as u32);
    assert_eq!(hash::filter_kind::BACKEND, Bit::Backend as u32);
    for (kind, addr, port, proto, golden) in BITS {
        let found = hash::filter_bit(kind, ip(addr).into(), Be16::new(port), proto);
        assert_eq!(found, golden, "{kind} {addr} {port} {proto}");
    }
}

/// A slot is the hash's share of the table: by exact fractions.
#[test]
fn slots_are_shares_of_the_table() {
    for (hash, len, slot) in [
        (0, 7, 0),
        (u32::MAX, 7, 6),
        (0x8000_0000, 7, 3),
        (0x2492_4924, 7, 0),
        (0x2492_4925, 7, 1),
        (0x7fff_ffff, 2, 0),
        (0x8000_0000, 2, 1),
        (u32::MAX, 1, 0),
        (u32::MAX, u32::MAX, u32::MAX - 1),
        (0x1234_5678, 0, 0),
    ] {
        assert_eq!(hash::slot(hash, len), slot, "{hash:#x} of {len}");
        assert_eq!(reference::slot(hash, len), slot, "{hash:#x} of {len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_reference_agrees(
        a: u128,
        b: u128,
        ports: (u16, u16),
        proto: u8,
        cookie: u64,
    ) {
        let v6 = |n: u128| IpAddr::V6(n.into());
        let v4 = |n: u128| IpAddr::V4((n as u32).into());
        for (a, b) in [(v4(a), v4(b)), (v6(a), v6(b))] {
            let (src, dst) = ((a, ports.0), (b, ports.1));
            prop_assert_eq!(flow(src, dst, proto), reference::flow(src, dst, proto));
            let (wide, port) = (Addr::from(b), Be16::new(ports.1));
            prop_assert_eq!(
                hash::socket(cookie, wide, port, proto),
                reference::socket(cookie, dst, proto)
            );
            for (kind, bit) in [(0, Bit::Vip), (2, Bit::Frontend), (3, Bit::Backend)] {
                let found = hash::filter_bit(kind, wide, port, proto);
                prop_assert_eq!(found, reference::filter_bit(bit, b, ports.1, proto));
                prop_assert!(found < FILTER_WORDS * 64);
            }
        }
    }
}

/// The vectors' frames are those that `etherparse` builds.
#[test]
fn frames_are_those_of_the_packet_builder() {
    let (link, v4) = ([2, 0, 0, 0, 9, 1], ([203, 0, 113, 5], [10, 96, 0, 1]));
    let (src, dst) = ("203.0.113.5:40000", "10.96.0.1:80");
    let frame = udp(src.parse().unwrap(), dst.parse().unwrap()).payload(b"abc");
    let mut expected = Vec::new();
    let header = etherparse::Ipv4Header {
        identification: 0x1234,
        ..etherparse::Ipv4Header::new(0, 60, etherparse::IpNumber::UDP, v4.0, v4.1).unwrap()
    };
    PacketBuilder::ethernet2(link, [2, 0, 0, 0, 1, 0])
        .ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        .udp(40000, 80)
        .write(&mut expected, b"abc")
        .unwrap();
    assert_eq!(frame.build(), expected);

    let (src, dst) = ("[2001:db8:c::5]:40000", "[fd00:96::1]:80");
    let frame = tcp(src.parse().unwrap(), dst.parse().unwrap(), flag::SYN).payload(b"abcd");
    let octets = |a: &str| match ip(a) {
        IpAddr::V6(a) => a.octets(),
        IpAddr::V4(_) => unreachable!(),
    };
    let mut expected = Vec::new();
    PacketBuilder::ethernet2(link, [2, 0, 0, 0, 1, 0])
        .ipv6(octets("2001:db8:c::5"), octets("fd00:96::1"), 60)
        .tcp(40000, 80, 1000, 64000)
        .syn()
        .write(&mut expected, b"abcd")
        .unwrap();
    assert_eq!(frame.build(), expected);
}

/// RFC 1071, section 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2.
#[test]
fn the_reference_sums_the_example_of_rfc_1071() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(reference::ones_sum(&bytes), 0xddf2);
}
