//! A flow as a scenario tells it, and the conntrack entries that it must have.

use std::net::SocketAddr;

use lb_common::{Addr, Be16, CtEntry, CtEntry6, CtKey, CtKey6, conntrack::FRAGMENT, ct_flags};

use super::{
    dump::{Direction, EntryLine},
    world::Seed,
};

/// A flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// IP protocol number.
    pub proto: u8,
    /// The client.
    pub client: SocketAddr,
    /// What it dialled.
    pub front: SocketAddr,
    /// What the backend sees as the client.
    pub source: SocketAddr,
    /// The backend.
    pub backend: SocketAddr,
    /// [`ct_flags`] of both directions.
    pub flags: u32,
    /// Service id and backend id.
    pub ids: (u32, u32),
}

impl Flow {
    /// A flow of a client to a backend that sees the client's own address.
    #[must_use]
    pub fn new(proto: u8, client: SocketAddr, front: SocketAddr, backend: SocketAddr) -> Self {
        Self {
            proto,
            client,
            front,
            source: client,
            backend,
            flags: 0,
            ids: (1, 1),
        }
    }
    /// From outside.
    #[must_use]
    pub fn external(mut self) -> Self {
        self.flags |= ct_flags::EXTERNAL;
        self
    }
    /// The backend sees this source, and the packets leave by the FIB.
    #[must_use]
    pub fn snat(mut self, source: SocketAddr) -> Self {
        self.source = source;
        self.flags |= ct_flags::SNAT;
        self
    }
    /// The backend sees this source, on the client's own address.
    #[must_use]
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = source;
        self
    }
    /// The client is the backend.
    #[must_use]
    pub fn hairpin(mut self, source: SocketAddr) -> Self {
        self.source = source;
        self.flags |= ct_flags::SNAT | ct_flags::HAIRPIN;
        self
    }
    /// The kernel translates it.
    #[must_use]
    pub fn left(mut self) -> Self {
        self.flags |= ct_flags::LEFT;
        self.ids(0, 0)
    }
    /// With a service id and a backend id.
    #[must_use]
    pub fn ids(mut self, service: u32, backend: u32) -> Self {
        self.ids = (service, backend);
        self
    }

    fn direction(&self, reply: bool) -> Direction {
        let (from, to) = if reply {
            ((self.backend, self.source), (self.front, self.client))
        } else {
            ((self.client, self.front), (self.source, self.backend))
        };
        Direction {
            proto: u32::from(self.proto),
            from,
            to,
        }
    }

    fn entry(&self, reply: bool, flags: u32, packets: u64) -> EntryLine {
        let reply_flag = if reply { ct_flags::REPLY } else { 0 };
        EntryLine {
            direction: self.direction(reply),
            flags: self.flags | flags | reply_flag,
            ids: self.ids,
            packets,
        }
    }

    /// The entry of the client's direction, with flags besides and packets seen.
    #[must_use]
    pub fn forward(&self, flags: u32, packets: u64) -> EntryLine {
        self.entry(false, flags, packets)
    }
    /// The entry of the reply's direction, with flags besides and packets seen.
    #[must_use]
    pub fn reply(&self, flags: u32, packets: u64) -> EntryLine {
        self.entry(true, flags, packets)
    }

    /// The entry of the later fragments of a datagram, in either direction.
    #[must_use]
    pub fn fragments(&self, id: u32, reply: bool) -> EntryLine {
        let mut line = self.entry(reply, 0, 0);
        let Direction { proto, from, to } = &mut line.direction;
        // A number of IPv4 has 16 bits and no protocol of IPv6 counts.
        let ports = match from.0 {
            SocketAddr::V4(_) => {
                *proto |= FRAGMENT;
                [id as u16, 0]
            }
            SocketAddr::V6(_) => {
                *proto = FRAGMENT;
                [(id >> 16) as u16, id as u16]
            }
        };
        from.0.set_port(ports[0]);
        from.1.set_port(ports[1]);
        to.0.set_port(0);
        to.1.set_port(0);
        line
    }

    fn seed(&self, line: &EntryLine, age: u32) -> Seed {
        let Direction { proto, from, to } = line.direction;
        let wide = |a: SocketAddr| -> (Addr, Be16) { (a.ip().into(), Be16::new(a.port())) };
        let ((src, sport), (dst, dport)) = (wide(from.0), wide(from.1));
        let key: CtKey6 = CtKey {
            src,
            dst,
            sport,
            dport,
            proto,
        };
        let ((src, sport), (dst, dport)) = (wide(to.0), wide(to.1));
        let entry: CtEntry6 = CtEntry {
            packets: line.packets,
            bytes: line.packets * 100,
            src,
            dst,
            sport,
            dport,
            flags: line.flags,
            backend: line.ids.1,
            service: line.ids.0,
            created: 0,
            last_seen: 0,
        };
        Seed {
            v4: self.client.is_ipv4(),
            key,
            entry,
            age,
        }
    }

    /// The client's direction, to be in conntrack from the start.
    #[must_use]
    pub fn forward_seed(&self, age: u32, flags: u32) -> Seed {
        self.seed(&self.forward(flags, 1), age)
    }
    /// The reply's direction, to be in conntrack from the start.
    #[must_use]
    pub fn reply_seed(&self, age: u32, flags: u32) -> Seed {
        self.seed(&self.reply(flags, 0), age)
    }
}
