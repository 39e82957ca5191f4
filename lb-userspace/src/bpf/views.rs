//! The pinned maps, to look at: what the command line shows, whether or not an
//! agent runs. Maps are opened to be read only.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use lb_common::{
    Addr, Affinity, AffinityKey, Backend, CtKey, Frontend, FrontendKey, NodeConfig, PacketCounter,
    Reason, ServiceCounter, backend_flags,
    conntrack::{BUCKET_SLOTS, buckets_in},
    monitor::{self, MonitorMap},
    schema::{Kind, MMAPABLE, Owner},
};
use lb_datapath::conntrack::age;
use serde::Serialize;

use super::{
    conntrack::{self, now},
    counters,
    error::Error,
    flows::{flows, seconds},
    layout::Layout,
    links::pinned,
    load::map_error,
    map::BpfMap,
    mmap::Mapped,
    pins::{Pins, open_map, pin_error},
    settings::{MapSizes, Settings},
    store::{Pairs, values_of},
    sys::{F_RDONLY, LinkTarget},
    table::{Table, Typed, typed},
};

pub use super::flows::FlowView;

/// The pinned maps of a node.
#[derive(Debug)]
pub struct Views {
    pins: Pins,
}

/// A map, for lists.
#[derive(Clone, Debug, Serialize)]
pub struct MapView {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub holds: &'static str,
    /// Whether the agent writes it, or the datapath ([`Owner::name`]).
    pub owner: &'static str,
    /// Entries in use; `None` for counters, whose elements are always there.
    pub used: Option<u64>,
    /// Most entries.
    pub entries: u32,
    /// Bytes of kernel memory.
    pub bytes: u64,
    /// The agent's flag that sets [`Self::entries`].
    pub setting: &'static str,
}

/// An attached program.
#[derive(Clone, Debug, Serialize)]
pub struct LinkView {
    /// Name of its pin.
    pub name: String,
    /// Where: a device's index or a cgroup's id.
    pub target: String,
    /// The kernel's id of the program.
    pub program: u32,
}

/// Slots of each backend id in each table, by (first slot, length).
pub type Tables = BTreeMap<(u32, u32), BTreeMap<u32, u32>>;

/// A binding of session affinity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AffinityView {
    /// Whose it is, and of which service.
    pub key: AffinityKey,
    /// Backend id.
    pub backend: u32,
    /// Seconds since it was used last.
    pub idle: u64,
}

impl Views {
    /// The pins under the directory of the settings.
    ///
    /// # Errors
    /// There is none: no agent has run there; or this user may not open them.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let dir = settings.pin_dir();
        std::fs::metadata(&dir).map_err(|source| pin_error("open", &dir, source))?;
        let views = Self {
            pins: Pins::existing(dir),
        };
        match views.map(Table::ALL[0], F_RDONLY) {
            Err(error @ Error::Denied { .. }) => Err(error),
            // What else is wrong with one map is told when it is read.
            _ => Ok(views),
        }
    }

    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }

    pub(super) fn map(&self, table: Table, flags: u32) -> Result<BpfMap, Error> {
        // The kernel maps only what was opened for writing: mmap(2) takes VM_SHARED
        // from a read-only file, and kernel/bpf/syscall.c, bpf_map_mmap, wants it.
        // What is mapped here is mapped to be read.
        let mapped = table.def().flags & MMAPABLE != 0;
        let flags = if mapped { 0 } else { flags };
        let map = self.pins.open(table, flags)?.ok_or_else(|| {
            let missing = io::Error::from(io::ErrorKind::NotFound);
            pin_error("open", &self.pins.map(table), missing)
        })?;
        let found = Layout::of(map.info());
        let expected = Layout::expected(table.def(), found.max_entries);
        if found != expected {
            return Err(Error::OtherBuild {
                map: table.name(),
                found: found.to_string(),
                expected: expected.to_string(),
            });
        }
        Ok(map)
    }

    pub(super) fn all<T: Typed>(&self) -> Result<Pairs<T>, Error> {
        let map = self.map(T::TABLE, F_RDONLY)?;
        let entries = map
            .read_all()
            .map_err(|source| map_error(T::TABLE, "read", source))?;
        Ok(entries.typed::<T>().collect())
    }

    /// Frontends, in their natural order.
    ///
    /// # Errors
    /// A map is not pinned or cannot be read; the same holds for all others.
    pub fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, Error> {
        let mut all = self.all::<typed::lb_frontends_v1>()?;
        all.sort_unstable_by_key(|(key, _)| *key);
        Ok(all)
    }

    /// Live backends, by id.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn backends(&self) -> Result<BTreeMap<u32, Backend>, Error> {
        let map = self.map(Table::lb_backends_v1, F_RDONLY)?;
        let bytes = array(Table::lb_backends_v1, &map, (0, u32::MAX))?;
        let live = |b: &Backend| b.flags & backend_flags::LIVE != 0;
        Ok((0..)
            .zip(values_of::<Backend>(&bytes))
            .filter(|(_, b)| live(b))
            .collect())
    }

    /// How many slots each backend has in the tables of these frontends: its share of new
    /// flows.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn tables(&self, frontends: &[(FrontendKey, Frontend)]) -> Result<Tables, Error> {
        let table = Table::lb_slots_v1;
        let map = self.map(table, F_RDONLY)?;
        // In the order of their slots: each piece of the array is mapped once.
        let mut mapped = Mapped::of(table, &map, false);
        let places = frontends.iter().filter(|(_, f)| f.len > 1);
        let places: BTreeSet<_> = places.map(|(_, f)| (f.slots, f.len)).collect();
        let mut tables = Tables::new();
        for place in places {
            let bytes = read(table, &map, &mut mapped, place)?;
            let mut shares: BTreeMap<u32, u32> = BTreeMap::new();
            values_of::<u32>(&bytes).for_each(|id| *shares.entry(id).or_default() += 1);
            tables.insert(place, shares);
        }
        Ok(tables)
    }

    /// Session affinities, those that have ended included.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn affinities(&self) -> Result<Vec<AffinityView>, Error> {
        let now = now();
        let view = |(key, value): (AffinityKey, Affinity)| AffinityView {
            key,
            backend: value.backend,
            idle: seconds(age(now, value.last_use)),
        };
        let all = self.all::<typed::lb_affinity_v1>()?;
        Ok(all.into_iter().map(view).collect())
    }

    /// What the datapath knows of its node.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn node(&self) -> Result<NodeConfig, Error> {
        let map = self.map(Table::lb_node_v1, F_RDONLY)?;
        let found = map.lookup(&0u32.to_ne_bytes());
        let found = found.map_err(|source| map_error(Table::lb_node_v1, "read", source))?;
        let config = found.and_then(|bytes| values_of(&bytes).next());
        Ok(config.unwrap_or_else(bytemuck::Zeroable::zeroed))
    }

    /// Packets and bytes by reason.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn reasons(&self) -> Result<Vec<(Reason, PacketCounter)>, Error> {
        let map = self.map(Table::lb_reasons_v1, F_RDONLY)?;
        counters::reasons(&map).map_err(|source| map_error(Table::lb_reasons_v1, "read", source))
    }

    /// What services carried, by service id.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn service_counters(&self, count: u32) -> Result<Vec<ServiceCounter>, Error> {
        self.carried(Table::lb_svc_ctr_v1, count)
    }

    /// What backends carried, by backend id.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn backend_counters(&self, count: u32) -> Result<Vec<ServiceCounter>, Error> {
        self.carried(Table::lb_be_ctr_v1, count)
    }

    fn carried(&self, table: Table, count: u32) -> Result<Vec<ServiceCounter>, Error> {
        let map = self.map(table, F_RDONLY)?;
        counters::carried(&map, count).map_err(|source| map_error(table, "read", source))
    }

    /// Flows, each once.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn flows(&self) -> Result<Vec<FlowView>, Error> {
        let mut slots = Vec::new();
        for table in conntrack::TABLES {
            let map = self.map(table, 0)?;
            conntrack::each(table, &map, |slot| {
                slots.push(*slot);
                false
            })
            .map_err(|e| map_error(table, "read", e))?;
        }
        Ok(flows(&slots, now()))
    }

    /// Forgets flows, of which `which` is asked with both directions joined; returns
    /// how many. Established connections go on if their frontend still leads to the
    /// same backend.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn flush(&self, which: impl Fn(&FlowView) -> bool) -> Result<u64, Error> {
        let doomed = self.flows()?.into_iter().filter(which);
        let keys: BTreeSet<CtKey<Addr>> = doomed.flat_map(|flow| flow.keys()).collect();
        for table in conntrack::TABLES {
            let map = self.map(table, 0)?;
            conntrack::each(table, &map, |slot| keys.contains(&slot.key))
                .map_err(|e| map_error(table, "write", e))?;
        }
        Ok(keys.len() as u64 / 2)
    }

    /// Every map, with how full it is. Of an agent of another version some may be of another
    /// layout: that is told, and the others are shown.
    pub fn maps(&self) -> Vec<Result<MapView, Error>> {
        let tables = Table::ALL.iter().map(|table| self.table_view(*table));
        let monitor = monitor::MAPS.into_iter();
        let monitor = monitor.filter_map(|map| self.monitor_view(map).transpose());
        tables.chain(monitor).collect()
    }

    fn table_view(&self, table: Table) -> Result<MapView, Error> {
        let map = self.map(table, F_RDONLY)?;
        let fail = |source| map_error(table, "read", source);
        Ok(MapView {
            name: table.name(),
            holds: table.def().doc,
            owner: table.def().owner.name(),
            used: self.used(table, &map)?,
            entries: match conntrack::TABLES.contains(&table) {
                true => buckets_in(map.info().max_entries) * BUCKET_SLOTS,
                false => table.def().values(map.info().max_entries),
            },
            bytes: map.memory().map_err(fail)?,
            setting: MapSizes::setting(table),
        })
    }

    /// A map of the monitor, if it is there: one of another version has another name.
    fn monitor_view(&self, map: MonitorMap) -> Result<Option<MapView>, Error> {
        let Some(found) = open_map(&self.pins.monitor(map), F_RDONLY)? else {
            return Ok(None);
        };
        let fail = |source| super::monitor::map_error(map, "read", source);
        Ok(Some(MapView {
            name: map.pin,
            holds: map.doc,
            owner: Owner::Datapath.name(),
            used: None,
            entries: found.info().max_entries,
            bytes: found.memory().map_err(fail)?,
            setting: "",
        }))
    }

    fn used(&self, table: Table, map: &BpfMap) -> Result<Option<u64>, Error> {
        let fail = |source| map_error(table, "read", source);
        Ok(match (table, table.def().kind) {
            (_, Kind::PerCpuArray) => None,
            (table, _) if conntrack::TABLES.contains(&table) => {
                Some(conntrack::count(table, map).map_err(fail)?)
            }
            (Table::lb_slots_v1, _) => {
                // Tables are shared: each counts once.
                let frontends = self.frontends()?;
                let tables = frontends.iter().filter(|(_, value)| value.len > 1);
                let tables: BTreeMap<u32, u32> =
                    tables.map(|(_, value)| (value.slots, value.len)).collect();
                Some(tables.values().map(|len| u64::from(*len)).sum())
            }
            (Table::lb_backends_v1, _) => Some(self.backends()?.len() as u64),
            (Table::lb_filter_v1 | Table::lb_replies_v1, _) => {
                let bytes = array(table, map, (0, u32::MAX))?;
                Some(
                    values_of::<u64>(&bytes)
                        .map(|word| u64::from(word.count_ones()))
                        .sum(),
                )
            }
            (_, Kind::Array | Kind::Packed) => Some(u64::from(map.info().max_entries)),
            _ => {
                let keys = map.read_all().map_err(fail)?.keys.len() as u64;
                Some(keys / u64::from(map.info().key_size))
            }
        })
    }

    /// Attached programs.
    ///
    /// # Errors
    /// As [`Self::frontends`].
    pub fn links(&self) -> Result<Vec<LinkView>, Error> {
        let links = pinned(&self.pins.links())?
            .into_iter()
            .map(|link| LinkView {
                target: match link.target {
                    Some(LinkTarget::Device(0) | LinkTarget::Cgroup(0)) => "gone".to_owned(),
                    Some(LinkTarget::Device(index)) => format!("device {index}"),
                    Some(LinkTarget::Cgroup(id)) => format!("cgroup {id}"),
                    Some(LinkTarget::Other) | None => "unknown".to_owned(),
                },
                name: link.name,
                program: link.prog_id,
            });
        Ok(links.collect())
    }

    /// The directory of the pins.
    pub fn dir(&self) -> &std::path::Path {
        self.pins.dir()
    }
}

/// Values of an array from `first` on, `count` or as many as there are.
fn array(table: Table, map: &BpfMap, range: (u32, u32)) -> Result<Vec<u8>, Error> {
    read(table, map, &mut Mapped::of(table, map, false), range)
}

/// The same of one that is mapped.
pub(super) fn read(
    table: Table,
    map: &BpfMap,
    mapped: &mut Mapped,
    (first, count): (u32, u32),
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let count = count.min(mapped.values().saturating_sub(first));
    mapped
        .read(map.fd(), (first, count), &mut out)
        .map_err(|source| map_error(table, "map", source))?;
    Ok(out)
}
