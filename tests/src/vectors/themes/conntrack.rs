//! Ends of flows, and conntrack that is full.

use lb_common::{Reason, ct_flags};

use super::scene::{PROTOS, Scene, TCP, name};
use crate::vectors::{
    frame::{flag, tcp},
    net::{FAMILIES, Family, NODE_A, UP0, at},
    vector::{At, Vector, dropped, out, pass, untouched},
};

const THEME: &str = "conntrack";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for end in [ct_flags::FIN, ct_flags::RST] {
            all.push(port_again(Scene::outside(family, TCP, 1), end));
            all.push(port_again(Scene::from_pod(family, TCP, 2), end));
            all.push(snat_port_again(family, end));
        }
        all.push(data_after_the_end(family));
        for end in [(ct_flags::FIN, ct_flags::FIN), (ct_flags::RST, 0)] {
            all.push(backend_dialled_from_the_same_port(family, end));
        }
        for proto in PROTOS {
            all.push(full(Scene::outside(family, proto, 1)));
            all.push(full(Scene::outside(family, proto, 2)));
            all.push(full(Scene::from_pod(family, proto, 2)));
            all.push(locked(family, proto, 1));
            all.push(locked(family, proto, 10));
            all.push(full_but_known(family, proto));
            all.push(reply_entry_lost(family, proto));
            all.push(forward_entry_lost(family, proto));
            all.push(egress_of_a_forward_entry(family, proto));
            all.push(counters(family, proto));
        }
    }
    all
}

fn ended(scene: &Scene, end: u32) -> (u32, u32) {
    (scene.going() | end, scene.going() | end)
}

/// A SYN from the port of a flow that is over, whose backend is another now.
fn port_again(scene: Scene, end: u32) -> Vector {
    let old = Scene {
        backend: at(scene.family.pod(1, 99), 9999),
        ..scene
    };
    let world = scene
        .world()
        .flow(&old.flow().ids(1, 9), 10, ended(&scene, end));
    let input = scene.first();
    let what = if end == ct_flags::FIN {
        "closed"
    } else {
        "reset"
    };
    let (new, stale) = (scene.flow(), old.flow().ids(1, 9));
    Vector::new(
        THEME,
        format!("{}, the old flow was {what}", scene.title()),
        world,
    )
    .packet(
        scene.at,
        &input,
        pass(Reason::NewFlow, &input.clone().to(scene.backend)),
    )
    .conntrack([
        new.forward(ct_flags::SYN, 1),
        new.reply(0, 0),
        stale.reply(scene.going() | end, 0),
    ])
}

/// The same with SNAT: the port of the old flow is the new one's.
fn snat_port_again(family: Family, end: u32) -> Vector {
    let scene = Scene::outside(family, TCP, 2);
    let world = scene.world();
    let (flow, source) = scene.snat(&world);
    let world = world.flow(&flow, 10, ended(&scene, end));
    let input = scene.first();
    let output = input
        .clone()
        .from(source)
        .to(scene.backend)
        .link(UP0.mac, NODE_A)
        .ttl(input.ttl - 1);
    let what = if end == ct_flags::FIN {
        "closed"
    } else {
        "reset"
    };
    Vector::new(
        THEME,
        format!("{family} SNAT, the old flow was {what}"),
        world,
    )
    .packet(
        At::Uplink,
        &input,
        out(Reason::NewFlow, UP0.ifindex, &output),
    )
    .conntrack([flow.forward(ct_flags::SYN, 1), flow.reply(0, 0)])
}

/// What comes late belongs to the old flow still.
fn data_after_the_end(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let flow = scene.flow();
    let flags = ended(&scene, ct_flags::FIN);
    let world = scene.world().flow(&flow, 10, flags);
    let input = scene.later();
    Vector::new(THEME, format!("{family}, data after the end"), world)
        .packet(
            At::Uplink,
            &input,
            pass(Reason::Established, &input.clone().to(scene.backend)),
        )
        .conntrack([flow.forward(flags.0, 2), flow.reply(flags.1, 0)])
}

/// A client whose flow is over dials the backend itself, from the same port: its
/// replies are the backend's own.
fn backend_dialled_from_the_same_port(family: Family, end: (u32, u32)) -> Vector {
    let scene = Scene::from_pod(family, TCP, 1);
    let flow = scene.flow();
    let flags = (scene.going() | end.0, scene.going() | end.1);
    let world = scene.world().flow(&flow, 10, flags);
    let answer = tcp(scene.backend, scene.client, flag::SYN | flag::ACK);
    let data = tcp(scene.backend, scene.client, flag::ACK).payload(b"hello");
    let what = if end.1 == 0 { "reset" } else { "closed" };
    Vector::new(
        THEME,
        format!("{family}, the backend is dialled, the old flow was {what}"),
        world,
    )
    .packet(At::ToPod, &answer, untouched(&answer.build()))
    .packet(At::ToPod, &data, untouched(&data.build()))
    .conntrack([
        flow.forward(flags.0, 1),
        flow.reply(flags.1 | ct_flags::SYN | ct_flags::SEEN | ct_flags::LEFT, 2),
    ])
}

fn full(scene: Scene) -> Vector {
    let mut world = scene.world();
    world.full = true;
    let title = format!("{}, conntrack is full", scene.title());
    Vector::new(THEME, title, world).packet(
        scene.at,
        &scene.first(),
        dropped(Reason::ConntrackFull),
    )
}

/// Another CPU is about to insert a flow; one that died while it did, long ago,
/// does no harm.
fn locked(family: Family, proto: u8, age: u32) -> Vector {
    let scene = Scene::from_pod(family, proto, 2);
    let mut world = scene.world();
    world.locked = Some(age);
    let input = scene.first();
    let effect = match age {
        1 => dropped(Reason::ConntrackBusy),
        _ => pass(Reason::NewFlow, &input.clone().to(scene.backend)),
    };
    let title = format!("{family} {}, locked {age} ticks ago", name(proto));
    Vector::new(THEME, title, world).packet(At::Pod, &input, effect)
}

fn full_but_known(family: Family, proto: u8) -> Vector {
    let scene = Scene::from_pod(family, proto, 1);
    let mut world = scene.world().flow(&scene.flow(), 0, (scene.going(), 0));
    world.full = true;
    let (input, answer) = (scene.later(), scene.answer(scene.client));
    let title = format!("{family} {}, full, but the flow is known", name(proto));
    Vector::new(THEME, title, world)
        .packet(
            At::Pod,
            &input,
            pass(Reason::Established, &input.clone().to(scene.backend)),
        )
        .packet(
            At::ToPod,
            &answer,
            pass(Reason::Reply, &answer.clone().from(scene.front)),
        )
}

/// The collector took the reply's half: the next packet of the client still has
/// its own, and goes on.
fn reply_entry_lost(family: Family, proto: u8) -> Vector {
    let scene = Scene::from_pod(family, proto, 2);
    let mut world = scene.world();
    world
        .flows
        .push(scene.flow().forward_seed(10, scene.going()));
    let (input, answer) = (scene.later(), scene.answer(scene.client));
    let title = format!("{family} {}, the reply's half is lost", name(proto));
    Vector::new(THEME, title, world)
        .packet(
            At::Pod,
            &input,
            pass(Reason::Established, &input.clone().to(scene.backend)),
        )
        .packet(At::ToPod, &answer, untouched(&answer.build()))
}

/// The collector took the client's half: the next packet makes it anew, under the
/// reply's half that is there.
fn forward_entry_lost(family: Family, proto: u8) -> Vector {
    let scene = Scene::from_pod(family, proto, 2);
    let flow = scene.flow();
    let mut world = scene.world();
    world.flows.push(flow.reply_seed(10, scene.going()));
    let input = scene.later();
    let title = format!("{family} {}, the client's half is lost", name(proto));
    Vector::new(THEME, title, world)
        .packet(
            At::Pod,
            &input,
            pass(Reason::NewFlow, &input.clone().to(scene.backend)),
        )
        .conntrack([flow.forward(ct_flags::SEEN, 1), flow.reply(0, 0)])
}

/// A client's packet on its way to the backend's pod passes egress too.
fn egress_of_a_forward_entry(family: Family, proto: u8) -> Vector {
    let scene = Scene::from_pod(family, proto, 1);
    let world = scene.world().flow(&scene.flow(), 10, (scene.going(), 0));
    let translated = scene.later().to(scene.backend);
    let title = format!("{family} {}, to the backend's pod", name(proto));
    Vector::new(THEME, title, world)
        .packet(At::ToPod, &translated, untouched(&translated.build()))
        .conntrack([
            scene.flow().forward(scene.going(), 1),
            scene.flow().reply(0, 0),
        ])
}

/// Five packets there and three back are five and three in the entries.
fn counters(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let flow = scene.flow();
    let world = scene
        .world()
        .flow(&flow, 10, (scene.going(), scene.going()));
    let title = format!("{family} {}, packets are counted", name(proto));
    let mut vector = Vector::new(THEME, title, world);
    for len in [1, 10, 100, 1000, 1400] {
        let input = scene.later().payload(&vec![1; len]);
        let output = input.clone().to(scene.backend);
        vector = vector.packet(At::Uplink, &input, pass(Reason::Established, &output));
    }
    for len in [7, 70, 700] {
        let answer = scene.answer(scene.client).payload(&vec![2; len]);
        let output = answer.clone().from(scene.front);
        vector = vector.packet(At::ToNet, &answer, pass(Reason::Reply, &output));
    }
    vector.conntrack([flow.forward(scene.going(), 6), flow.reply(scene.going(), 3)])
}
