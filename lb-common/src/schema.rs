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
    /// `BPF_MAP_TYPE_ARRAY` whose elements hold [`PACK`] values each: the kernel
    /// rounds an element up to 8 bytes (`array_map_alloc`), which would double
    /// values of 4.
    Packed,
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

impl Owner {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Datapath => "datapath",
        }
    }
}

/// `BPF_F_NO_PREALLOC`: entries are allocated when they are written.
pub const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: the agent reads and writes the array as memory.
pub const MMAPABLE: u32 = 1 << 10;

/// Values of an element of [`Kind::Packed`]: 64 bytes of `u32`, a cache line.
pub const PACK: u32 = 16;

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
    /// Values by default; the kernel's map has [`Self::elements`] for them.
    pub max_entries: u32,
    /// Flags of `BPF_MAP_CREATE`.
    pub flags: u32,
    /// Who writes it.
    pub owner: Owner,
    /// What it holds.
    pub doc: &'static str,
}

impl MapDef {
    /// Values that an element of the kernel's map holds.
    const fn pack(&self) -> u32 {
        match self.kind {
            Kind::Packed => PACK,
            _ => 1,
        }
    }

    /// Bytes of an element of the kernel's map.
    pub const fn element_size(&self) -> u32 {
        self.value_size * self.pack()
    }

    /// Elements of the kernel's map that hold at least so many values.
    pub const fn elements(&self, values: u32) -> u32 {
        values.div_ceil(self.pack())
    }

    /// Values that so many elements of the kernel's map hold; `u32::MAX` if they
    /// are more, as no index goes beyond.
    pub const fn values(&self, elements: u32) -> u32 {
        elements.saturating_mul(self.pack())
    }
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
            lb_slots_v1: Packed<u32, u32>[$crate::limits::SLOTS]
                $crate::schema::MMAPABLE, Agent, "slots of all maglev tables: backend ids";
            lb_ranges_v1: LpmTrie<$crate::RangeKey, u32>[$crate::limits::RANGES]
                $crate::schema::NO_PREALLOC, Agent, "source ranges: (service id, CIDR)";
            lb_node_v1: Array<u32, $crate::NodeConfig>[1]
                0, Agent, "addresses, port ranges and switches of the node";
            lb_filter_v1: Array<u32, u64>[$crate::limits::FILTER_WORDS]
                $crate::schema::MMAPABLE, Agent, "bits of every vip and frontend";
            lb_replies_v1: Array<u32, u64>[$crate::limits::FILTER_WORDS]
                $crate::schema::MMAPABLE, Datapath, "bits of every backend that a flow leads to";
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
        // What is mapped is a flat row of values: the kernel pads nothing.
        assert!(MAPS[i].flags & MMAPABLE == 0 || MAPS[i].element_size().is_multiple_of(8));
        i += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::{MAPS, MapDef, name};

    fn map(name: &str) -> &'static MapDef {
        MAPS.iter().find(|def| def.name == name).unwrap()
    }

    #[test]
    fn sixteen_slots_are_an_element_and_every_other_value_is_one() {
        let slots = map(name::lb_slots_v1);
        assert_eq!(slots.element_size(), 64);
        let sizes = [0, 1, 16, 17, 16_777_216, u32::MAX];
        assert_eq!(
            sizes.map(|n| slots.elements(n)),
            [0, 1, 1, 2, 1_048_576, 1 << 28]
        );
        assert_eq!([1, 2, 1 << 28].map(|n| slots.values(n)), [16, 32, u32::MAX]);
        let backends = map(name::lb_backends_v1);
        assert_eq!(backends.element_size(), backends.value_size);
        assert_eq!((backends.elements(17), backends.values(17)), (17, 17));
    }
}
