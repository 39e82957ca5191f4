//! The maps of `lb_common::schema`, and how the pipeline asks them.

use aya_ebpf::{
    Global,
    bindings::BPF_ANY,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
    macros::btf_map,
};
use bytemuck::Pod;
use lb_common::{
    Addr, Affinity, AffinityKey, Backend, CtEntry4, CtEntry6, CtKey4, CtKey6, Frontend,
    FrontendKey, NodeConfig, PacketCounter, RangeKey, Reason, ServiceCounter, SockNat, SockNatKey,
    conntrack::{BUCKET_SLOTS, buckets},
    for_each_map, limits,
    schema::{self, PACK},
};
use lb_datapath::{
    Buckets, Family, Insert, InsertError, Maps, Tables, V4, V6, Words as _, table,
    tables::{Account, Hit},
};

use crate::words::Memory;

/// What follows the prefix length in a [`RangeKey`].
type RangeData = [u8; size_of::<RangeKey>() - size_of::<u32>()];

macro_rules! kind {
    (Hash, $k:ty, $v:ty, $n:expr, $f:expr) => { HashMap<$k, $v, { $n as usize }, { $f as usize }> };
    (LruHash, $k:ty, $v:ty, $n:expr, $f:expr) => { LruHashMap<$k, $v, { $n as usize }, { $f as usize }> };
    (Array, $k:ty, $v:ty, $n:expr, $f:expr) => { Array<$v, { $n as usize }, { $f as usize }> };
    (Packed, $k:ty, $v:ty, $n:expr, $f:expr) => { Array<[$v; PACK as usize], { $n.div_ceil(PACK) as usize }, { $f as usize }> };
    (PerCpuArray, $k:ty, $v:ty, $n:expr, $f:expr) => { PerCpuArray<$v, { $n as usize }, { $f as usize }> };
    (LpmTrie, $k:ty, $v:ty, $n:expr, $f:expr) => { LpmTrie<RangeData, $v, { $n as usize }, { $f as usize }> };
}

macro_rules! define {
    ($($name:ident: $kind:ident<$key:ty, $value:ty>[$entries:expr] $flags:expr, $owner:ident, $doc:literal;)+) => {
        $(
            #[doc = $doc]
            #[allow(non_upper_case_globals, reason = "the symbol is the map's name")]
            #[btf_map]
            static $name: kind!($kind, $key, $value, $entries, $flags) = <kind!($kind, $key, $value, $entries, $flags)>::new();
        )+
    };
}
for_each_map!(define);

/// Room for an entry of conntrack that is being written. Packet programs of one
/// CPU run one after the other, with softirqs off, so one entry is enough.
#[allow(non_upper_case_globals, reason = "the symbol is the map's name")]
#[btf_map]
static lb_scratch: PerCpuArray<CtEntry6, 1> = PerCpuArray::new();

/// Lends the room, which is as large as the larger of the two kinds of entries.
#[inline(always)]
fn with_entry<E: Pod, R>(write: impl FnOnce(&mut E) -> R) -> Option<R> {
    const { assert!(size_of::<E>() <= size_of::<CtEntry6>()) };
    let entry = lb_scratch.get_ptr_mut(0)?;
    // SAFETY: the entry is this CPU's, and nobody else uses it until the program
    // ends; it is aligned to words, and any bytes are an entry.
    Some(write(unsafe { &mut *entry.cast::<E>() }))
}

// A map that the table lacks would have no pin, no dump and no layout check.
const _: () = assert!(schema::MAPS.len() == 14);

/// The kernel's maps.
pub(crate) struct KernelMaps;

/// Adds to a counter. Volatile, so that it is read and written whole: others
/// read it meanwhile, and of two CPUs that write it one may be lost, which only
/// conntrack's counters risk (see `CtEntry::packets`).
#[inline(always)]
fn add(counter: *mut u64, n: u64) {
    // SAFETY: the pointer comes from a lookup that succeeded, is aligned, and
    // stays valid while the program runs.
    unsafe { counter.write_volatile(counter.read_volatile().wrapping_add(n)) }
}

#[inline(always)]
fn account(counter: *mut ServiceCounter, a: &Account) {
    // SAFETY: as in `add`; only addresses of fields are taken.
    let (packets, bytes, connections) = unsafe {
        (
            &raw mut (*counter).packets,
            &raw mut (*counter).bytes,
            &raw mut (*counter).connections,
        )
    };
    if a.packets != 0 {
        add(packets, u64::from(a.packets));
        add(bytes, u64::from(a.bytes));
    }
    if a.connections != 0 {
        add(connections, u64::from(a.connections));
    }
}

impl Maps for KernelMaps {
    #[inline(always)]
    fn filter(&self, word: u32) -> u64 {
        lb_filter_v1.get(word).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn replies(&self, word: u32) -> u64 {
        lb_replies_v1.get(word).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn expect_replies(&self, word: u32, bits: u64) {
        if let Some(known) = lb_replies_v1.get_ptr_mut(word) {
            // SAFETY: a value is a word, and stays as long as the map.
            let known = unsafe { Memory::new(known) };
            // Nearly always it is: then no other CPU loses its cache line.
            if known.load(0) & bits != bits {
                known.set(0, bits);
            }
        }
    }
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        // SAFETY: the agent replaces entries whole, and the kernel frees a
        // replaced entry after an RCU grace period, which this program holds off.
        unsafe { lb_frontends_v1.get(key) }.copied()
    }
    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        let packed = lb_slots_v1.get(index / PACK)?;
        packed.get((index % PACK) as usize).copied()
    }
    #[inline(always)]
    fn backend(&self, id: u32) -> Option<Backend> {
        lb_backends_v1.get(id).copied()
    }
    #[inline(always)]
    fn in_source_ranges(&self, service: u32, client: Addr) -> bool {
        let key = RangeKey {
            prefix_len: 32 + 128,
            service: lb_common::Be32::new(service),
            addr: client,
        };
        let mut data = [0u32; size_of::<RangeData>() / 4];
        data[0] = key.service.raw();
        for (to, from) in data[1..].iter_mut().zip(key.addr.0) {
            *to = from.raw();
        }
        let key = Key::new(key.prefix_len, bytemuck::cast::<_, RangeData>(data));
        lb_ranges_v1.get(&key).is_some()
    }
    #[inline(always)]
    fn node(&self) -> Option<NodeConfig> {
        lb_node_v1.get(0).copied()
    }
    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        // SAFETY: two words, each read and written whole; a mixture of two
        // bindings of one client is a binding to a live backend all the same.
        unsafe { lb_affinity_v1.get(key) }.copied()
    }
    #[inline(always)]
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity) {
        // An LRU map makes room by itself; without memory the client is only
        // bound by its next connection.
        let _ = lb_affinity_v1.insert(key, value, u64::from(BPF_ANY));
    }
    #[inline(always)]
    fn sock_nat(&self, key: &SockNatKey) -> Option<SockNat> {
        // SAFETY: an entry is written before its socket's first datagram
        // leaves, and only replaced by that socket's own calls.
        unsafe { lb_sock_nat_v1.get(key) }.copied()
    }
    #[inline(always)]
    fn set_sock_nat(&self, key: &SockNatKey, value: &SockNat) {
        // As in `set_affinity`; the socket then sees the backend's address.
        let _ = lb_sock_nat_v1.insert(key, value, u64::from(BPF_ANY));
    }
    #[inline(always)]
    fn count(&self, reason: Reason, bytes: u32) {
        if let Some(counter) = lb_reasons_v1.get_ptr_mut(reason as u32) {
            let counter: *mut PacketCounter = counter;
            // SAFETY: only addresses of fields are taken.
            let (packets, sum) =
                unsafe { (&raw mut (*counter).packets, &raw mut (*counter).bytes) };
            add(packets, 1);
            add(sum, u64::from(bytes));
        }
    }
    #[inline(always)]
    fn account(&self, a: &Account) {
        if let Some(counter) = lb_svc_ctr_v1.get_ptr_mut(a.service) {
            account(counter, a);
        }
        if let Some(counter) = lb_be_ctr_v1.get_ptr_mut(a.backend) {
            account(counter, a);
        }
    }
}

/// Seed of conntrack's hash, the same for every program that shares the table;
/// set by the loader.
#[unsafe(no_mangle)]
static CT_SEED: Global<u64> = Global::new(0);
/// Buckets of each of conntrack's tables; set by the loader.
#[unsafe(no_mangle)]
static CT_BUCKETS: Global<u32> = Global::new(buckets(limits::CONNTRACK));

// What an insertion returns.
const DONE: u32 = 0;
const EXISTS: u32 = 1;
const FULL: u32 = 2;
const BUSY: u32 = 3;

macro_rules! conntrack {
    ($family:ty, $map:ident, ($key:ty, $entry:ty),
     $search:ident, $vacancy:ident, $tell:ident, $insert:ident) => {
        /// Runs `table::search`. As the two below a global function: the verifier
        /// looks at it once (Linux 5.13, commit e5069b9c23b3), not at every call.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $search(key: *const $key, hash: u64) -> u32 {
            // SAFETY: callers pass references; the verifier checks it at every call.
            match unsafe { key.as_ref() } {
                Some(key) => table::search::<$family, _>(&KernelMaps, key, hash),
                None => BUCKET_SLOTS,
            }
        }

        /// Runs `table::vacancy`.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $vacancy(bucket: u32, home: u32, now: u32) -> u32 {
            table::vacancy::<$family, _>(&KernelMaps, bucket, home, now)
        }

        /// Runs `table::tell`.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $tell(
            hit: *const Hit<<$family as Family>::Addr>,
            proto: u32,
            news: u64,
        ) -> u32 {
            // SAFETY: as above.
            if let Some(hit) = unsafe { hit.as_ref() } {
                table::tell::<$family, _>(&KernelMaps, hit, proto, news);
            }
            0
        }

        /// Runs `table::insert`.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $insert(key: *const $key, entry: *const $entry, new: u32, now: u32) -> u32 {
            let how = if new == 0 { Insert::Any } else { Insert::New };
            // SAFETY: as above.
            let (Some(key), Some(entry)) = (unsafe { key.as_ref() }, unsafe { entry.as_ref() })
            else {
                return FULL;
            };
            match table::insert::<$family, _>(&KernelMaps, key, entry, how, now) {
                Ok(()) => DONE,
                Err(InsertError::Exists) => EXISTS,
                Err(InsertError::Full) => FULL,
                Err(InsertError::Busy) => BUSY,
            }
        }

        impl Buckets<$family> for KernelMaps {
            type Bucket = Memory;

            #[inline(always)]
            fn buckets(&self) -> u32 {
                CT_BUCKETS.load()
            }
            #[inline(always)]
            fn seed(&self) -> u64 {
                CT_SEED.load()
            }
            #[inline(always)]
            fn element(&self, index: u32) -> Option<Memory> {
                let words = $map.get_ptr_mut(index)?;
                // SAFETY: an element is aligned to words and stays as long as the map;
                // the table's code asks for words within it.
                Some(unsafe { Memory::new(words.cast()) })
            }
            #[inline(always)]
            fn search(&self, key: &$key, hash: u64) -> u32 {
                $search(key, hash)
            }
            #[inline(always)]
            fn vacancy(&self, bucket: u32, home: u32, now: u32) -> u32 {
                $vacancy(bucket, home, now)
            }
            #[inline(always)]
            fn tell(&self, hit: &Hit<<$family as Family>::Addr>, proto: u32, news: u64) {
                $tell(hit, proto, news);
            }
            #[inline(always)]
            fn insert(
                &self,
                key: &$key,
                entry: &$entry,
                how: Insert,
                now: u32,
            ) -> Result<(), InsertError> {
                match $insert(key, entry, u32::from(how == Insert::New), now) {
                    DONE => Ok(()),
                    EXISTS => Err(InsertError::Exists),
                    BUSY => Err(InsertError::Busy),
                    _ => Err(InsertError::Full),
                }
            }
        }

        impl Tables<$family> for KernelMaps {
            #[inline(always)]
            fn with_entry<R>(&self, write: impl FnOnce(&mut $entry) -> R) -> Option<R> {
                with_entry(write)
            }
        }
    };
}
conntrack!(
    V4,
    lb_ct4_v1,
    (CtKey4, CtEntry4),
    lb_ct4_search,
    lb_ct4_vacancy,
    lb_ct4_tell,
    lb_ct4_insert
);
conntrack!(
    V6,
    lb_ct6_v1,
    (CtKey6, CtEntry6),
    lb_ct6_search,
    lb_ct6_vacancy,
    lb_ct6_tell,
    lb_ct6_insert
);
