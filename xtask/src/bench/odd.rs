//! What is measured besides the packets of flows: what is dropped, and why, and what has no
//! ports. The front program writes these frames whole.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use bytemuck::Zeroable as _;
use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::icmpv6::DestUnreachableCode;
use etherparse::{Icmpv4Type, Icmpv6Type};
use lb_common::conntrack::HEAD_LOCK;
use lb_common::schema::name;
use lb_common::{Addr, CtBucket4, NodeConfig, Reason, proto};

use super::cases::{Effect, UP, XDP};
use super::frame::{self, Frame, L4};
use super::kernel::{Hook, Kernel, Program};
use super::world::{self, BACKEND_PORT, Service};

/// By what a run is seen to have done what its row says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sign {
    /// It was counted for this reason.
    Counted(Reason),
    /// It was counted for a service.
    Carried,
}

/// One program with one frame. Conntrack has room for one bucket, which is empty, and the node's
/// configuration is the usual one, before [`Odd::prepare`].
#[derive(Clone, Copy)]
pub(super) struct Odd {
    /// XDP or TC.
    pub(super) hook: Hook,
    /// The program.
    pub(super) program: &'static str,
    /// What the row says.
    pub(super) name: &'static str,
    /// Makes the circumstances, and the frame.
    pub(super) prepare: fn(&mut Kernel) -> Result<Vec<u8>>,
    /// What happens to the frame.
    pub(super) effect: Effect,
    /// What tells it.
    pub(super) sign: Sign,
}

/// Every row, in the order of the table.
pub(super) fn all() -> Vec<Odd> {
    [passes(), drops(), tc()].concat()
}

fn xdp(
    name: &'static str,
    effect: Effect,
    sign: Sign,
    prepare: fn(&mut Kernel) -> Result<Vec<u8>>,
) -> Odd {
    Odd {
        hook: Hook::Xdp,
        program: XDP,
        name,
        prepare,
        effect,
        sign,
    }
}

fn passes() -> Vec<Odd> {
    let error = Sign::Counted(Reason::IcmpError);
    let pass = |name, reason, prepare| xdp(name, Effect::Pass, Sign::Counted(reason), prepare);
    vec![
        xdp(
            "reply to the node, IPv4 SNAT, 1 flow",
            Effect::ToRemote,
            Sign::Carried,
            |kernel| reply(kernel, &world::ELSEWHERE4),
        ),
        xdp(
            "reply to the node, IPv6 SNAT, 1 flow",
            Effect::ToRemote,
            Sign::Carried,
            |kernel| reply(kernel, &world::ELSEWHERE6),
        ),
        xdp("ICMP error, IPv4", Effect::ToLocal, error, |kernel| {
            icmp_error(kernel, &world::LOCAL4)
        }),
        xdp("ICMP error, IPv6", Effect::ToLocal, error, |kernel| {
            icmp_error(kernel, &world::LOCAL6)
        }),
        xdp(
            "later fragment, IPv4",
            Effect::ToLocal,
            Sign::Carried,
            |kernel| later_fragment(kernel, &world::LOCAL4),
        ),
        xdp(
            "later fragment, IPv6",
            Effect::ToLocal,
            Sign::Carried,
            |kernel| later_fragment(kernel, &world::LOCAL6),
        ),
        xdp(
            "ping answered, IPv4",
            Effect::Refused,
            Sign::Counted(Reason::EchoReply),
            |_| ping(&world::LOCAL4),
        ),
        pass(
            "left to TC, no neighbour, IPv4",
            Reason::NoNeighbour,
            |_| syn(&world::UNKNOWN4),
        ),
        pass(
            "left to TC, larger than the MTU, IPv4",
            Reason::LeftToTc,
            |_| large(&world::REMOTE4),
        ),
    ]
}

fn drops() -> Vec<Odd> {
    let drop = |name, reason, prepare| xdp(name, Effect::Dropped, Sign::Counted(reason), prepare);
    vec![
        drop(
            "dropped, no local endpoint",
            Reason::NoLocalEndpoint,
            |_| syn(&world::POLICY4),
        ),
        drop("dropped, source range", Reason::SourceRange, |_| {
            syn(&world::DENIED4)
        }),
        drop("dropped, malformed", Reason::Malformed, |_| {
            // The TCP header ends after six bytes.
            Ok(syn(&world::LOCAL4)?[..40].to_vec())
        }),
        drop("dropped, fragment of nothing", Reason::Fragment, |_| {
            Ok(fragment(syn(&world::LOCAL4)?, false))
        }),
        drop("dropped, conntrack full", Reason::ConntrackFull, full),
        drop("dropped, conntrack busy", Reason::ConntrackBusy, busy),
        drop(
            "dropped, no port for SNAT",
            Reason::SnatExhausted,
            exhausted,
        ),
        drop(
            "dropped, node without an address",
            Reason::NoNodeAddress,
            |kernel| {
                let config = NodeConfig {
                    snat4: Addr::UNSPECIFIED,
                    ..world::config()
                };
                world::configure(kernel.maps(), &config)?;
                syn(&world::REMOTE4)
            },
        ),
        drop("dropped, no route", Reason::NoRoute, |_| {
            syn(&world::UNROUTED4)
        }),
        drop("dropped, TTL ends here", Reason::TtlExceeded, |_| {
            let mut frame = syn(&world::REMOTE4)?;
            frame[22] = 1;
            Ok(frame)
        }),
        drop("dropped, dead backend", Reason::BackendMissing, |_| {
            syn(&world::DEAD4)
        }),
        drop("dropped, cannot be rewritten", Reason::WriteFailed, |_| {
            sctp_fragment(&world::SCTP4)
        }),
    ]
}

/// What TC does in another way than XDP, or that all packets of pods meet.
fn tc() -> Vec<Odd> {
    let both = ["ICMP error, IPv4", "dropped, no local endpoint"];
    let all = passes().into_iter().chain(drops());
    let mut rows: Vec<Odd> = all.filter(|odd| both.contains(&odd.name)).collect();
    rows.push(xdp(
        "dropped, larger than the MTU",
        Effect::Dropped,
        Sign::Counted(Reason::TooBig),
        |_| large(&world::REMOTE4),
    ));
    for odd in &mut rows {
        (odd.hook, odd.program) = (Hook::Tc, UP);
    }
    rows
}

/// The segments of the first client to a service.
fn dial(service: &Service, l4: L4) -> Frame {
    Frame {
        server: service.frontend(),
        l4,
        reply: false,
    }
}

/// A segment that opens a flow, of which conntrack knows nothing.
fn syn(service: &Service) -> Result<Vec<u8>> {
    dial(service, L4::Syn).bytes()
}

/// The same from a client that nobody knows.
fn stranger(service: &Service) -> Result<Vec<u8>> {
    let client = (world::ip("172.21.0.1"), 1);
    frame::between(client, service.frontend(), L4::Syn)
}

/// Lets the XDP program see a frame once.
fn meet(kernel: &mut Kernel, frame: &[u8]) -> Result<Vec<u8>> {
    let runs = kernel.run_whole(Hook::Xdp, Program::Datapath(XDP), frame, 1)?;
    Ok(runs.frame)
}

/// What a backend elsewhere answers a client that is hidden behind the node.
fn reply(kernel: &mut Kernel, service: &Service) -> Result<Vec<u8>> {
    let sent = meet(kernel, &syn(service)?)?;
    let node = frame::source(&sent).context("nothing was sent to the backend")?;
    frame::between((service.backend(0), BACKEND_PORT), node, L4::Ack)
}

/// "Port unreachable" from a client of a known flow, about a segment that it got.
fn icmp_error(kernel: &mut Kernel, service: &Service) -> Result<Vec<u8>> {
    meet(kernel, &syn(service)?)?;
    let about = Frame {
        reply: true,
        ..dial(service, L4::Ack)
    };
    let about = about.bytes()?;
    let (client, _) = frame::destination(&about).context("the quoted frame has no address")?;
    let error = frame::addressed(client, service.frontend().0)?;
    let mut out = Vec::new();
    // The IP header, and eight bytes of TCP's.
    match client {
        IpAddr::V4(_) => error
            .icmpv4(Icmpv4Type::DestinationUnreachable(
                DestUnreachableHeader::Port,
            ))
            .write(&mut out, &about[14..42]),
        IpAddr::V6(_) => error
            .icmpv6(Icmpv6Type::DestinationUnreachable(
                DestUnreachableCode::Port,
            ))
            .write(&mut out, &about[14..62]),
    }
    .context("cannot build an ICMP error")?;
    Ok(out)
}

fn ping(service: &Service) -> Result<Vec<u8>> {
    let ping = frame::addressed(world::ip("172.21.0.1"), service.frontend().0)?;
    let mut out = Vec::new();
    ping.icmpv4_echo_request(1, 1)
        .write(&mut out, &[0; 32])
        .context("cannot build a ping")?;
    Ok(out)
}

/// A second fragment of a datagram whose first one has passed.
fn later_fragment(kernel: &mut Kernel, service: &Service) -> Result<Vec<u8>> {
    meet(kernel, &fragment(syn(service)?, true))?;
    Ok(fragment(syn(service)?, false))
}

/// Makes a fragment of a frame: the first one, or the one 800 bytes on (RFC 791, section 3.1;
/// RFC 8200, section 4.5).
fn fragment(mut frame: Vec<u8>, first: bool) -> Vec<u8> {
    const V6: u8 = 0x60;
    const FRAGMENT: u8 = 44;
    const WORDS: u16 = 100;
    if frame[14] & 0xf0 == V6 {
        let next = std::mem::replace(&mut frame[20], FRAGMENT);
        let [a, b] = if first { 1 } else { WORDS << 3 }.to_be_bytes();
        frame.splice(54..54, [next, 0, a, b, 0, 0, 0, 7]);
    } else {
        let field = if first { 0x2000 } else { WORDS };
        frame[20..22].copy_from_slice(&field.to_be_bytes());
    }
    frame
}

/// The first fragment of an SCTP packet, whose checksum is of the whole packet.
fn sctp_fragment(service: &Service) -> Result<Vec<u8>> {
    let mut frame = dial(service, L4::Udp).bytes()?;
    frame[23] = proto::SCTP;
    Ok(fragment(frame, true))
}

/// A segment that is larger than an uplink's MTU.
fn large(service: &Service) -> Result<Vec<u8>> {
    const LEN: u16 = 2000;
    let mut frame = syn(service)?;
    frame.resize(14 + usize::from(LEN), 0);
    frame[16..18].copy_from_slice(&LEN.to_be_bytes());
    Ok(frame)
}

/// Conntrack's only bucket, full of flows that are too young to be given up.
fn full(kernel: &mut Kernel) -> Result<Vec<u8>> {
    let program = Program::Datapath(XDP);
    let frame = dial(&world::LOCAL4, L4::Syn);
    kernel.run(Hook::Xdp, program, &frame, (32, 32))?;
    stranger(&world::LOCAL4)
}

/// Its lock, as of somebody who took it a moment from now: nobody breaks that.
fn busy(kernel: &mut Kernel) -> Result<Vec<u8>> {
    const HEADS: u32 = 1;
    const LOCKED: u64 = 1 << 32;
    const LATER: u64 = 1 << 28;
    let mut element = CtBucket4::zeroed();
    let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut element));
    words[HEAD_LOCK] = LOCKED | LATER;
    world::put(kernel.maps(), name::lb_ct4_v1, HEADS, &element)?;
    syn(&world::LOCAL4)
}

/// A node with one port for SNAT, which another client has.
fn exhausted(kernel: &mut Kernel) -> Result<Vec<u8>> {
    let config = NodeConfig {
        snat_port_min: 29_999,
        snat_port_max: 29_999,
        ..world::config()
    };
    world::configure(kernel.maps(), &config)?;
    let sent = meet(kernel, &syn(&world::ELSEWHERE4)?)?;
    let source = frame::source(&sent);
    ensure!(
        source == Some((world::ip(world::NODE[0]), 29_999)),
        "the first client left from {source:?}"
    );
    stranger(&world::ELSEWHERE4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_rows_have_the_same_name() {
        let rows = all();
        let names: BTreeSet<_> = rows.iter().map(|o| (o.program, o.name)).collect();
        assert_eq!(names.len(), rows.len());
    }

    #[test]
    fn every_reason_to_drop_has_a_row() {
        let rows = all();
        for reason in Reason::ALL {
            let here = rows.iter().any(|o| o.sign == Sign::Counted(*reason));
            let drops = reason.class() == lb_common::reason::Class::Drop;
            assert!(here || !drops, "{}", reason.label());
        }
    }

    #[test]
    fn fragments_are_what_a_packet_library_reads() {
        for service in [&world::LOCAL4, &world::LOCAL6] {
            for first in [true, false] {
                let frame = fragment(syn(service).unwrap(), first);
                let read = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
                assert!(read.is_ip_payload_fragmented());
                assert!(read.transport.is_none());
            }
        }
    }
}
