//! The object with the programs, and its maps as bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuValues, lpm_trie::Key},
    programs::Program,
};
use bytemuck::{bytes_of, pod_read_unaligned};
use lb_common::{
    Affinity, AffinityKey, Backend, CtBucket4, CtBucket6, Frontend, FrontendKey, NodeConfig,
    PacketCounter, Reason, ServiceCounter,
    conntrack::{BUCKET_SLOTS, elements},
    ct_flags,
    schema::{PACK, name},
};
use lb_datapath::{Family as _, V4, table};

use crate::vectors::{dump::State, run::CAPACITY, world::World};

/// Where `cargo xtask build` puts the object, or where `BASCULE_BPF_OBJECT` says.
fn path() -> PathBuf {
    std::env::var_os("BASCULE_BPF_OBJECT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/bascule.o"),
        PathBuf::from,
    )
}

/// Loads every program of the object, with maps of the size of the vectors',
/// pinned nowhere.
///
/// # Errors
/// The object is missing, or the kernel refuses a map or program.
pub fn load() -> Result<Ebpf> {
    let path = path();
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(name::lb_frontends_v1, 1024)
        .map_max_entries(name::lb_backends_v1, CAPACITY.backends)
        .map_max_entries(name::lb_slots_v1, CAPACITY.slots.div_ceil(PACK))
        .map_max_entries(name::lb_ranges_v1, 1024)
        .map_max_entries(name::lb_ct4_v1, elements(CAPACITY.conntrack))
        .map_max_entries(name::lb_ct6_v1, elements(CAPACITY.conntrack))
        .map_max_entries(name::lb_affinity_v1, 1024)
        .map_max_entries(name::lb_sock_nat_v1, 1024)
        .map_max_entries(name::lb_svc_ctr_v1, CAPACITY.services)
        .map_max_entries(name::lb_be_ctr_v1, CAPACITY.backends)
        .override_global("CT_BUCKETS", &CAPACITY.conntrack, true);
    let mut ebpf = loader.load_file(&path).with_context(|| {
        format!(
            "cannot load {}; `cargo xtask build` makes it, and loading needs root",
            path.display()
        )
    })?;
    for (name, program) in ebpf.programs_mut() {
        match program {
            Program::Xdp(p) => p.load(),
            Program::SchedClassifier(p) => p.load(),
            Program::CgroupSockAddr(p) => p.load(),
            _ => return Err(anyhow!("{name} is a program of an unexpected type")),
        }
        .with_context(|| format!("the kernel refuses {name}"))?;
    }
    Ok(ebpf)
}

const FRONTEND_KEY: usize = size_of::<FrontendKey>();
const FRONTEND: usize = size_of::<Frontend>();
const BACKEND: usize = size_of::<Backend>();
const NODE: usize = size_of::<NodeConfig>();
const COUNTER: usize = size_of::<ServiceCounter>();
const REASON: usize = size_of::<PacketCounter>();
const AFFINITY_KEY: usize = size_of::<AffinityKey>();
const AFFINITY: usize = size_of::<Affinity>();

/// An element of the slots.
type Slots = [u32; PACK as usize];
type Bytes<const K: usize, const V: usize> = HashMap<MapData, [u8; K], [u8; V]>;

/// The maps of the packet path, their keys and values as bytes.
pub struct Maps {
    filter: Array<MapData, u64>,
    replies: Array<MapData, u64>,
    frontends: Bytes<FRONTEND_KEY, FRONTEND>,
    backends: Array<MapData, [u8; BACKEND]>,
    slots: Array<MapData, Slots>,
    ranges: LpmTrie<MapData, [u8; 20], u32>,
    node: Array<MapData, [u8; NODE]>,
    ct4: Array<MapData, [u8; size_of::<CtBucket4>()]>,
    ct6: Array<MapData, [u8; size_of::<CtBucket6>()]>,
    affinity: Bytes<AFFINITY_KEY, AFFINITY>,
    reasons: PerCpuArray<MapData, [u8; REASON]>,
    services: PerCpuArray<MapData, [u8; COUNTER]>,
    backend_counters: PerCpuArray<MapData, [u8; COUNTER]>,
    /// Words of the filter, and elements of the slots, that are not zero.
    written: (BTreeSet<u32>, BTreeSet<u32>),
    /// Words of the filter of replies that may not be zero.
    replied: BTreeSet<u32>,
    cpus: usize,
}

macro_rules! take {
    ($ebpf:expr, $name:ident, $kind:ident) => {{
        let map = $ebpf
            .take_map(name::$name)
            .with_context(|| format!("the object has no map {}", name::$name))?;
        $kind::try_from(map).with_context(|| format!("the map {}", name::$name))?
    }};
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the size is the type's")
}

/// Removes every entry of a hash map.
fn empty<const K: usize, const V: usize>(map: &mut Bytes<K, V>) -> Result<()> {
    let keys: Vec<_> = map.keys().collect::<Result<_, _>>()?;
    for key in keys {
        map.remove(&key)?;
    }
    Ok(())
}

impl Maps {
    /// Takes the maps out of the object.
    ///
    /// # Errors
    /// One is missing.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            filter: take!(ebpf, lb_filter_v1, Array),
            replies: take!(ebpf, lb_replies_v1, Array),
            frontends: take!(ebpf, lb_frontends_v1, HashMap),
            backends: take!(ebpf, lb_backends_v1, Array),
            slots: take!(ebpf, lb_slots_v1, Array),
            ranges: take!(ebpf, lb_ranges_v1, LpmTrie),
            node: take!(ebpf, lb_node_v1, Array),
            ct4: take!(ebpf, lb_ct4_v1, Array),
            ct6: take!(ebpf, lb_ct6_v1, Array),
            affinity: take!(ebpf, lb_affinity_v1, HashMap),
            reasons: take!(ebpf, lb_reasons_v1, PerCpuArray),
            services: take!(ebpf, lb_svc_ctr_v1, PerCpuArray),
            backend_counters: take!(ebpf, lb_be_ctr_v1, PerCpuArray),
            written: Default::default(),
            replied: BTreeSet::new(),
            cpus: aya::util::nr_cpus().map_err(|(what, error)| anyhow!("{what}: {error}"))?,
        })
    }

    /// Replaces everything by a world, at a time in ticks.
    ///
    /// # Errors
    /// The kernel refuses a write.
    pub fn fill(&mut self, world: &World, now: u32) -> Result<()> {
        self.clear()?;
        for (word, bits) in &world.filter {
            self.filter.set(*word, bits, 0)?;
            self.written.0.insert(*word);
        }
        let possible = world.possible_replies();
        self.replied = possible.iter().map(|bit| bit / 64).collect();
        for bit in world.replies() {
            let word = self.replies.get(&(bit / 64), 0)? | 1 << (bit % 64);
            self.replies.set(bit / 64, word, 0)?;
        }
        let mut slots: BTreeMap<u32, Slots> = BTreeMap::new();
        for (slot, id) in &world.slots {
            slots.entry(slot / PACK).or_default()[(slot % PACK) as usize] = *id;
        }
        for (element, ids) in slots {
            self.slots.set(element, ids, 0)?;
            self.written.1.insert(element);
        }
        for (id, backend) in &world.backends {
            self.backends.set(*id, array(bytes_of(backend)), 0)?;
        }
        for (key, value) in &world.frontends {
            let (key, value) = (array(bytes_of(key)), array(bytes_of(value)));
            self.frontends.insert(key, value, 0)?;
        }
        for range in &world.ranges {
            let data = array(&bytes_of(range)[4..]);
            self.ranges
                .insert(&Key::new(range.prefix_len, data), 1, 0)?;
        }
        self.node.set(0, array(bytes_of(&world.node)), 0)?;
        let (ct4, ct6) = world.conntrack(now, CAPACITY.conntrack);
        put(&mut self.ct4, ct4)?;
        put(&mut self.ct6, ct6)?;
        for (key, value) in &world.bindings(now) {
            let (key, value) = (array(bytes_of(key)), array(bytes_of(value)));
            self.affinity.insert(key, value, 0)?;
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        empty(&mut self.frontends)?;
        empty(&mut self.affinity)?;
        let ranges: Vec<_> = self.ranges.keys().collect::<Result<_, _>>()?;
        for key in ranges {
            self.ranges.remove(&key)?;
        }
        for word in std::mem::take(&mut self.written.0) {
            self.filter.set(word, 0, 0)?;
        }
        for word in std::mem::take(&mut self.replied) {
            self.replies.set(word, 0, 0)?;
        }
        for element in std::mem::take(&mut self.written.1) {
            self.slots.set(element, Slots::default(), 0)?;
        }
        for id in 0..CAPACITY.backends {
            self.backends.set(id, [0; BACKEND], 0)?;
            self.backend_counters.set(id, zeros(self.cpus)?, 0)?;
        }
        for id in 0..CAPACITY.services {
            self.services.set(id, zeros(self.cpus)?, 0)?;
        }
        for reason in Reason::ALL {
            self.reasons.set(*reason as u32, zeros(self.cpus)?, 0)?;
        }
        Ok(())
    }

    /// When an entry of IPv4 conntrack was made, in ticks.
    pub(super) fn created(&self) -> Option<u32> {
        // Whatever the time is, the only entry is live.
        let words = get(&self.ct4).ok()?;
        let bucket: &[AtomicU64] = &words;
        let slots = (0..BUCKET_SLOTS).map(|at| V4::load_slot(table::slot_of::<V4, _>(bucket, at)));
        slots
            .map(|slot| slot.entry)
            .find(|entry| entry.flags & ct_flags::LIVE != 0)
            .map(|entry| entry.created)
    }

    /// What the datapath has written, at a time in ticks.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn state(&self, now: u32) -> Result<State> {
        let mut state = State::default();
        state.conntrack(now, &get(&self.ct4)?, &get(&self.ct6)?);
        for word in &self.replied {
            state.replies([(*word, self.replies.get(word, 0)?)]);
        }
        for item in self.affinity.iter() {
            let (key, value) = item?;
            state.bound(now, &pod_read_unaligned(&key), &pod_read_unaligned(&value));
        }
        for reason in Reason::ALL {
            let mut sum = PacketCounter::default();
            for cpu in self.reasons.get(&(*reason as u32), 0)?.iter() {
                let one: PacketCounter = pod_read_unaligned(cpu);
                sum.packets += one.packets;
                sum.bytes += one.bytes;
            }
            state.reason(*reason, sum);
        }
        for id in 0..CAPACITY.services {
            state.counter("service", id, sum(&self.services.get(&id, 0)?));
        }
        for id in 0..CAPACITY.backends {
            state.counter("backend", id, sum(&self.backend_counters.get(&id, 0)?));
        }
        Ok(state.sorted())
    }
}

/// Writes a table.
fn put<const N: usize>(map: &mut Array<MapData, [u8; N]>, words: Vec<AtomicU64>) -> Result<()> {
    let bytes: Vec<u8> = words
        .into_iter()
        .flat_map(|word| word.into_inner().to_ne_bytes())
        .collect();
    for (index, bucket) in (0..).zip(bytes.chunks_exact(N)) {
        map.set(index, array(bucket), 0)?;
    }
    Ok(())
}

/// Reads a table.
fn get<const N: usize>(map: &Array<MapData, [u8; N]>) -> Result<Vec<AtomicU64>> {
    let mut words = Vec::new();
    for bucket in map.iter() {
        let bucket = bucket?;
        words.extend(
            bucket
                .chunks_exact(8)
                .map(|word| u64::from_ne_bytes(array(word)).into()),
        );
    }
    Ok(words)
}

fn zeros<const N: usize>(cpus: usize) -> Result<PerCpuValues<[u8; N]>> {
    Ok(PerCpuValues::try_from(vec![[0; N]; cpus])?)
}

fn sum(values: &PerCpuValues<[u8; COUNTER]>) -> ServiceCounter {
    let mut sum = ServiceCounter::default();
    for cpu in values.iter() {
        let one: ServiceCounter = pod_read_unaligned(cpu);
        sum.packets += one.packets;
        sum.bytes += one.bytes;
        sum.connections += one.connections;
    }
    sum
}
