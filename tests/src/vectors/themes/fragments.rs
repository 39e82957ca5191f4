//! Fragments: the first has the ports; later ones have nothing to go by.

use lb_common::Reason;

use super::scene::{PROTOS, Scene, UDP, name};
use crate::vectors::{
    frame::{Frame, L4},
    net::{FAMILIES, Family},
    vector::{At, Vector, dropped, pass, untouched},
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
        all.push(to_the_node(family));
        all.push(to_nobody(family));
        all.push(on_egress(family));
    }
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
        .conntrack([flow.forward(scene.opened(), 1), flow.reply(0, 0)])
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
