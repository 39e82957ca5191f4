//! Which backend a new flow gets: the slot of its hash, by the reference.

use lb_common::Reason;

use super::scene::{PROTOS, Scene, TCP, name};
use crate::vectors::{
    frame::first,
    net::{FAMILIES, Family, at},
    reference,
    vector::{At, Vector, dropped, pass},
    world::{Front, World},
};

const THEME: &str = "maglev";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            all.push(clients(family, proto));
            all.push(ports(family, proto));
            all.push(pods(family, proto));
        }
        all.push(tables_lie_beside_each_other(family));
        all.push(no_such_backend(family));
        all.push(nothing_in_the_slot(family));
        all.push(beyond_the_slots(family));
        all.push(large_table(family));
    }
    all
}

/// Eleven slots of three backends.
const TABLE: [u32; 11] = [3, 1, 2, 2, 1, 3, 1, 2, 3, 3, 1];

fn world(scene: &Scene) -> World {
    let world = (1..=3).fold(World::new(), |world, id| {
        let backend = at(scene.family.pod(1, 10 + id as u8), 8080);
        world.backend(id, backend, scene.proto, true)
    });
    world.front(&scene.frontend().table(&TABLE))
}

/// A packet of each client goes where the reference says.
fn chosen(title: String, scene: &Scene, clients: &[(std::net::IpAddr, u16)]) -> Vector {
    let mut vector = Vector::new(THEME, title, world(scene));
    let mut flows = Vec::new();
    for client in clients {
        let front = (scene.front.ip(), scene.front.port());
        let hash = reference::flow(*client, front, scene.proto);
        let id = TABLE[reference::slot(hash, 11) as usize];
        let backend = at(scene.family.pod(1, 10 + id as u8), 8080);
        let one = Scene {
            client: at(client.0, client.1),
            backend,
            ..*scene
        };
        let input = one.first();
        vector = vector.packet(
            scene.at,
            &input,
            pass(Reason::NewFlow, &input.clone().to(backend)),
        );
        let flow = one.flow().ids(1, id);
        flows.extend([flow.forward(one.opened(), 1), flow.reply(0, 0)]);
    }
    vector.conntrack(flows)
}

fn clients(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let clients: Vec<_> = (1..=16).map(|n| (family.client(n), 40000)).collect();
    chosen(
        format!("{family} {}, by address", name(proto)),
        &scene,
        &clients,
    )
}

fn ports(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let clients: Vec<_> = (0..16).map(|n| (family.client(1), 40000 + n)).collect();
    chosen(
        format!("{family} {}, by port", name(proto)),
        &scene,
        &clients,
    )
}

fn pods(family: Family, proto: u8) -> Vector {
    let scene = Scene::from_pod(family, proto, 1);
    let clients: Vec<_> = (0..16)
        .map(|n| (family.pod(1, 50 + n as u8), 1000 + n))
        .collect();
    chosen(
        format!("{family} {}, from pods", name(proto)),
        &scene,
        &clients,
    )
}

fn tables_lie_beside_each_other(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let other = at(family.vip(2), 443);
    let world = world(&scene)
        .backend(4, at(family.pod(1, 44), 4443), TCP, true)
        .front(&Front::new(2, other, TCP).table(&[4, 4, 4, 4, 4]));
    let mut vector = Vector::new(THEME, format!("{family}, the second of two tables"), world);
    for n in 1..=4 {
        let input = first(TCP, at(family.client(n), 1234), other);
        let output = input.clone().to(at(family.pod(1, 44), 4443));
        vector = vector.packet(At::Uplink, &input, pass(Reason::NewFlow, &output));
    }
    vector
}

fn no_such_backend(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let world = scene.world().without_backend(1);
    Vector::new(THEME, format!("{family}, the backend is gone"), world)
        .packet(At::Uplink, &scene.first(), dropped(Reason::BackendMissing))
        .conntrack([])
}

fn nothing_in_the_slot(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let mut world = world(&scene);
    world.slots.clear();
    Vector::new(THEME, format!("{family}, empty slots"), world)
        .packet(At::Uplink, &scene.first(), dropped(Reason::BackendMissing))
        .conntrack([])
}

/// A table that lies outside of the slots: an agent's mistake must do no harm.
fn beyond_the_slots(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let mut world = world(&scene);
    for front in world.frontends.values_mut().filter(|f| f.len > 1) {
        front.slots = 1 << 30;
    }
    Vector::new(
        THEME,
        format!("{family}, a table outside of the slots"),
        world,
    )
    .packet(At::Uplink, &scene.first(), dropped(Reason::BackendMissing))
    .conntrack([])
}

/// A thousand and nine slots, each of which names its number's backend.
fn large_table(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let table: Vec<u32> = (0..1009).map(|slot| 1 + slot % 31).collect();
    let world = (1..=31).fold(World::new(), |world, id| {
        world.backend(id, at(family.pod(1, id as u8), 9000), TCP, true)
    });
    let world = world.front(&scene.frontend().table(&table));
    let mut vector = Vector::new(THEME, format!("{family}, 1009 slots"), world);
    for port in (1024..65000).step_by(4001) {
        let client = at(family.client(77), port);
        let front = (scene.front.ip(), scene.front.port());
        let hash = reference::flow((client.ip(), port), front, TCP);
        let id = 1 + reference::slot(hash, 1009) % 31;
        let input = first(TCP, client, scene.front);
        let output = input.clone().to(at(family.pod(1, id as u8), 9000));
        vector = vector.packet(At::Uplink, &input, pass(Reason::NewFlow, &output));
    }
    vector
}
