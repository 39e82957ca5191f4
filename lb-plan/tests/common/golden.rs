//! The golden file of the maglev tables: written by an example, compared by a test.

use std::{fmt::Write as _, net::IpAddr};

use lb_common::Be16;
use lb_plan::maglev::{self, Member};

/// Named sets of backends, as `address port protocol weight` each.
pub(crate) fn cases() -> Vec<(&'static str, Vec<Member>)> {
    let v4 = |n: u32| {
        member(
            &format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255),
            8080,
            6,
            1,
        )
    };
    let v6 = |n: u32| member(&format!("2001:db8::{n:x}"), 53, 17, 1);
    vec![
        (
            "two",
            vec![member("10.0.0.1", 80, 6, 1), member("10.0.0.2", 80, 6, 1)],
        ),
        (
            "two-udp",
            vec![member("10.0.0.1", 80, 17, 1), member("10.0.0.2", 80, 17, 1)],
        ),
        (
            "two-ports",
            vec![member("10.0.0.1", 80, 6, 1), member("10.0.0.1", 81, 6, 1)],
        ),
        (
            "families",
            vec![
                member("10.0.0.1", 80, 6, 1),
                member("2001:db8::1", 80, 6, 1),
            ],
        ),
        (
            "weights",
            vec![
                member("10.0.0.1", 80, 6, 1),
                member("10.0.0.2", 80, 6, 2),
                member("10.0.0.3", 80, 6, 5),
            ],
        ),
        (
            "zero-weight",
            vec![
                member("10.0.0.1", 80, 6, 0),
                member("10.0.0.2", 80, 6, 1),
                member("10.0.0.3", 80, 6, 1),
            ],
        ),
        ("ten", (1..=10).map(v4).collect()),
        ("hundred-v6", (1..=100).map(v6).collect()),
        ("thousand", (1..=1000).map(v4).collect()),
    ]
}

/// A member whose id is set later.
pub(crate) fn member(addr: &str, port: u16, proto: u8, weight: u32) -> Member {
    let addr: IpAddr = addr.parse().expect("an address");
    Member {
        addr: addr.into(),
        port: Be16::new(port),
        proto,
        weight,
        id: 0,
    }
}

/// The tables of all cases. Ids are places in the list of members, from 1. Small
/// tables are printed whole, of all there is a digest (64-bit FNV-1a of the
/// slots as little-endian numbers of 32 bits).
pub(crate) fn text() -> String {
    let mut text = String::new();
    for (name, mut members) in cases() {
        for (id, member) in (1..).zip(&mut members) {
            member.id = id;
        }
        let eligible = maglev::eligible(&members);
        let size = maglev::table_size(eligible.len()).expect("not too many");
        let slots = maglev::build(&eligible, size);
        let digest = fnv(slots.iter().flat_map(|s| s.to_le_bytes()));
        writeln!(
            text,
            "{name} {} backends {size} slots digest {digest:016x}",
            members.len()
        )
        .expect("a string");
        if size <= 1009 {
            for (row, slots) in slots.chunks(20).enumerate() {
                let slots: Vec<_> = slots.iter().map(u32::to_string).collect();
                writeln!(text, "{name} {:04} {}", row * 20, slots.join(" ")).expect("a string");
            }
        }
    }
    text
}

fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    })
}
