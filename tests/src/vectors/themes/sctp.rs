//! SCTP: its checksum is of ports and not of addresses, and it is no sum.

use lb_common::{Reason, ct_flags};

use super::scene::{SCTP, Scene};
use crate::vectors::{
    frame::{Csum, Frame, chunk, sctp},
    net::{FAMILIES, Family, GATEWAY, NODE_A, UP0, at},
    vector::{At, Vector, dropped, out, pass},
    world::World,
};

const THEME: &str = "SCTP";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for scene in [
            Scene::outside(family, SCTP, 1),
            Scene::from_pod(family, SCTP, 1),
            Scene::from_pod(family, SCTP, 2),
        ] {
            all.push(there_and_back(scene));
            all.push(same_port(scene));
        }
        all.push(by_snat(family));
        all.push(of_every_length(family));
        for kind in [chunk::ABORT, chunk::SHUTDOWN_COMPLETE] {
            all.push(over(family, kind));
        }
        all.push(for_a_device(family));
        all.push(no_chunk(family));
        all.push(first_fragment(family));
    }
    all
}

fn there_and_back(scene: Scene) -> Vector {
    let (first, more) = (scene.first(), scene.later());
    let answer = scene.answer(scene.client);
    let flow = scene.flow();
    let there = |f: &Frame| f.clone().to(scene.backend);
    let home = answer.clone().from(scene.front);
    Vector::new(
        THEME,
        format!("{}, there and back", scene.title()),
        scene.world(),
    )
    .packet(scene.at, &first, pass(Reason::NewFlow, &there(&first)))
    .packet(scene.replies(), &answer, pass(Reason::Reply, &home))
    .packet(scene.at, &more, pass(Reason::Established, &there(&more)))
    .conntrack([flow.forward(scene.going(), 2), flow.reply(scene.going(), 1)])
}

/// Where ports stay, the checksum stays, even if it is wrong.
fn same_port(mut scene: Scene) -> Vector {
    scene.backend.set_port(scene.front.port());
    let first = scene.first().csum(Csum::Is(0x1234));
    let there = first.clone().to(scene.backend);
    let title = format!("{}, the port stays", scene.title());
    Vector::new(THEME, title, scene.world()).packet(scene.at, &first, pass(Reason::NewFlow, &there))
}

fn by_snat(family: Family) -> Vector {
    let scene = Scene::outside(family, SCTP, 2);
    let world = scene.world();
    let (flow, source) = scene.snat(&world);
    let (first, answer) = (scene.first(), scene.answer(source));
    let leaving = |f: &Frame, ends: (_, _), link: ([u8; 6], [u8; 6])| {
        let ttl = f.ttl - 1;
        f.clone()
            .from(ends.0)
            .to(ends.1)
            .link(link.0, link.1)
            .ttl(ttl)
    };
    let there = leaving(&first, (source, scene.backend), (UP0.mac, NODE_A));
    let home = leaving(&answer, (scene.front, scene.client), (UP0.mac, GATEWAY));
    Vector::new(THEME, format!("{family}, by SNAT"), world)
        .packet(
            At::Uplink,
            &first,
            out(Reason::NewFlow, UP0.ifindex, &there),
        )
        .packet(At::Uplink, &answer, out(Reason::Reply, UP0.ifindex, &home))
        .conntrack([
            flow.forward(scene.opened(), 1),
            flow.reply(ct_flags::SYN | ct_flags::SEEN, 1),
        ])
}

/// The change of the ports goes through as many bytes as follow them.
fn of_every_length(family: Family) -> Vector {
    let scene = Scene::outside(family, SCTP, 1);
    let flow = scene.flow();
    let world = scene.world().flow(&flow, 1, (scene.going(), scene.going()));
    let mut vector = Vector::new(THEME, format!("{family}, lengths"), world);
    for len in [0usize, 1, 2, 3, 4, 7, 111, 112, 500, 1400] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        let input = scene.later().payload(&bytes);
        let output = input.clone().to(scene.backend);
        vector = vector.packet(At::Uplink, &input, pass(Reason::Established, &output));
    }
    vector
}

/// An association that is over: the next INIT may go elsewhere.
fn over(family: Family, kind: u8) -> Vector {
    let scene = Scene::outside(family, SCTP, 1);
    let flow = scene.flow();
    let elsewhere = at(family.pod(1, 9), 8080);
    let mut world = World::new().backend(1, scene.backend, SCTP, true);
    world = world.flow(&flow, 1, (scene.going(), scene.going()));
    world = world
        .backend(2, elsewhere, SCTP, true)
        .front(&scene.frontend().table(&[2]));
    let last = sctp(scene.client, scene.front, kind);
    let first = scene.first();
    Vector::new(THEME, format!("{family}, over by chunk {kind}"), world)
        .packet(
            At::Uplink,
            &last,
            pass(Reason::Established, &last.clone().to(scene.backend)),
        )
        .packet(
            At::Uplink,
            &first,
            pass(Reason::NewFlow, &first.clone().to(elsewhere)),
        )
}

/// A checksum that a device is to compute is left to it.
fn for_a_device(family: Family) -> Vector {
    let scene = Scene::from_pod(family, SCTP, 2);
    let input = scene.first().csum(Csum::Partial);
    let output = input.clone().to(scene.backend);
    Vector::new(THEME, format!("{family}, checksum to come"), scene.world()).packet(
        At::Pod,
        &input,
        pass(Reason::NewFlow, &output),
    )
}

/// A packet that ends with its common header, or within it.
fn no_chunk(family: Family) -> Vector {
    let scene = Scene::outside(family, SCTP, 1);
    let whole = scene.first().payload(&[]).build();
    let mut vector = Vector::new(THEME, format!("{family}, cut"), scene.world());
    for bytes in [0, 7, 8, 11, 12, 13] {
        let cut = whole[..14 + family.header() + bytes].to_vec();
        vector = vector.bytes(At::Uplink, cut, dropped(Reason::Malformed));
    }
    vector.conntrack([])
}

/// The checksum is of the whole datagram, whose length a fragment does not tell.
fn first_fragment(family: Family) -> Vector {
    let scene = Scene::outside(family, SCTP, 1);
    let input = match family {
        Family::V4 => scene.first().frag((7, 0, true, false)),
        Family::V6 => scene.first().extension(44, &[0, 0, 1, 0, 0, 0, 7]),
    };
    let mut same = scene;
    same.backend.set_port(scene.front.port());
    same.front = at(family.vip(2), scene.front.port());
    let kept = input.clone().to(same.front);
    let front = same.frontend().table(&[2]);
    let world = scene
        .world()
        .backend(2, same.backend, SCTP, true)
        .front(&front);
    Vector::new(THEME, format!("{family}, a fragment"), world)
        .packet(At::Uplink, &input, dropped(Reason::WriteFailed))
        .packet(
            At::Uplink,
            &kept,
            pass(Reason::NewFlow, &kept.clone().to(same.backend)),
        )
}
