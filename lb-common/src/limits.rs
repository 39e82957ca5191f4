//! Default sizes. Each is a setting of the agent; a changed size is a changed
//! layout, and the map is rebuilt.

/// Frontends, the entries of vips included.
pub const FRONTENDS: u32 = 262_144;
/// Backends of the whole cluster, and their counters.
pub const BACKENDS: u32 = 262_144;
/// Services (service ports), and their counters.
pub const SERVICES: u32 = 65_536;
/// Slots of all maglev tables together, 4 bytes each: 64 MiB.
pub const SLOTS: u32 = 16_777_216;
/// Prefixes of all services' source ranges.
pub const RANGES: u32 = 65_536;
/// Room for conntrack entries of each IP family; a flow takes two. With more than
/// six tenths of it in use, the first flows find their bucket full.
pub const CONNTRACK: u32 = 1_048_576;
/// Clients with session affinity.
pub const AFFINITY: u32 = 65_536;
/// Sockets that the socket hooks translated.
pub const SOCK_NAT: u32 = 262_144;
/// Words of 64 bits in the filter: 2^21 bits, 256 KiB.
pub const FILTER_WORDS: u32 = 32_768;
/// Tries to find a free SNAT port before the packet is dropped.
pub const SNAT_TRIES: u32 = 16;
