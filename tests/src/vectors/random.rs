//! Random maps and random packets, from random bytes: zeros make the simplest.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, icmpv4::DestUnreachableHeader};
use lb_common::{backend_flags, ct_flags, frontend_flags, scope};

use super::{
    flow::Flow,
    frame::{Csum, Frame, L4, later, sctp, tcp, udp},
    net::{FAMILIES, Family, at},
    vector::{At, Vector, untouched},
    world::{Front, SNAT_MIN, World},
};

/// Random bytes, read one after the other; zeros when they are used up.
#[derive(Debug)]
pub struct Dice<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> Dice<'a> {
    /// From random bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: bytes.iter(),
        }
    }
    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }
    /// A number below another.
    pub fn below(&mut self, n: usize) -> usize {
        let wide = usize::from(self.byte()) << 8 | usize::from(self.byte());
        wide % n
    }
    /// One of several.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
    /// True once in so many times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }
}

const PORTS: [u16; 5] = [80, 8080, 443, SNAT_MIN, 30080];
const PROTOS: [u8; 3] = [6, 17, 132];

/// An address that the maps, or packets, may have.
fn address(dice: &mut Dice<'_>, family: Family) -> IpAddr {
    match dice.below(5) {
        0 => family.client(1 + dice.below(3) as u8),
        1 => family.vip(1 + dice.below(3) as u8),
        2 => family.pod(1, 1 + dice.below(3) as u8),
        3 => family.pod(1 + dice.below(6) as u8, 7),
        _ => family.node(),
    }
}

fn end(dice: &mut Dice<'_>, family: Family) -> SocketAddr {
    let addr = address(dice, family);
    at(addr, dice.one_of(&PORTS))
}

/// Random maps.
pub fn world(dice: &mut Dice<'_>) -> World {
    let mut world = if dice.once_in(12) {
        World::bare()
    } else {
        World::new()
    };
    if dice.once_in(4) {
        world = world.ports(SNAT_MIN, SNAT_MIN + dice.below(2) as u16);
    }
    for id in 1..=6 {
        let family = dice.one_of(&FAMILIES);
        let node = 1 + dice.below(6) as u8;
        let backend = at(family.pod(node, 7), dice.one_of(&PORTS[..2]));
        world = world.backend(id, backend, dice.one_of(&PROTOS), node == 1);
    }
    for service in 1..=3 {
        world = front(dice, world, service);
    }
    if dice.once_in(5) {
        world = world.without_backend(1 + dice.below(6) as u32);
    }
    world.full = dice.once_in(16);
    world.locked = dice.once_in(32).then_some(0);
    world
}

/// Backends of a family and protocol.
fn backends(world: &World, family: Family, proto: u8) -> Vec<u32> {
    let fits = |b: &lb_common::Backend| {
        b.proto == proto && b.addr.is_v4() == (family == Family::V4)
            || b.flags & backend_flags::LIVE == 0
    };
    let ids = world.backends.iter().filter(|(_, b)| fits(b));
    ids.map(|(id, _)| *id).collect()
}

fn front(dice: &mut Dice<'_>, mut world: World, service: u32) -> World {
    let (family, proto) = (dice.one_of(&FAMILIES), dice.one_of(&PROTOS));
    let addr = match dice.below(4) {
        3 => family.node(),
        n => family.vip(1 + n as u8),
    };
    let ids = backends(&world, family, proto);
    let mut table: Vec<u32> = Vec::new();
    if !ids.is_empty() {
        let len = dice.one_of(&[1, 0, 3, 5, 7]);
        table.extend((0..len).map(|_| dice.one_of(&ids)));
    }
    let mut flags = 0;
    for flag in [
        frontend_flags::SOURCE_RANGES,
        frontend_flags::DROP_IF_EMPTY,
        frontend_flags::NO_SNAT,
    ] {
        flags |= if dice.once_in(5) { flag } else { 0 };
    }
    if dice.once_in(2) {
        let bits = dice.one_of(&[0, 1, 8, 24, 31, 32]);
        world = world.range(service, address(dice, family), bits);
    }
    let front = Front::new(service, at(addr, dice.one_of(&PORTS)), proto)
        .table(&table)
        .flags(flags)
        .affinity(dice.one_of(&[0, 0, 100]));
    let client = (address(dice, family), dice.one_of(&[0, 1]));
    if dice.once_in(4) {
        world = world.bound(
            client,
            service,
            dice.below(8) as u32,
            dice.one_of(&[3, 500]),
        );
    }
    world.front(&front.scopes(dice.one_of(&[
        &[scope::INTERNAL, scope::EXTERNAL][..],
        &[scope::EXTERNAL],
        &[scope::INTERNAL],
    ])))
}

/// Protocol, source and destination of a packet.
type Tuple = (u8, SocketAddr, SocketAddr);

/// A frontend that the world has.
fn frontend(dice: &mut Dice<'_>, world: &World) -> (u8, SocketAddr) {
    let ported = world.frontends.keys().filter(|key| key.proto != 0);
    let all: Vec<_> = ported.collect();
    let key = dice.one_of(&all);
    (key.proto, at(key.addr.into(), key.port.get()))
}

fn family_of(addr: SocketAddr) -> Family {
    if addr.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// With a flow, or half of one, that may be over. Also the tuples of its packets.
fn seeded(dice: &mut Dice<'_>, mut world: World, tuples: &mut Vec<Tuple>) -> World {
    let (proto, front) = frontend(dice, &world);
    let family = family_of(front);
    let client = end(dice, family);
    let live = world.backends.values().filter(|b| {
        b.proto == proto && b.addr.is_v4() == front.is_ipv4() && b.flags & backend_flags::LIVE != 0
    });
    let ends: Vec<_> = live.map(|b| at(b.addr.into(), b.port.get())).collect();
    let backend = if ends.is_empty() {
        end(dice, family)
    } else {
        dice.one_of(&ends)
    };
    let flow = Flow::new(proto, client, front, backend).ids(1, 1);
    let node = at(family.node(), SNAT_MIN + dice.below(3) as u16);
    let flow = match dice.below(4) {
        0 => flow,
        1 => flow.external(),
        2 => flow.external().snat(node),
        _ => flow.hairpin(node),
    };
    let mut flags = || dice.one_of(&[ct_flags::SEEN, ct_flags::FIN, ct_flags::RST, 0]);
    let flags = (flags(), flags());
    match dice.below(6) {
        4 => world.flows.push(flow.forward_seed(9, flags.0)),
        5 => world.flows.push(flow.reply_seed(9, flags.1)),
        _ => world = world.flow(&flow, 9, flags),
    }
    tuples.extend([(proto, client, front), (proto, backend, flow.source)]);
    world
}

/// The tuple of a packet, mostly one that the maps care for.
fn tuple(dice: &mut Dice<'_>, world: &World, tuples: &[Tuple]) -> Tuple {
    match dice.below(8) {
        0..3 => {
            let (proto, front) = frontend(dice, world);
            (proto, end(dice, family_of(front)), front)
        }
        3..6 if !tuples.is_empty() => dice.one_of(tuples),
        6 => {
            let (proto, front) = frontend(dice, world);
            let other = at(front.ip(), dice.one_of(&PORTS));
            (proto, end(dice, family_of(front)), other)
        }
        _ => {
            let family = dice.one_of(&FAMILIES);
            (dice.one_of(&PROTOS), end(dice, family), end(dice, family))
        }
    }
}

/// A random frame of a tuple.
fn frame(dice: &mut Dice<'_>, (proto, src, dst): Tuple) -> Frame {
    let family = family_of(src);
    let mut frame = match (proto, dice.below(12)) {
        (_, 11) => Frame::new(src.ip(), dst.ip(), L4::Raw(dice.one_of(&[44, 33]))),
        (_, 10) => echo(family, src, dst),
        (_, 9) => return too_big(dice, (proto, src, dst)),
        (6, _) => tcp(src, dst, dice.one_of(&[2, 16, 24, 17, 4, 20, 18, 1, 0])),
        (132, _) => sctp(src, dst, dice.one_of(&[0, 1, 2, 6, 14])),
        _ => udp(src, dst),
    };
    let len = dice.one_of(&[0, 1, 2, 7, 40, 600, 1330]);
    let step = dice.below(255) as u8 | 1;
    frame.payload = (0..len).map(|i| (i as u8).wrapping_mul(step)).collect();
    frame.ttl = dice.one_of(&[64, 64, 64, 1, 2, 255, 0]);
    frame.csum = dice.one_of(&[
        Csum::Right,
        Csum::Right,
        Csum::Is(0),
        Csum::Partial,
        Csum::Is(0xffff),
    ]);
    match (family, dice.below(8)) {
        (Family::V4, 6) => frame.options(&[1; 12]),
        (Family::V4, 7) => frame.frag((7, dice.one_of(&[0, 1, 100]), true, false)),
        (Family::V6, 6) => frame.extension(60, &[0, 1, 4, 0, 0, 0, 0]),
        (Family::V6, 7) => frame.extension(44, &[0, 0, dice.one_of(&[1, 8]), 0, 0, 0, 9]),
        _ => frame,
    }
}

/// A ping.
fn echo(family: Family, src: SocketAddr, dst: SocketAddr) -> Frame {
    let head = IcmpEchoHeader { id: 7, seq: 1 };
    let l4 = match family {
        Family::V4 => L4::Icmp4(Icmpv4Type::EchoRequest(head)),
        Family::V6 => L4::Icmp6(Icmpv6Type::EchoRequest(head)),
    };
    Frame::new(src.ip(), dst.ip(), l4)
}

/// An error about a packet of the other direction, from its receiver or a router.
fn too_big(dice: &mut Dice<'_>, (proto, src, dst): Tuple) -> Frame {
    let family = family_of(src);
    let from = match dice.below(2) {
        0 => src.ip(),
        _ => address(dice, family),
    };
    let l4 = match family {
        Family::V4 => L4::Icmp4(Icmpv4Type::DestinationUnreachable(
            DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1280 },
        )),
        Family::V6 => L4::Icmp6(Icmpv6Type::PacketTooBig { mtu: 1280 }),
    };
    let quote = &later(proto, dst, src).build()[14..];
    let len = quote.len().min(family.header() + dice.one_of(&[8, 100, 7]));
    Frame::new(from, dst.ip(), l4).payload(&quote[..len])
}

/// Changes a few bytes, or the length.
fn mutate(dice: &mut Dice<'_>, bytes: &mut Vec<u8>) {
    for _ in 0..dice.one_of(&[0, 0, 0, 1, 2, 4]) {
        let at = dice.below(bytes.len().min(90));
        bytes[at] ^= 1 << dice.below(8);
    }
    match dice.below(12) {
        10 => bytes.truncate(14 + dice.below(90)),
        11 => bytes.extend([0x5a; 30]),
        _ => {}
    }
}

/// Random packets in random maps. What becomes of them is not said: the host and
/// the kernel are to agree.
#[must_use]
pub fn vector(bytes: &[u8]) -> Vector {
    let mut dice = Dice::new(bytes);
    let mut world = world(&mut dice);
    let mut tuples = Vec::new();
    for _ in 0..dice.below(4) {
        world = seeded(&mut dice, world, &mut tuples);
    }
    let mut vector = Vector::new("random", "packets", world);
    for _ in 0..1 + dice.below(5) {
        let tuple = tuple(&mut dice, &vector.world, &tuples);
        // Its later packets and its replies, as far as no address changes.
        tuples.extend([tuple, (tuple.0, tuple.2, tuple.1)]);
        let mut input = frame(&mut dice, tuple).build();
        mutate(&mut dice, &mut input);
        let from = dice.one_of(&[At::Uplink, At::Pod, At::Uplink, At::ToPod, At::ToNet]);
        let expected = untouched(&input);
        vector = vector.bytes(from, input, expected);
        if dice.once_in(20) {
            vector = vector.gso(500);
        }
    }
    vector
}
