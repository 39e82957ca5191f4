//! Maps in memory, with the sizes and the refusals of the kernel's.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    sync::atomic::AtomicU64,
};

use lb_common::{
    Addr, Affinity, AffinityKey, Backend, Be32, CtEntry, CtKey, Frontend, FrontendKey, NodeConfig,
    PacketCounter, RangeKey, Reason, ServiceCounter, SockNat, SockNatKey, conntrack::elements,
};
use lb_datapath::{
    Buckets, Family, Insert, InsertError, Maps, Tables, V4, V6, Words, host, table,
    tables::{Account, Hit},
};

/// Entries that the maps hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Buckets of conntrack, of each family.
    pub conntrack: u32,
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
    /// Words of the filter of replies that are not zero.
    pub replies: RefCell<BTreeMap<u32, u64>>,
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
    pub ct4: Vec<AtomicU64>,
    /// Conntrack of IPv6.
    pub ct6: Vec<AtomicU64>,
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
            replies: RefCell::default(),
            frontends: HashMap::new(),
            backends: HashMap::new(),
            slots: HashMap::new(),
            ranges: Vec::new(),
            node: None,
            ct4: empty::<V4>(capacity.conntrack),
            ct6: empty::<V6>(capacity.conntrack),
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

/// An empty table of so many buckets.
#[must_use]
pub fn empty<F: Family>(buckets: u32) -> Vec<AtomicU64> {
    let words = F::BUCKET_WORDS * elements(buckets) as usize;
    std::iter::repeat_with(AtomicU64::default)
        .take(words)
        .collect()
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

/// For references, since a bucket is one too.
impl Maps for &MemTables {
    fn filter(&self, word: u32) -> u64 {
        self.filter.get(&word).copied().unwrap_or(0)
    }
    fn replies(&self, word: u32) -> u64 {
        self.replies.borrow().get(&word).copied().unwrap_or(0)
    }
    fn expect_replies(&self, word: u32, bits: u64) {
        self.wrote();
        *self.replies.borrow_mut().entry(word).or_default() |= bits;
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

/// A bucket, of which the writes are counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    words: &'a [AtomicU64],
    writes: &'a Cell<u64>,
}

impl Counted<'_> {
    fn wrote(self) {
        self.writes.set(self.writes.get() + 1);
    }
}

impl Words for Counted<'_> {
    fn from(self, word: usize) -> Self {
        let words = Words::from(self.words, word);
        Self { words, ..self }
    }
    fn load(self, word: usize) -> u64 {
        Words::load(self.words, word)
    }
    fn store(self, word: usize, value: u64) {
        self.wrote();
        Words::store(self.words, word, value);
    }
    fn publish(self, word: usize, value: u64) {
        self.wrote();
        self.words.publish(word, value);
    }
    fn set(self, word: usize, bits: u64) {
        self.wrote();
        self.words.set(word, bits);
    }
    fn keep(self, word: usize, bits: u64) {
        self.wrote();
        self.words.keep(word, bits);
    }
    fn compare_exchange(self, word: usize, old: u64, new: u64) -> u64 {
        self.wrote();
        Words::compare_exchange(self.words, word, old, new)
    }
}

macro_rules! conntrack {
    ($family:ty, $map:ident) => {
        impl<'a> Buckets<$family> for &'a MemTables {
            type Bucket = Counted<'a>;

            fn buckets(&self) -> u32 {
                self.capacity.conntrack
            }
            fn seed(&self) -> u64 {
                0
            }
            fn element(&self, index: u32) -> Option<Counted<'a>> {
                let table = host::Table {
                    words: &self.$map,
                    seed: 0,
                };
                let words = Buckets::<$family>::element(&table, index)?;
                let writes = &self.writes;
                Some(Counted { words, writes })
            }
            fn search(&self, key: &CtKey<<$family as Family>::Addr>, hash: u64) -> u32 {
                table::search::<$family, _>(self, key, hash)
            }
            fn vacancy(&self, bucket: u32, home: u32, now: u32) -> u32 {
                table::vacancy::<$family, _>(self, bucket, home, now)
            }
            fn tell(&self, hit: &Hit<<$family as Family>::Addr>, proto: u32, news: u64) {
                table::tell::<$family, _>(self, hit, proto, news);
            }
            fn insert(
                &self,
                key: &CtKey<<$family as Family>::Addr>,
                entry: &CtEntry<<$family as Family>::Addr>,
                how: Insert,
                now: u32,
            ) -> Result<(), InsertError> {
                table::insert::<$family, _>(self, key, entry, how, now)
            }
        }

        impl Tables<$family> for &MemTables {
            fn with_entry<R>(
                &self,
                write: impl FnOnce(&mut CtEntry<<$family as Family>::Addr>) -> R,
            ) -> Option<R> {
                Some(write(&mut bytemuck::Zeroable::zeroed()))
            }
        }
    };
}
conntrack!(V4, ct4);
conntrack!(V6, ct6);
