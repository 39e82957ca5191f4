//! Pings to vips.

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type};
use lb_common::Reason;

use crate::vectors::{
    frame::{Frame, L4},
    net::{FAMILIES, Family},
    reference,
    vector::{At, Vector, back, dropped, untouched},
    world::World,
};

const THEME: &str = "ping";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for from in [At::Uplink, At::Pod] {
            for len in [0, 1, 56, 1400] {
                all.push(answered(family, from, len));
            }
        }
        all.push(nobody_there(family));
        all.push(every_checksum(family));
        all.push(nothing_but_zeros(family));
        all.push(reply_passes(family));
        all.push(other_code(family));
        all.push(error_passes(family));
        all.push(of_the_node(family));
        all.push(other_family(family));
    }
    all.push(zero_both_ways());
    all
}

fn echo(family: Family, request: bool, id: u16, seq: u16) -> L4 {
    let head = IcmpEchoHeader { id, seq };
    match (family, request) {
        (Family::V4, true) => L4::Icmp4(Icmpv4Type::EchoRequest(head)),
        (Family::V4, false) => L4::Icmp4(Icmpv4Type::EchoReply(head)),
        (Family::V6, true) => L4::Icmp6(Icmpv6Type::EchoRequest(head)),
        (Family::V6, false) => L4::Icmp6(Icmpv6Type::EchoReply(head)),
    }
}

fn ping(family: Family, seq: u16) -> Frame {
    Frame::new(family.client(5), family.vip(1), echo(family, true, 77, seq))
}

fn pong(to: &Frame, family: Family, seq: u16) -> Frame {
    let mut answer = to.clone().turned();
    (answer.src, answer.dst) = (to.dst, to.src);
    answer.l4 = echo(family, false, 77, seq);
    answer
}

fn world(family: Family) -> World {
    World::new().with_vip(family.vip(1))
}

fn answered(family: Family, from: At, len: u16) -> Vector {
    let bytes: Vec<u8> = (0..len).map(|i| (i * 3) as u8).collect();
    let input = ping(family, 1).payload(&bytes);
    let output = pong(&input, family, 1);
    Vector::new(
        THEME,
        format!("{family}, {len} bytes, {from:?}"),
        world(family),
    )
    .packet(from, &input, back(Reason::EchoReply, &output))
    .conntrack([])
}

/// A vip that leads to nobody does not answer.
fn nobody_there(family: Family) -> Vector {
    let world = World::new().with_empty_vip(family.vip(1));
    Vector::new(THEME, format!("{family}, no endpoints"), world)
        .packet(At::Uplink, &ping(family, 1), dropped(Reason::NoEndpoints))
        .packet(At::Pod, &ping(family, 1), dropped(Reason::NoEndpoints))
}

/// Sequence numbers on both sides of the checksum's wrap.
fn every_checksum(family: Family) -> Vector {
    let title = format!("{family}, checksums about their wrap");
    let mut vector = Vector::new(THEME, title, world(family));
    for seq in [0, 1, 0x0800, 0xf7b1, 0xf7b2, 0xf7b3, 0xfffe, 0xffff] {
        let input = ping(family, seq);
        vector = vector.packet(
            At::Uplink,
            &input,
            back(Reason::EchoReply, &pong(&input, family, seq)),
        );
    }
    vector
}

/// The sum of such an ICMP answer is +0, whose checksum is all ones; an update of
/// the old checksum alone cannot tell it from -0 (RFC 1624, section 3).
fn nothing_but_zeros(family: Family) -> Vector {
    let mut vector = Vector::new(THEME, format!("{family}, nothing but zeros"), world(family));
    for len in [0, 8] {
        let mut input = ping(family, 0).payload(&[0; 8][..len]);
        let mut output = pong(&input, family, 0);
        let head = IcmpEchoHeader { id: 0, seq: 0 };
        (input.l4, output.l4) = match family {
            Family::V4 => (
                L4::Icmp4(Icmpv4Type::EchoRequest(head)),
                L4::Icmp4(Icmpv4Type::EchoReply(head)),
            ),
            Family::V6 => (
                L4::Icmp6(Icmpv6Type::EchoRequest(head)),
                L4::Icmp6(Icmpv6Type::EchoReply(head)),
            ),
        };
        vector = vector.packet(At::Uplink, &input, back(Reason::EchoReply, &output));
    }
    vector
}

/// Where the sum is -0 the checksum could be 0 as well: all ones are as good, as
/// the receiver's sum is all ones either way (RFC 1071, section 1).
fn zero_both_ways() -> Vector {
    let seq = 0xffff - 77;
    let input = ping(Family::V4, seq);
    let mut expected = back(Reason::EchoReply, &pong(&input, Family::V4, seq));
    let field = 14 + 20 + 2;
    assert_eq!(expected.output[field..field + 2], [0, 0], "the scenario");
    expected.output[field..field + 2].fill(0xff);
    let sum = reference::ones_sum(&expected.output[34..]);
    assert_eq!(sum, 0xffff, "what a receiver wants");
    Vector::new(THEME, "IPv4, a checksum of zero", world(Family::V4)).packet(
        At::Uplink,
        &input,
        expected,
    )
}

/// An answer to a ping of somebody who has the vip's address.
fn reply_passes(family: Family) -> Vector {
    let mut input = ping(family, 1);
    input.l4 = echo(family, false, 77, 1);
    Vector::new(THEME, format!("{family}, a reply"), world(family))
        .packet(At::Uplink, &input, untouched(&input.build()))
        .packet(At::Pod, &input, untouched(&input.build()))
}

fn other_code(family: Family) -> Vector {
    let mut input = ping(family, 1).build();
    input[14 + family.header() + 1] = 5;
    Vector::new(
        THEME,
        format!("{family}, a code that is not 0"),
        world(family),
    )
    .bytes(At::Uplink, input.clone(), untouched(&input))
}

fn error_passes(family: Family) -> Vector {
    let mut input = ping(family, 1);
    input.l4 = match family {
        Family::V4 => L4::Icmp4(Icmpv4Type::TimeExceeded(
            etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit,
        )),
        Family::V6 => L4::Icmp6(Icmpv6Type::PacketTooBig { mtu: 1280 }),
    };
    let input = input.payload(&[0x45; 28]);
    Vector::new(THEME, format!("{family}, an error message"), world(family))
        .packet(At::Uplink, &input, untouched(&input.build()))
        .packet(At::Pod, &input, untouched(&input.build()))
}

/// The node answers pings to its own addresses itself.
fn of_the_node(family: Family) -> Vector {
    let mut input = ping(family, 1);
    input.dst = family.node();
    Vector::new(THEME, format!("{family}, to the node"), World::new()).packet(
        At::Uplink,
        &input,
        untouched(&input.build()),
    )
}

/// ICMP in IPv6, and ICMPv6 in IPv4, are no pings.
fn other_family(family: Family) -> Vector {
    let number = if family == Family::V4 { 58 } else { 1 };
    let input = Frame::new(family.client(5), family.vip(1), L4::Raw(number))
        .payload(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    Vector::new(
        THEME,
        format!("{family}, the other family's"),
        world(family),
    )
    .packet(At::Uplink, &input, dropped(Reason::UnknownPort))
}
