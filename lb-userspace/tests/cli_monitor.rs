//! What `bascule monitor` makes of an event.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytemuck::Zeroable as _;
use etherparse::PacketBuilder;
use lb_common::{
    Be16, Frontend, FrontendKey, Reason,
    monitor::{Event, SNAP, hook},
    proto, scope,
};
use lb_userspace::cli::{
    monitor::{
        pcapng,
        told::{Told, after, before, tell},
    },
    rows::Served,
};

type End = (&'static str, u16);

const CLIENT: End = ("10.201.1.4", 40_000);
const FRONT: End = ("10.97.0.10", 80);
const BACKEND: End = ("10.201.1.2", 8080);
const NODE: End = ("172.29.0.11", 30_001);
const XDP_PASS: u8 = 2;
const TC_PASS: u8 = 0xff;
const TC_SHOT: u8 = 2;
const TC_REDIRECT: u8 = 7;

fn frame(from: End, to: End, udp: bool) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let (src, dst): (IpAddr, IpAddr) = (from.0.parse().unwrap(), to.0.parse().unwrap());
    let ip = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => link.ipv4(src.octets(), dst.octets(), 64),
        (IpAddr::V6(src), IpAddr::V6(dst)) => link.ipv6(src.octets(), dst.octets(), 64),
        _ => panic!("two families"),
    };
    let mut out = Vec::new();
    match udp {
        // Longer than what an event has of it.
        true => ip.udp(from.1, to.1).write(&mut out, &[7; 400]).unwrap(),
        false => ip
            .tcp(from.1, to.1, 1, 1)
            .syn()
            .write(&mut out, &[])
            .unwrap(),
    }
    out
}

/// An event of a packet with these ends, before and after, that was seen here.
fn event(reason: Reason, came: [End; 2], left: [End; 2], (hook, action): (u8, u8)) -> Event {
    let mut event = Event::zeroed();
    let udp = came[1].0.contains(':');
    let (before, after) = (frame(came[0], came[1], udp), frame(left[0], left[1], udp));
    (event.len, event.len_after) = (before.len() as u32, after.len() as u32);
    for (to, from) in [(&mut event.before, &before), (&mut event.after, &after)] {
        let taken = from.len().min(SNAP);
        to[..taken].copy_from_slice(&from[..taken]);
    }
    (event.reason, event.hook, event.action) = (reason as u8, hook, action);
    event
}

fn served() -> Served {
    let front = |addr: &str, port, proto, scope, service| {
        let key = FrontendKey {
            addr: addr.parse::<IpAddr>().unwrap().into(),
            port: Be16::new(port),
            proto,
            scope,
        };
        let mut value = Frontend::zeroed();
        value.service = service;
        (key, value)
    };
    let mut frontends = vec![
        front(FRONT.0, 80, proto::TCP, scope::INTERNAL, 1),
        front("172.29.0.11", 30_080, proto::TCP, scope::EXTERNAL, 1),
        front("fd97::10", 53, proto::UDP, scope::INTERNAL, 2),
    ];
    frontends.sort_unstable_by_key(|(key, _)| *key);
    let names = BTreeMap::new();
    Served { frontends, names }
}

fn told(event: &Event, wanted: Option<&str>) -> Option<Told> {
    tell(
        event,
        &served(),
        wanted,
        ("12:00:00.5".to_owned(), "pod4".to_owned()),
    )
}

fn translated() -> [(Event, &'static str); 3] {
    [
        (
            event(
                Reason::NewFlow,
                [CLIENT, FRONT],
                [CLIENT, BACKEND],
                (hook::POD, TC_PASS),
            ),
            "12:00:00.5 pod4 ingress TCP SYN 10.201.1.4:40000 -> 10.97.0.10:80 (#1) -> \
             10.201.1.2:8080  new_flow, passed (54 bytes)",
        ),
        (
            event(
                Reason::Reply,
                [BACKEND, CLIENT],
                [FRONT, CLIENT],
                (hook::EGRESS, TC_PASS),
            ),
            "12:00:00.5 pod4 egress TCP SYN 10.201.1.4:40000 <- 10.97.0.10:80 (#1) <- \
             10.201.1.2:8080  reply, passed (54 bytes)",
        ),
        (
            event(
                Reason::Established,
                [CLIENT, ("172.29.0.11", 30_080)],
                [NODE, BACKEND],
                (hook::UPLINK, TC_REDIRECT),
            ),
            "12:00:00.5 pod4 ingress TCP SYN 10.201.1.4:40000 -> 172.29.0.11:30080 (#1) -> \
             10.201.1.2:8080 as 172.29.0.11:30001  established, redirected (54 bytes)",
        ),
    ]
}

fn others() -> [(Event, &'static str); 3] {
    [
        // The frame is an answer by now, and no translation.
        (
            event(
                Reason::NoEndpoints,
                [CLIENT, FRONT],
                [FRONT, CLIENT],
                (hook::XDP, 3),
            ),
            "12:00:00.5 pod4 xdp TCP SYN 10.201.1.4:40000 -> 10.97.0.10:80 (#1)  no_endpoints, \
             transmitted (54 bytes)",
        ),
        (
            event(
                Reason::UnknownPort,
                [CLIENT, ("10.97.0.10", 81)],
                [CLIENT, ("10.97.0.10", 81)],
                (hook::POD, TC_SHOT),
            ),
            "12:00:00.5 pod4 ingress TCP SYN 10.201.1.4:40000 -> 10.97.0.10:81  unknown_port, \
             dropped (54 bytes)",
        ),
        (
            event(
                Reason::NewFlow,
                [("fd20::4", 5000), ("fd97::10", 53)],
                [("fd20::4", 5000), ("fd20::2", 5353)],
                (hook::XDP, XDP_PASS),
            ),
            "12:00:00.5 pod4 xdp UDP [fd20::4]:5000 -> [fd97::10]:53 (#2) -> [fd20::2]:5353  \
             new_flow, passed (462 bytes)",
        ),
    ]
}

#[test]
fn a_line_names_client_frontend_and_backend_whichever_way_the_packet_goes() {
    for (event, line) in translated().into_iter().chain(others()) {
        assert_eq!(told(&event, None).unwrap().line(false), line);
    }
}

#[test]
fn a_service_is_known_by_its_frontend_or_by_its_address() {
    let new = event(
        Reason::NewFlow,
        [CLIENT, FRONT],
        [CLIENT, BACKEND],
        (hook::POD, TC_PASS),
    );
    let reply = event(
        Reason::Reply,
        [BACKEND, CLIENT],
        [FRONT, CLIENT],
        (hook::EGRESS, TC_PASS),
    );
    let port = ("10.97.0.10", 81);
    let wrong = event(
        Reason::UnknownPort,
        [CLIENT, port],
        [CLIENT, port],
        (hook::POD, TC_SHOT),
    );
    for event in [new, reply, wrong] {
        assert!(told(&event, Some("#1")).is_some());
        assert!(told(&event, Some("#2")).is_none());
    }
}

#[test]
fn what_cannot_be_read_is_told_of_all_the_same() {
    let mut event = Event::zeroed();
    (event.reason, event.hook, event.action) = (200, 9, 5);
    (event.len, event.len_after) = (u32::MAX, 60);
    event.before = [0xff; SNAP];
    assert_eq!((before(&event).len(), after(&event).len()), (SNAP, 60));
    let told = told(&event, None).unwrap();
    let what = (
        told.reason.as_str(),
        told.hook,
        told.verdict,
        told.protocol.as_str(),
    );
    assert_eq!(what, ("#200", "unknown", "dropped", ""));
    for len in 0..SNAP as u32 {
        let mut event = event;
        event.before = frame(CLIENT, FRONT, true)[..SNAP].try_into().unwrap();
        event.len = len;
        assert!(is_told(&event), "{len}");
    }
}

/// Whether a frame that is cut anywhere is told of.
fn is_told(event: &Event) -> bool {
    told(event, None).is_some_and(|told| !told.line(true).is_empty())
}

#[test]
fn blocks_of_a_capture_are_whole_words_and_as_long_as_they_say() {
    let mut event = event(
        Reason::NewFlow,
        [CLIENT, FRONT],
        [CLIENT, BACKEND],
        (hook::POD, TC_PASS),
    );
    for len in [0, 1, 53, 54, 1500] {
        event.len = len;
        let mut rest = &[
            pcapng::header(),
            pcapng::packets(&event, 1 << 40 | 7, "why"),
        ]
        .concat()[..];
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
            let len = word(4) as usize;
            assert_eq!((len % 4, word(len - 4)), (0, len as u32));
            kinds.push(word(0));
            rest = &rest[len..];
        }
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 1, 6, 6]);
    }
}
