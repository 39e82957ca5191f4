//! The life of flows whose backend sees the client: both directions, TCP's
//! states, and packets of which conntrack does not know the beginning.

use lb_common::{Reason, ct_flags};

use super::scene::{PROTOS, Scene, TCP, name};
use crate::vectors::{
    flow::Flow,
    frame::{Frame, flag, later, tcp},
    net::{FAMILIES, Family, at},
    vector::{At, Vector, pass, untouched},
    world::World,
};

const THEME: &str = "established";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            let scenes = [
                Scene::outside(family, proto, 1),
                Scene::from_pod(family, proto, 1),
                Scene::from_pod(family, proto, 2),
            ];
            all.extend(scenes.map(there_and_back));
            all.push(mid_life(Scene::outside(family, proto, 1)));
            all.push(mid_life(Scene::from_pod(family, proto, 2)));
            all.push(reply_of_nobody(family, proto));
            all.push(backend_speaks_for_itself(family, proto));
            all.push(frontend_is_gone(Scene::outside(family, proto, 1)));
            all.push(reply_through_a_vip(family, proto));
        }
        all.push(closed_by_client(Scene::outside(family, TCP, 1)));
        all.push(reset_by_backend(Scene::from_pod(family, TCP, 2)));
        all.push(reset_by_client(Scene::from_pod(family, TCP, 1)));
        all.push(syn_again(Scene::outside(family, TCP, 1)));
    }
    all
}

fn reply(scene: &Scene, frame: &Frame) -> Frame {
    frame.clone().from(scene.front).to(scene.client)
}

fn there_and_back(scene: Scene) -> Vector {
    let (first, more) = (scene.first(), scene.later());
    let (answer, data) = (
        scene.answer(scene.client),
        later(scene.proto, scene.backend, scene.client),
    );
    let flow = scene.flow();
    let there = |f: &Frame| f.clone().to(scene.backend);
    Vector::new(
        THEME,
        format!("{}, there and back", scene.title()),
        scene.world(),
    )
    .packet(scene.at, &first, pass(Reason::NewFlow, &there(&first)))
    .packet(
        scene.replies(),
        &answer,
        pass(Reason::Reply, &reply(&scene, &answer)),
    )
    .packet(scene.at, &more, pass(Reason::Established, &there(&more)))
    .packet(
        scene.replies(),
        &data,
        pass(Reason::Reply, &reply(&scene, &data)),
    )
    .conntrack([flow.forward(scene.going(), 2), flow.reply(scene.going(), 2)])
}

/// The node has taken over from one that is gone: Maglev names the same backend.
fn mid_life(scene: Scene) -> Vector {
    let input = scene.later();
    let flow = scene.flow();
    let expected = pass(Reason::NewFlow, &input.clone().to(scene.backend));
    Vector::new(
        THEME,
        format!("{}, the beginning was missed", scene.title()),
        scene.world(),
    )
    .packet(scene.at, &input, expected)
    .conntrack([flow.forward(ct_flags::SEEN, 1), flow.reply(0, 0)])
}

/// What a backend sends to a stranger, from its service's port.
fn reply_of_nobody(family: Family, proto: u8) -> Vector {
    let scene = Scene::from_pod(family, proto, 1);
    let input = later(proto, scene.backend, at(family.pod(1, 9), 5000));
    let name = format!("{family} {}, a reply of no flow", name(proto));
    Vector::new(THEME, name, scene.world())
        .packet(At::ToPod, &input, untouched(&input.build()))
        .packet(At::ToNet, &input, untouched(&input.build()))
        .conntrack([])
}

/// A backend as a client, from another port than its service's.
fn backend_speaks_for_itself(family: Family, proto: u8) -> Vector {
    let scene = Scene::from_pod(family, proto, 1);
    let own = at(scene.backend.ip(), 33333);
    let input = later(proto, own, scene.client);
    let name = format!("{family} {}, a backend's own flow", name(proto));
    let world = scene.world().flow(&scene.flow(), 10, (scene.going(), 0));
    Vector::new(THEME, name, world)
        .packet(At::ToPod, &input, untouched(&input.build()))
        .conntrack([
            scene.flow().forward(scene.going(), 1),
            scene.flow().reply(0, 0),
        ])
}

/// Established flows outlive the frontend, as long as the filter keeps its bit.
fn frontend_is_gone(scene: Scene) -> Vector {
    let flow = scene.flow();
    let mut world = scene
        .world()
        .flow(&flow, 100, (scene.going(), scene.going()));
    world.frontends.clear();
    let input = scene.later();
    let name = format!("{}, the frontend is gone", scene.title());
    let expected = pass(Reason::Established, &input.clone().to(scene.backend));
    Vector::new(THEME, name, world)
        .packet(scene.at, &input, expected)
        .conntrack([flow.forward(scene.going(), 2), flow.reply(scene.going(), 0)])
}

/// A client that is itself a vip: its replies are translated on their way out,
/// not on their way in.
fn reply_through_a_vip(family: Family, proto: u8) -> Vector {
    let mut scene = Scene::from_pod(family, proto, 2);
    scene.client = at(family.vip(9), 40000);
    let flow = scene.flow();
    let world = frontend_at_client(&scene).flow(&flow, 0, (scene.going(), 0));
    let input = scene.answer(scene.client);
    let name = format!("{family} {}, the client is a vip", name(proto));
    Vector::new(THEME, name, world)
        .packet(At::Uplink, &input, untouched(&input.build()))
        .packet(
            At::ToPod,
            &input,
            pass(Reason::Reply, &reply(&scene, &input)),
        )
}

fn frontend_at_client(scene: &Scene) -> World {
    let front = crate::vectors::world::Front::new(2, scene.client, scene.proto).table(&[1]);
    scene.world().front(&front)
}

fn closed_by_client(scene: Scene) -> Vector {
    let fin = tcp(scene.client, scene.front, flag::FIN | flag::ACK);
    let answer = tcp(scene.backend, scene.client, flag::FIN | flag::ACK);
    let last = tcp(scene.client, scene.front, flag::ACK);
    let flow = scene.flow();
    let world = scene.world().flow(&flow, 1, (scene.going(), scene.going()));
    let there = |f: &Frame| pass(Reason::Established, &f.clone().to(scene.backend));
    Vector::new(THEME, format!("{}, closed", scene.title()), world)
        .packet(scene.at, &fin, there(&fin))
        .packet(
            scene.replies(),
            &answer,
            pass(Reason::Reply, &reply(&scene, &answer)),
        )
        .packet(scene.at, &last, there(&last))
        .conntrack([
            flow.forward(scene.going() | ct_flags::FIN, 3),
            flow.reply(scene.going() | ct_flags::FIN, 1),
        ])
}

fn reset_by_backend(scene: Scene) -> Vector {
    let first = scene.first();
    let rst = tcp(scene.backend, scene.client, flag::RST | flag::ACK);
    let flow: Flow = scene.flow();
    Vector::new(
        THEME,
        format!("{}, reset by the backend", scene.title()),
        scene.world(),
    )
    .packet(
        scene.at,
        &first,
        pass(Reason::NewFlow, &first.clone().to(scene.backend)),
    )
    .packet(
        scene.replies(),
        &rst,
        pass(Reason::Reply, &reply(&scene, &rst)),
    )
    .conntrack([
        flow.forward(ct_flags::SYN, 1),
        flow.reply(ct_flags::RST | ct_flags::SEEN, 1),
    ])
}

fn reset_by_client(scene: Scene) -> Vector {
    let rst = tcp(scene.client, scene.front, flag::RST);
    let flow = scene.flow();
    let world = scene.world().flow(&flow, 1, (scene.going(), scene.going()));
    let expected = pass(Reason::Established, &rst.clone().to(scene.backend));
    Vector::new(
        THEME,
        format!("{}, reset by the client", scene.title()),
        world,
    )
    .packet(scene.at, &rst, expected)
    .conntrack([
        flow.forward(scene.going() | ct_flags::RST, 2),
        flow.reply(scene.going(), 0),
    ])
}

/// A SYN that is sent again belongs to the flow that the first one opened.
fn syn_again(scene: Scene) -> Vector {
    let input = scene.first();
    let output = input.clone().to(scene.backend);
    let flow = scene.flow();
    Vector::new(
        THEME,
        format!("{}, SYN twice", scene.title()),
        scene.world(),
    )
    .packet(scene.at, &input, pass(Reason::NewFlow, &output))
    .packet(scene.at, &input, pass(Reason::Established, &output))
    .conntrack([flow.forward(ct_flags::SYN, 2), flow.reply(0, 0)])
}
