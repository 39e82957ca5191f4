//! Events as a capture file, pcapng (draft-ietf-opsawg-pcapng): each packet twice, as it came
//! on the interface `before` and as it left on `after`. Pure.

use lb_common::monitor::{Event, SNAP};

use super::told::{after, before};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;
const COMMENT: u16 = 1;
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
/// Timestamps are nanoseconds: 10^-9.
const NANOSECONDS: u8 = 9;

/// What a capture begins with.
pub fn header() -> Vec<u8> {
    let mut section = Vec::new();
    section.extend(BYTE_ORDER.to_ne_bytes());
    // Version 1.0, of a length that is not known.
    section.extend([1u16, 0].map(u16::to_ne_bytes).concat());
    section.extend(u64::MAX.to_ne_bytes());
    let mut out = block(SECTION, section);
    for name in ["before", "after"] {
        let mut interface = Vec::new();
        interface.extend([ETHERNET, 0].map(u16::to_ne_bytes).concat());
        interface.extend((SNAP as u32).to_ne_bytes());
        option(&mut interface, NAME, name.as_bytes());
        option(&mut interface, RESOLUTION, &[NANOSECONDS]);
        option(&mut interface, 0, &[]);
        out.extend(block(INTERFACE, interface));
    }
    out
}

/// The two packets of an event, with its time in nanoseconds since 1970.
pub fn packets(event: &Event, time: u64, comment: &str) -> Vec<u8> {
    let sides = [(before(event), event.len), (after(event), event.len_after)];
    let packet = |(interface, (bytes, len)): (u32, (&[u8], u32))| {
        let mut packet = Vec::new();
        let words = [
            interface,
            (time >> 32) as u32,
            time as u32,
            bytes.len() as u32,
            len,
        ];
        packet.extend(words.map(u32::to_ne_bytes).concat());
        padded(&mut packet, bytes);
        option(&mut packet, COMMENT, comment.as_bytes());
        option(&mut packet, 0, &[]);
        block(PACKET, packet)
    };
    (0..).zip(sides).flat_map(packet).collect()
}

/// A block: its length stands before and after what is in it.
fn block(kind: u32, body: Vec<u8>) -> Vec<u8> {
    let len = (body.len() as u32 + 12).to_ne_bytes();
    [&kind.to_ne_bytes()[..], &len, &body, &len].concat()
}

fn option(to: &mut Vec<u8>, code: u16, value: &[u8]) {
    to.extend(code.to_ne_bytes());
    to.extend((value.len() as u16).to_ne_bytes());
    padded(to, value);
}

/// Appends bytes, and zeros up to whole words.
fn padded(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(bytes);
    to.resize(to.len().next_multiple_of(4), 0);
}
