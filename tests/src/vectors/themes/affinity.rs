//! Session affinity by client address.

use lb_common::{Reason, scope};

use super::scene::{PROTOS, Scene, TCP, name};
use crate::vectors::{
    net::{FAMILIES, Family, at},
    reference,
    vector::{At, Vector, pass},
    world::World,
};

const THEME: &str = "affinity";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            all.push(first_choice(Scene::outside(family, proto, 1)));
            all.push(first_choice(Scene::from_pod(family, proto, 1)));
            all.push(bound(Scene::outside(family, proto, 1), 50, true));
            all.push(bound(Scene::from_pod(family, proto, 1), 50, true));
        }
        // 108 s are 100.6 ticks of 2^30 ns; a tick more or less is the kernel's clock.
        all.push(bound(Scene::outside(family, TCP, 1), 98, true));
        all.push(bound(Scene::outside(family, TCP, 1), 103, false));
        all.push(bound(Scene::outside(family, TCP, 1), 1_000_000, false));
        all.push(let_go(Scene::outside(family, TCP, 1)));
        all.push(let_go(Scene::from_pod(family, TCP, 1)));
        all.push(dead(family));
        all.push(never_there(family));
        all.push(other_scope(family));
        all.push(other_service(family));
        all.push(used_again(family));
    }
    all
}

/// Seconds of affinity.
const TIMEOUT: u32 = 108;
const TABLE: [u32; 7] = [2, 1, 3, 1, 2, 3, 1];

fn backend(family: Family, id: u32) -> std::net::SocketAddr {
    at(family.pod(1, 10 + id as u8), 8080)
}

fn world(scene: &Scene) -> World {
    let world = (1..=3).fold(World::new(), |world, id| {
        world.backend(id, backend(scene.family, id), scene.proto, true)
    });
    world.front(&scene.frontend().table(&TABLE).affinity(TIMEOUT))
}

/// The backend of a client that is bound to none: its ports do not count.
fn by_address(scene: &Scene) -> u32 {
    let (client, front) = ((scene.client.ip(), 0), (scene.front.ip(), 0));
    TABLE[reference::slot(reference::flow(client, front, scene.proto), 7) as usize]
}

/// Any backend but the one that the hash would choose.
fn another(scene: &Scene) -> u32 {
    by_address(scene) % 3 + 1
}

fn scope_of(scene: &Scene) -> u8 {
    match scene.at {
        At::Uplink => scope::EXTERNAL,
        _ => scope::INTERNAL,
    }
}

fn goes_to(vector: Vector, scene: &Scene, id: u32) -> Vector {
    let input = scene.first();
    let output = input.clone().to(backend(scene.family, id));
    let flow = Scene {
        backend: backend(scene.family, id),
        ..*scene
    };
    let flow = flow.flow().ids(1, id);
    vector
        .packet(scene.at, &input, pass(Reason::NewFlow, &output))
        .conntrack([flow.forward(scene.opened(), 1), flow.reply(0, 0)])
}

/// Three connections from three ports: the first chooses for all.
fn first_choice(scene: Scene) -> Vector {
    let id = by_address(&scene);
    let title = format!("{}, three connections", scene.title());
    let mut vector = Vector::new(THEME, title, world(&scene));
    for port in [40000, 40001, 50002] {
        let one = Scene {
            client: at(scene.client.ip(), port),
            ..scene
        };
        let input = one.first();
        let output = input.clone().to(backend(scene.family, id));
        vector = vector.packet(scene.at, &input, pass(Reason::NewFlow, &output));
    }
    vector
}

/// A client bound so many ticks ago, to a backend that the hash would not choose.
fn bound(scene: Scene, ticks: u32, holds: bool) -> Vector {
    let other = another(&scene);
    let client = (scene.client.ip(), scope_of(&scene));
    let world = world(&scene).bound(client, 1, other, ticks);
    let title = format!("{}, bound {ticks} ticks ago", scene.title());
    let id = if holds { other } else { by_address(&scene) };
    goes_to(Vector::new(THEME, title, world), &scene, id)
}

/// A client whose binding to the backend of its hash has timed out is let go: it gets
/// the next other backend of the table.
fn let_go(scene: Scene) -> Vector {
    let old = by_address(&scene);
    let client = (scene.client.ip(), scope_of(&scene));
    let world = world(&scene).bound(client, 1, old, 150);
    let (from, front) = ((scene.client.ip(), 0), (scene.front.ip(), 0));
    let slot = reference::slot(reference::flow(from, front, scene.proto), 7) as usize;
    let mut turned = TABLE.iter().cycle().skip(slot);
    let next = *turned.find(|id| **id != old).expect("three backends");
    let title = format!("{}, let go by the backend of its hash", scene.title());
    goes_to(Vector::new(THEME, title, world), &scene, next)
}

fn dead(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let other = another(&scene);
    let client = (scene.client.ip(), scope::EXTERNAL);
    let world = world(&scene)
        .bound(client, 1, other, 5)
        .without_backend(other);
    let title = format!("{family}, bound to a backend that is gone");
    goes_to(Vector::new(THEME, title, world), &scene, by_address(&scene))
}

/// An id that the backends' array does not have.
fn never_there(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let client = (scene.client.ip(), scope::EXTERNAL);
    let world = world(&scene).bound(client, 1, 4_000_000_000, 5);
    let title = format!("{family}, bound to a backend that cannot be");
    goes_to(Vector::new(THEME, title, world), &scene, by_address(&scene))
}

fn other_scope(family: Family) -> Vector {
    let scene = Scene::from_pod(family, TCP, 1);
    let client = (scene.client.ip(), scope::EXTERNAL);
    let world = world(&scene).bound(client, 1, another(&scene), 5);
    let title = format!("{family}, bound in the other scope");
    goes_to(Vector::new(THEME, title, world), &scene, by_address(&scene))
}

fn other_service(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let client = (scene.client.ip(), scope::EXTERNAL);
    let world = world(&scene).bound(client, 2, another(&scene), 5);
    let title = format!("{family}, bound for another service");
    goes_to(Vector::new(THEME, title, world), &scene, by_address(&scene))
}

/// Each use renews the binding: it is of now afterwards (the states are compared).
fn used_again(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let other = another(&scene);
    let client = (scene.client.ip(), scope::EXTERNAL);
    let world = world(&scene).bound(client, 1, other, 90);
    let title = format!("{family} {}, a binding is renewed", name(TCP));
    let mut vector = Vector::new(THEME, title, world);
    for port in [1000, 1001] {
        let one = Scene {
            client: at(scene.client.ip(), port),
            ..scene
        };
        let input = one.first();
        let output = input.clone().to(backend(family, other));
        vector = vector.packet(At::Uplink, &input, pass(Reason::NewFlow, &output));
    }
    vector
}
