//! The datapath as the agent sees it: maps, programs, hooks. The only place
//! that imports aya.

mod actual;
pub mod apply;
#[cfg(test)]
mod apply_tests;
mod bind;
pub mod census;
mod clock;
pub mod conntrack;
mod counters;
mod datapath;
pub mod devices;
pub mod dry;
mod error;
pub mod examine;
pub mod failure;
pub mod fake;
mod filter;
mod flows;
pub mod frame;
mod guard;
#[cfg(test)]
mod guard_tests;
mod janitor;
pub mod kept;
mod kernel;
mod layout;
mod left;
mod links;
mod load;
mod map;
mod mmap;
pub mod monitor;
mod namespaces;
mod pins;
mod probe;
mod prog;
mod programs;
mod recipe;
mod required;
mod settings;
mod sockets;
pub mod store;
mod sys;
pub mod table;
pub mod views;

pub use apply::Programmer;
pub use bind::{Binding, Dialled, Sticky};
pub use datapath::{Datapath, HookState, Status};
pub use error::Error;
pub use failure::{ApplyReport, Failure, Purge};
pub use filter::{Bits, FilterBits};
pub use janitor::JanitorStats;
pub use left::Seeded;
pub use namespaces::cookies;
pub use pins::{mount_bpffs, unmount_bpffs};
pub use probe::{Feature, Features};
pub use settings::{MapSizes, ProbeOverrides, Settings, SocketLb, XdpMode};
