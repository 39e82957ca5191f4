//! What is measured of the datapath.

use super::frame::{Frame, L4};
use super::kernel::{Hook, Program};
use super::world::{self, BACKEND_PORT, LOOKALIKE, NODE, STRANGER, Service, ip};

/// Runs of a program that changes nothing between them.
const MANY: u32 = 1 << 20;
/// New flows in an empty conntrack map: half of its room, each taking two entries.
const FRESH: u32 = 1 << 17;
/// New flows that need a port of the node's: every one is looked up among the
/// sockets besides.
const FRESH_SNAT: u32 = 1 << 16;
/// Flows that no cache of a CPU's own holds.
const FLOWS: u32 = 1 << 16;
/// Flows that no cache holds at all, and for which conntrack's default size has no room.
const MOST_FLOWS: u32 = 1 << 19;

/// Events that the monitor's ring has room for.
const EVENTS: u32 = 1 << 10;

/// What a program is compared with, behind the same front program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reference {
    /// Swaps link addresses and transmits.
    Floor,
    /// Returns at once.
    Empty,
    /// The floor, behind the front program that writes frames whole.
    Whole,
}

impl Reference {
    /// Its program.
    pub(super) fn program(self, hook: Hook) -> Program {
        Program::Bench(match (hook, self) {
            (Hook::Xdp, Self::Floor | Self::Whole) => "xdp_floor",
            (Hook::Xdp, Self::Empty) => "xdp_empty",
            (Hook::Tc, Self::Floor | Self::Whole) => "tc_floor",
            (Hook::Tc, Self::Empty) => "tc_empty",
        })
    }
}

/// What a program does to the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing; the frame goes on to the stack.
    Pass,
    /// To a backend of this node, by the stack.
    ToLocal,
    /// To a backend elsewhere, out of the uplink.
    ToRemote,
    /// Back to the client, from the frontend.
    Reply,
    /// Back to the client: a TCP reset, or the answer to a ping.
    Refused,
    /// Nowhere.
    Dropped,
}

/// What conntrack knows before the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flows {
    /// Nothing, and it need not.
    None,
    /// Nothing: each run is a new flow.
    New,
    /// Every flow.
    Known,
}

/// One program with one kind of frame.
#[derive(Clone, Copy)]
pub(super) struct Case {
    /// XDP or TC.
    pub(super) hook: Hook,
    /// The program.
    pub(super) program: &'static str,
    /// What the row says.
    pub(super) name: &'static str,
    /// The service that the frames are for, or come from.
    pub(super) service: Option<&'static Service>,
    /// The frame.
    pub(super) frame: Frame,
    /// What conntrack knows.
    pub(super) known: Flows,
    /// Different flows, a power of two.
    pub(super) flows: u32,
    /// Runs of a repetition.
    pub(super) runs: u32,
    /// What happens to the frame.
    pub(super) effect: Effect,
    /// What the program is compared with, unless it is [`Case::watched`].
    pub(super) reference: Reference,
    /// Most times of the reference that it may take.
    pub(super) target: Option<f64>,
    /// Whether `bascule monitor` looks on: compared with the same while it does not.
    pub(super) watched: Option<Watched>,
}

/// How packets are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    /// Of so many packets one.
    pub(super) every: u64,
    /// Events that may be told of.
    pub(super) budget: i64,
    /// Bits of the reasons that are wanted.
    pub(super) reasons: u64,
}

impl Watched {
    /// Events of so many runs.
    pub(super) fn events(self, runs: u32) -> u64 {
        match (self.budget, self.reasons) {
            (0, _) | (_, 0) => 0,
            _ => u64::from(runs) / self.every,
        }
    }
}

/// Names of the programs.
pub(super) const XDP: &str = "lb_xdp";
pub(super) const UP: &str = "lb_up_ingress";
/// Of the benchmark: one of the datapath's counters, alone.
const COUNT: &str = "xdp_count";
const POD: &str = "lb_pod_ingress";
const OUT: &str = "lb_egress";

impl Case {
    fn new(program: &'static str, name: &'static str) -> Self {
        let hook = match program {
            XDP | COUNT => Hook::Xdp,
            _ => Hook::Tc,
        };
        Self {
            hook,
            program,
            name,
            service: None,
            frame: Frame {
                server: (ip(STRANGER[0]), 80),
                l4: L4::Ack,
                reply: false,
            },
            known: Flows::None,
            flows: 1,
            runs: MANY,
            effect: Effect::Pass,
            reference: Reference::Empty,
            target: None,
            watched: None,
        }
    }

    /// Somebody looks at one of so many packets, and may be told of so many.
    fn watched(mut self, every: u64, budget: i64) -> Self {
        let reasons = u64::MAX;
        self.watched = Some(Watched {
            every,
            budget,
            reasons,
        });
        if budget > 0 {
            // As many events as the ring has room for: nobody empties it meanwhile.
            self.runs = self.runs.min(every as u32 * EVENTS);
        }
        self
    }

    /// Somebody looks at each packet, and wants packets of another kind.
    fn watched_in_vain(mut self) -> Self {
        self.watched = Some(Watched {
            every: 1,
            budget: i64::MAX,
            reasons: 0,
        });
        self
    }

    /// Frames to an address that no service has.
    fn to(mut self, addr: &str, port: u16) -> Self {
        self.frame.server = (ip(addr), port);
        self
    }

    /// Frames to a service.
    fn serves(mut self, service: &'static Service, l4: L4) -> Self {
        self.service = Some(service);
        self.frame.server = service.frontend();
        self.frame.l4 = l4;
        self.reference = Reference::Floor;
        self.effect = if service.local {
            Effect::ToLocal
        } else {
            Effect::ToRemote
        };
        self
    }

    /// Frames of so many flows that conntrack knows.
    fn known(mut self, service: &'static Service, l4: L4, flows: u32) -> Self {
        self = self.serves(service, l4);
        self.known = Flows::Known;
        self.flows = flows;
        self
    }

    /// Each frame another flow.
    fn fresh(mut self, service: &'static Service, l4: L4) -> Self {
        self = self.serves(service, l4);
        self.known = Flows::New;
        self.flows = super::frame::MAX_FLOWS;
        self.runs = if service.local { FRESH } else { FRESH_SNAT };
        self
    }

    /// Frames from the only backend of a service.
    fn replies(mut self, service: &'static Service, flows: u32) -> Self {
        self = self.known(service, L4::Ack, flows);
        self.frame.server = (service.backend(0), BACKEND_PORT);
        self.frame.reply = true;
        self.effect = Effect::Reply;
        self
    }

    fn refused(mut self, service: &'static Service) -> Self {
        self = self.serves(service, L4::Syn);
        self.effect = Effect::Refused;
        self.runs = MANY / 4;
        self
    }

    fn at_most(mut self, target: f64) -> Self {
        self.target = Some(target);
        self
    }

    /// What is run.
    pub(super) fn program(&self) -> Program {
        match self.program {
            COUNT => Program::Bench(COUNT),
            name => Program::Datapath(name),
        }
    }
}

/// Every row, in the order of the table.
pub(super) fn all() -> Vec<Case> {
    [xdp(), tc(), pods(), egress()].concat()
}

fn xdp() -> Vec<Case> {
    let case = |name| Case::new(XDP, name);
    let (tcp4, snat4) = (&world::LOCAL4, &world::REMOTE4);
    let (tcp6, snat6) = (&world::LOCAL6, &world::REMOTE6);
    vec![
        case("established, IPv4 TCP, 1 flow")
            .known(tcp4, L4::Ack, 1)
            .at_most(2.2),
        case("established, IPv4 TCP, 65536 flows").known(tcp4, L4::Ack, FLOWS),
        case("established, IPv4 TCP, 524288 flows").known(tcp4, L4::Ack, MOST_FLOWS),
        case("established, IPv4 UDP, 1 flow").known(&world::DNS4, L4::Udp, 1),
        case("established, IPv4 SNAT, 1 flow").known(snat4, L4::Ack, 1),
        case("established, IPv6 TCP, 1 flow").known(tcp6, L4::Ack, 1),
        case("established, IPv6 TCP, 65536 flows").known(tcp6, L4::Ack, FLOWS),
        case("established, IPv6 TCP, 524288 flows").known(tcp6, L4::Ack, MOST_FLOWS),
        case("established, IPv6 SNAT, 1 flow").known(snat6, L4::Ack, 1),
        case("new flow, IPv4 TCP")
            .fresh(tcp4, L4::Syn)
            .at_most(14.0),
        case("new flow, IPv4 UDP").fresh(&world::DNS4, L4::Udp),
        case("new flow, IPv4 source range").fresh(&world::RANGED4, L4::Syn),
        case("new flow, IPv4 affinity, 4095 of 4096 hit").fresh(&world::STICKY4, L4::Syn),
        case("new flow, IPv4 SNAT").fresh(snat4, L4::Syn),
        case("new flow, IPv6 TCP").fresh(tcp6, L4::Syn),
        case("new flow, IPv6 SNAT").fresh(snat6, L4::Syn),
        case("refused, IPv4 TCP").refused(&world::EMPTY4),
        case("none of ours, IPv4").at_most(2.0),
        case("none of ours, IPv6").to(STRANGER[1], 80).at_most(2.0),
        case("none of ours, to the node itself").to(NODE[0], 22),
        case("none of ours, the filter's false alarm").to(LOOKALIKE, 80),
        case("monitored, beyond its limit")
            .known(tcp4, L4::Ack, 1)
            .watched(1, 0)
            .at_most(1.25),
        case("monitored, each packet looked at in vain")
            .known(tcp4, L4::Ack, 1)
            .watched_in_vain(),
        case("monitored, 1 packet in 1000")
            .known(tcp4, L4::Ack, 1)
            .watched(1000, i64::MAX)
            .at_most(1.02),
        case("monitored, each packet an event")
            .known(tcp4, L4::Ack, 1)
            .watched(1, i64::MAX),
        Case::new(COUNT, "one counter, and nothing else"),
    ]
}

fn tc() -> Vec<Case> {
    let case = |name| Case::new(UP, name);
    let (tcp4, snat4) = (&world::LOCAL4, &world::REMOTE4);
    vec![
        case("established, IPv4 TCP, 1 flow")
            .known(tcp4, L4::Ack, 1)
            .at_most(3.0),
        case("established, IPv4 TCP, 65536 flows").known(tcp4, L4::Ack, FLOWS),
        case("established, IPv4 UDP, 1 flow").known(&world::DNS4, L4::Udp, 1),
        case("established, IPv4 SNAT, 1 flow").known(snat4, L4::Ack, 1),
        case("established, IPv6 TCP, 1 flow").known(&world::LOCAL6, L4::Ack, 1),
        case("new flow, IPv4 TCP").fresh(tcp4, L4::Syn),
        case("new flow, IPv4 SNAT").fresh(snat4, L4::Syn),
        case("new flow, IPv6 TCP").fresh(&world::LOCAL6, L4::Syn),
        case("refused, IPv4 TCP").refused(&world::EMPTY4),
        case("none of ours, IPv4").at_most(2.0),
        case("none of ours, IPv6").to(STRANGER[1], 80).at_most(2.0),
    ]
}

fn pods() -> Vec<Case> {
    let case = |name| Case::new(POD, name);
    vec![
        case("from a pod, established, IPv4 TCP, 1 flow")
            .known(&world::LOCAL4, L4::Ack, 1)
            .at_most(3.0),
        case("from a pod, new flow, IPv4 TCP").fresh(&world::LOCAL4, L4::Syn),
        case("from a pod, none of ours, IPv4").at_most(2.0),
    ]
}

fn egress() -> Vec<Case> {
    let case = |name| Case::new(OUT, name);
    let mut none = case("reply, none of ours, IPv4").at_most(2.0);
    none.frame.reply = true;
    vec![
        case("reply, IPv4 TCP, 1 flow")
            .replies(&world::SINGLE4, 1)
            .at_most(3.0),
        case("reply, IPv4 TCP, 65536 flows").replies(&world::SINGLE4, FLOWS),
        case("reply, IPv6 TCP, 1 flow").replies(&world::SINGLE6, 1),
        none,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_rows_have_the_same_name() {
        let cases = all();
        let names: BTreeSet<_> = cases.iter().map(|c| (c.program, c.name)).collect();
        assert_eq!(names.len(), cases.len());
    }

    #[test]
    fn new_flows_fit_into_conntrack() {
        for case in all().iter().filter(|c| c.known == Flows::New) {
            assert!(
                case.runs * 2 <= lb_common::limits::CONNTRACK / 2,
                "{}",
                case.name
            );
            assert!(case.flows >= case.runs, "{}", case.name);
        }
    }
}
