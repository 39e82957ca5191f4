//! Refusals: TCP resets and ICMP port unreachables, sent back at once.

use std::net::SocketAddr;

use etherparse::{
    Icmpv4Type, Icmpv6Type, icmpv4::DestUnreachableHeader, icmpv6::DestUnreachableCode,
};
use lb_common::Reason;

use super::scene::{SCTP, TCP, UDP, name};
use crate::vectors::{
    frame::{Csum, Frame, L4, Tcp, first, flag, tcp, udp},
    net::{FAMILIES, Family, at},
    vector::{At, Vector, back, dropped},
    world::{Front, World},
};

const THEME: &str = "refused";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for from in [At::Uplink, At::Pod] {
            for proto in [TCP, UDP, SCTP] {
                all.push(empty(family, proto, from));
                all.push(unknown_port(family, proto, from));
                all.push(vip_alone(family, proto, from));
            }
            all.extend(segments(family, from));
        }
        all.push(no_reset_for_a_reset(family));
        all.push(unfinished_checksum(family));
        all.push(wrapped_sequence(family));
        all.push(tcp_options(family));
        all.push(udp_without_payload(family));
        all.push(udp_with_much_payload(family));
        all.push(header_longer_than_the_packet(family));
        all.push(data_offset_beyond_the_packet(family));
    }
    all.push(udp_behind_options());
    all.push(tcp_behind_options());
    all.push(tcp_behind_extensions());
    all.push(udp_behind_extensions());
    all
}

fn ends(family: Family) -> (SocketAddr, SocketAddr) {
    (at(family.client(5), 40000), at(family.vip(1), 80))
}

/// A service without endpoints.
fn world(family: Family) -> World {
    let front = at(family.vip(1), 80);
    World::new()
        .front(&Front::new(1, front, TCP))
        .front(&Front::new(1, front, UDP))
        .front(&Front::new(1, front, SCTP))
}

/// An answer of the datapath's own: TTL 64, not fragmented, no identification.
fn own(from: &Frame, l4: L4) -> Frame {
    Frame::new(from.dst, from.src, l4)
        .link(from.link.1, from.link.0)
        .ttl(64)
        .frag((0, 0, false, true))
}

fn reset(to: &Frame, flags: u8, seq: u32, ack: u32) -> Frame {
    let L4::Tcp(sport, dport, _) = &to.l4 else {
        panic!("only TCP is reset");
    };
    let rest = Tcp {
        flags,
        seq,
        ack,
        window: 0,
        options: Vec::new(),
    };
    own(to, L4::Tcp(*dport, *sport, rest))
}

fn unreachable(to: &Frame) -> Frame {
    let input = to.build();
    let quoted = match to.src {
        std::net::IpAddr::V4(_) => 20 + 8,
        std::net::IpAddr::V6(_) => 40 + 8,
    };
    let l4 = match to.src {
        std::net::IpAddr::V4(_) => L4::Icmp4(Icmpv4Type::DestinationUnreachable(
            DestUnreachableHeader::Port,
        )),
        std::net::IpAddr::V6(_) => L4::Icmp6(Icmpv6Type::DestinationUnreachable(
            DestUnreachableCode::Port,
        )),
    };
    own(to, l4).payload(&input[14..14 + quoted])
}

/// What a client of TCP's SYN or of UDP hears.
fn refusal(input: &Frame) -> Frame {
    match &input.l4 {
        // RFC 9293, section 3.10.7.1: without ACK, sequence number 0, and the
        // segment is acknowledged.
        L4::Tcp(_, _, rest) => reset(input, flag::RST | flag::ACK, 0, rest.seq + 1),
        _ => unreachable(input),
    }
}

fn empty(family: Family, proto: u8, from: At) -> Vector {
    let (client, front) = ends(family);
    let input = first(proto, client, front);
    let title = format!("{family} {}, no endpoints, {from:?}", name(proto));
    Vector::new(THEME, title, world(family))
        .packet(from, &input, back(Reason::NoEndpoints, &refusal(&input)))
        .conntrack([])
}

fn unknown_port(family: Family, proto: u8, from: At) -> Vector {
    let (client, front) = ends(family);
    let input = first(proto, client, at(front.ip(), 81));
    let title = format!("{family} {}, no such port, {from:?}", name(proto));
    Vector::new(THEME, title, world(family))
        .packet(from, &input, back(Reason::UnknownPort, &refusal(&input)))
        .conntrack([])
}

/// Port 0 and protocol 0 are the vip's own entry: no packet must find it.
fn vip_alone(family: Family, proto: u8, from: At) -> Vector {
    let (client, front) = ends(family);
    let world = World::new().with_vip(front.ip());
    let input = first(proto, client, at(front.ip(), 0));
    let title = format!("{family} {}, port 0 of a vip, {from:?}", name(proto));
    Vector::new(THEME, title, world)
        .packet(from, &input, back(Reason::UnknownPort, &refusal(&input)))
        .conntrack([])
}

/// RFC 9293, section 3.10.7.1, for every kind of segment that may come.
fn segments(family: Family, from: At) -> Vec<Vector> {
    let (client, front) = ends(family);
    let acked = |flags, payload: &[u8]| {
        let input = tcp(client, front, flags | flag::ACK)
            .seq(77, 0xdead_beef)
            .payload(payload);
        let answer = reset(&input, flag::RST, 0xdead_beef, 0);
        (input, answer)
    };
    let fresh = |flags, payload: &[u8], counts: u32| {
        let input = tcp(client, front, flags).seq(900, 0).payload(payload);
        let answer = reset(&input, flag::RST | flag::ACK, 0, 900 + counts);
        (input, answer)
    };
    let cases = [
        ("an ACK", acked(0, b"")),
        ("data", acked(flag::PSH, b"some data")),
        ("a FIN with ACK", acked(flag::FIN, b"")),
        ("a SYN with ACK", acked(flag::SYN, b"")),
        ("a SYN with data", fresh(flag::SYN, b"12345", 6)),
        ("a FIN without ACK", fresh(flag::FIN, b"", 1)),
        ("SYN and FIN", fresh(flag::SYN | flag::FIN, b"", 2)),
        ("data without ACK", fresh(0, b"1234567", 7)),
        ("no flag at all", fresh(0, b"", 0)),
    ];
    let vector = |(what, (input, answer)): (&str, (Frame, Frame))| {
        Vector::new(THEME, format!("{family} {what}, {from:?}"), world(family))
            .packet(from, &input, back(Reason::NoEndpoints, &answer))
            .conntrack([])
    };
    cases.into_iter().map(vector).collect()
}

fn no_reset_for_a_reset(family: Family) -> Vector {
    let (client, front) = ends(family);
    let mut vector = Vector::new(
        THEME,
        format!("{family}, resets are not reset"),
        world(family),
    );
    for flags in [flag::RST, flag::RST | flag::ACK, flag::RST | flag::SYN] {
        let input = tcp(client, front, flags);
        vector = vector
            .packet(At::Uplink, &input, dropped(Reason::NoEndpoints))
            .packet(At::Pod, &input, dropped(Reason::NoEndpoints));
    }
    vector.conntrack([])
}

/// The sender left the checksum to its device: so does the answer.
fn unfinished_checksum(family: Family) -> Vector {
    let (client, front) = ends(family);
    let input = tcp(client, front, flag::SYN).csum(Csum::Partial);
    let answer = reset(&input, flag::RST | flag::ACK, 0, 1001).csum(Csum::Partial);
    Vector::new(
        THEME,
        format!("{family}, an unfinished checksum"),
        world(family),
    )
    .packet(At::Pod, &input, back(Reason::NoEndpoints, &answer))
    .packet(At::Uplink, &input, back(Reason::NoEndpoints, &answer))
}

fn wrapped_sequence(family: Family) -> Vector {
    let (client, front) = ends(family);
    let input = tcp(client, front, flag::SYN).seq(u32::MAX, 0);
    let answer = reset(&input, flag::RST | flag::ACK, 0, 0);
    Vector::new(
        THEME,
        format!("{family}, the last sequence number"),
        world(family),
    )
    .packet(At::Uplink, &input, back(Reason::NoEndpoints, &answer))
}

fn tcp_options(family: Family) -> Vector {
    let (client, front) = ends(family);
    let input = tcp(client, front, flag::SYN).tcp_options(&[2, 4, 5, 0xb4, 1, 3, 3, 7]);
    let answer = reset(&input, flag::RST | flag::ACK, 0, 1001);
    Vector::new(
        THEME,
        format!("{family}, a SYN with options"),
        world(family),
    )
    .packet(At::Uplink, &input, back(Reason::NoEndpoints, &answer))
}

/// The answer is longer than the packet.
fn udp_without_payload(family: Family) -> Vector {
    let (client, front) = ends(family);
    let input = udp(client, front).payload(b"");
    Vector::new(
        THEME,
        format!("{family}, UDP without payload"),
        world(family),
    )
    .packet(
        At::Uplink,
        &input,
        back(Reason::NoEndpoints, &unreachable(&input)),
    )
    .packet(
        At::Pod,
        &input,
        back(Reason::NoEndpoints, &unreachable(&input)),
    )
}

/// The answer is shorter than the packet.
fn udp_with_much_payload(family: Family) -> Vector {
    let (client, front) = ends(family);
    let input = udp(client, front).payload(&[0x77; 1400]);
    Vector::new(
        THEME,
        format!("{family}, UDP with much payload"),
        world(family),
    )
    .packet(
        At::Uplink,
        &input,
        back(Reason::NoEndpoints, &unreachable(&input)),
    )
    .packet(
        At::Pod,
        &input,
        back(Reason::NoEndpoints, &unreachable(&input)),
    )
}

/// The IP header's length leaves no room for a TCP header: nobody is answered.
fn header_longer_than_the_packet(family: Family) -> Vector {
    let (client, front) = ends(family);
    let mut input = tcp(client, front, flag::SYN).build();
    match family {
        Family::V4 => input[16..18].copy_from_slice(&30u16.to_be_bytes()),
        Family::V6 => input[18..20].copy_from_slice(&10u16.to_be_bytes()),
    }
    Vector::new(
        THEME,
        format!("{family}, a length without room for TCP"),
        world(family),
    )
    .bytes(At::Uplink, input.clone(), dropped(Reason::NoEndpoints))
    .bytes(At::Pod, input, dropped(Reason::NoEndpoints))
}

fn data_offset_beyond_the_packet(family: Family) -> Vector {
    let (client, front) = ends(family);
    let mut input = tcp(client, front, flag::SYN).build();
    input[14 + family.header() + 12] = 0xf0;
    Vector::new(
        THEME,
        format!("{family}, a data offset beyond the end"),
        world(family),
    )
    .bytes(At::Uplink, input.clone(), dropped(Reason::NoEndpoints))
    .bytes(At::Pod, input, dropped(Reason::NoEndpoints))
}

/// Such a header is not quoted.
fn udp_behind_options() -> Vector {
    let (client, front) = ends(Family::V4);
    let input = udp(client, front).options(&[1; 4]);
    Vector::new(THEME, "IPv4 UDP behind options", world(Family::V4))
        .packet(At::Uplink, &input, dropped(Reason::NoEndpoints))
        .packet(At::Pod, &input, dropped(Reason::NoEndpoints))
}

fn tcp_behind_options() -> Vector {
    let (client, front) = ends(Family::V4);
    let input = tcp(client, front, flag::SYN).options(&[1; 8]);
    Vector::new(THEME, "IPv4 TCP behind options", world(Family::V4))
        .packet(
            At::Uplink,
            &input,
            back(Reason::NoEndpoints, &refusal(&input)),
        )
        .packet(At::Pod, &input, back(Reason::NoEndpoints, &refusal(&input)))
}

const PADDING: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];

fn tcp_behind_extensions() -> Vector {
    let (client, front) = ends(Family::V6);
    let input = tcp(client, front, flag::SYN).extension(60, &PADDING);
    Vector::new(THEME, "IPv6 TCP behind extensions", world(Family::V6))
        .packet(
            At::Uplink,
            &input,
            back(Reason::NoEndpoints, &refusal(&input)),
        )
        .packet(At::Pod, &input, back(Reason::NoEndpoints, &refusal(&input)))
}

fn udp_behind_extensions() -> Vector {
    let (client, front) = ends(Family::V6);
    let input = udp(client, front).extension(60, &PADDING);
    Vector::new(THEME, "IPv6 UDP behind extensions", world(Family::V6))
        .packet(At::Uplink, &input, dropped(Reason::NoEndpoints))
        .packet(At::Pod, &input, dropped(Reason::NoEndpoints))
}
