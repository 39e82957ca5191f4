//! The scene of most vectors: one client, one service, one backend.

use std::net::SocketAddr;

use lb_common::ct_flags;

use crate::vectors::{
    flow::Flow,
    frame::{Frame, chunk, first, flag, later, sctp, tcp, udp},
    net::{Family, at},
    vector::At,
    world::{Front, World},
};

/// TCP's protocol number.
pub(super) const TCP: u8 = 6;
/// UDP's protocol number.
pub(super) const UDP: u8 = 17;
/// SCTP's protocol number.
pub(super) const SCTP: u8 = 132;
/// The two protocols of most services.
pub(super) const PROTOS: [u8; 2] = [TCP, UDP];

/// A protocol's name.
pub(super) fn name(proto: u8) -> &'static str {
    match proto {
        TCP => "TCP",
        SCTP => "SCTP",
        _ => "UDP",
    }
}

/// One client, one service, one backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene {
    pub(super) family: Family,
    pub(super) proto: u8,
    pub(super) at: At,
    pub(super) client: SocketAddr,
    pub(super) front: SocketAddr,
    pub(super) backend: SocketAddr,
    pub(super) local: bool,
}

impl Scene {
    /// A client outside, and a backend on a node; node 1 is this one.
    pub(super) fn outside(family: Family, proto: u8, node: u8) -> Self {
        Self {
            family,
            proto,
            at: At::Uplink,
            client: at(family.client(5), 40000),
            front: at(family.vip(1), 80),
            backend: at(family.pod(node, 7), 8080),
            local: node == 1,
        }
    }
    /// A pod of this node as client, and a backend on a node.
    pub(super) fn from_pod(family: Family, proto: u8, node: u8) -> Self {
        Self {
            at: At::Pod,
            client: at(family.pod(1, 3), 40000),
            ..Self::outside(family, proto, node)
        }
    }
    /// The frontend, of service 1.
    pub(super) fn frontend(&self) -> Front {
        Front::new(1, self.front, self.proto).table(&[1])
    }
    /// Service 1 with backend 1.
    pub(super) fn world(&self) -> World {
        self.add_to(World::new())
    }
    /// A world, and service 1 with backend 1.
    pub(super) fn add_to(&self, world: World) -> World {
        world
            .backend(1, self.backend, self.proto, self.local)
            .front(&self.frontend())
    }
    /// The flow, where the backend sees the client.
    pub(super) fn flow(&self) -> Flow {
        let flow = Flow::new(self.proto, self.client, self.front, self.backend);
        if self.at == At::Uplink {
            flow.external()
        } else {
            flow
        }
    }
    /// The flow, where the backend sees the node. Also the port that SNAT takes first.
    pub(super) fn snat(&self, world: &World) -> (Flow, SocketAddr) {
        let port = world.snat_port(self.proto, self.client, self.front, 0);
        let source = at(self.family.node(), port);
        (self.flow().snat(source), source)
    }
    /// The flow's first packet.
    pub(super) fn first(&self) -> Frame {
        first(self.proto, self.client, self.front)
    }
    /// A later packet of the client.
    pub(super) fn later(&self) -> Frame {
        later(self.proto, self.client, self.front)
    }
    /// The backend's first answer, to whom it takes for the client.
    pub(super) fn answer(&self, source: SocketAddr) -> Frame {
        match self.proto {
            TCP => tcp(self.backend, source, flag::SYN | flag::ACK),
            SCTP => sctp(self.backend, source, chunk::INIT_ACK),
            _ => udp(self.backend, source).payload(b"answer"),
        }
    }
    /// Flags of the forward direction after the first packet.
    pub(super) fn opened(&self) -> u32 {
        match self.proto {
            TCP | SCTP => ct_flags::SYN,
            _ => ct_flags::SEEN,
        }
    }
    /// Flags of either direction after a first and a later packet.
    pub(super) fn going(&self) -> u32 {
        self.opened() | ct_flags::SEEN
    }
    /// Where replies to the client pass.
    pub(super) fn replies(&self) -> At {
        if self.at == At::Uplink {
            At::ToNet
        } else {
            At::ToPod
        }
    }
    /// Family, protocol, where the client is.
    pub(super) fn title(&self) -> String {
        let Self { family, proto, .. } = self;
        let who = if self.at == At::Uplink {
            "outside"
        } else {
            "a pod"
        };
        let local = if self.local { "local" } else { "remote" };
        format!("{family} {} from {who} to a {local} backend", name(*proto))
    }
}
