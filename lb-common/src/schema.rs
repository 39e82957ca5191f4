//! The one table of maps. The kernel's definitions, the agent's accessors, the
//! pin paths and the docs come from it.

/// What kind of BPF map it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArray,
    /// `BPF_MAP_TYPE_LPM_TRIE`.
    LpmTrie,
}

/// Who writes a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The agent; rebuilt when the layout changes.
    Agent,
    /// The datapath; kept across versions.
    Datapath,
}

/// `BPF_F_NO_PREALLOC`: entries are allocated when they are written.
pub const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: the agent reads and writes the array as memory.
pub const MMAPABLE: u32 = 1 << 10;

/// One map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapDef {
    /// The map's name, and the name of its pin.
    pub name: &'static str,
    /// Kind of map.
    pub kind: Kind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries by default.
    pub max_entries: u32,
    /// Flags of `BPF_MAP_CREATE`.
    pub flags: u32,
    /// Who writes it.
    pub owner: Owner,
    /// What it holds.
    pub doc: &'static str,
}

/// Calls `$callback!` with the table of maps, a row each:
/// `name: Kind<Key, Value>[entries] flags owner "doc";`.
#[macro_export]
macro_rules! for_each_map {
    ($callback:path) => {
        $callback! {
            lb_frontends_v1: Hash<$crate::FrontendKey, $crate::Frontend>[$crate::limits::FRONTENDS]
                $crate::schema::NO_PREALLOC, Agent, "frontend to service and maglev table";
            lb_backends_v1: Array<u32, $crate::Backend>[$crate::limits::BACKENDS]
                $crate::schema::MMAPABLE, Agent, "backend id to address and port";
            lb_slots_v1: Array<u32, u32>[$crate::limits::SLOTS]
                $crate::schema::MMAPABLE, Agent, "slots of all maglev tables: backend ids";
            lb_ranges_v1: LpmTrie<$crate::RangeKey, u32>[$crate::limits::RANGES]
                $crate::schema::NO_PREALLOC, Agent, "source ranges: (service id, CIDR)";
            lb_node_v1: Array<u32, $crate::NodeConfig>[1]
                0, Agent, "addresses, port ranges and switches of the node";
            lb_filter_v1: Array<u32, u64>[$crate::limits::FILTER_WORDS]
                $crate::schema::MMAPABLE, Agent, "bits of every vip, frontend and backend";
            lb_ct4_v1: Array<u32, $crate::CtBucket4>[$crate::conntrack::elements($crate::conntrack::buckets($crate::limits::CONNTRACK))]
                $crate::schema::MMAPABLE, Datapath, "conntrack of IPv4: buckets of 56 entries";
            lb_ct6_v1: Array<u32, $crate::CtBucket6>[$crate::conntrack::elements($crate::conntrack::buckets($crate::limits::CONNTRACK))]
                $crate::schema::MMAPABLE, Datapath, "conntrack of IPv6: buckets of 56 entries";
            lb_affinity_v1: LruHash<$crate::AffinityKey, $crate::Affinity>[$crate::limits::AFFINITY]
                0, Datapath, "session affinity: client to backend";
            lb_sock_nat_v1: LruHash<$crate::SockNatKey, $crate::SockNat>[$crate::limits::SOCK_NAT]
                0, Datapath, "socket rev-NAT: (socket, backend) to frontend";
            lb_reasons_v1: PerCpuArray<u32, $crate::PacketCounter>[$crate::reason::COUNT]
                0, Datapath, "packets and bytes by reason";
            lb_svc_ctr_v1: PerCpuArray<u32, $crate::ServiceCounter>[$crate::limits::SERVICES]
                0, Datapath, "packets, bytes and connections by service id";
            lb_be_ctr_v1: PerCpuArray<u32, $crate::ServiceCounter>[$crate::limits::BACKENDS]
                0, Datapath, "packets, bytes and connections by backend id";
        }
    };
}

macro_rules! table {
    ($($name:ident: $kind:ident<$key:ty, $value:ty>[$entries:expr] $flags:expr, $owner:ident, $doc:literal;)+) => {
        /// Every map, in the order in which they are listed to users.
        pub const MAPS: &[MapDef] = &[$(MapDef {
            name: stringify!($name),
            kind: Kind::$kind,
            key_size: size_of::<$key>() as u32,
            value_size: size_of::<$value>() as u32,
            max_entries: $entries,
            flags: $flags,
            owner: Owner::$owner,
            doc: $doc,
        },)+];

        /// A module a map, with its name, so that nobody writes one twice.
        pub mod name {
            $(#[doc = $doc] #[allow(non_upper_case_globals, reason = "the name is the map's own")]
            pub const $name: &str = stringify!($name);)+
        }
    };
}
for_each_map!(table);

const _: () = {
    let mut i = 0;
    while i < MAPS.len() {
        // BPF_OBJ_NAME_LEN is 16, its NUL included.
        assert!(MAPS[i].name.len() <= 15);
        i += 1;
    }
};
