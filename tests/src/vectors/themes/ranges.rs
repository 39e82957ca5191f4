//! `loadBalancerSourceRanges`.

use lb_common::{Reason, frontend_flags};

use super::scene::{PROTOS, Scene, TCP, name};
use crate::vectors::{
    net::{FAMILIES, Family, at, ip},
    vector::{Vector, dropped, pass},
    world::World,
};

const THEME: &str = "source ranges";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    let (v4, v6) = (Family::V4, Family::V6);
    // The client is 203.0.113.5, and 2001:db8:c::5.
    for (family, net, prefix, inside) in [
        (v4, "203.0.113.0", 24, true),
        (v4, "203.0.113.5", 32, true),
        (v4, "203.0.113.4", 31, true),
        (v4, "203.0.113.6", 31, false),
        (v4, "203.0.113.4", 32, false),
        (v4, "0.0.0.0", 0, true),
        (v4, "128.0.0.0", 1, true),
        (v4, "0.0.0.0", 1, false),
        (v6, "2001:db8:c::", 64, true),
        (v6, "2001:db8:c::5", 128, true),
        (v6, "2001:db8:c::4", 128, false),
        (v6, "2001:db8:d::", 48, false),
        (v6, "2001:db8:c::4", 127, true),
        (v6, "::", 0, true),
        (v6, "8000::", 1, false),
    ] {
        all.push(one(family, net, prefix, inside));
    }
    for family in FAMILIES {
        for proto in PROTOS {
            all.push(of_another_service(family, proto));
            all.push(none(family, proto));
            all.push(not_asked(family, proto));
        }
        all.push(of_the_other_family(family));
        all.push(pod_inside(family));
        all.push(pod_outside(family));
        all.push(established(family));
        all.push(one_of_two(family));
    }
    all
}

fn guarded(scene: &Scene) -> World {
    let front = scene.frontend().flags(frontend_flags::SOURCE_RANGES);
    World::new()
        .backend(1, scene.backend, scene.proto, scene.local)
        .front(&front)
}

fn verdict(title: String, scene: &Scene, world: World, inside: bool) -> Vector {
    let input = scene.first();
    let expected = if inside {
        pass(Reason::NewFlow, &input.clone().to(scene.backend))
    } else {
        dropped(Reason::SourceRange)
    };
    let flow = scene.flow();
    let entries = [flow.forward(scene.opened(), 1), flow.reply(0, 0)];
    Vector::new(THEME, title, world)
        .packet(scene.at, &input, expected)
        .conntrack(entries.into_iter().filter(|_| inside))
}

fn one(family: Family, net: &str, prefix: u32, inside: bool) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let world = guarded(&scene).range(1, ip(net), prefix);
    let title = format!("{net}/{prefix}");
    verdict(title, &scene, world, inside)
}

fn of_another_service(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let world = guarded(&scene).range(2, scene.client.ip(), 32);
    let title = format!("{family} {}, of another service", name(proto));
    verdict(title, &scene, world, false)
}

fn none(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let title = format!("{family} {}, none", name(proto));
    verdict(title, &scene, guarded(&scene), false)
}

/// The service has ranges, but this frontend (a ClusterIP) does not ask for them.
fn not_asked(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let world = scene.world().range(1, family.client(200), 32);
    let title = format!("{family} {}, not for this frontend", name(proto));
    verdict(title, &scene, world, true)
}

/// The least specific range of the other family covers nobody of this one, save
/// that all of IPv6 has the mapped addresses within it: `::/0` allows everybody.
fn of_the_other_family(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let (net, inside) = match family {
        Family::V4 => ("2000::/3", false),
        Family::V6 => ("0.0.0.0/0", false),
    };
    let (addr, prefix) = net.split_once('/').expect("a network");
    let prefix = prefix.parse().expect("a prefix");
    let world = guarded(&scene).range(1, ip(addr), prefix);
    verdict(format!("{family}, only {net}"), &scene, world, inside)
}

fn pod_inside(family: Family) -> Vector {
    let scene = Scene::from_pod(family, TCP, 2);
    let prefix = if family == Family::V4 { 24 } else { 64 };
    let world = guarded(&scene).range(1, family.pod(1, 0), prefix);
    verdict(format!("{family}, a pod inside"), &scene, world, true)
}

fn pod_outside(family: Family) -> Vector {
    let scene = Scene::from_pod(family, TCP, 2);
    let prefix = if family == Family::V4 { 24 } else { 64 };
    let world = guarded(&scene).range(1, family.pod(9, 0), prefix);
    verdict(format!("{family}, a pod outside"), &scene, world, false)
}

/// A flow that was let in stays, whatever becomes of the ranges.
fn established(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let flow = scene.flow();
    let world = guarded(&scene).flow(&flow, 10, (scene.going(), 0));
    let input = scene.later();
    Vector::new(THEME, format!("{family}, an established flow"), world).packet(
        scene.at,
        &input,
        pass(Reason::Established, &input.clone().to(scene.backend)),
    )
}

fn one_of_two(family: Family) -> Vector {
    let mut scene = Scene::outside(family, TCP, 1);
    scene.client = at(family.client(9), 1);
    let host = if family == Family::V4 { 32 } else { 128 };
    let world = guarded(&scene)
        .range(1, family.client(8), host)
        .range(1, family.client(9), host);
    verdict(format!("{family}, the second of two"), &scene, world, true)
}
