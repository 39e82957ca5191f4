//! A pod that dials the service behind which it is: its packets turn around, and
//! it sees the node as its client.

use lb_common::Reason;

use super::scene::{PROTOS, Scene, name};
use crate::vectors::{
    frame::Frame,
    net::{FAMILIES, Family, at},
    vector::{At, Vector, back, dropped, pass},
    world::World,
};

const THEME: &str = "hairpin";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            all.push(there_and_back(family, proto));
            all.push(no_node_address(family, proto));
            all.push(neighbour_is_none(family, proto));
        }
    }
    all
}

/// The client's own pod is the backend.
fn scene(family: Family, proto: u8) -> Scene {
    let mut scene = Scene::from_pod(family, proto, 1);
    scene.backend.set_ip(scene.client.ip());
    scene
}

fn there_and_back(family: Family, proto: u8) -> Vector {
    let scene = scene(family, proto);
    let world = scene.world();
    let port = world.snat_port(proto, scene.client, scene.front, 0);
    let source = at(family.node(), port);
    let flow = scene.flow().hairpin(source);
    let there = |f: &Frame| f.clone().from(source).to(scene.backend).turned();
    let home = |f: &Frame| f.clone().from(scene.front).to(scene.client).turned();
    let (first, answer, more) = (scene.first(), scene.answer(source), scene.later());
    Vector::new(
        THEME,
        format!("{family} {}, there and back", name(proto)),
        world,
    )
    .packet(At::Pod, &first, back(Reason::NewFlow, &there(&first)))
    .packet(At::Pod, &answer, back(Reason::Reply, &home(&answer)))
    .packet(At::Pod, &more, back(Reason::Established, &there(&more)))
    .conntrack([flow.forward(scene.going(), 2), flow.reply(scene.going(), 1)])
}

fn no_node_address(family: Family, proto: u8) -> Vector {
    let scene = scene(family, proto);
    let world = scene.add_to(World::bare());
    let name = format!("{family} {}, the node has no address", name(proto));
    Vector::new(THEME, name, world)
        .packet(At::Pod, &scene.first(), dropped(Reason::NoNodeAddress))
        .conntrack([])
}

/// Another pod of the node with the same port is no hairpin.
fn neighbour_is_none(family: Family, proto: u8) -> Vector {
    let mut scene = Scene::from_pod(family, proto, 1);
    scene.client.set_port(scene.backend.port());
    let input = scene.first();
    let flow = scene.flow();
    let name = format!("{family} {}, a neighbour with the same port", name(proto));
    Vector::new(THEME, name, scene.world())
        .packet(
            At::Pod,
            &input,
            pass(Reason::NewFlow, &input.clone().to(scene.backend)),
        )
        .conntrack([flow.forward(scene.opened(), 1), flow.reply(0, 0)])
}
