//! Flows that are left to the kernel's NAT: their entries in conntrack
//! (`docs/adr/0007-takeover.md`).

use std::{collections::BTreeSet, io, net::SocketAddr};

use lb_common::{Addr, Be16, Be32, CtEntry, CtKey, ct_flags, proto};
use lb_datapath::{
    Family, Insert, InsertError, V4, V6, host,
    table::{insert, peek, tell},
    tables::Hit,
};

use super::{
    actual::live_backends,
    conntrack::{TABLES, each, is_forward, now, seed},
    datapath::Datapath,
    error::Error,
    load::map_error,
    map::BpfMap,
    mmap::Window,
    table::Table,
};
use crate::netfilter::conntrack::{Ends, Tcp, Translated};

/// What became of flows that were to be left to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seeded {
    /// Left.
    pub left: usize,
    /// Not left: another flow has the tuple, which is the younger one.
    pub ours: usize,
    /// Not left, for want of room.
    pub lost: usize,
}

impl Datapath {
    /// Leaves flows to the kernel, as far as no flow of ours has their tuples.
    ///
    /// # Errors
    /// Conntrack cannot be mapped.
    pub fn leave(&self, flows: &[Translated]) -> Result<Seeded, Error> {
        let mut seeded = Seeded::default();
        self.with_flows(flows, |flow, which| {
            let put = match which {
                Which::V4(table) => put::<V4>(table, flow, narrow),
                Which::V6(table) => put::<V6>(table, flow, |addr| addr),
            };
            match put {
                Ok(true) => seeded.left += 1,
                Ok(false) => seeded.ours += 1,
                Err(()) => seeded.lost += 1,
            }
        })?;
        Ok(seeded)
    }

    /// How many of the flows are left to the kernel still. These live on, as the
    /// kernel's entries do.
    ///
    /// # Errors
    /// As [`Self::leave`].
    pub fn count_left(&self, flows: &[Translated]) -> Result<usize, Error> {
        let mut count = 0;
        self.with_flows(flows, |flow, which| {
            count += usize::from(match which {
                Which::V4(table) => refresh::<V4>(table, flow, narrow),
                Which::V6(table) => refresh::<V6>(table, flow, |addr| addr),
            });
        })?;
        Ok(count)
    }

    /// Forgets flows of UDP that were left and whose backend is gone: the client's next
    /// datagram opens one of ours. Returns how many.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn forget_left_udp(&self) -> Result<u64, Error> {
        let live = self.live_udp_backends()?;
        let mut forgotten = 0;
        for table in TABLES {
            forgotten += each(table, self.map(table), |slot| {
                let of_udp = slot.key.proto == u32::from(proto::UDP);
                let backend = (slot.entry.dst, slot.entry.dport);
                let left = slot.entry.flags & ct_flags::LEFT != 0 && is_forward(&slot.entry);
                of_udp && left && !live.contains(&backend)
            })
            .map_err(|source| map_error(table, "write", source))?;
        }
        Ok(forgotten)
    }

    fn live_udp_backends(&self) -> Result<BTreeSet<(Addr, Be16)>, Error> {
        let all = live_backends(self.store())
            .map_err(|source| map_error(Table::lb_backends_v1, "read", source))?;
        let udp = all.into_iter().filter(|(_, b)| b.proto == proto::UDP);
        Ok(udp.map(|(_, b)| (b.addr, b.port)).collect())
    }

    /// Shows each flow with the table of its family. The tables are mapped meanwhile.
    fn with_flows(
        &self,
        flows: &[Translated],
        mut visit: impl FnMut(&Translated, Which<'_, '_>),
    ) -> Result<(), Error> {
        let seed = seed().map_err(|source| map_error(Table::lb_ct4_v1, "open", source))?;
        let is_v4 = |flow: &&Translated| flow.original.dst.is_ipv4();
        for (table, v4) in [(Table::lb_ct4_v1, true), (Table::lb_ct6_v1, false)] {
            let mut flows = flows.iter().filter(|flow| is_v4(flow) == v4).peekable();
            if flows.peek().is_none() {
                continue;
            }
            let words = if v4 {
                V4::BUCKET_WORDS
            } else {
                V6::BUCKET_WORDS
            };
            let window = window(self.map(table), words * 8)
                .map_err(|source| map_error(table, "map", source))?;
            let words = window.elements();
            let table = host::Table { words, seed };
            flows.for_each(|flow| {
                visit(
                    flow,
                    if v4 {
                        Which::V4(&table)
                    } else {
                        Which::V6(&table)
                    },
                );
            });
        }
        Ok(())
    }
}

/// The table of a flow's family.
enum Which<'a, 't> {
    V4(&'a host::Table<'t>),
    V6(&'a host::Table<'t>),
}

fn window(map: &BpfMap, element: usize) -> io::Result<Window> {
    Window::new(map.fd(), element, 0, map.info().max_entries, true)
}

fn narrow(addr: Addr) -> Be32 {
    addr.0[3]
}

/// Writes both directions; `Ok(false)` where another flow has a tuple.
fn put<F: Family>(
    table: &host::Table<'_>,
    flow: &Translated,
    of: fn(Addr) -> F::Addr,
) -> Result<bool, ()> {
    let (forward, reply) = keys::<F>(flow, of);
    let (there, back) = sights(flow);
    let at = now();
    let entry = |other: &CtKey<F::Addr>, flags| CtEntry {
        packets: 0,
        bytes: 0,
        // What a packet of this direction turns into is what one of the other answers.
        src: other.dst,
        dst: other.src,
        sport: other.dport,
        dport: other.sport,
        flags,
        backend: 0,
        service: 0,
        created: at,
        last_seen: at,
    };
    let left = |own, peer: u32| ct_flags::LEFT | own | peer << ct_flags::PEER_SHIFT;
    let pairs = [
        (reply, entry(&forward, ct_flags::REPLY | left(back, there))),
        (forward, entry(&reply, left(there, back))),
    ];
    let mut new = true;
    for (key, entry) in pairs {
        match insert::<F, _>(table, &key, &entry, Insert::New, at) {
            Ok(()) => {}
            Err(InsertError::Exists) => new = false,
            Err(_) => return Err(()),
        }
    }
    Ok(new)
}

/// Whether a flow is left to the kernel still; both its entries are kept alive then.
fn refresh<F: Family>(table: &host::Table<'_>, flow: &Translated, of: fn(Addr) -> F::Addr) -> bool {
    let (forward, reply) = keys::<F>(flow, of);
    let at = now();
    let is_left = |hit: &Hit<F::Addr>| hit.flags & ct_flags::LEFT != 0;
    let Some(there) = peek::<F, _>(table, &forward, at).filter(is_left) else {
        return false;
    };
    tell::<F, _>(table, &there, forward.proto, u64::from(at));
    if let Some(back) = peek::<F, _>(table, &reply, at).filter(is_left) {
        tell::<F, _>(table, &back, reply.proto, u64::from(at));
    }
    true
}

/// The keys of both directions: what their packets carry as they come.
fn keys<F: Family>(flow: &Translated, of: fn(Addr) -> F::Addr) -> (CtKey<F::Addr>, CtKey<F::Addr>) {
    let wide = |end: SocketAddr| (of(Addr::from(end.ip())), Be16::new(end.port()));
    let key = |ends: &Ends| {
        let ((src, sport), (dst, dport)) = (wide(ends.src), wide(ends.dst));
        CtKey {
            src,
            dst,
            sport,
            dport,
            proto: u32::from(flow.proto),
        }
    };
    (key(&flow.original), key(&flow.reply))
}

/// What was seen in the direction of the client and in the other one: the state of a
/// flow comes from it, and with it how long it lives.
fn sights(flow: &Translated) -> (u32, u32) {
    use ct_flags::{FIN, RST, SEEN, SYN};
    match flow.tcp {
        Some(Tcp::Opening) => (SYN, 0),
        Some(Tcp::Open) => (SEEN, SEEN),
        Some(Tcp::Closed) => (SEEN | FIN, SEEN | FIN),
        Some(Tcp::Reset) => (SEEN | RST, SEEN),
        None if flow.answered => (SEEN, SEEN),
        None => (SEEN, 0),
    }
}
