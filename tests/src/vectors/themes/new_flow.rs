//! New flows to a backend that sees the client: the packet goes on to the stack.

use lb_common::Reason;

use super::scene::{PROTOS, Scene, TCP, name};
use crate::vectors::{
    frame::{Frame, flag, tcp},
    net::{FAMILIES, Family},
    vector::{Vector, pass},
};

const THEME: &str = "new flow";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            for port in [80, 8080] {
                all.push(plain(Scene::outside(family, proto, 1), port));
                all.push(plain(Scene::from_pod(family, proto, 1), port));
                all.push(plain(Scene::from_pod(family, proto, 2), port));
            }
            for len in [0, 1, 2, 1399, 1400] {
                all.push(with_payload(Scene::outside(family, proto, 1), len));
            }
            for port in [1, 65535] {
                all.push(extreme_ports(family, proto, port));
            }
            all.push(ttl_stays(Scene::outside(family, proto, 1)));
            all.push(class_stays(Scene::from_pod(family, proto, 2)));
        }
        all.push(tcp_options(family));
        all.push(syn_with_data(family));
    }
    for proto in PROTOS {
        for words in [1, 10] {
            all.push(ipv4_options(proto, words));
        }
        for (what, chain) in chains() {
            all.push(extensions(proto, what, &chain));
        }
    }
    all
}

fn forwarded(name: String, scene: Scene, input: &Frame) -> Vector {
    let output = input.clone().to(scene.backend);
    let flow = scene.flow();
    Vector::new(THEME, name, scene.world())
        .packet(scene.at, input, pass(Reason::NewFlow, &output))
        .conntrack([flow.forward(scene.opened(), 1), flow.reply(0, 0)])
}

fn plain(mut scene: Scene, port: u16) -> Vector {
    scene.backend.set_port(port);
    let name = format!("{} on port {port}", scene.title());
    forwarded(name, scene, &scene.first())
}

fn with_payload(scene: Scene, len: u16) -> Vector {
    let bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
    let input = scene.first().payload(&bytes);
    let name = format!("{}, {len} bytes of payload", scene.title());
    forwarded(name, scene, &input)
}

fn extreme_ports(family: Family, proto: u8, port: u16) -> Vector {
    let mut scene = Scene::from_pod(family, proto, 1);
    scene.front.set_port(port);
    scene.client.set_port(65535);
    scene
        .backend
        .set_port(65536u32.wrapping_sub(u32::from(port)) as u16);
    let title = format!("{family} {}, frontend's port {port}", name(proto));
    forwarded(title, scene, &scene.first())
}

/// The stack decrements it, which forwards the packet.
fn ttl_stays(scene: Scene) -> Vector {
    let name = format!("{}, TTL 1 is the stack's business", scene.title());
    forwarded(name, scene, &scene.first().ttl(1))
}

fn class_stays(scene: Scene) -> Vector {
    let mut input = scene.first();
    input.tos = 0xb9;
    let name = format!("{}, traffic class and ECN stay", scene.title());
    forwarded(name, scene, &input)
}

/// Options as Linux sends them: MSS, SACK permitted, timestamps, window scale.
fn tcp_options(family: Family) -> Vector {
    let scene = Scene::outside(family, TCP, 1);
    let options = [
        2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    let input = scene.first().tcp_options(&options);
    forwarded(format!("{family} TCP options"), scene, &input)
}

/// TCP Fast Open (RFC 7413).
fn syn_with_data(family: Family) -> Vector {
    let scene = Scene::from_pod(family, TCP, 2);
    let input = tcp(scene.client, scene.front, flag::SYN).payload(b"fast open");
    forwarded(format!("{family} SYN with data"), scene, &input)
}

/// No-operation options (RFC 791, section 3.1).
fn ipv4_options(proto: u8, words: usize) -> Vector {
    let scene = Scene::outside(Family::V4, proto, 1);
    let input = scene.first().options(&vec![1; words * 4]);
    let name = format!("IPv4 {} behind {words} words of options", name(proto));
    forwarded(name, scene, &input)
}

/// Extension headers without their first byte.
type Chain = Vec<(u8, Vec<u8>)>;

/// Chains of extension headers (RFC 8200, section 4), padding inside.
fn chains() -> Vec<(&'static str, Chain)> {
    let padding = |len: u8| {
        let rest = usize::from(len) * 8 + 6;
        let mut bytes = vec![len, 1, (rest - 2) as u8];
        bytes.resize(rest + 1, 0);
        bytes
    };
    let routing = || vec![0, 4, 0, 0, 0, 0, 0];
    vec![
        ("hop-by-hop options", vec![(0, padding(0))]),
        ("destination options", vec![(60, padding(1))]),
        ("a routing header", vec![(43, routing())]),
        (
            "all three",
            vec![(0, padding(0)), (43, routing()), (60, padding(2))],
        ),
        ("options of 256 bytes", vec![(60, padding(31))]),
        ("five headers", vec![(60, padding(0)); 5]),
    ]
}

fn extensions(proto: u8, what: &str, chain: &Chain) -> Vector {
    let scene = Scene::outside(Family::V6, proto, 1);
    let input = chain.iter().fold(scene.first(), |frame, (number, bytes)| {
        frame.extension(*number, bytes)
    });
    let name = format!("IPv6 {} behind {what}", name(proto));
    forwarded(name, scene, &input)
}
