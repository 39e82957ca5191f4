//! The maps of `lb_common::schema`, and how the pipeline asks them.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
    macros::btf_map,
};
use lb_common::{
    Addr, Affinity, AffinityKey, Backend, CtEntry, CtEntry4, CtEntry6, CtKey4, CtKey6, Frontend,
    FrontendKey, NodeConfig, PacketCounter, RangeKey, Reason, ServiceCounter, SockNat, SockNatKey,
    for_each_map, schema,
};
use lb_datapath::{
    Family, Insert, InsertError, Maps, Tables, V4, V6,
    tables::{Account, Hit, Touch},
};

/// What follows the prefix length in a [`RangeKey`].
type RangeData = [u8; size_of::<RangeKey>() - size_of::<u32>()];

macro_rules! kind {
    (Hash, $k:ty, $v:ty, $n:expr, $f:expr) => { HashMap<$k, $v, { $n as usize }, { $f as usize }> };
    (LruHash, $k:ty, $v:ty, $n:expr, $f:expr) => { LruHashMap<$k, $v, { $n as usize }, { $f as usize }> };
    (Array, $k:ty, $v:ty, $n:expr, $f:expr) => { Array<$v, { $n as usize }, { $f as usize }> };
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
static lb_scratch6: PerCpuArray<CtEntry6, 1> = PerCpuArray::new();

#[inline(always)]
fn with_entry4<R>(write: impl FnOnce(&mut CtEntry4) -> R) -> Option<R> {
    let mut entry = core::mem::MaybeUninit::<CtEntry4>::uninit();
    // SAFETY: the entry is plain data, written whole before it is read.
    Some(write(unsafe { &mut *entry.as_mut_ptr() }))
}

#[inline(always)]
fn with_entry6<R>(write: impl FnOnce(&mut CtEntry6) -> R) -> Option<R> {
    let entry = lb_scratch6.get_ptr_mut(0)?;
    // SAFETY: the entry is this CPU's, and nobody else uses it until the program
    // ends.
    Some(write(unsafe { &mut *entry }))
}

// A map that the table lacks would have no pin, no dump and no layout check.
const _: () = assert!(schema::MAPS.len() == 13);

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
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        // SAFETY: the agent replaces entries whole, and the kernel frees a
        // replaced entry after an RCU grace period, which this program holds off.
        unsafe { lb_frontends_v1.get(key) }.copied()
    }
    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        lb_slots_v1.get(index).copied()
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

/// Leaves a packet's traces in the entry that it hits.
#[inline(always)]
fn touch<A: Copy>(entry: *mut CtEntry<A>, touch: &Touch) -> Hit<A> {
    // SAFETY: the entry comes from a lookup that succeeded and stays valid
    // while the program runs. Its translation is written once, before it is in
    // the map; what changes later is read and written whole, as volatile.
    unsafe {
        let hit = Hit::of(&*entry);
        add(&raw mut (*entry).packets, 1);
        add(&raw mut (*entry).bytes, u64::from(touch.bytes));
        (&raw mut (*entry).last_seen).write_volatile(touch.now);
        if touch.flags & !hit.flags != 0 {
            (&raw mut (*entry).flags).write_volatile(hit.flags | touch.flags);
        }
        hit
    }
}

macro_rules! conntrack {
    ($family:ty, $map:ident, $key:ty, $entry:ty, $with_entry:ident) => {
        impl Tables<$family> for KernelMaps {
            #[inline(always)]
            fn ct_hit(&self, key: &$key, packet: &Touch) -> Option<Hit<<$family as Family>::Addr>> {
                $map.get_ptr_mut(key).map(|entry| touch(entry, packet))
            }
            #[inline(always)]
            fn ct_peek(&self, key: &$key) -> Option<Hit<<$family as Family>::Addr>> {
                // SAFETY: as in `touch`.
                $map.get_ptr(key).map(|entry| Hit::of(unsafe { &*entry }))
            }
            #[inline(always)]
            fn with_entry<R>(&self, write: impl FnOnce(&mut $entry) -> R) -> Option<R> {
                $with_entry(write)
            }
            #[inline(always)]
            fn ct_insert(
                &self,
                key: &$key,
                entry: &$entry,
                how: Insert,
            ) -> Result<(), InsertError> {
                const EEXIST: i32 = -17;
                let flags = match how {
                    Insert::New => BPF_NOEXIST,
                    Insert::Any => BPF_ANY,
                };
                $map.insert(key, entry, u64::from(flags))
                    .map_err(|e| match e {
                        EEXIST => InsertError::Exists,
                        _ => InsertError::Full,
                    })
            }
        }
    };
}
conntrack!(V4, lb_ct4_v1, CtKey4, CtEntry4, with_entry4);
conntrack!(V6, lb_ct6_v1, CtKey6, CtEntry6, with_entry6);
