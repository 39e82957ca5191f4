//! Maps in memory, with the sizes and the refusals of the kernel's.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
};

use lb_common::{
    Addr, Affinity, AffinityKey, Backend, Be32, CtEntry, CtEntry4, CtEntry6, CtKey, CtKey4, CtKey6,
    Frontend, FrontendKey, NodeConfig, PacketCounter, RangeKey, Reason, ServiceCounter, SockNat,
    SockNatKey,
};
use lb_datapath::{
    Family, Insert, InsertError, Maps, Tables, V4, V6,
    tables::{Account, Hit, Touch},
};

/// Entries that the maps hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Conntrack entries of a family.
    pub conntrack: usize,
    /// Services that have counters.
    pub services: u32,
    /// Backends, and backends that have counters.
    pub backends: u32,
    /// Slots of all maglev tables.
    pub slots: u32,
}

/// All maps. Whoever runs the pipeline only reads the agent's, so those are
/// plain; what the pipeline writes is in cells.
#[derive(Debug)]
pub struct MemTables {
    /// How much the maps hold.
    pub capacity: Capacity,
    /// Words of the filter that are not zero.
    pub filter: HashMap<u32, u64>,
    /// Frontends.
    pub frontends: HashMap<FrontendKey, Frontend>,
    /// Backends by id.
    pub backends: HashMap<u32, Backend>,
    /// Slots that are not zero.
    pub slots: HashMap<u32, u32>,
    /// Source ranges.
    pub ranges: Vec<RangeKey>,
    /// The node; `None` where even the map fails.
    pub node: Option<NodeConfig>,
    /// Conntrack of IPv4.
    pub ct4: RefCell<BTreeMap<CtKey4, CtEntry4>>,
    /// Conntrack of IPv6.
    pub ct6: RefCell<BTreeMap<CtKey6, CtEntry6>>,
    /// Session affinity.
    pub affinity: RefCell<BTreeMap<AffinityKey, Affinity>>,
    /// Socket rev-NAT.
    pub sock_nat: RefCell<BTreeMap<SockNatKey, SockNat>>,
    /// Counters by reason.
    pub reasons: RefCell<Vec<PacketCounter>>,
    /// Counters by service id.
    pub services: RefCell<BTreeMap<u32, ServiceCounter>>,
    /// Counters by backend id.
    pub backend_counters: RefCell<BTreeMap<u32, ServiceCounter>>,
    /// Writes to anything, counters included: a dry run makes none.
    pub writes: Cell<u64>,
}

impl MemTables {
    /// Empty maps.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            filter: HashMap::new(),
            frontends: HashMap::new(),
            backends: HashMap::new(),
            slots: HashMap::new(),
            ranges: Vec::new(),
            node: None,
            ct4: RefCell::default(),
            ct6: RefCell::default(),
            affinity: RefCell::default(),
            sock_nat: RefCell::default(),
            reasons: RefCell::new(vec![PacketCounter::default(); Reason::ALL.len()]),
            services: RefCell::default(),
            backend_counters: RefCell::default(),
            writes: Cell::new(0),
        }
    }

    fn wrote(&self) {
        self.writes.set(self.writes.get() + 1);
    }
}

/// Whether a prefix of (service, address) covers a client.
fn covers(range: &RangeKey, service: u32, client: Addr) -> bool {
    let bits = |service: Be32, addr: Addr| {
        let mut all = [0u8; 20];
        all[..4].copy_from_slice(&service.get().to_be_bytes());
        all[4..].copy_from_slice(&addr.octets());
        all
    };
    let (net, of) = (
        bits(range.service, range.addr),
        bits(Be32::new(service), client),
    );
    (0..range.prefix_len as usize).all(|bit| {
        let mask = 0x80 >> (bit % 8);
        net[bit / 8] & mask == of[bit / 8] & mask
    })
}

fn add(counter: &mut ServiceCounter, a: &Account) {
    counter.packets += u64::from(a.packets);
    if a.packets != 0 {
        counter.bytes += u64::from(a.bytes);
    }
    counter.connections += u64::from(a.connections);
}

impl Maps for MemTables {
    fn filter(&self, word: u32) -> u64 {
        self.filter.get(&word).copied().unwrap_or(0)
    }
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }
    fn slot(&self, index: u32) -> Option<u32> {
        (index < self.capacity.slots).then(|| self.slots.get(&index).copied().unwrap_or(0))
    }
    fn backend(&self, id: u32) -> Option<Backend> {
        let empty: Backend = bytemuck::Zeroable::zeroed();
        (id < self.capacity.backends).then(|| self.backends.get(&id).copied().unwrap_or(empty))
    }
    fn in_source_ranges(&self, service: u32, client: Addr) -> bool {
        self.ranges.iter().any(|r| covers(r, service, client))
    }
    fn node(&self) -> Option<NodeConfig> {
        self.node
    }
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinity.borrow().get(key).copied()
    }
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity) {
        self.wrote();
        self.affinity.borrow_mut().insert(*key, *value);
    }
    fn sock_nat(&self, key: &SockNatKey) -> Option<SockNat> {
        self.sock_nat.borrow().get(key).copied()
    }
    fn set_sock_nat(&self, key: &SockNatKey, value: &SockNat) {
        self.wrote();
        self.sock_nat.borrow_mut().insert(*key, *value);
    }
    fn count(&self, reason: Reason, bytes: u32) {
        self.wrote();
        let counter = &mut self.reasons.borrow_mut()[reason as usize];
        counter.packets += 1;
        counter.bytes += u64::from(bytes);
    }
    fn account(&self, a: &Account) {
        self.wrote();
        if a.service < self.capacity.services {
            add(self.services.borrow_mut().entry(a.service).or_default(), a);
        }
        if a.backend < self.capacity.backends {
            let mut all = self.backend_counters.borrow_mut();
            add(all.entry(a.backend).or_default(), a);
        }
    }
}

type Conntrack<A> = RefCell<BTreeMap<CtKey<A>, CtEntry<A>>>;

fn touch<A: Copy>(entry: &mut CtEntry<A>, touch: &Touch) -> Hit<A> {
    let hit = Hit::of(entry);
    entry.packets += 1;
    entry.bytes += u64::from(touch.bytes);
    entry.last_seen = touch.now;
    entry.flags |= touch.flags;
    hit
}

fn insert<A: Copy + Ord>(
    map: &Conntrack<A>,
    (key, entry): (&CtKey<A>, &CtEntry<A>),
    how: Insert,
    capacity: usize,
) -> Result<(), InsertError> {
    let mut map = map.borrow_mut();
    match (map.contains_key(key), how) {
        (true, Insert::New) => return Err(InsertError::Exists),
        (false, _) if map.len() >= capacity => return Err(InsertError::Full),
        _ => {}
    }
    map.insert(*key, *entry);
    Ok(())
}

macro_rules! conntrack {
    ($family:ty, $map:ident) => {
        impl Tables<$family> for MemTables {
            fn ct_hit(
                &self,
                key: &CtKey<<$family as Family>::Addr>,
                packet: &Touch,
            ) -> Option<Hit<<$family as Family>::Addr>> {
                let mut map = self.$map.borrow_mut();
                let hit = map.get_mut(key).map(|entry| touch(entry, packet));
                if hit.is_some() {
                    self.wrote();
                }
                hit
            }
            fn ct_peek(
                &self,
                key: &CtKey<<$family as Family>::Addr>,
            ) -> Option<Hit<<$family as Family>::Addr>> {
                self.$map.borrow().get(key).map(Hit::of)
            }
            fn with_entry<R>(
                &self,
                write: impl FnOnce(&mut CtEntry<<$family as Family>::Addr>) -> R,
            ) -> Option<R> {
                Some(write(&mut bytemuck::Zeroable::zeroed()))
            }
            fn ct_insert(
                &self,
                key: &CtKey<<$family as Family>::Addr>,
                entry: &CtEntry<<$family as Family>::Addr>,
                how: Insert,
            ) -> Result<(), InsertError> {
                self.wrote();
                insert(&self.$map, (key, entry), how, self.capacity.conntrack)
            }
        }
    };
}
conntrack!(V4, ct4);
conntrack!(V6, ct6);
