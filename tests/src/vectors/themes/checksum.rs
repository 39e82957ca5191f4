//! Checksums: none, wrong ones, and the one that would become none.

use lb_common::{Reason, ct_flags};

use super::scene::{PROTOS, Scene, TCP, UDP, name};
use crate::vectors::{
    frame::{Csum, Frame},
    net::{FAMILIES, Family, GATEWAY, UP0},
    reference,
    vector::{At, Vector, out, pass},
};

const THEME: &str = "checksums";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        all.push(none(Scene::outside(family, UDP, 1)));
        all.push(none(Scene::from_pod(family, UDP, 2)));
        all.push(becomes_zero(Scene::outside(family, UDP, 1)));
        all.push(becomes_zero(Scene::from_pod(family, UDP, 2)));
        all.push(zero_in_tcp(family));
        for proto in [TCP, UDP] {
            all.push(like_a_partial_one(Scene::outside(family, proto, 1)));
            all.push(like_a_partial_one(Scene::from_pod(family, proto, 2)));
        }
        for proto in PROTOS {
            all.push(wrong_stays_wrong(family, proto));
            all.push(every_sum(family, proto));
            all.push(snat_reply(family, proto));
        }
    }
    all
}

/// RFC 768: zero means that the sender made none.
fn none(scene: Scene) -> Vector {
    let input = scene.first().csum(Csum::Is(0));
    let answer = scene.answer(scene.client).csum(Csum::Is(0));
    both_ways(&scene, "none", &input, &answer)
}

/// A first packet, and the answer to it.
fn both_ways(scene: &Scene, title: &str, input: &Frame, answer: &Frame) -> Vector {
    Vector::new(THEME, format!("{}, {title}", scene.title()), scene.world())
        .packet(
            scene.at,
            input,
            pass(Reason::NewFlow, &input.clone().to(scene.backend)),
        )
        .packet(
            scene.replies(),
            answer,
            pass(Reason::Reply, &answer.clone().from(scene.front)),
        )
}

/// A payload with which the translated packet's checksum is 0, which is sent as
/// all ones (RFC 768).
fn becomes_zero(scene: Scene) -> Vector {
    let probe = scene.first().payload(&[0, 0]).to(scene.backend).build();
    let field = 14 + scene.family.header() + 6;
    let csum = u16::from_be_bytes([probe[field], probe[field + 1]]);
    // The checksum is the complement of the sum: adding it makes the sum all ones.
    let input = scene.first().payload(&csum.to_be_bytes());
    let output = input.clone().to(scene.backend);
    let bytes = output.build();
    assert_eq!(bytes[field..field + 2], [0xff, 0xff], "the scenario");
    Vector::new(THEME, format!("{}, zero", scene.title()), scene.world()).packet(
        scene.at,
        &input,
        pass(Reason::NewFlow, &output),
    )
}

/// In TCP zero is a checksum like any other.
fn zero_in_tcp(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let probe = scene.first().payload(&[0, 0]).to(scene.backend).build();
    let field = 14 + family.header() + 16;
    let csum = u16::from_be_bytes([probe[field], probe[field + 1]]);
    let input = scene.first().payload(&csum.to_be_bytes());
    let output = input.clone().to(scene.backend);
    assert_eq!(output.build()[field..field + 2], [0, 0], "the scenario");
    Vector::new(THEME, format!("{family} TCP, zero"), scene.world()).packet(
        At::Uplink,
        &input,
        pass(Reason::NewFlow, &output),
    )
}

/// A complete checksum that happens to be the sum of the pseudo header, which a sender leaves
/// in its place for a device to complete.
fn like_a_partial_one(scene: Scene) -> Vector {
    let proto = scene.proto;
    let field = 14 + scene.family.header() + if proto == TCP { 16 } else { 6 };
    let at = |frame: &Frame| {
        let bytes = frame.build();
        u16::from_be_bytes([bytes[field], bytes[field + 1]])
    };
    let turn = |frame: Frame| {
        let pseudo = at(&frame.clone().payload(&[0, 0]).csum(Csum::Partial));
        let without = at(&frame.clone().payload(&[0, 0]));
        let word = [(!pseudo).to_be_bytes(), without.to_be_bytes()].concat();
        let frame = frame.payload(&reference::ones_sum(&word).to_be_bytes());
        assert_eq!(at(&frame), pseudo, "the scenario");
        frame
    };
    let input = turn(scene.first());
    let answer = turn(scene.answer(scene.client));
    both_ways(&scene, "like a partial one", &input, &answer)
}

/// A packet that was damaged must not be mended: the error is kept.
fn wrong_stays_wrong(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let title = format!("{family} {}, a wrong one stays wrong", name(proto));
    let mut vector = Vector::new(THEME, title, scene.world());
    let field = 14 + family.header() + if proto == TCP { 16 } else { 6 };
    for (index, error) in [1u16, 0x00ff, 0x8000].into_iter().enumerate() {
        let mut input = scene.first();
        input = input.from(std::net::SocketAddr::new(
            scene.client.ip(),
            41000 + index as u16,
        ));
        let mut output = input.clone().to(scene.backend);
        for frame in [&mut input, &mut output] {
            let bytes = frame.build();
            let right = u16::from_be_bytes([bytes[field], bytes[field + 1]]);
            // In one's complement: the error is added to the sum.
            frame.csum = Csum::Is(reference::ones_sum(
                &[right.to_be_bytes(), error.to_be_bytes()].concat(),
            ));
        }
        vector = vector.packet(At::Uplink, &input, pass(Reason::NewFlow, &output));
    }
    vector
}

/// Sums on both sides of every wrap: the payload runs through them.
fn every_sum(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let flow = scene.flow();
    let world = scene
        .world()
        .flow(&flow, 0, (ct_flags::SEEN, ct_flags::SEEN));
    let title = format!("{family} {}, about every wrap", name(proto));
    let mut vector = Vector::new(THEME, title, world);
    for word in (0..=0xffffu16).step_by(0x1555) {
        for more in [0, 1] {
            let bytes = word.wrapping_add(more).to_be_bytes();
            let input = scene.later().payload(&bytes);
            let output = input.clone().to(scene.backend);
            vector = vector.packet(At::Uplink, &input, pass(Reason::Established, &output));
        }
    }
    vector
}

/// Both addresses, both ports and the TTL change at once.
fn snat_reply(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let world = scene.world();
    let (flow, source) = scene.snat(&world);
    let world = world.flow(&flow, 0, (scene.going(), scene.going()));
    let title = format!("{family} {}, all of the tuple changes", name(proto));
    let mut vector = Vector::new(THEME, title, world);
    for ttl in [2, 64, 128, 255] {
        let input = scene.answer(source).ttl(ttl);
        let output = input
            .clone()
            .from(scene.front)
            .to(scene.client)
            .link(UP0.mac, GATEWAY)
            .ttl(ttl - 1);
        vector = vector.packet(At::Uplink, &input, out(Reason::Reply, UP0.ifindex, &output));
    }
    vector
}
