//! Remote backends of clients outside: they see the node, and packets leave by
//! the FIB, in both directions.

use std::net::SocketAddr;

use lb_common::{Reason, frontend_flags};

use super::scene::{PROTOS, Scene, TCP, name};
use crate::vectors::{
    frame::{Frame, later},
    net::{FAMILIES, Family, GATEWAY, NODE_A, NODE_B, NODE_C, SMALL_MTU, UP0, UP1, at},
    vector::{At, Expect, Vector, dropped, out, out_when_resolved, pass, untouched},
    world::World,
};

const THEME: &str = "SNAT";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            all.push(there_and_back(family, proto, 2));
            all.push(there_and_back(family, proto, 3));
            all.push(no_neighbour(family, proto));
            all.push(no_route(family, proto));
            all.push(ttl_ends(family, proto));
            all.push(ttl_nearly_ends(family, proto));
            all.push(reply_ttl_ends(family, proto));
            all.push(no_node_address(family, proto));
            all.push(policy_local(family, proto));
            all.push(stranger_to_a_snat_port(family, proto));
            all.push(established_no_route(family, proto));
        }
        for over in [0, 1] {
            all.push(at_the_mtu(family, over));
        }
        all.push(gso(family));
        all.push(longest(family));
    }
    all
}

/// The packet as it leaves: one hop less to go, link addresses of the FIB.
fn leaving(f: &Frame, (from, to): (SocketAddr, SocketAddr), link: ([u8; 6], [u8; 6])) -> Frame {
    let ttl = f.ttl - 1;
    f.clone().from(from).to(to).link(link.0, link.1).ttl(ttl)
}

fn there_and_back(family: Family, proto: u8, node: u8) -> Vector {
    let scene = Scene::outside(family, proto, node);
    let world = scene.world();
    let (flow, source) = scene.snat(&world);
    let (ifindex, link) = match node {
        2 => (UP0.ifindex, (UP0.mac, NODE_A)),
        _ => (UP1.ifindex, (UP1.mac, NODE_B)),
    };
    let there = |f: &Frame| leaving(f, (source, scene.backend), link);
    let home = |f: &Frame| leaving(f, (scene.front, scene.client), (UP0.mac, GATEWAY));
    let (first, more) = (scene.first(), scene.later());
    let answer = scene.answer(source);
    let data = later(proto, scene.backend, source);
    let device = if node == 2 { "the same" } else { "another" };
    let name = format!("{family} {}, by {device} device", name(proto));
    Vector::new(THEME, name, world)
        .packet(
            At::Uplink,
            &first,
            out(Reason::NewFlow, ifindex, &there(&first)),
        )
        .packet(
            At::Uplink,
            &answer,
            out(Reason::Reply, UP0.ifindex, &home(&answer)),
        )
        .packet(
            At::Uplink,
            &more,
            out(Reason::Established, ifindex, &there(&more)),
        )
        .packet(
            At::Uplink,
            &data,
            out(Reason::Reply, UP0.ifindex, &home(&data)),
        )
        .conntrack([flow.forward(scene.going(), 2), flow.reply(scene.going(), 2)])
}

fn no_neighbour(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 4);
    let world = scene.world();
    let (_, source) = scene.snat(&world);
    let input = scene.first();
    let ttl = input.ttl - 1;
    let output = input.clone().from(source).to(scene.backend).ttl(ttl);
    let name = format!("{family} {}, next hop unresolved", name(proto));
    Vector::new(THEME, name, world)
        .packet(
            At::Uplink,
            &input,
            out_when_resolved(Reason::NewFlow, UP0.ifindex, &output),
        )
        .but_in_xdp(pass(Reason::NoNeighbour, &input))
}

fn no_route(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 5);
    let name = format!("{family} {}, no route to the backend", name(proto));
    Vector::new(THEME, name, scene.world()).packet(
        At::Uplink,
        &scene.first(),
        dropped(Reason::NoRoute),
    )
}

fn established_no_route(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 5);
    let world = scene.world();
    let (flow, _) = scene.snat(&world);
    let world = world.flow(&flow, 9, (scene.going(), scene.going()));
    let name = format!("{family} {}, the route went away", name(proto));
    Vector::new(THEME, name, world)
        .packet(At::Uplink, &scene.later(), dropped(Reason::NoRoute))
        .conntrack([flow.forward(scene.going(), 2), flow.reply(scene.going(), 0)])
}

fn ttl_ends(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let title = format!("{family} {}, TTL 1 and 0", name(proto));
    let mut vector = Vector::new(THEME, title, scene.world());
    for ttl in [1, 0] {
        let input = scene.first().ttl(ttl);
        vector = vector.packet(At::Uplink, &input, dropped(Reason::TtlExceeded));
    }
    vector
}

fn ttl_nearly_ends(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let world = scene.world();
    let (_, source) = scene.snat(&world);
    let input = scene.first().ttl(2);
    let output = leaving(&input, (source, scene.backend), (UP0.mac, NODE_A));
    let name = format!("{family} {}, TTL 2", name(proto));
    Vector::new(THEME, name, world).packet(
        At::Uplink,
        &input,
        out(Reason::NewFlow, UP0.ifindex, &output),
    )
}

fn reply_ttl_ends(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let world = scene.world();
    let (flow, source) = scene.snat(&world);
    let world = world.flow(&flow, 0, (scene.going(), 0));
    let input = scene.answer(source).ttl(1);
    let name = format!("{family} {}, TTL 1 of the reply", name(proto));
    Vector::new(THEME, name, world).packet(At::Uplink, &input, dropped(Reason::TtlExceeded))
}

fn no_node_address(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let world = scene.add_to(World::bare());
    let name = format!("{family} {}, the node has no address", name(proto));
    Vector::new(THEME, name, world)
        .packet(At::Uplink, &scene.first(), dropped(Reason::NoNodeAddress))
        .conntrack([])
}

/// The backend sees the client, wherever it is.
fn policy_local(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let front = scene.frontend().flags(frontend_flags::NO_SNAT);
    let world = World::new()
        .backend(1, scene.backend, proto, false)
        .front(&front);
    let input = scene.first();
    let flow = scene.flow();
    let name = format!("{family} {}, not with NO_SNAT", name(proto));
    Vector::new(THEME, name, world)
        .packet(
            At::Uplink,
            &input,
            pass(Reason::NewFlow, &input.clone().to(scene.backend)),
        )
        .conntrack([flow.forward(scene.opened(), 1), flow.reply(0, 0)])
}

/// Ports of the range belong to flows; what belongs to none is the node's own.
fn stranger_to_a_snat_port(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let input = later(proto, scene.backend, at(family.node(), 62000));
    let name = format!("{family} {}, a port of no flow", name(proto));
    Vector::new(THEME, name, scene.world())
        .packet(At::Uplink, &input, untouched(&input.build()))
        .packet(At::Pod, &input, untouched(&input.build()))
        .conntrack([])
}

/// The MTU counts the IP header.
fn at_the_mtu(family: Family, over: usize) -> Vector {
    let mut scene = Scene::outside(family, TCP, 6);
    scene.backend.set_port(80);
    let world = scene.world();
    let (_, source) = scene.snat(&world);
    let len = SMALL_MTU as usize - family.header() - 20 + over;
    let input = scene.later().payload(&vec![0x5a; len]);
    let expected = if over == 0 {
        let output = leaving(&input, (source, scene.backend), (UP0.mac, NODE_C));
        out(Reason::NewFlow, UP0.ifindex, &output)
    } else {
        dropped(Reason::TooBig)
    };
    let title = format!("{family}, {over} bytes over the MTU");
    let vector = Vector::new(THEME, title, world).packet(At::Uplink, &input, expected);
    match over {
        0 => vector,
        _ => vector.but_in_xdp(pass(Reason::LeftToTc, &input)),
    }
}

/// A device has joined segments (GRO): each of them fits.
fn gso(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 2);
    let world = scene.world();
    let (flow, source) = scene.snat(&world);
    let world = world.flow(&flow, 0, (scene.going(), scene.going()));
    let input = scene.later().payload(&vec![0xa5; 2800]);
    let output = leaving(&input, (source, scene.backend), (UP0.mac, NODE_A));
    Vector::new(
        THEME,
        format!("{family}, segments joined by the device"),
        world,
    )
    .packet(
        At::Uplink,
        &input,
        out(Reason::Established, UP0.ifindex, &output),
    )
    .gso(1400)
}

/// The greatest length that an IP header can tell, of a packet that is short: the
/// FIB must not take it for a short one.
fn longest(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 2);
    let mut input = scene.first().build();
    let at = if family == Family::V4 { 16 } else { 18 };
    input[at..at + 2].copy_from_slice(&[0xff, 0xff]);
    Vector::new(
        THEME,
        format!("{family}, the greatest length"),
        scene.world(),
    )
    .bytes(At::Uplink, input.clone(), dropped(Reason::TooBig))
    .but_in_xdp(Expect {
        reason: Reason::LeftToTc,
        ..untouched(&input)
    })
}
