//! Random packets: the host and the kernel agree byte by byte, and what goes to a
//! backend comes back as from the frontend.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use bascule_tests::vectors::{
    dry,
    frame::{flag, tcp, udp},
    kernel::{Kernel, in_namespace, takes},
    net::{FAMILIES, at},
    random::{self, Dice},
    run::{Host, Ran, against_kernel, differences},
    vector::{At, Exchange, Lane, Vector, untouched},
    world::{Front, World},
};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_common::Reason;
use lb_datapath::Verdict;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

/// The same packets in every run.
const SEED: [u8; 32] = *b"Bascule: the host and the kernel";

fn check(
    cases: u32,
    len: usize,
    test: impl Fn(&mut Kernel, &[u8]) -> Result<(), String> + Send + 'static,
) {
    println!("seed {:?}, {cases} cases", String::from_utf8_lossy(&SEED));
    let result = in_namespace(move |namespace| {
        let kernel = RefCell::new(Kernel::new(namespace)?);
        let config = ProptestConfig {
            cases,
            failure_persistence: None,
            max_shrink_iters: 20_000,
            ..ProptestConfig::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &SEED);
        let result = TestRunner::new_with_rng(config, rng).run(&vec(any::<u8>(), len), |bytes| {
            test(&mut kernel.borrow_mut(), &bytes).map_err(TestCaseError::fail)
        });
        Ok(result.map_err(|error| error.to_string()))
    });
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error}"),
        Err(error) => panic!("{error:#}"),
    }
}

/// How often each reason was met.
type Met = Mutex<BTreeMap<Reason, u32>>;

fn agree(vector: &Vector, lane: Lane, kernel: &mut Kernel, met: &Met) -> Result<(), String> {
    let host = Host::new(&vector.world);
    kernel.fill(&vector.world).map_err(|e| format!("{e:#}"))?;
    for (index, x) in vector.exchanges.iter().enumerate() {
        if !takes(x, lane) {
            continue;
        }
        let asked = dry::differences(x, lane, &host, kernel);
        let ran = host.run::<false>(x, lane);
        let mut met = met.lock().map_err(|e| e.to_string())?;
        *met.entry(ran.outcome.reason).or_default() += 1;
        let mut found = against_kernel(x, lane, &ran, kernel);
        found.extend(asked);
        if !found.is_empty() {
            let found = found.join("\n");
            return Err(format!(
                "{lane:?}, packet {index}: {found}\n{x:?}\n{:?}",
                ran.outcome
            ));
        }
    }
    let theirs = kernel.state().map_err(|e| format!("{e:#}"))?;
    match differences(&host.state(), &theirs) {
        None => Ok(()),
        Some(text) => Err(format!("{lane:?}: {text}\n{:?}", vector.exchanges)),
    }
}

/// Reasons of other hooks, and of a kernel without memory.
const UNMET: [Reason; 2] = [Reason::Socket, Reason::WriteFailed];

#[test]
fn the_host_and_the_kernel_agree_on_random_packets() {
    let met = Arc::new(Met::default());
    let counts = Arc::clone(&met);
    check(3000, 320, move |kernel, bytes| {
        let vector = random::vector(bytes);
        for lane in vector.lanes() {
            agree(&vector, *lane, kernel, &counts)?;
        }
        Ok(())
    });
    let met = met.lock().expect("nobody holds it any more");
    println!("{met:?}");
    // Random packets that never get anywhere would prove nothing.
    for reason in Reason::ALL {
        assert!(
            met.contains_key(reason) || UNMET.contains(reason),
            "no random packet met {reason:?}"
        );
    }
}

/// A service with one backend and the first packet of a client, the client, and
/// the frontend.
fn flow(dice: &mut Dice<'_>) -> (Vector, SocketAddr, SocketAddr) {
    let family = dice.one_of(&FAMILIES);
    let proto = dice.one_of(&[6, 17]);
    let port = |dice: &mut Dice<'_>| 1 + dice.below(65535) as u16;
    let front = at(family.vip(dice.below(255) as u8), port(dice));
    let node = dice.one_of(&[1, 2, 3]);
    let backend = at(family.pod(node, dice.below(255) as u8), port(dice));
    let (from, addr) = match dice.below(3) {
        0 => (At::Uplink, family.client(dice.below(255) as u8)),
        1 => (At::Pod, family.pod(1, dice.below(255) as u8)),
        // The pod itself, where it is on this node.
        _ => (
            At::Pod,
            if node == 1 {
                backend.ip()
            } else {
                family.pod(1, 3)
            },
        ),
    };
    let client = at(addr, port(dice));
    let payload: Vec<u8> = (0..dice.below(100))
        .map(|_| dice.below(256) as u8)
        .collect();
    let frame = match proto {
        6 => tcp(client, front, flag::SYN),
        _ => udp(client, front),
    };
    let frame = frame.payload(&payload);
    let world = World::new()
        .backend(1, backend, proto, node == 1)
        .front(&Front::new(1, front, proto).table(&[1]));
    let vector = Vector::new("random", "there and back", world);
    let input = frame.build();
    let expected = untouched(&input);
    (vector.bytes(from, input, expected), client, front)
}

/// Source and destination address of a frame.
fn addresses(packet: &SlicedPacket<'_>) -> Result<(IpAddr, IpAddr), String> {
    match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            if header.to_header().calc_header_checksum() != header.header_checksum() {
                return Err("the IPv4 header checksum is wrong".to_owned());
            }
            let (src, dst) = (header.source_addr(), header.destination_addr());
            Ok((src.into(), dst.into()))
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (src, dst) = (header.source_addr(), header.destination_addr());
            Ok((src.into(), dst.into()))
        }
        _ => Err("no IP header".to_owned()),
    }
}

/// Source and destination of a frame, whose checksums `etherparse` recomputes.
fn ends(bytes: &[u8]) -> Result<(SocketAddr, SocketAddr), String> {
    let packet = SlicedPacket::from_ethernet(bytes).map_err(|e| e.to_string())?;
    let (src, dst) = addresses(&packet)?;
    let (ports, csum, right) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let (header, payload) = (tcp.to_header(), tcp.payload());
            let right = match (src, dst) {
                (IpAddr::V4(s), IpAddr::V4(d)) => {
                    header.calc_checksum_ipv4_raw(s.octets(), d.octets(), payload)
                }
                (IpAddr::V6(s), IpAddr::V6(d)) => {
                    header.calc_checksum_ipv6_raw(s.octets(), d.octets(), payload)
                }
                _ => unreachable!("one header has both"),
            };
            let ports = (tcp.source_port(), tcp.destination_port());
            (ports, tcp.checksum(), right)
        }
        Some(TransportSlice::Udp(udp)) => {
            let (header, payload) = (udp.to_header(), udp.payload());
            let right = match (src, dst) {
                (IpAddr::V4(s), IpAddr::V4(d)) => {
                    header.calc_checksum_ipv4_raw(s.octets(), d.octets(), payload)
                }
                (IpAddr::V6(s), IpAddr::V6(d)) => {
                    header.calc_checksum_ipv6_raw(s.octets(), d.octets(), payload)
                }
                _ => unreachable!("one header has both"),
            };
            let ports = (udp.source_port(), udp.destination_port());
            (ports, udp.checksum(), right)
        }
        _ => return Err("no transport header".to_owned()),
    };
    if right.map_err(|e| e.to_string())? != csum {
        return Err("the transport checksum is wrong".to_owned());
    }
    Ok((at(src, ports.0), at(dst, ports.1)))
}

/// Runs a packet on the host and in the kernel, which must agree.
fn run(host: &Host, kernel: &mut Kernel, x: &Exchange, lane: Lane) -> Result<Ran, String> {
    let ran = host.run::<false>(x, lane);
    let found = against_kernel(x, lane, &ran, kernel);
    if found.is_empty() {
        Ok(ran)
    } else {
        Err(format!("{lane:?}: {}", found.join("\n")))
    }
}

/// The backend's answer to what it has seen, and where it meets the datapath.
fn answer(there: &Ran, from: At) -> Result<Exchange, String> {
    let (client, backend) = ends(&there.bytes)?;
    let frame = match there.bytes[if client.is_ipv4() { 23 } else { 20 }] {
        6 => tcp(backend, client, flag::SYN | flag::ACK),
        _ => udp(backend, client).payload(b"answer"),
    };
    let at = match (there.outcome.verdict, from) {
        // The client's address is the node's, to which replies come in.
        (Verdict::Redirect | Verdict::TurnAround, from) => from,
        (_, At::Uplink) => At::ToNet,
        _ => At::ToPod,
    };
    let input = frame.build();
    Ok(Exchange {
        at,
        expect: untouched(&input),
        input,
        xdp: None,
        gso_size: 0,
    })
}

fn there_and_back(kernel: &mut Kernel, bytes: &[u8]) -> Result<(), String> {
    let (vector, client, front) = flow(&mut Dice::new(bytes));
    for lane in vector.lanes() {
        let host = Host::new(&vector.world);
        kernel.fill(&vector.world).map_err(|e| format!("{e:#}"))?;
        let x = &vector.exchanges[0];
        let there = run(&host, kernel, x, *lane)?;
        if there.outcome.reason != Reason::NewFlow {
            return Err(format!("{lane:?}: {:?}", there.outcome));
        }
        let back = run(&host, kernel, &answer(&there, x.at)?, *lane)?;
        if back.outcome.reason != Reason::Reply {
            return Err(format!("{lane:?}, the reply: {:?}", back.outcome));
        }
        let heard = ends(&back.bytes)?;
        if heard != (front, client) {
            return Err(format!("{lane:?}: {client} of {front} hears {heard:?}"));
        }
    }
    Ok(())
}

#[test]
fn replies_come_from_the_frontend_with_right_checksums() {
    check(1500, 260, there_and_back);
}
