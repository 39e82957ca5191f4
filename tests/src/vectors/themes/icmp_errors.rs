//! ICMP errors about packets of translated flows: whoever gets one finds in it the
//! packet that it has sent.

use std::net::IpAddr;

use etherparse::{
    Icmpv4Type, Icmpv6Type,
    icmpv4::{self, DestUnreachableHeader},
    icmpv6,
};
use lb_common::Reason;

use super::scene::{PROTOS, SCTP, Scene, TCP, UDP, name};
use crate::vectors::{
    frame::{Csum, Frame, L4, chunk, later, sctp},
    net::{FAMILIES, Family, GATEWAY, NODE_A, UP0, at},
    vector::{At, Vector, back, out, pass},
};

pub(super) const THEME: &str = "ICMP errors";

/// The vectors of this theme.
pub(super) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in [TCP, UDP, SCTP] {
            for scene in [
                Scene::outside(family, proto, 1),
                Scene::from_pod(family, proto, 2),
            ] {
                all.push(about_a_reply(scene));
                all.push(about_a_request(scene));
            }
            all.push(by_snat(family, proto));
            all.push(hairpin(family, proto));
        }
        for proto in PROTOS {
            all.push(every_kind(Scene::outside(family, proto, 1)));
            all.push(whole_quote(family, proto));
        }
        all.push(no_checksum(family));
        all.push(from_the_node(family));
    }
    all
}

/// Somebody between the two ends.
pub(super) fn router(family: Family) -> IpAddr {
    family.client(250)
}

fn unreachable(family: Family) -> L4 {
    match family {
        Family::V4 => L4::Icmp4(Icmpv4Type::DestinationUnreachable(
            DestUnreachableHeader::Port,
        )),
        Family::V6 => L4::Icmp6(Icmpv6Type::DestinationUnreachable(
            icmpv6::DestUnreachableCode::Port,
        )),
    }
}

pub(super) fn too_big(family: Family) -> L4 {
    match family {
        Family::V4 => L4::Icmp4(Icmpv4Type::DestinationUnreachable(
            DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1280 },
        )),
        Family::V6 => L4::Icmp6(Icmpv6Type::PacketTooBig { mtu: 1280 }),
    }
}

/// An error about a packet, of which so many bytes after the IP header are quoted.
pub(super) fn error(l4: L4, ends: (IpAddr, IpAddr), about: &Frame, bytes: usize) -> Frame {
    let header = if about.src.is_ipv4() { 20 } else { 40 };
    let quote = &about.build()[14..];
    let quote = &quote[..quote.len().min(header + bytes)];
    Frame::new(ends.0, ends.1, l4).payload(quote)
}

/// A router and the client say that what the frontend, for all they know, has sent was
/// too big or went nowhere.
fn about_a_reply(scene: Scene) -> Vector {
    let family = scene.family;
    let flow = scene.flow();
    let going = (scene.going(), scene.going());
    let seen = later(scene.proto, scene.front, scene.client);
    let sent = later(scene.proto, scene.backend, scene.client);
    let mut vector = Vector::new(
        THEME,
        format!("{}, about a reply", scene.title()),
        scene.world().flow(&flow, 1, going),
    );
    for from in [router(family), scene.client.ip()] {
        let l4 = too_big(family);
        let input = error(l4.clone(), (from, scene.front.ip()), &seen, 8);
        let output = error(l4, (from, scene.backend.ip()), &sent, 8);
        vector = vector.packet(scene.at, &input, pass(Reason::IcmpError, &output));
    }
    vector.conntrack([flow.forward(going.0, 1), flow.reply(going.1, 0)])
}

/// A router and the backend say so of what the client has sent: the backend keeps
/// being the frontend.
fn about_a_request(scene: Scene) -> Vector {
    let family = scene.family;
    let flow = scene.flow();
    let going = (scene.going(), scene.going());
    let seen = later(scene.proto, scene.client, scene.backend);
    let sent = later(scene.proto, scene.client, scene.front);
    let mut vector = Vector::new(
        THEME,
        format!("{}, about a request", scene.title()),
        scene.world().flow(&flow, 1, going),
    );
    let senders = [
        (router(family), router(family)),
        (scene.backend.ip(), scene.front.ip()),
    ];
    for (from, shown) in senders {
        let l4 = unreachable(family);
        let input = error(l4.clone(), (from, scene.client.ip()), &seen, 8);
        let output = error(l4, (shown, scene.client.ip()), &sent, 8);
        vector = vector.packet(scene.replies(), &input, pass(Reason::IcmpError, &output));
    }
    vector
}

/// Where the backend sees the node, errors of both sides come to the node. They go on
/// from it and from the frontend, whoever has sent them.
fn by_snat(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 2);
    let world = scene.world();
    let (flow, source) = scene.snat(&world);
    let world = world.flow(&flow, 1, (scene.going(), scene.going()));
    let l4 = too_big(family);
    let leaving = |f: Frame, link: ([u8; 6], [u8; 6])| {
        let ttl = f.ttl - 1;
        out(
            Reason::IcmpError,
            UP0.ifindex,
            &f.link(link.0, link.1).ttl(ttl),
        )
    };
    let ahead = |from| {
        let seen = later(proto, scene.front, scene.client);
        let sent = later(proto, scene.backend, source);
        let input = error(l4.clone(), (from, scene.front.ip()), &seen, 8);
        let output = error(l4.clone(), (source.ip(), scene.backend.ip()), &sent, 8);
        (input, leaving(output, (UP0.mac, NODE_A)))
    };
    let home = |from| {
        let seen = later(proto, source, scene.backend);
        let sent = later(proto, scene.client, scene.front);
        let input = error(l4.clone(), (from, source.ip()), &seen, 8);
        let output = error(l4.clone(), (scene.front.ip(), scene.client.ip()), &sent, 8);
        (input, leaving(output, (UP0.mac, GATEWAY)))
    };
    let name = format!("{family} {}, of an SNAT", name(proto));
    let mut vector = Vector::new(THEME, name, world);
    let all = [
        ahead(router(family)),
        ahead(scene.client.ip()),
        home(family.pod(2, 250)),
        home(scene.backend.ip()),
    ];
    for (input, expected) in all {
        vector = vector.packet(At::Uplink, &input, expected);
    }
    vector
}

/// A pod that dials its own service, and refuses.
fn hairpin(family: Family, proto: u8) -> Vector {
    let mut scene = Scene::from_pod(family, proto, 1);
    scene.backend.set_ip(scene.client.ip());
    let world = scene.world();
    let source = at(
        family.node(),
        world.snat_port(proto, scene.client, scene.front, 0),
    );
    let flow = scene.flow().hairpin(source);
    let world = world.flow(&flow, 1, (scene.opened(), 0));
    let seen = later(proto, source, scene.backend);
    let sent = later(proto, scene.client, scene.front);
    let ends = (scene.backend.ip(), source.ip());
    let input = error(unreachable(family), ends, &seen, 8);
    let ends = (scene.front.ip(), scene.client.ip());
    let output = error(unreachable(family), ends, &sent, 8).turned();
    let name = format!("{family} {}, hairpin", name(proto));
    Vector::new(THEME, name, world).packet(At::Pod, &input, back(Reason::IcmpError, &output))
}

/// The errors of RFC 792 that routers still send, and those of RFC 4443.
fn every_kind(scene: Scene) -> Vector {
    let family = scene.family;
    let kinds = match family {
        Family::V4 => vec![
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host),
            Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
            Icmpv4Type::ParameterProblem(icmpv4::ParameterProblemHeader::PointerIndicatesError(9)),
        ]
        .into_iter()
        .map(L4::Icmp4)
        .collect(),
        Family::V6 => vec![
            Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Address),
            Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
            Icmpv6Type::ParameterProblem(icmpv6::ParameterProblemHeader {
                code: icmpv6::ParameterProblemCode::ErroneousHeaderField,
                pointer: 7,
            }),
        ]
        .into_iter()
        .map(L4::Icmp6)
        .collect::<Vec<_>>(),
    };
    let seen = later(scene.proto, scene.front, scene.client);
    let sent = later(scene.proto, scene.backend, scene.client);
    let world = scene
        .world()
        .flow(&scene.flow(), 1, (scene.going(), scene.going()));
    let name = format!("{family} {}, of every kind", name(scene.proto));
    let mut vector = Vector::new(THEME, name, world);
    for l4 in kinds {
        let input = error(l4.clone(), (router(family), scene.front.ip()), &seen, 8);
        let output = error(l4, (router(family), scene.backend.ip()), &sent, 8);
        vector = vector.packet(At::Uplink, &input, pass(Reason::IcmpError, &output));
    }
    vector
}

/// RFC 1812, section 4.3.2.3, and RFC 4443 want as much as fits: the quoted packet's
/// own checksum is then there, and must be right.
fn whole_quote(family: Family, proto: u8) -> Vector {
    let scene = Scene::outside(family, proto, 1);
    let world = scene
        .world()
        .flow(&scene.flow(), 1, (scene.going(), scene.going()));
    let seen = later(proto, scene.front, scene.client);
    let sent = later(proto, scene.backend, scene.client);
    let name = format!("{family} {}, all that fits", name(proto));
    let mut vector = Vector::new(THEME, name, world);
    for bytes in if proto == TCP {
        [18, 20, 60]
    } else {
        [8, 9, 60]
    } {
        let input = error(
            too_big(family),
            (router(family), scene.front.ip()),
            &seen,
            bytes,
        );
        let ends = (router(family), scene.backend.ip());
        let output = error(too_big(family), ends, &sent, bytes);
        vector = vector.packet(At::Uplink, &input, pass(Reason::IcmpError, &output));
    }
    vector
}

/// A quoted UDP packet without a checksum keeps none (RFC 768).
fn no_checksum(family: Family) -> Vector {
    let scene = Scene::outside(family, UDP, 1);
    let world = scene
        .world()
        .flow(&scene.flow(), 1, (scene.going(), scene.going()));
    let none = |f: Frame| f.csum(Csum::Is(0));
    let seen = none(later(UDP, scene.front, scene.client));
    let sent = none(later(UDP, scene.backend, scene.client));
    let input = error(
        too_big(family),
        (router(family), scene.front.ip()),
        &seen,
        8,
    );
    let output = error(
        too_big(family),
        (router(family), scene.backend.ip()),
        &sent,
        8,
    );
    Vector::new(
        THEME,
        format!("{family}, about UDP without checksum"),
        world,
    )
    .packet(At::Uplink, &input, pass(Reason::IcmpError, &output))
}

/// The node says that a pod's packet was too big for the way to its backend.
fn from_the_node(family: Family) -> Vector {
    let scene = Scene::from_pod(family, SCTP, 2);
    let world = scene
        .world()
        .flow(&scene.flow(), 1, (scene.going(), scene.going()));
    // Nobody looks at the checksum of a quoted packet that is not whole.
    let data = |to| {
        sctp(scene.client, to, chunk::DATA)
            .payload(&[1; 500])
            .csum(Csum::Is(7))
    };
    let ends = (family.node(), scene.client.ip());
    let input = error(too_big(family), ends, &data(scene.backend), 200);
    let output = error(too_big(family), ends, &data(scene.front), 200);
    Vector::new(THEME, format!("{family} SCTP, from the node"), world).packet(
        At::ToPod,
        &input,
        pass(Reason::IcmpError, &output),
    )
}
