//! What the maps hold when a vector starts.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    Addr, AffinityKey, Backend, Be16, Be32, CtEntry6, CtKey6, Frontend, FrontendKey, NodeConfig,
    RangeKey, backend_flags, conntrack::NEWS_TICKS, ct_flags, frontend_flags, scope,
};

use super::{
    flow::Flow,
    net::{FAMILIES, Family},
    reference::{self, Bit},
};

/// First port of SNAT.
pub const SNAT_MIN: u16 = 61000;
/// Last port of SNAT.
pub const SNAT_MAX: u16 = 65535;

/// A conntrack entry that was there before, and how many ticks ago it was touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed {
    /// Whether it is of IPv4.
    pub v4: bool,
    /// Key, in wide addresses.
    pub key: CtKey6,
    /// Entry, in wide addresses.
    pub entry: CtEntry6,
    /// Age in ticks.
    pub age: u32,
}

/// The contents of the maps, and the sockets of the node.
#[derive(Clone, Debug)]
pub struct World {
    /// Words of the filter.
    pub filter: BTreeMap<u32, u64>,
    /// Frontends.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// Backends by id.
    pub backends: BTreeMap<u32, Backend>,
    /// Slots.
    pub slots: BTreeMap<u32, u32>,
    /// Source ranges.
    pub ranges: Vec<RangeKey>,
    /// The node.
    pub node: NodeConfig,
    /// Entries of conntrack.
    pub flows: Vec<Seed>,
    /// Affinity: key, backend id, ticks since its last use.
    pub affinity: Vec<(AffinityKey, u32, u32)>,
    /// Sockets of the node that listen (TCP) or are bound (UDP).
    pub sockets: Vec<(u8, SocketAddr)>,
    /// Conntrack is full: strangers' flows take the rest of it.
    pub full: bool,
    /// How many ticks ago somebody locked conntrack's bucket.
    pub locked: Option<u32>,
}

/// A frontend to be.
#[derive(Clone, Debug)]
pub struct Front {
    /// Service id.
    pub service: u32,
    /// Address and port.
    pub at: SocketAddr,
    /// IP protocol number.
    pub proto: u8,
    /// [`frontend_flags`].
    pub flags: u32,
    /// Its maglev table; one id for a single backend, none for no backend.
    pub table: Vec<u32>,
    /// Affinity in seconds.
    pub affinity: u32,
    /// Scopes that it is written in.
    pub scopes: &'static [u8],
}

impl Front {
    /// A frontend of a service, without backends.
    #[must_use]
    pub fn new(service: u32, at: SocketAddr, proto: u8) -> Self {
        Self {
            service,
            at,
            proto,
            flags: 0,
            table: Vec::new(),
            affinity: 0,
            scopes: &[scope::INTERNAL, scope::EXTERNAL],
        }
    }
    /// With a maglev table.
    #[must_use]
    pub fn table(mut self, ids: &[u32]) -> Self {
        self.table = ids.to_vec();
        self
    }
    /// With flags.
    #[must_use]
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }
    /// With affinity, in seconds.
    #[must_use]
    pub fn affinity(mut self, seconds: u32) -> Self {
        self.affinity = seconds;
        self
    }
    /// In these scopes only.
    #[must_use]
    pub fn scopes(mut self, scopes: &'static [u8]) -> Self {
        self.scopes = scopes;
        self
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A node with an address of each family, and nothing to balance.
    #[must_use]
    pub fn new() -> Self {
        let mut world = Self::bare();
        for family in FAMILIES {
            world.vip(family.node(), frontend_flags::NODE_ADDR);
        }
        world.node.snat4 = Family::V4.node().into();
        world.node.snat6 = Family::V6.node().into();
        world
    }

    /// A node without addresses.
    #[must_use]
    pub fn bare() -> Self {
        Self {
            filter: BTreeMap::new(),
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            slots: BTreeMap::new(),
            ranges: Vec::new(),
            node: NodeConfig {
                snat4: Addr::UNSPECIFIED,
                snat6: Addr::UNSPECIFIED,
                snat_port_min: SNAT_MIN,
                snat_port_max: SNAT_MAX,
                flags: 0,
                host_netns: 0,
            },
            flows: Vec::new(),
            affinity: Vec::new(),
            sockets: Vec::new(),
            full: false,
            locked: None,
        }
    }

    fn set_bit(&mut self, kind: Bit, addr: IpAddr, port: u16, proto: u8) {
        let bit = reference::filter_bit(kind, addr, port, proto);
        *self.filter.entry(bit / 64).or_default() |= 1 << (bit % 64);
    }

    /// Adds a vip, in both scopes.
    pub fn vip(&mut self, addr: IpAddr, flags: u32) {
        self.set_bit(Bit::Vip, addr, 0, 0);
        for scope in [scope::INTERNAL, scope::EXTERNAL] {
            let key = FrontendKey {
                addr: addr.into(),
                port: Be16::new(0),
                proto: 0,
                scope,
            };
            let value = Frontend {
                service: 0,
                flags: frontend_flags::VIP | flags,
                slots: 0,
                len: 0,
                affinity: 0,
            };
            self.frontends.entry(key).or_insert(value);
        }
    }

    /// With a vip.
    #[must_use]
    pub fn with_vip(mut self, addr: IpAddr) -> Self {
        self.vip(addr, 0);
        self
    }

    /// With a vip none of whose frontends has a backend.
    #[must_use]
    pub fn with_empty_vip(mut self, addr: IpAddr) -> Self {
        self.vip(addr, frontend_flags::EMPTY);
        self
    }

    /// With a frontend, and its vip.
    ///
    /// # Panics
    /// Tables of vectors are small.
    #[must_use]
    pub fn front(mut self, front: &Front) -> Self {
        self.vip(front.at.ip(), 0);
        self.set_bit(Bit::Frontend, front.at.ip(), front.at.port(), front.proto);
        let slots = match front.table[..] {
            [] => 0,
            [only] => only,
            _ => {
                let start = self.slots.keys().next_back().map_or(0, |last| last + 1);
                self.slots
                    .extend((start..).zip(front.table.iter().copied()));
                start
            }
        };
        for scope in front.scopes {
            let key = FrontendKey {
                addr: front.at.ip().into(),
                port: Be16::new(front.at.port()),
                proto: front.proto,
                scope: *scope,
            };
            let value = Frontend {
                service: front.service,
                flags: front.flags,
                slots,
                len: u32::try_from(front.table.len()).expect("tables are small"),
                affinity: front.affinity,
            };
            self.frontends.insert(key, value);
        }
        self
    }

    /// With a backend.
    #[must_use]
    pub fn backend(mut self, id: u32, at: SocketAddr, proto: u8, local: bool) -> Self {
        let local = if local { backend_flags::LOCAL } else { 0 };
        let backend = Backend {
            addr: at.ip().into(),
            port: Be16::new(at.port()),
            proto,
            reserved: 0,
            flags: backend_flags::LIVE | local,
        };
        self.backends.insert(id, backend);
        self
    }

    /// With a backend that is gone: its conntrack entries may be left.
    #[must_use]
    pub fn without_backend(mut self, id: u32) -> Self {
        self.backends.remove(&id);
        self
    }

    /// With a source range of a service.
    #[must_use]
    pub fn range(mut self, service: u32, net: IpAddr, prefix: u32) -> Self {
        self.ranges.push(RangeKey {
            prefix_len: 32 + prefix + if net.is_ipv4() { 96 } else { 0 },
            service: Be32::new(service),
            addr: net.into(),
        });
        self
    }

    /// With the two entries of a flow, touched so many ticks ago, and with flags
    /// of the forward and of the reply direction.
    ///
    /// # Panics
    /// Whether a packet makes an entry tell the other that it is alive depends, at such
    /// an age, on the time.
    #[must_use]
    pub fn flow(mut self, flow: &Flow, age: u32, flags: (u32, u32)) -> Self {
        assert!(age <= 1 || age > NEWS_TICKS, "an age of {age} ticks");
        let mut seeds = [
            flow.forward_seed(age, flags.0),
            flow.reply_seed(age, flags.1),
        ];
        seeds[0].entry.flags |= (flags.1 & ct_flags::SIGHTS) << ct_flags::PEER_SHIFT;
        seeds[1].entry.flags |= (flags.0 & ct_flags::SIGHTS) << ct_flags::PEER_SHIFT;
        self.flows.extend(seeds);
        self
    }

    /// With a client bound to a backend so many ticks ago.
    #[must_use]
    pub fn bound(mut self, client: (IpAddr, u8), service: u32, backend: u32, age: u32) -> Self {
        let key = AffinityKey {
            client: client.0.into(),
            service,
            scope: u32::from(client.1),
        };
        self.affinity.push((key, backend, age));
        self
    }

    /// With a socket of the node.
    #[must_use]
    pub fn socket(mut self, proto: u8, at: SocketAddr) -> Self {
        self.sockets.push((proto, at));
        self
    }

    /// With SNAT ports of this range.
    #[must_use]
    pub fn ports(mut self, min: u16, max: u16) -> Self {
        (self.node.snat_port_min, self.node.snat_port_max) = (min, max);
        self
    }

    /// The SNAT port that a flow tries first, or after so many tries more.
    ///
    /// # Panics
    /// Never: ports have 16 bits.
    #[must_use]
    pub fn snat_port(&self, proto: u8, client: SocketAddr, front: SocketAddr, tries: u32) -> u16 {
        let (client, front) = ((client.ip(), client.port()), (front.ip(), front.port()));
        let min = u32::from(self.node.snat_port_min);
        let span = u32::from(self.node.snat_port_max) - min + 1;
        let hash = reference::flow(client, front, proto);
        let at = (reference::slot(hash, span) + tries * 7919) % span;
        u16::try_from(min + at).expect("a port")
    }
}
