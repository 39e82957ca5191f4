//! Packets that no honest sender sends.

use std::net::{IpAddr, SocketAddr};

use lb_common::Reason;

use super::scene::{Scene, TCP, UDP};
use crate::vectors::{
    frame::{Frame, L4, flag, tcp, udp},
    net::{FAMILIES, Family, at, ip},
    reference,
    vector::{At, Vector, dropped, pass, untouched},
    world::World,
};

const THEME: &str = "hostile";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for version in [0, 4, 5, 6, 15] {
            if version != if family == Family::V4 { 4 } else { 6 } {
                all.push(wrong_version(family, version));
            }
        }
        for length in [0, 1, 19, 0xffff] {
            all.push(lying_length(family, length));
        }
        for length in [0, 7, 0xffff] {
            all.push(lying_udp_length(family, length));
        }
        for protocol in [0, 2, 41, 47, 50, 51, 59, 33, 136, 255] {
            all.push(other_protocol(family, protocol));
        }
        all.push(vlan(family));
        all.push(addressed_to_itself(family));
        for source in strange_sources(family) {
            all.push(strange_source(family, source));
        }
        all.push(padded(family));
        all.push(all_flags(family));
        all.push(nothing_but_ones(family));
    }
    for words in 0..5 {
        all.push(short_ipv4_header(words));
    }
    all.extend(chains());
    all.push(mapped_address());
    all.extend(other_ether_types());
    all
}

fn everywhere(title: String, world: World, input: Vec<u8>) -> Vector {
    let mut vector = Vector::new(THEME, title, world);
    for from in [At::Uplink, At::Pod, At::ToPod, At::ToNet] {
        let expected = untouched(&input);
        vector = vector.bytes(from, input.clone(), expected);
    }
    vector.conntrack([])
}

/// The Ethernet type says one family, and the IP header another version.
fn wrong_version(family: Family, version: u8) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let mut input = scene.first().build();
    input[14] = version << 4 | input[14] & 0xf;
    everywhere(format!("{family}, version {version}"), scene.world(), input)
}

fn short_ipv4_header(words: u8) -> Vector {
    let scene = Scene::outside(Family::V4, TCP, 1);
    let mut input = scene.first().build();
    input[14] = 0x40 | words;
    everywhere(
        format!("IPv4, a header of {words} words"),
        scene.world(),
        input,
    )
}

/// The length in the IP header is nobody's business but the stack's: what goes
/// up there is dropped there.
fn lying_length(family: Family, length: u16) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let lie = |frame: &Frame| {
        let mut bytes = frame.build();
        match family {
            Family::V4 => {
                bytes[16..18].copy_from_slice(&length.to_be_bytes());
                bytes[24..26].copy_from_slice(&[0, 0]);
                let csum = !reference::ones_sum(&bytes[14..34]);
                bytes[24..26].copy_from_slice(&csum.to_be_bytes());
            }
            Family::V6 => bytes[18..20].copy_from_slice(&length.to_be_bytes()),
        }
        bytes
    };
    let input = scene.first();
    let mut expected = pass(Reason::NewFlow, &input.clone().to(scene.backend));
    expected.output = lie(&input.clone().to(scene.backend));
    Vector::new(
        THEME,
        format!("{family}, a length of {length}"),
        scene.world(),
    )
    .bytes(At::Uplink, lie(&input), expected)
}

fn lying_udp_length(family: Family, length: u16) -> Vector {
    let scene = Scene::outside(family, UDP, 1);
    let lie = |frame: &Frame| {
        let mut bytes = frame.build();
        let at = 14 + family.header() + 4;
        bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let input = scene.first();
    let mut expected = pass(Reason::NewFlow, &input.clone().to(scene.backend));
    expected.output = lie(&input.clone().to(scene.backend));
    Vector::new(
        THEME,
        format!("{family}, a UDP length of {length}"),
        scene.world(),
    )
    .bytes(At::Uplink, lie(&input), expected)
}

/// A vip speaks TCP, UDP and ping.
fn other_protocol(family: Family, protocol: u8) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let mut input = scene.first().payload(&[0x11; 24]);
    input.l4 = L4::Raw(protocol);
    // In IPv6, 0 is an extension header: here of 18 words, and then UDP, which the
    // frame does not have.
    let expected = if family == Family::V6 && protocol == 0 {
        dropped(Reason::Malformed)
    } else {
        dropped(Reason::UnknownPort)
    };
    Vector::new(
        THEME,
        format!("{family}, protocol {protocol}"),
        scene.world(),
    )
    .packet(At::Uplink, &input, expected.clone())
    .packet(At::Pod, &input, expected)
    .conntrack([])
}

/// A tag that no device took off: the frame is none of ours.
fn vlan(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let plain = scene.first().build();
    let input = [&plain[..12], &[0x81, 0, 0, 5], &plain[12..]].concat();
    everywhere(format!("{family}, a VLAN tag"), scene.world(), input)
}

/// Source and destination are the vip (a LAND attack): it is a flow like any.
fn addressed_to_itself(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let input = tcp(scene.front, scene.front, flag::SYN);
    let output = input.clone().to(scene.backend);
    Vector::new(
        THEME,
        format!("{family}, from the vip to itself"),
        scene.world(),
    )
    .packet(At::Uplink, &input, pass(Reason::NewFlow, &output))
}

fn strange_sources(family: Family) -> [IpAddr; 4] {
    match family {
        Family::V4 => ["0.0.0.0", "255.255.255.255", "127.0.0.1", "224.0.0.1"].map(ip),
        Family::V6 => [
            "::",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "::1",
            "ff02::1",
        ]
        .map(ip),
    }
}

/// The stack drops martians, before or after translation.
fn strange_source(family: Family, source: IpAddr) -> Vector {
    let scene = Scene::outside(family, UDP, 1);
    let input = udp(at(source, 40000), scene.front);
    let output = input.clone().to(scene.backend);
    Vector::new(THEME, format!("from {source}"), scene.world()).packet(
        At::Uplink,
        &input,
        pass(Reason::NewFlow, &output),
    )
}

/// Ethernet pads short frames: what follows the datagram stays.
fn padded(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let pad = |frame: &Frame| [&frame.build()[..], &[0xee; 9]].concat();
    let input = scene.first();
    let mut expected = pass(Reason::NewFlow, &input);
    expected.output = pad(&input.clone().to(scene.backend));
    Vector::new(
        THEME,
        format!("{family}, padding behind the datagram"),
        scene.world(),
    )
    .bytes(At::Uplink, pad(&input), expected)
}

/// Every flag of TCP at once ("Christmas tree"): it opens nothing that RST or
/// FIN would not end, but it is a flow's packet like any.
fn all_flags(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let flags = flag::FIN | flag::SYN | flag::RST | flag::PSH | flag::ACK;
    let input = tcp(scene.client, scene.front, flags);
    let flow = scene.flow();
    use lb_common::ct_flags::{FIN, RST, SEEN, SYN};
    Vector::new(THEME, format!("{family}, every flag"), scene.world())
        .packet(
            At::Uplink,
            &input,
            pass(Reason::NewFlow, &input.clone().to(scene.backend)),
        )
        .conntrack([flow.forward(FIN | SYN | RST | SEEN, 1), flow.reply(0, 0)])
}

fn nothing_but_ones(family: Family) -> Vector {
    let ether_type: [u8; 2] = match family {
        Family::V4 => [8, 0],
        Family::V6 => [0x86, 0xdd],
    };
    let mut input = vec![0xff; 200];
    input[12..14].copy_from_slice(&ether_type);
    let world = Scene::outside(family, TCP, 1).world();
    everywhere(format!("{family}, nothing but ones"), world, input)
}

/// A chain of options that do not end, or lead out of the frame.
fn chains() -> Vec<Vector> {
    let scene = Scene::outside(Family::V6, TCP, 1);
    let many = |count: usize| {
        let one = [0, 1, 4, 0, 0, 0, 0];
        (0..count).fold(scene.first(), |frame, _| frame.extension(60, &one))
    };
    let long = |words: u8| {
        let mut bytes = vec![words];
        bytes.resize(usize::from(words) * 8 + 7, 0);
        scene.first().extension(60, &bytes)
    };
    // Its next header is itself, and its length is nothing: it stays in place.
    let mut circle = many(1).build();
    circle[54] = 60;
    let mut beyond = many(1).build();
    beyond[55] = 0xff;
    let cases = [
        ("IPv6, seven extension headers", many(7).build()),
        ("IPv6, thirty extension headers", many(30).build()),
        ("IPv6, extension headers of 600 bytes", long(74).build()),
        ("IPv6, options that follow options into TCP", circle),
        ("IPv6, options that lead out of the frame", beyond),
    ];
    cases
        .into_iter()
        .map(|(what, input)| everywhere(what.to_owned(), scene.world(), input))
        .collect()
}

/// An IPv6 packet to an IPv4 address in its mapped form must not reach the IPv4
/// frontend: such addresses are not for the wire (RFC 4942, section 2.2).
fn mapped_address() -> Vector {
    let scene = Scene::outside(Family::V4, TCP, 1);
    let mapped = |a: SocketAddr| {
        let IpAddr::V4(v4) = a.ip() else {
            panic!("the scene is IPv4's");
        };
        at(v4.to_ipv6_mapped().into(), a.port())
    };
    let input = tcp(mapped(scene.client), mapped(scene.front), flag::SYN);
    everywhere(
        "IPv6 to a mapped address".to_owned(),
        scene.world(),
        input.build(),
    )
}

/// ARP, 802.3 lengths, and what nobody has assigned.
fn other_ether_types() -> Vec<Vector> {
    let scene = Scene::outside(Family::V4, TCP, 1);
    let types = [0x0806u16, 0x0026, 0x8847, 0x88cc, 0xffff, 0x0008, 0xdd86];
    types
        .into_iter()
        .map(|number| {
            let mut input = scene.first().build();
            input[12..14].copy_from_slice(&number.to_be_bytes());
            everywhere(format!("EtherType {number:04x}"), scene.world(), input)
        })
        .collect()
}
