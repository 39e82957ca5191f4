//! ICMP errors that are about none of our flows, or do not say about which.

use super::icmp_errors::{THEME, error, router, too_big};
use super::scene::{PROTOS, Scene, UDP, name};
use crate::vectors::{
    frame::later,
    net::{FAMILIES, Family, at},
    vector::{At, Vector, untouched},
};

/// These vectors, of the theme of ICMP errors.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            all.push(about_nobody(family, proto));
            all.push(short(family, proto));
        }
        all.push(of_a_later_fragment(family));
        all.push(no_error(family));
    }
    all
}

/// About a packet of a flow that nobody knows.
fn about_nobody(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let about = later(proto, scene.front, at(family.client(6), 1));
    let input = error(
        too_big(family),
        (router(family), scene.front.ip()),
        &about,
        8,
    );
    let about = later(proto, at(family.client(6), 1), scene.backend);
    let reply = error(
        too_big(family),
        (scene.backend.ip(), family.client(6)),
        &about,
        8,
    );
    let name = format!("{family} {}, about a stranger's", name(proto));
    Vector::new(THEME, name, scene.world())
        .packet(At::Uplink, &input, untouched(&input.build()))
        .packet(At::ToNet, &reply, untouched(&reply.build()))
        .conntrack([])
}

/// Too little is quoted to know the ports, or not all of the IP header.
fn short(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let world = scene
        .world()
        .flow(&scene.flow(), 1, (scene.going(), scene.going()));
    let about = later(proto, scene.front, scene.client);
    let ends = (router(family), scene.front.ip());
    let name = format!("{family} {}, too short", name(proto));
    let mut vector = Vector::new(THEME, name, world);
    for bytes in [0, 4, 7] {
        let input = error(too_big(family), ends, &about, bytes).build();
        vector = vector.bytes(At::Uplink, input.clone(), untouched(&input));
    }
    let input = error(too_big(family), ends, &about, 8).build();
    let cut = input[..14 + family.header() + 8 + 12].to_vec();
    vector.bytes(At::Uplink, cut.clone(), untouched(&cut))
}

/// A later fragment has no ports to quote; what lies there looks like some.
fn of_a_later_fragment(family: Family) -> Vector {
    let scene = Scene::outside(family, UDP, 1);
    let world = scene
        .world()
        .flow(&scene.flow(), 1, (scene.going(), scene.going()));
    let whole = later(UDP, scene.front, scene.client);
    let about = match family {
        Family::V4 => whole.frag((7, 3, true, false)),
        Family::V6 => whole.extension(44, &[0, 0, 25, 0, 0, 0, 7]),
    };
    let input = error(
        too_big(family),
        (router(family), scene.front.ip()),
        &about,
        24,
    );
    Vector::new(THEME, format!("{family}, about a later fragment"), world).packet(
        At::Uplink,
        &input,
        untouched(&input.build()),
    )
}

/// A message that quotes a packet and is no error: an ICMP redirect.
fn no_error(family: Family) -> Vector {
    let scene = Scene::outside(family, UDP, 1);
    let world = scene
        .world()
        .flow(&scene.flow(), 1, (scene.going(), scene.going()));
    let about = later(UDP, scene.front, scene.client);
    let mut input = error(
        too_big(family),
        (router(family), scene.front.ip()),
        &about,
        8,
    )
    .build();
    input[14 + family.header()] = if family == Family::V4 { 5 } else { 137 };
    Vector::new(THEME, format!("{family}, a redirect"), world).bytes(
        At::Uplink,
        input.clone(),
        untouched(&input),
    )
}
