//! The agent: the straight line from a source of objects to the maps.
//!
//! [`core`] takes changes in, plans and applies; it takes the time from its
//! caller. [`run`] gives it a source, a datapath and a clock.

pub mod core;
pub mod dataplane;
mod files;
pub mod fold;
pub mod host;
pub mod kernel;
mod latency;
pub mod publish;
pub mod run;
mod selftest;
pub mod state;
pub mod takeover;
mod tell;

pub use self::{
    core::{Core, Input, Setup, Shared},
    dataplane::{Dataplane, NodeProblem},
};
