//! Flows that the kernel translates by rules that were there before: they pass as
//! they are, and everything new is ours (`docs/adr/0007-takeover.md`).

use lb_common::{Reason, ct_flags, node_flags};

use super::scene::{PROTOS, Scene, TCP, name};
use crate::vectors::{
    flow::Flow,
    frame::{flag, later, tcp},
    net::{FAMILIES, Family, NODE_A, UP0, at},
    vector::{At, Vector, out, pass, untouched},
    world::World,
};

const THEME: &str = "left to the kernel";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            let scenes = [
                Scene::outside(family, proto, 1),
                Scene::outside(family, proto, 2),
                Scene::from_pod(family, proto, 2),
            ];
            all.extend(scenes.map(there_and_back));
            all.push(hidden_client(family, proto));
            all.push(source_port_is_taken(family, proto));
            all.push(rules_open_flows(Scene::from_pod(family, proto, 1)));
        }
        for scene in [
            Scene::outside(family, TCP, 1),
            Scene::from_pod(family, TCP, 2),
        ] {
            all.push(opened_anew(scene));
            all.push(unknown_beside_rules(scene));
            all.push(known_beside_rules(scene));
        }
    }
    all
}

/// The flow as the kernel translates it, to a backend that we would not choose.
fn left(scene: &Scene) -> Flow {
    let old = at(scene.family.pod(2, 99), 9999);
    Flow::new(scene.proto, scene.client, scene.front, old).left()
}

fn seen(scene: &Scene, flow: &Flow) -> World {
    let both = (ct_flags::SEEN, ct_flags::SEEN);
    scene.world().flow(flow, 10, both)
}

fn there_and_back(scene: Scene) -> Vector {
    let flow = left(&scene);
    let there = scene.later();
    let back = later(scene.proto, flow.backend, scene.client);
    let title = format!("{}, there and back", scene.title());
    Vector::new(THEME, title, seen(&scene, &flow))
        .packet(scene.at, &there, untouched(&there.build()))
        .packet(scene.at, &there, untouched(&there.build()))
        .packet(scene.replies(), &back, untouched(&back.build()))
        .conntrack([
            flow.forward(ct_flags::SEEN, 3),
            flow.reply(ct_flags::SEEN, 0),
        ])
}

/// The kernel has put the node's address in the client's place, with a port of our
/// own range.
fn hidden_client(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let source = at(family.node(), 61234);
    let flow = left(&scene).source(source);
    let back = later(proto, flow.backend, source);
    let title = format!("{family} {}, a reply to the node", name(proto));
    Vector::new(THEME, title, seen(&scene, &flow))
        .packet(At::Uplink, &back, untouched(&back.build()))
        .conntrack([
            flow.forward(ct_flags::SEEN, 1),
            flow.reply(ct_flags::SEEN, 1),
        ])
}

/// The port that SNAT would take first is one that the kernel has taken.
fn source_port_is_taken(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let ports = [0, 1].map(|tries| {
        let world = scene.world();
        at(
            family.node(),
            world.snat_port(proto, scene.client, scene.front, tries),
        )
    });
    let other = at(family.client(6), 50000);
    let theirs = Flow::new(proto, other, scene.front, scene.backend)
        .source(ports[0])
        .left();
    let ours = scene.flow().snat(ports[1]);
    let input = scene.first();
    let output = input
        .clone()
        .from(ports[1])
        .to(scene.backend)
        .link(UP0.mac, NODE_A)
        .ttl(input.ttl - 1);
    let title = format!("{family} {}, its source port is not ours", name(proto));
    Vector::new(THEME, title, seen(&scene, &theirs))
        .packet(
            At::Uplink,
            &input,
            out(Reason::NewFlow, UP0.ifindex, &output),
        )
        .conntrack([
            theirs.forward(ct_flags::SEEN, 1),
            theirs.reply(ct_flags::SEEN, 0),
            ours.forward(scene.opened(), 1),
            ours.reply(0, 0),
        ])
}

/// A SYN begins a flow that no rule would translate.
fn opened_anew(scene: Scene) -> Vector {
    let (old, new) = (left(&scene), scene.flow());
    let input = scene.first();
    let there = input.clone().to(scene.backend);
    let more = scene.later();
    let going = more.clone().to(scene.backend);
    let title = format!("{}, the port is used again", scene.title());
    Vector::new(THEME, title, seen(&scene, &old))
        .packet(scene.at, &input, pass(Reason::NewFlow, &there))
        .packet(scene.at, &more, pass(Reason::Established, &going))
        .conntrack([
            new.forward(scene.going(), 2),
            new.reply(0, 0),
            old.reply(ct_flags::SEEN, 0),
        ])
}

fn beside(mut world: World) -> World {
    world.node.flags |= node_flags::BESIDE_RULES;
    world
}

/// What opens nothing and is not known belongs to the rules that are still there.
fn unknown_beside_rules(scene: Scene) -> Vector {
    let title = format!("{}, unknown beside rules", scene.title());
    let mut vector = Vector::new(THEME, title, beside(scene.world()));
    for flags in [
        flag::ACK,
        flag::ACK | flag::FIN,
        flag::RST,
        flag::SYN | flag::ACK,
    ] {
        let input = tcp(scene.client, scene.front, flags);
        vector = vector.packet(scene.at, &input, untouched(&input.build()));
    }
    vector.conntrack([])
}

/// What is known is ours, rules or not.
fn known_beside_rules(scene: Scene) -> Vector {
    let flow = scene.flow();
    let world = scene.world().flow(&flow, 10, (scene.going(), 0));
    let input = scene.later();
    let there = input.clone().to(scene.backend);
    let title = format!("{}, known beside rules", scene.title());
    Vector::new(THEME, title, beside(world))
        .packet(scene.at, &input, pass(Reason::Established, &there))
        .conntrack([flow.forward(scene.going(), 2), flow.reply(0, 0)])
}

/// What opens a flow is ours, rules or not; of UDP nobody can tell.
fn rules_open_flows(scene: Scene) -> Vector {
    let input = scene.first();
    let there = input.clone().to(scene.backend);
    let title = format!("{}, opened beside rules", scene.title());
    Vector::new(THEME, title, beside(scene.world()))
        .packet(scene.at, &input, pass(Reason::NewFlow, &there))
        .conntrack([
            scene.flow().forward(scene.opened(), 1),
            scene.flow().reply(0, 0),
        ])
}
