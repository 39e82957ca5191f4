//! Traffic policies, scopes, and addresses of the node.

use lb_common::{Reason, frontend_flags, scope};

use super::scene::{PROTOS, Scene, UDP, name};
use crate::vectors::{
    frame::{Frame, first},
    net::{FAMILIES, Family, NODE_A, UP0, at},
    vector::{At, Vector, dropped, out, pass, untouched},
    world::{Front, World},
};

const THEME: &str = "policies and scopes";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            all.push(local_without_endpoint(family, proto, At::Uplink));
            all.push(local_without_endpoint(family, proto, At::Pod));
            all.push(scopes_differ(family, proto));
            all.push(node_port(family, proto));
            all.push(node_port_remote(family, proto));
            all.push(unknown_port_of_the_node(family, proto));
            all.push(none_of_ours(family, proto));
            all.push(filter_lies(family, proto));
            all.push(wrong_protocol(family, proto));
        }
    }
    all
}

fn input(family: Family, proto: u8, from: At, front: std::net::SocketAddr) -> Frame {
    let client = match from {
        At::Uplink => family.client(5),
        _ => family.pod(1, 3),
    };
    first(proto, at(client, 40000), front)
}

fn local_without_endpoint(family: Family, proto: u8, from: At) -> Vector {
    let front = at(family.vip(1), 80);
    let flags = frontend_flags::DROP_IF_EMPTY | frontend_flags::NO_SNAT;
    let world = World::new().front(&Front::new(1, front, proto).flags(flags));
    let title = format!(
        "{family} {}, policy Local, no endpoint, {from:?}",
        name(proto)
    );
    Vector::new(THEME, title, world)
        .packet(
            from,
            &input(family, proto, from, front),
            dropped(Reason::NoLocalEndpoint),
        )
        .conntrack([])
}

/// External traffic has another backend than internal traffic.
fn scopes_differ(family: Family, proto: u8) -> Vector {
    let front = at(family.vip(1), 80);
    let (local, remote) = (at(family.pod(1, 7), 80), at(family.pod(2, 8), 80));
    let world = World::new()
        .backend(1, local, proto, true)
        .backend(2, remote, proto, false)
        .front(
            &Front::new(1, front, proto)
                .table(&[1])
                .scopes(&[scope::EXTERNAL]),
        )
        .front(
            &Front::new(1, front, proto)
                .table(&[2])
                .scopes(&[scope::INTERNAL]),
        );
    let outside = input(family, proto, At::Uplink, front);
    let inside = input(family, proto, At::Pod, front);
    let title = format!("{family} {}, a backend for each scope", name(proto));
    Vector::new(THEME, title, world)
        .packet(
            At::Uplink,
            &outside,
            pass(Reason::NewFlow, &outside.clone().to(local)),
        )
        .packet(
            At::Pod,
            &inside,
            pass(Reason::NewFlow, &inside.clone().to(remote)),
        )
}

fn node_port(family: Family, proto: u8) -> Vector {
    let mut scene = Scene::outside(family, proto, 1);
    scene.front = at(family.node(), 30080);
    let input = scene.first();
    let flow = scene.flow();
    let title = format!("{family} {}, a NodePort", name(proto));
    Vector::new(THEME, title, scene.world())
        .packet(
            At::Uplink,
            &input,
            pass(Reason::NewFlow, &input.clone().to(scene.backend)),
        )
        .conntrack([flow.forward(scene.opened(), 1), flow.reply(0, 0)])
}

fn node_port_remote(family: Family, proto: u8) -> Vector {
    let mut scene = Scene::outside(family, proto, 2);
    scene.front = at(family.node(), 30080);
    let world = scene.world();
    let (flow, source) = scene.snat(&world);
    let input = scene.first();
    let output = input
        .clone()
        .from(source)
        .to(scene.backend)
        .link(UP0.mac, NODE_A)
        .ttl(input.ttl - 1);
    let title = format!("{family} {}, a NodePort with a remote backend", name(proto));
    Vector::new(THEME, title, world)
        .packet(
            At::Uplink,
            &input,
            out(Reason::NewFlow, UP0.ifindex, &output),
        )
        .conntrack([flow.forward(scene.opened(), 1), flow.reply(0, 0)])
}

/// The node's own services are not ours.
fn unknown_port_of_the_node(family: Family, proto: u8) -> Vector {
    let mut scene = Scene::outside(family, proto, 1);
    scene.front = at(family.node(), 30080);
    let to = at(family.node(), 22);
    let outside = input(family, proto, At::Uplink, to);
    let inside = input(family, proto, At::Pod, to);
    let title = format!("{family} {}, a port of the node's own", name(proto));
    Vector::new(THEME, title, scene.world())
        .packet(At::Uplink, &outside, untouched(&outside.build()))
        .packet(At::Pod, &inside, untouched(&inside.build()))
        .conntrack([])
}

fn none_of_ours(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let to = at(family.pod(2, 99), 80);
    let outside = input(family, proto, At::Uplink, to);
    let inside = input(family, proto, At::Pod, to);
    let title = format!("{family} {}, to a pod itself", name(proto));
    Vector::new(THEME, title, scene.world())
        .packet(At::Uplink, &outside, untouched(&outside.build()))
        .packet(At::Pod, &inside, untouched(&inside.build()))
        .packet(At::ToPod, &inside, untouched(&inside.build()))
        .packet(At::ToNet, &outside, untouched(&outside.build()))
        .conntrack([])
}

/// The filter may say yes to what is none of ours: then the maps decide.
fn filter_lies(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let mut world = scene.world();
    let other = family.vip(66);
    world.vip(other, 0);
    world.frontends.retain(|key, _| key.addr != other.into());
    let input = input(family, proto, At::Uplink, at(other, 80));
    let title = format!("{family} {}, a false yes of the filter", name(proto));
    Vector::new(THEME, title, world)
        .packet(At::Uplink, &input, untouched(&input.build()))
        .packet(At::Pod, &input, untouched(&input.build()))
        .conntrack([])
}

/// The port is there, but for the other protocol.
fn wrong_protocol(family: Family, proto: u8) -> Vector {
    let other = if proto == UDP { 6 } else { UDP };
    let mut scene = Scene::outside(family, proto, 1);
    scene.front = at(family.node(), 30080);
    let input = input(family, other, At::Uplink, scene.front);
    let title = format!("{family}, a {} NodePort by {}", name(proto), name(other));
    Vector::new(THEME, title, scene.world())
        .packet(At::Uplink, &input, untouched(&input.build()))
        .conntrack([])
}
