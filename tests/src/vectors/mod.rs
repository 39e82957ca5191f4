//! Packet vectors: what the maps hold, what comes in, what must come out.
//!
//! Each runs on the host and in the kernel, and all must agree with the vector
//! and with each other. Expected bytes are built by `etherparse` from the
//! addresses and ports of the scenario, and expected choices by [`reference`],
//! never by the code under test.

pub mod dry;
pub mod dump;
pub mod flow;
pub mod frame;
pub mod kernel;
pub mod net;
pub mod random;
pub mod reference;
pub mod run;
mod seed;
pub mod themes;
pub mod vector;
pub mod world;
