//! What `cargo xtask bench` has done by other processes.

pub mod api;
pub mod objects;
