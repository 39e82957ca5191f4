//! Frames that end too early: a vector for every length.

use lb_common::{Reason, ct_flags};

use super::scene::{PROTOS, Scene, UDP, name};
use crate::vectors::{
    frame::{Frame, L4},
    net::{FAMILIES, Family},
    vector::{At, Expect, Vector, back, dropped, pass, untouched},
};

const THEME: &str = "cut frames";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            for len in 0..=whole(family, proto) {
                all.push(cut(family, proto, len));
            }
            for len in [14, 14 + family.header(), needed(family, proto) - 1] {
                all.push(cut_reply(family, proto, len));
            }
        }
        for len in 0..8 {
            all.push(cut_ping(family, len));
        }
    }
    for len in 54..=54 + 8 + 8 {
        all.push(cut_extension(len));
    }
    for len in 34..=34 + 8 + 8 {
        all.push(cut_options(len));
    }
    all
}

/// Bytes of the frame with its whole transport header.
fn whole(family: Family, proto: u8) -> usize {
    14 + family.header() + if proto == UDP { 8 } else { 20 }
}

/// Bytes that translation needs: up to the end of the checksum.
fn needed(family: Family, proto: u8) -> usize {
    14 + family.header() + if proto == UDP { 8 } else { 18 }
}

/// The expected frame is the whole one's, cut in the same place.
fn translated(frame: &Frame, len: usize) -> Expect {
    let mut expected = pass(Reason::NewFlow, frame);
    expected.output.truncate(len);
    expected
}

fn cut(family: Family, proto: u8, len: usize) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let frame = scene.first();
    let mut input = frame.build();
    input.truncate(len);
    let expected = if len < 14 + family.header() {
        untouched(&input)
    } else if len < needed(family, proto) {
        dropped(Reason::Malformed)
    } else {
        translated(&frame.clone().to(scene.backend), len)
    };
    let flow = scene.flow();
    let opened = if proto == UDP {
        ct_flags::SEEN
    } else {
        ct_flags::SYN
    };
    let entries = [flow.forward(opened, 1), flow.reply(0, 0)];
    let goes_on = len >= needed(family, proto);
    Vector::new(
        THEME,
        format!("{family} {} of {len} bytes", name(proto)),
        scene.world(),
    )
    .bytes(At::Uplink, input, expected)
    .conntrack(entries.into_iter().filter(|_| goes_on))
}

/// A reply that is too short is left to the stack.
fn cut_reply(family: Family, proto: u8, len: usize) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let world = scene.world().flow(&scene.flow(), 0, (scene.going(), 0));
    let mut input = scene.answer(scene.client).build();
    input.truncate(len);
    let expected = untouched(&input);
    Vector::new(
        THEME,
        format!("{family} {}, a reply of {len} bytes", name(proto)),
        world,
    )
    .bytes(At::ToNet, input.clone(), expected.clone())
    .bytes(At::ToPod, input, expected)
}

/// A ping without its checksum is malformed; with less than its number and
/// sequence number it is answered in kind, as there is no more to look at.
fn cut_ping(family: Family, len: usize) -> Vector {
    let scene = Scene::outside(family, UDP, 1);
    let number = if family == Family::V4 { 1 } else { 58 };
    let kind: [u8; 8] = match family {
        Family::V4 => [8, 0, 0x12, 0x34, 0, 0, 0, 0],
        Family::V6 => [128, 0, 0x12, 0x34, 0, 0, 0, 0],
    };
    let mut input = scene.first().payload(&kind[..len]);
    input.l4 = L4::Raw(number);
    let expected = if len < 4 {
        dropped(Reason::Malformed)
    } else {
        let mut output = input.clone().turned();
        (output.src, output.dst) = (input.dst, input.src);
        // The first word falls by 0x0800 (ICMP), or rises by 0x0100 (ICMPv6), so
        // that the checksum does the opposite.
        let (kind, csum): (u8, [u8; 2]) = match family {
            Family::V4 => (0, [0x1a, 0x34]),
            Family::V6 => (129, [0x11, 0x34]),
        };
        output.payload[0] = kind;
        output.payload[2..4].copy_from_slice(&csum);
        back(Reason::EchoReply, &output)
    };
    Vector::new(
        THEME,
        format!("{family}, a ping of {len} bytes"),
        scene.world(),
    )
    .packet(At::Uplink, &input, expected)
}

/// Destination options of eight bytes before UDP.
fn cut_extension(len: usize) -> Vector {
    let scene = Scene::outside(Family::V6, UDP, 1);
    let frame = scene.first().extension(60, &[0, 1, 4, 0, 0, 0, 0]);
    let mut input = frame.build();
    input.truncate(len);
    // Four bytes of an extension header say where it ends.
    let expected = match len {
        ..58 => untouched(&input),
        58..70 => dropped(Reason::Malformed),
        _ => translated(&frame.clone().to(scene.backend), len),
    };
    Vector::new(THEME, format!("IPv6 options of {len} bytes"), scene.world()).bytes(
        At::Uplink,
        input,
        expected,
    )
}

/// IPv4 options of eight bytes before UDP.
fn cut_options(len: usize) -> Vector {
    let scene = Scene::outside(Family::V4, UDP, 1);
    let frame = scene.first().options(&[1; 8]);
    let mut input = frame.build();
    input.truncate(len);
    let expected = match len {
        ..50 => dropped(Reason::Malformed),
        _ => translated(&frame.clone().to(scene.backend), len),
    };
    Vector::new(THEME, format!("IPv4 options of {len} bytes"), scene.world()).bytes(
        At::Uplink,
        input,
        expected,
    )
}
