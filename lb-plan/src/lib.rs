//! Planning: from Services and EndpointSlices to the contents of the BPF maps.
//!
//! Everything here is pure: no clock, no randomness, no I/O, no async. The same
//! input gives the same maps on every node and in every version.
//!
//! The unit of planning is one service. A change plans the services that it
//! touches, a resync plans all of them, by the same function.

pub mod model;
pub mod op;
