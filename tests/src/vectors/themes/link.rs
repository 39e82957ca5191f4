//! Frames that are for another station: a switch floods them where it has not
//! learned yet, and the node's IP drops them. They must not be answered, nor sent
//! on, by every node that has the vip.

use lb_common::Reason;

use super::scene::{PROTOS, Scene, name};
use crate::vectors::{
    net::{FAMILIES, Family, PEER, POD0, at},
    vector::{At, Vector, pass, untouched},
    world::World,
};

const THEME: &str = "link addresses";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            all.push(another_station(family, proto));
            for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
                all.push(to_many(family, proto, group));
            }
            all.push(through_a_bridge(family, proto));
        }
        all.push(refused_for_another(family));
    }
    all
}

/// The link address of somebody else.
const OTHER: [u8; 6] = [2, 0, 0, 0, 7, 7];

/// XDP knows no address of its device: network cards let no such frame in.
fn another_station(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let input = scene.first().link(PEER, OTHER);
    let in_xdp = pass(Reason::NewFlow, &input.clone().to(scene.backend));
    let title = format!("{family} {}, to another station", name(proto));
    Vector::new(THEME, title, scene.world())
        .packet(At::Uplink, &input, untouched(&input.build()))
        .but_in_xdp(in_xdp)
}

/// Broadcast and multicast.
fn to_many(family: Family, proto: u8, group: [u8; 6]) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let input = scene.first().link(PEER, group);
    let title = format!("{family} {}, to {group:02x?}", name(proto));
    Vector::new(THEME, title, scene.world())
        .packet(At::Uplink, &input, untouched(&input.build()))
        .conntrack([])
}

fn refused_for_another(family: Family) -> Vector {
    let scene = Scene::outside(family, 17, 1);
    let input = scene.first().link(PEER, [0xff; 6]);
    let title = format!("{family}, nobody refuses a broadcast");
    Vector::new(THEME, title, World::new().with_vip(scene.front.ip()))
        .packet(At::Uplink, &input, untouched(&input.build()))
        .conntrack([])
}

/// A pod's device that is a port of a bridge: what the pod sends is for the
/// bridge's own address.
fn through_a_bridge(family: Family, proto: u8) -> Vector {
    let scene = Scene::from_pod(family, proto, 2);
    let title = format!("{family} {}, through a bridge", name(proto));
    let mut vector = Vector::new(THEME, title, scene.world());
    for (port, mac) in [(1, OTHER), (2, POD0.mac)] {
        let scene = Scene {
            client: at(scene.client.ip(), port),
            ..scene
        };
        let input = scene.first().link(PEER, mac);
        let output = input.clone().to(scene.backend);
        vector = vector.packet(At::Pod, &input, pass(Reason::NewFlow, &output));
    }
    vector
}
