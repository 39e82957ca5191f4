//! The decisions of the socket hooks, which BPF_PROG_TEST_RUN cannot run: on the
//! host, with the maps of the vectors.

use std::net::{IpAddr, SocketAddr};

use bascule_tests::{
    host::HostEnv,
    vectors::{
        net::{FAMILIES, Family, at, ip},
        reference,
        run::Host,
        world::{Front, World},
    },
};
use lb_common::{Be16, Reason, frontend_flags, node_flags, scope};
use lb_datapath::{
    Hook,
    socket::{Call, SocketVerdict, incoming, outgoing},
};

/// The node's own network namespace, and a pod's.
const NODE: u64 = 1;
const POD: u64 = 0x1_0000_0002;

const TABLE: [u32; 5] = [2, 1, 3, 1, 2];
const NOW: u32 = 5_000_000;

fn backend(family: Family, id: u32) -> SocketAddr {
    at(family.pod(2, id as u8), 8080)
}

fn world(family: Family, proto: u8, front: &Front) -> World {
    let mut world = (1..=3).fold(World::new(), |world, id| {
        world.backend(id, backend(family, id), proto, false)
    });
    world.node.host_netns = NODE;
    world.front(front)
}

fn call(to: SocketAddr, proto: u8, cookie: u64, netns: u64) -> Call {
    Call {
        addr: to.ip().into(),
        port: Be16::new(to.port()),
        proto,
        cookie,
        netns,
    }
}

fn run(host: &Host, call: &Call) -> SocketVerdict {
    let before = host.tables.writes.get();
    let dry = outgoing(&&host.tables, &HostEnv::<true>::new(Hook::POD, NOW), call);
    assert_eq!(host.tables.writes.get(), before, "a dry run writes");
    let verdict = outgoing(&&host.tables, &HostEnv::<false>::new(Hook::POD, NOW), call);
    assert_eq!(dry, verdict, "a dry run decides otherwise");
    verdict.0
}

fn to(addr: SocketAddr) -> SocketVerdict {
    SocketVerdict::Rewrite(addr.ip().into(), Be16::new(addr.port()))
}

fn count(host: &Host, reason: Reason) -> u64 {
    host.tables.reasons.borrow()[reason as usize].packets
}

/// The backend of a socket by the reference: by its cookie, or its namespace.
fn chosen(family: Family, by: u64, front: SocketAddr, proto: u8) -> SocketAddr {
    let hash = reference::socket(by, (front.ip(), front.port()), proto);
    backend(family, TABLE[reference::slot(hash, 5) as usize])
}

fn each(test: impl Fn(Family, u8, SocketAddr)) {
    for family in FAMILIES {
        for proto in [6, 17] {
            test(family, proto, at(family.vip(1), 80));
        }
    }
}

#[test]
fn a_socket_goes_to_the_backend_of_its_cookie() {
    each(|family, proto, front| {
        let world = world(family, proto, &Front::new(1, front, proto).table(&TABLE));
        let host = Host::new(&world);
        for cookie in (1..200).map(|n| n * 0x0101_0101_0101) {
            for netns in [NODE, POD] {
                let verdict = run(&host, &call(front, proto, cookie, netns));
                assert_eq!(
                    verdict,
                    to(chosen(family, cookie, front, proto)),
                    "{cookie}"
                );
            }
        }
    });
}

#[test]
fn replies_and_the_peer_are_the_frontends() {
    each(|family, proto, front| {
        let world = world(family, proto, &Front::new(1, front, proto).table(&[1]));
        let host = Host::new(&world);
        let sent = backend(family, 1);
        assert_eq!(run(&host, &call(front, proto, 7, POD)), to(sent));
        assert_eq!(
            incoming(&&host.tables, &call(sent, proto, 7, POD)),
            to(front)
        );
        // Another socket, another port and the frontend itself are left alone.
        for other in [
            call(sent, proto, 8, POD),
            call(at(sent.ip(), 8081), proto, 7, POD),
            call(front, proto, 7, POD),
        ] {
            assert_eq!(incoming(&&host.tables, &other), SocketVerdict::Unchanged);
        }
        assert_eq!(count(&host, Reason::Socket), 1);
        let services = host.tables.services.borrow();
        assert_eq!((services[&1].packets, services[&1].connections), (0, 1));
    });
}

#[test]
fn a_service_without_endpoints_refuses() {
    each(|family, proto, front| {
        let host = Host::new(&world(family, proto, &Front::new(1, front, proto)));
        assert_eq!(
            run(&host, &call(front, proto, 1, POD)),
            SocketVerdict::Refuse
        );
        assert_eq!(count(&host, Reason::NoEndpoints), 1);
    });
}

#[test]
fn a_local_policy_without_endpoint_denies() {
    each(|family, proto, front| {
        let flags = frontend_flags::DROP_IF_EMPTY;
        let host = Host::new(&world(
            family,
            proto,
            &Front::new(1, front, proto).flags(flags),
        ));
        assert_eq!(run(&host, &call(front, proto, 1, POD)), SocketVerdict::Deny);
        assert_eq!(count(&host, Reason::NoLocalEndpoint), 1);
    });
}

#[test]
fn an_unknown_port_of_a_vip_refuses_and_of_the_node_does_not() {
    each(|family, proto, front| {
        let world = world(family, proto, &Front::new(1, front, proto).table(&[1]));
        let host = Host::new(&world);
        let other = call(at(front.ip(), 81), proto, 1, POD);
        assert_eq!(run(&host, &other), SocketVerdict::Refuse);
        assert_eq!(count(&host, Reason::UnknownPort), 1);
        for port in [0, 22, 65535] {
            let own = call(at(family.node(), port), proto, 1, POD);
            assert_eq!(run(&host, &own), SocketVerdict::Unchanged);
        }
    });
}

#[test]
fn other_protocols_and_addresses_are_left_alone() {
    each(|family, proto, front| {
        let world = world(family, proto, &Front::new(1, front, proto).table(&[1]));
        let host = Host::new(&world);
        for other in [
            call(front, 1, 1, POD),
            call(front, 132, 1, POD),
            call(backend(family, 1), proto, 1, POD),
            call(at(family.client(1), 80), proto, 1, POD),
        ] {
            assert_eq!(run(&host, &other), SocketVerdict::Unchanged, "{other:?}");
        }
    });
}

/// A NodePort on a loopback address is the node's; a pod's loopback is the pod's.
#[test]
fn loopback_is_the_nodes() {
    for (family, loopback) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
        let front = at(ip(loopback), 30080);
        let mut world = world(family, 6, &Front::new(1, front, 6).table(&[1]));
        world.vip(ip(loopback), frontend_flags::NODE_ADDR);
        let host = Host::new(&world);
        let verdict = run(&host, &call(front, 6, 1, NODE));
        assert_eq!(verdict, to(backend(family, 1)));
        let verdict = run(&host, &call(front, 6, 1, POD));
        assert_eq!(verdict, SocketVerdict::Unchanged);
    }
}

#[test]
fn pods_can_be_left_to_tc() {
    each(|family, proto, front| {
        let mut world = world(family, proto, &Front::new(1, front, proto).table(&[1]));
        world.node.flags = node_flags::SOCKET_LB_HOST_ONLY;
        let host = Host::new(&world);
        let verdict = run(&host, &call(front, proto, 1, NODE));
        assert_eq!(verdict, to(backend(family, 1)));
        let verdict = run(&host, &call(front, proto, 1, POD));
        assert_eq!(verdict, SocketVerdict::Unchanged);
    });
}

/// Which address a pod's socket will have is not known yet: TC looks at it. The
/// node's own sockets are within every range.
#[test]
fn source_ranges_are_left_to_tc() {
    each(|family, proto, front| {
        let flags = frontend_flags::SOURCE_RANGES;
        let front_of = Front::new(1, front, proto).table(&[1]).flags(flags);
        let host = Host::new(&world(family, proto, &front_of));
        let verdict = run(&host, &call(front, proto, 1, POD));
        assert_eq!(verdict, SocketVerdict::Unchanged);
        let verdict = run(&host, &call(front, proto, 1, NODE));
        assert_eq!(verdict, to(backend(family, 1)));
    });
}

#[test]
fn affinity_goes_by_the_namespace() {
    each(|family, proto, front| {
        let front_of = Front::new(1, front, proto).table(&TABLE).affinity(100);
        let host = Host::new(&world(family, proto, &front_of));
        let sent = chosen(family, POD, front, proto);
        for cookie in 1..20 {
            assert_eq!(run(&host, &call(front, proto, cookie, POD)), to(sent));
        }
        let affinity = host.tables.affinity.borrow();
        assert_eq!(affinity.len(), 1);
        let (key, value) = affinity.iter().next().expect("there is one");
        assert_eq!((key.service, key.scope), (1, u32::from(scope::INTERNAL)));
        assert_eq!(value.last_use, NOW);
        assert_eq!(backend(family, value.backend), sent);
    });
}

/// Both families of a service have one id: a binding must not lead from one to
/// the other.
#[test]
fn affinity_is_of_one_family() {
    let (v4, v6) = (at(Family::V4.vip(1), 80), at(Family::V6.vip(1), 80));
    let mut world = World::new()
        .backend(1, backend(Family::V4, 1), 6, false)
        .backend(2, backend(Family::V6, 2), 6, false)
        .front(&Front::new(1, v4, 6).table(&[1]).affinity(100))
        .front(&Front::new(1, v6, 6).table(&[2]).affinity(100));
    world.node.host_netns = NODE;
    let host = Host::new(&world);
    assert_eq!(run(&host, &call(v4, 6, 1, POD)), to(backend(Family::V4, 1)));
    assert_eq!(run(&host, &call(v6, 6, 2, POD)), to(backend(Family::V6, 2)));
    assert_eq!(run(&host, &call(v4, 6, 3, POD)), to(backend(Family::V4, 1)));
}

/// An IPv6 socket that dials an IPv4 vip gives its mapped form.
#[test]
fn a_mapped_vip_is_the_ipv4_one() {
    let front = at(Family::V4.vip(1), 80);
    let world = world(Family::V4, 6, &Front::new(1, front, 6).table(&[1]));
    let host = Host::new(&world);
    let IpAddr::V4(v4) = front.ip() else {
        panic!("an IPv4 vip");
    };
    let mut mapped = call(front, 6, 1, POD);
    mapped.addr = bytemuck::cast(v4.to_ipv6_mapped().octets());
    assert_eq!(run(&host, &mapped), to(backend(Family::V4, 1)));
}

#[test]
fn a_backend_that_is_gone_denies() {
    each(|family, proto, front| {
        let world = world(family, proto, &Front::new(1, front, proto).table(&[1]));
        let host = Host::new(&world.without_backend(1));
        assert_eq!(run(&host, &call(front, proto, 1, POD)), SocketVerdict::Deny);
        assert_eq!(count(&host, Reason::BackendMissing), 1);
    });
}

/// A socket that sends datagram after datagram is one connection.
#[test]
fn datagrams_of_a_socket_are_one_connection() {
    each(|family, proto, front| {
        let world = world(family, proto, &Front::new(1, front, proto).table(&[1]));
        let host = Host::new(&world);
        for _ in 0..5 {
            run(&host, &call(front, proto, 9, POD));
        }
        assert_eq!(host.tables.services.borrow()[&1].connections, 1);
        run(&host, &call(front, proto, 10, POD));
        assert_eq!(host.tables.services.borrow()[&1].connections, 2);
    });
}
