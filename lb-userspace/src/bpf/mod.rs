//! The datapath as the agent sees it: maps, programs, hooks. The only place
//! that imports aya.

pub mod apply;
#[cfg(test)]
mod apply_tests;
mod error;
pub mod failure;
pub mod fake;
mod guard;
pub mod kernel;
mod map;
mod mmap;
mod settings;
pub mod store;
mod sys;
pub mod table;

pub use apply::Programmer;
pub use error::Error;
pub use failure::{ApplyReport, Failure, Purge};
pub use settings::{MapSizes, ProbeOverrides, Settings, SocketLb, XdpMode};
