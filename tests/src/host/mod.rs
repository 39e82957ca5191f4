//! The datapath on the host: a frame in memory, maps in memory, and a kernel
//! that answers as it is told. The pipeline is the one that the kernel runs.

mod env;
mod packet;
mod tables;

pub use env::{FibRoute, HostEnv};
pub use packet::{MemPacket, Station};
pub use tables::{Capacity, MemTables, empty};
