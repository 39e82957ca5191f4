//! What is read again and again while somebody watches (`bascule top`), or for one answer
//! (`bascule explain`): no more than what is shown.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use lb_common::{
    Addr, Backend, Be16, CtSlot, Frontend, FrontendKey, ServiceCounter, backend_flags,
    conntrack::{BUCKET_SLOTS, buckets_in},
    ct_flags, proto, scope,
};

use super::{
    conntrack::{self, is_forward},
    counters,
    error::Error,
    load::map_error,
    mmap::Mapped,
    store::values_of,
    sys::F_RDONLY,
    table::{Table, typed},
    views::{Views, read},
};

/// Conntrack, counted.
#[derive(Clone, Default, Debug)]
pub struct Census {
    /// How full the tables of IPv4 and IPv6 are.
    pub tables: [Fill; 2],
    /// Flows by client.
    pub clients: HashMap<Addr, u64>,
    /// Flows with SNAT by backend, each of which has a port of its own there.
    pub snat: HashMap<Dialled, u64>,
}

/// What a port of SNAT must be free for: a backend's address, port and protocol.
pub type Dialled = (Addr, u16, u8);

/// How full a table is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Fill {
    /// Entries in use; a flow takes two.
    pub used: u64,
    /// Most entries.
    pub room: u64,
}

impl Census {
    fn count(&mut self, family: usize, slot: &CtSlot<Addr>) {
        self.tables[family].used += 1;
        if !is_forward(&slot.entry) {
            return;
        }
        *self.clients.entry(slot.key.src).or_default() += 1;
        if slot.entry.flags & ct_flags::SNAT != 0 {
            let (entry, proto) = (&slot.entry, slot.key.proto as u8);
            let backend = (entry.dst, entry.dport.get(), proto);
            *self.snat.entry(backend).or_default() += 1;
        }
    }
}

impl Views {
    /// Who fills conntrack, and how far.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn census(&self) -> Result<Census, Error> {
        let mut census = Census::default();
        for (family, table) in conntrack::TABLES.into_iter().enumerate() {
            let map = self.map(table, 0)?;
            census.tables[family].room =
                u64::from(buckets_in(map.info().max_entries) * BUCKET_SLOTS);
            conntrack::each(table, &map, |slot| {
                census.count(family, slot);
                false
            })
            .map_err(|e| map_error(table, "read", e))?;
        }
        Ok(census)
    }

    /// The frontends at an address and port, whatever their protocol and scope, in their natural
    /// order.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn frontends_at(&self, at: SocketAddr) -> Result<Vec<(FrontendKey, Frontend)>, Error> {
        let table = Table::lb_frontends_v1;
        let map = self.map(table, F_RDONLY)?;
        let mut found = Vec::new();
        for proto in [proto::TCP, proto::UDP, proto::SCTP] {
            for scope in [scope::INTERNAL, scope::EXTERNAL] {
                let key = FrontendKey {
                    addr: at.ip().into(),
                    port: Be16::new(at.port()),
                    proto,
                    scope,
                };
                let value = map.lookup(bytemuck::bytes_of(&key));
                let value = value.map_err(|source| map_error(table, "read", source))?;
                found.extend(value.and_then(|v| values_of(&v).next()).map(|v| (key, v)));
            }
        }
        found.sort_unstable_by_key(|(key, _)| *key);
        Ok(found)
    }

    /// The frontends of some services, which are asked about once each, in no order.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn frontends_of(
        &self,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<Vec<(FrontendKey, Frontend)>, Error> {
        let mut asked: HashMap<u32, bool> = HashMap::new();
        let mut found = self.all::<typed::lb_frontends_v1>()?;
        found.retain(|(_, f)| *asked.entry(f.service).or_insert_with(|| wanted(f.service)));
        Ok(found)
    }

    /// These backends, as far as they live, and what each carried.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn carriers(
        &self,
        ids: impl IntoIterator<Item = u32>,
    ) -> Result<BTreeMap<u32, (Backend, ServiceCounter)>, Error> {
        let (table, counts) = (Table::lb_backends_v1, Table::lb_be_ctr_v1);
        let (map, counters) = (self.map(table, F_RDONLY)?, self.map(counts, F_RDONLY)?);
        let mut mapped = Mapped::of(table, &map, false);
        let mut found = BTreeMap::new();
        for id in ids {
            let bytes = read(table, &map, &mut mapped, (id, 1))?;
            let backend = values_of::<Backend>(&bytes).next();
            let Some(backend) = backend.filter(|b| b.flags & backend_flags::LIVE != 0) else {
                continue;
            };
            let carried = counters::one(&counters, id);
            let carried = carried.map_err(|source| map_error(counts, "read", source))?;
            found.insert(id, (backend, carried));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{Be32, CtEntry, CtKey};

    use super::*;

    #[test]
    fn flows_count_once_and_their_ports_where_they_must_be_free() {
        let ip = |last: u32| Addr::v4(Be32::new(0x0a00_0000 | last));
        let slot = |from: u32, to: u32, flags| CtSlot {
            key: CtKey {
                src: ip(from),
                dst: ip(9),
                sport: Be16::new(4000),
                dport: Be16::new(80),
                proto: u32::from(proto::TCP),
            },
            entry: CtEntry {
                dst: ip(to),
                dport: Be16::new(8080),
                flags: flags | ct_flags::LIVE,
                ..bytemuck::Zeroable::zeroed()
            },
        };
        let mut census = Census::default();
        for slot in [
            slot(1, 20, ct_flags::SNAT),
            slot(2, 20, ct_flags::SNAT),
            slot(2, 21, ct_flags::SNAT),
            slot(2, 20, 0),
            // A reply, whose source is the backend.
            slot(20, 1, ct_flags::REPLY | ct_flags::SNAT),
        ] {
            census.count(0, &slot);
        }
        assert_eq!((census.tables[0].used, census.tables[1].used), (5, 0));
        assert_eq!(census.clients, HashMap::from([(ip(1), 1), (ip(2), 3)]));
        let at = |last| (ip(last), 8080, proto::TCP);
        assert_eq!(census.snat, HashMap::from([(at(20), 2), (at(21), 1)]));
    }
}
