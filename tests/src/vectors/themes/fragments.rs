//! Fragments: the first has the ports; later ones follow it.

use lb_common::Reason;

use super::scene::{PROTOS, Scene, UDP, name};
use crate::vectors::{
    frame::{Frame, L4},
    net::{FAMILIES, Family, GATEWAY, NODE_A, UP0},
    vector::{At, Expect, Vector, dropped, out, pass, untouched},
};

const THEME: &str = "fragments";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            all.push(first_of_many(family, proto));
            all.push(atomic(family, proto));
            for offset in [1, 185, 0x1fff] {
                all.push(later(family, proto, offset));
            }
            all.push(last(family, proto));
        }
        for node in [1, 2] {
            all.push(both_ways(family, node));
        }
        all.push(another_datagram(family));
        all.push(no_room(family));
        all.push(to_the_node(family));
        all.push(to_nobody(family));
        all.push(on_egress(family));
    }
    all.push(options_behind_the_fragment_header());
    all
}

/// A fragment: offset in words of eight bytes, and whether more follow.
fn fragment(family: Family, frame: Frame, offset: u16, more: bool) -> Frame {
    match family {
        Family::V4 => frame.frag((0x4321, offset, more, false)),
        Family::V6 => {
            let field = offset << 3 | u16::from(more);
            let [hi, lo] = field.to_be_bytes();
            frame.extension(44, &[0, hi, lo, 0, 0, 0x43, 0x21])
        }
    }
}

fn first_of_many(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let input = fragment(family, scene.first().payload(&[9; 64]), 0, true);
    let output = input.clone().to(scene.backend);
    let flow = scene.flow();
    let title = format!("{family} {}, the first of many", name(proto));
    Vector::new(THEME, title, scene.world())
        .packet(At::Uplink, &input, pass(Reason::NewFlow, &output))
        .conntrack([
            flow.forward(scene.opened(), 1),
            flow.reply(0, 0),
            flow.fragments(ID, false),
        ])
}

/// Identification of the datagrams here.
const ID: u32 = 0x4321;

/// A datagram of three fragments to a backend that is local or remote, and one back.
fn both_ways(family: Family, node: u8) -> Vector {
    let scene = Scene::outside(family, UDP, node);
    let world = scene.world();
    let (flow, source) = match node {
        1 => (scene.flow(), scene.client),
        _ => scene.snat(&world),
    };
    let (ahead, home) = match node {
        1 => (None, None),
        _ => (Some((UP0.mac, NODE_A)), Some((UP0.mac, GATEWAY))),
    };
    let replies = if node == 1 { At::ToNet } else { At::Uplink };
    let title = format!("{family} UDP, there and back, backend on node {node}");
    let mut vector = Vector::new(THEME, title, world);
    let request = parts(family, &scene.first().payload(&[7; 48]));
    for (i, input) in request.iter().enumerate() {
        let reason = if i == 0 {
            Reason::NewFlow
        } else {
            Reason::Established
        };
        let output = input.clone().from(source).to(scene.backend);
        vector = vector.packet(At::Uplink, input, sent(reason, output, ahead));
    }
    let answer = scene.answer(source).payload(&[8; 48]);
    for input in &parts(family, &answer) {
        let output = input.clone().from(scene.front).to(scene.client);
        vector = vector.packet(replies, input, sent(Reason::Reply, output, home));
    }
    vector.conntrack([
        flow.forward(scene.opened(), 1),
        flow.reply(scene.opened(), 1),
        flow.fragments(ID, false),
        flow.fragments(ID, true),
    ])
}

/// Passed on, or sent by the FIB with these link addresses.
fn sent(reason: Reason, output: Frame, link: Option<([u8; 6], [u8; 6])>) -> Expect {
    let Some((src, dst)) = link else {
        return pass(reason, &output);
    };
    let ttl = output.ttl - 1;
    out(reason, UP0.ifindex, &output.link(src, dst).ttl(ttl))
}

/// A datagram in fragments of 24 bytes.
fn parts(family: Family, whole: &Frame) -> Vec<Frame> {
    let bytes = whole.build()[14 + family.header()..].to_vec();
    let last = bytes.len().div_ceil(24) - 1;
    let part = |(i, bytes): (usize, &[u8])| {
        // Translation changes a first fragment's checksum as it would the whole one's.
        let mut frame = whole.clone();
        if i == 0 {
            frame.cut = Some(24);
        } else {
            frame.l4 = L4::Raw(UDP);
            frame.payload = bytes.to_vec();
        }
        fragment(family, frame, 3 * i as u16, i < last)
    };
    bytes.chunks(24).enumerate().map(part).collect()
}

/// What has another identification belongs to a datagram whose beginning is not known.
fn another_datagram(family: Family) -> Vector {
    let scene = Scene::outside(family, UDP, 1);
    let request = parts(family, &scene.first().payload(&[7; 48]));
    let output = request[0].clone().to(scene.backend);
    let mut other = request[1].clone();
    match family {
        Family::V4 => other.frag.0 += 1,
        Family::V6 => other.extensions[0].1[6] += 1,
    }
    Vector::new(
        THEME,
        format!("{family} UDP, of two datagrams"),
        scene.world(),
    )
    .packet(At::Uplink, &request[0], pass(Reason::NewFlow, &output))
    .packet(At::Uplink, &other, dropped(Reason::Fragment))
}

/// A first fragment whose later ones could not be known is not sent either.
fn no_room(family: Family) -> Vector {
    let scene = Scene::outside(family, UDP, 1);
    let flow = scene.flow();
    let mut world = scene.world().flow(&flow, 1, (scene.going(), scene.going()));
    world.full = true;
    let request = parts(family, &scene.later().payload(&[7; 48]));
    Vector::new(THEME, format!("{family} UDP, conntrack is full"), world)
        .packet(At::Uplink, &request[0], dropped(Reason::ConntrackFull))
        .packet(At::Uplink, &request[1], dropped(Reason::Fragment))
}

/// The first header behind the fragment header is in the first fragment only, so that
/// later ones name another protocol.
fn options_behind_the_fragment_header() -> Vector {
    let scene = Scene::outside(Family::V6, UDP, 1);
    let request = parts(Family::V6, &scene.first().payload(&[7; 48]));
    let mut first = request[0].clone();
    first.extensions.push((60, vec![0, 1, 4, 0, 0, 0, 0]));
    let mut later = request[1].clone();
    later.l4 = L4::Raw(60);
    let there = |f: &Frame| f.clone().to(scene.backend);
    Vector::new(THEME, "IPv6 UDP, behind options", scene.world())
        .packet(At::Uplink, &first, pass(Reason::NewFlow, &there(&first)))
        .packet(
            At::Uplink,
            &later,
            pass(Reason::Established, &there(&later)),
        )
}

/// A whole packet with offset 0 and no more fragments (RFC 6946 for IPv6).
fn atomic(family: Family, proto: u8) -> Vector {
    let scene = Scene::from_pod(family, proto, 2);
    let input = fragment(family, scene.first(), 0, false);
    let output = input.clone().to(scene.backend);
    let title = format!("{family} {}, whole", name(proto));
    Vector::new(THEME, title, scene.world()).packet(At::Pod, &input, pass(Reason::NewFlow, &output))
}

/// A fragment without transport header, whose bytes look like one.
fn headless(scene: &Scene, offset: u16, more: bool) -> Frame {
    let whole = scene.first().build();
    let bytes = &whole[14 + scene.family.header()..];
    let mut frame = scene.first().payload(bytes);
    frame.l4 = L4::Raw(scene.proto);
    fragment(scene.family, frame, offset, more)
}

fn later(family: Family, proto: u8, offset: u16) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let input = headless(&scene, offset, true);
    let title = format!("{family} {}, offset {offset}", name(proto));
    Vector::new(THEME, title, scene.world())
        .packet(At::Uplink, &input, dropped(Reason::Fragment))
        .packet(At::Pod, &input, dropped(Reason::Fragment))
        .conntrack([])
}

fn last(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let input = headless(&scene, 10, false);
    let title = format!("{family} {}, the last", name(proto));
    Vector::new(THEME, title, scene.world()).packet(At::Uplink, &input, dropped(Reason::Fragment))
}

/// The node joins the fragments of its own packets itself.
fn to_the_node(family: Family) -> Vector {
    let scene = Scene::outside(family, UDP, 1);
    let mut input = headless(&scene, 10, true);
    input.dst = family.node();
    Vector::new(THEME, format!("{family}, to the node"), scene.world()).packet(
        At::Uplink,
        &input,
        untouched(&input.build()),
    )
}

fn to_nobody(family: Family) -> Vector {
    let scene = Scene::outside(family, UDP, 1);
    let mut input = headless(&scene, 10, true);
    input.dst = family.pod(2, 9);
    Vector::new(THEME, format!("{family}, none of ours"), scene.world())
        .packet(At::Uplink, &input, untouched(&input.build()))
        .packet(At::Pod, &input, untouched(&input.build()))
}

fn on_egress(family: Family) -> Vector {
    let scene = Scene::outside(family, UDP, 1);
    let world = scene.world().flow(&scene.flow(), 0, (scene.going(), 0));
    let mut input = headless(&scene, 10, true);
    (input.src, input.dst) = (scene.backend.ip(), scene.client.ip());
    Vector::new(THEME, format!("{family}, a later one of a reply"), world)
        .packet(At::ToNet, &input, untouched(&input.build()))
        .packet(At::ToPod, &input, untouched(&input.build()))
}
