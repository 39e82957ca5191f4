//! Source ports: two flows must never have the same tuple of replies.

use std::net::SocketAddr;

use lb_common::{Reason, ct_flags};

use super::scene::{PROTOS, Scene, TCP, UDP, name};
use crate::vectors::{
    flow::Flow,
    frame::first,
    net::{FAMILIES, Family, NODE_A, UP0, at},
    vector::{At, Vector, dropped, out, pass},
    world::{Front, World},
};

const THEME: &str = "source ports";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            all.push(two_frontends(Scene::from_pod(family, proto, 2)));
            all.push(two_frontends(Scene::outside(family, proto, 1)));
            all.push(dialled_directly_is_free(family, proto));
            for taken in [1, 2, 15] {
                all.push(taken_by_flows(family, proto, taken));
            }
            all.push(exhausted(family, proto));
            all.push(taken_by_socket(family, proto));
            all.push(small_range(family, proto));
            all.push(range_of_one(family, proto));
        }
        for end in [
            (ct_flags::RST, 0),
            (0, ct_flags::RST),
            (ct_flags::FIN, ct_flags::FIN),
        ] {
            all.push(taken_by_a_flow_that_is_over(family, end, true));
        }
        for end in [(ct_flags::FIN, 0), (0, ct_flags::FIN), (0, 0)] {
            all.push(taken_by_a_flow_that_is_over(family, end, false));
        }
        all.push(taken_by_an_idle_flow(family, 115, false));
        all.push(taken_by_an_idle_flow(family, 130, true));
        all.push(exhausted_in_a_pod(family));
    }
    all
}

/// The same client's port to the same backend by two frontends: the second flow
/// gets another source port.
fn two_frontends(scene: Scene) -> Vector {
    let second = at(scene.family.vip(2), 8000);
    let world = scene
        .world()
        .front(&Front::new(2, second, scene.proto).table(&[1]));
    let min = u32::from(world.node.snat_port_min);
    let span = u32::from(world.node.snat_port_max) - min + 1;
    // The tries start from the client's own port.
    let port = min + (u32::from(scene.client.port()) + 7919) % span;
    let source = at(scene.client.ip(), port as u16);
    let (one, two) = (scene.first(), first(scene.proto, scene.client, second));
    let (flow, other) = (scene.flow(), {
        let flow = Flow::new(scene.proto, scene.client, second, scene.backend);
        let flow = flow.source(source).ids(2, 1);
        if scene.at == At::Uplink {
            flow.external()
        } else {
            flow
        }
    });
    let translated = two.clone().from(source).to(scene.backend);
    let (answer, another) = (scene.answer(scene.client), scene.answer(source));
    Vector::new(THEME, format!("{}, by two frontends", scene.title()), world)
        .packet(
            scene.at,
            &one,
            pass(Reason::NewFlow, &one.clone().to(scene.backend)),
        )
        .packet(scene.at, &two, pass(Reason::NewFlow, &translated))
        .packet(
            scene.replies(),
            &answer,
            pass(Reason::Reply, &answer.clone().from(scene.front)),
        )
        .packet(
            scene.replies(),
            &another,
            pass(
                Reason::Reply,
                &another.clone().from(second).to(scene.client),
            ),
        )
        .conntrack([
            flow.forward(scene.opened(), 1),
            flow.reply(scene.going(), 1),
            other.forward(scene.opened(), 1),
            other.reply(scene.going(), 1),
        ])
}

/// Another client of the same address, on another port, is no collision.
fn dialled_directly_is_free(family: Family, proto: u8) -> Vector {
    let scene = Scene::from_pod(family, proto, 2);
    let other = Scene {
        client: at(scene.client.ip(), 40001),
        ..scene
    };
    let world = scene.world().flow(&other.flow(), 0, (scene.going(), 0));
    let input = scene.first();
    let title = format!("{family} {}, other ports of the client", name(proto));
    Vector::new(THEME, title, world).packet(
        At::Pod,
        &input,
        pass(Reason::NewFlow, &input.clone().to(scene.backend)),
    )
}

/// Another client's flow, live, that has a source for the same backend.
fn holder(scene: &Scene, n: u8, source: SocketAddr) -> Flow {
    let client = at(scene.family.client(100 + n), 7777);
    Flow::new(scene.proto, client, scene.front, scene.backend)
        .external()
        .snat(source)
}

fn snat_source(scene: &Scene, world: &World, tries: u32) -> SocketAddr {
    let port = world.snat_port(scene.proto, scene.client, scene.front, tries);
    at(scene.family.node(), port)
}

fn opens_with(vector: Vector, scene: &Scene, source: SocketAddr) -> Vector {
    let input = scene.first();
    let output = input
        .clone()
        .from(source)
        .to(scene.backend)
        .link(UP0.mac, NODE_A)
        .ttl(input.ttl - 1);
    vector.packet(
        At::Uplink,
        &input,
        out(Reason::NewFlow, UP0.ifindex, &output),
    )
}

fn taken_by_flows(family: Family, proto: u8, taken: u32) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let mut world = scene.world();
    for n in 0..taken {
        let flow = holder(&scene, n as u8, snat_source(&scene, &world, n));
        world = world.flow(&flow, 1, (scene.going(), scene.going()));
    }
    let source = snat_source(&scene, &world, taken);
    let title = format!("{family} {}, {taken} tries are taken", name(proto));
    opens_with(Vector::new(THEME, title, world), &scene, source)
}

fn exhausted(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let mut world = scene.world();
    for n in 0..16 {
        let flow = holder(&scene, n as u8, snat_source(&scene, &world, n));
        world = world.flow(&flow, 1, (scene.going(), scene.going()));
    }
    let title = format!("{family} {}, every try is taken", name(proto));
    Vector::new(THEME, title, world).packet(
        At::Uplink,
        &scene.first(),
        dropped(Reason::SnatExhausted),
    )
}

/// A socket of the node, as a DNS client of the node's, has the port.
fn taken_by_socket(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let world = scene.world();
    let (one, two) = (
        snat_source(&scene, &world, 0),
        snat_source(&scene, &world, 1),
    );
    let next = snat_source(&scene, &world, 2);
    let world = world.socket(proto, one).socket(proto, two);
    let title = format!("{family} {}, sockets have the ports", name(proto));
    opens_with(Vector::new(THEME, title, world), &scene, next)
}

fn small_range(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let world = scene.world().ports(50000, 50002);
    let one = snat_source(&scene, &world, 0);
    let next = snat_source(&scene, &world, 1);
    let world = world.flow(&holder(&scene, 1, one), 1, (scene.going(), 0));
    let title = format!("{family} {}, a range of three", name(proto));
    opens_with(Vector::new(THEME, title, world), &scene, next)
}

fn range_of_one(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let world = scene.world().ports(50000, 50000);
    let source = at(family.node(), 50000);
    let other = Scene {
        client: at(family.client(6), 1),
        ..scene
    };
    let title = format!("{family} {}, a range of one", name(proto));
    opens_with(Vector::new(THEME, title, world), &scene, source).packet(
        At::Uplink,
        &other.first(),
        dropped(Reason::SnatExhausted),
    )
}

/// A flow that is over gives its port away; one that is closed on one side only
/// does not.
fn taken_by_a_flow_that_is_over(family: Family, flags: (u32, u32), free: bool) -> Vector {
    let scene = Scene::outside(family, TCP, 2);
    let world = scene.world();
    let (source, next) = (
        snat_source(&scene, &world, 0),
        snat_source(&scene, &world, 1),
    );
    let flow = holder(&scene, 1, source);
    let going = scene.going();
    let world = world.flow(&flow, 1, (going | flags.0, going | flags.1));
    let of = |flags| match flags {
        ct_flags::FIN => "FIN",
        ct_flags::RST => "RST",
        _ => "nothing",
    };
    let title = format!(
        "{family}, the port's flow has seen {} and {}",
        of(flags.0),
        of(flags.1)
    );
    let vector = Vector::new(THEME, title, world);
    opens_with(vector, &scene, if free { source } else { next })
}

/// A flow that has timed out gives its port away, and none does before: 120 s are
/// 112 ticks, and eight more may pass until a direction hears of the other.
fn taken_by_an_idle_flow(family: Family, age: u32, free: bool) -> Vector {
    let scene = Scene::outside(family, UDP, 2);
    let world = scene.world();
    let (source, next) = (
        snat_source(&scene, &world, 0),
        snat_source(&scene, &world, 1),
    );
    let seen = ct_flags::SEEN;
    let world = world.flow(&holder(&scene, 1, source), age, (seen, seen));
    let title = format!("{family}, the port's flow has been idle for {age} ticks");
    let vector = Vector::new(THEME, title, world);
    opens_with(vector, &scene, if free { source } else { next })
}

/// A pod's client keeps its address: its own ports can be used up as well.
fn exhausted_in_a_pod(family: Family) -> Vector {
    let scene = Scene::from_pod(family, TCP, 2);
    let mut world = scene.world();
    let min = u32::from(world.node.snat_port_min);
    let span = u32::from(world.node.snat_port_max) - min + 1;
    let own = u32::from(scene.client.port());
    let ports = (1..16).map(|n| min + (own + n * 7919) % span);
    for (n, port) in [own].into_iter().chain(ports).enumerate() {
        let front = at(family.vip(2), 1000 + n as u16);
        let flow = Flow::new(TCP, scene.client, front, scene.backend)
            .source(at(scene.client.ip(), port as u16));
        world = world.flow(&flow, 1, (scene.going(), 0));
    }
    Vector::new(THEME, format!("{family}, a pod's ports are used up"), world).packet(
        At::Pod,
        &scene.first(),
        dropped(Reason::SnatExhausted),
    )
}
