//! What the programs in the kernel and the agent share.
//!
//! Every key and value here is the layout of a BPF map: `repr(C)`, without
//! implicit padding, without `bool`, `enum` or `Option`. Sizes and offsets are
//! checked when this crate is compiled, and again when a map is opened.
//!
//! There is no logic here beyond byte order and the two hashes, which are part
//! of the contract between nodes and between versions.
#![no_std]

pub mod addr;
pub mod config;
pub mod conntrack;
pub mod counters;
pub mod hash;
pub mod limits;
pub mod maps;
pub mod monitor;
pub mod reason;
pub mod schema;
pub mod trace;

pub use addr::{Addr, Be16, Be32, proto, scope};
pub use config::{NodeConfig, node_flags};
pub use conntrack::{
    CtBucket, CtBucket4, CtBucket6, CtEntry, CtEntry4, CtEntry6, CtKey, CtKey4, CtKey6, CtSlot,
    ct_flags,
};
pub use counters::{PacketCounter, ServiceCounter};
pub use maps::{
    Affinity, AffinityKey, Backend, Frontend, FrontendKey, RangeKey, SockNat, SockNatKey,
    backend_flags, frontend_flags,
};
pub use reason::Reason;
