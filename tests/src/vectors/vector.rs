//! A vector: a scenario of packets, one after the other.

use lb_common::Reason;
use lb_datapath::Verdict;

use super::{dump::EntryLine, frame::Frame, world::World};

/// Where a packet meets the datapath.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// From a pod: `lb_pod_ingress`.
    Pod,
    /// From the network: `lb_up_ingress`, and `lb_xdp`.
    Uplink,
    /// To a pod: `lb_egress`.
    ToPod,
    /// To the network: likewise.
    ToNet,
}

/// Which program serves [`At::Uplink`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// TC.
    Tc,
    /// XDP.
    Xdp,
}

/// What must become of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expect {
    /// The verdict.
    pub verdict: Verdict,
    /// The reason.
    pub reason: Reason,
    /// The device of a redirect, else 0.
    pub ifindex: u32,
    /// The frame; of a dropped one nobody asks.
    pub output: Vec<u8>,
}

/// On to the stack, as this frame.
#[must_use]
pub fn pass(reason: Reason, output: &Frame) -> Expect {
    Expect {
        verdict: Verdict::Pass,
        reason,
        ifindex: 0,
        output: output.build(),
    }
}

/// On to the stack as it came, being none of ours.
#[must_use]
pub fn untouched(input: &[u8]) -> Expect {
    Expect {
        verdict: Verdict::Pass,
        reason: Reason::NotOurs,
        ifindex: 0,
        output: input.to_vec(),
    }
}

/// Dropped.
#[must_use]
pub fn dropped(reason: Reason) -> Expect {
    Expect {
        verdict: Verdict::Drop,
        reason,
        ifindex: 0,
        output: Vec::new(),
    }
}

/// Back by the device that it came by, as this frame.
#[must_use]
pub fn back(reason: Reason, output: &Frame) -> Expect {
    Expect {
        verdict: Verdict::TurnAround,
        reason,
        ifindex: 0,
        output: output.build(),
    }
}

/// Out of a device, as this frame.
#[must_use]
pub fn out(reason: Reason, ifindex: u32, output: &Frame) -> Expect {
    Expect {
        verdict: Verdict::Redirect,
        reason,
        ifindex,
        output: output.build(),
    }
}

/// Out of a device as this frame, when the stack knows the next hop.
#[must_use]
pub fn out_when_resolved(reason: Reason, ifindex: u32, output: &Frame) -> Expect {
    Expect {
        verdict: Verdict::RedirectNeigh,
        reason,
        ifindex,
        output: output.build(),
    }
}

/// One packet.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Where it comes in.
    pub at: At,
    /// What comes in.
    pub input: Vec<u8>,
    /// What must become of it.
    pub expect: Expect,
    /// What must become of it in XDP, where that differs.
    pub xdp: Option<Expect>,
    /// Bytes of a segment, of a GSO packet; else 0. XDP has none.
    pub gso_size: u32,
}

/// A vector.
#[derive(Clone, Debug)]
pub struct Vector {
    /// Theme.
    pub theme: &'static str,
    /// Name, unique within its theme.
    pub name: String,
    /// What the maps hold.
    pub world: World,
    /// The packets.
    pub exchanges: Vec<Exchange>,
    /// All of conntrack afterwards, where it matters.
    pub conntrack: Option<Vec<EntryLine>>,
}

impl Vector {
    /// A vector without packets.
    #[must_use]
    pub fn new(theme: &'static str, name: impl Into<String>, world: World) -> Self {
        Self {
            theme,
            name: name.into(),
            world,
            exchanges: Vec::new(),
            conntrack: None,
        }
    }

    /// With a packet.
    #[must_use]
    pub fn packet(self, at: At, input: &Frame, expect: Expect) -> Self {
        self.bytes(at, input.build(), expect)
    }

    /// With a packet that is no frame that can be described.
    #[must_use]
    pub fn bytes(mut self, at: At, input: Vec<u8>, expect: Expect) -> Self {
        self.exchanges.push(Exchange {
            at,
            input,
            expect,
            xdp: None,
            gso_size: 0,
        });
        self
    }

    /// In XDP something else becomes of the last packet.
    ///
    /// # Panics
    /// There is no packet.
    #[must_use]
    pub fn but_in_xdp(mut self, expect: Expect) -> Self {
        let last = self.exchanges.last_mut().expect("a packet comes first");
        last.xdp = Some(expect);
        self
    }

    /// The last packet is a GSO packet with segments of so many bytes.
    ///
    /// # Panics
    /// There is no packet.
    #[must_use]
    pub fn gso(mut self, size: u32) -> Self {
        let last = self.exchanges.last_mut().expect("a packet comes first");
        last.gso_size = size;
        self
    }

    /// Conntrack holds this, and nothing else, in the end.
    #[must_use]
    pub fn conntrack(mut self, entries: impl IntoIterator<Item = EntryLine>) -> Self {
        self.conntrack = Some(entries.into_iter().collect());
        self
    }

    /// The lanes that it runs in.
    #[must_use]
    pub fn lanes(&self) -> &'static [Lane] {
        let gso = self.exchanges.iter().any(|x| x.gso_size != 0);
        let uplink = self.exchanges.iter().any(|x| x.at == At::Uplink);
        if uplink && !gso {
            &[Lane::Tc, Lane::Xdp]
        } else {
            &[Lane::Tc]
        }
    }

    /// Theme and name.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}: {}", self.theme, self.name)
    }
}

impl Exchange {
    /// What must become of the packet in a lane.
    #[must_use]
    pub fn expected(&self, lane: Lane) -> &Expect {
        match (&self.xdp, lane) {
            (Some(xdp), Lane::Xdp) => xdp,
            _ => &self.expect,
        }
    }
}
