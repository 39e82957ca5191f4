//! Planning: from Services and EndpointSlices to the contents of the BPF maps.
//!
//! Everything here is pure: no clock, no randomness, no I/O, no async. The same
//! input gives the same maps on every node and in every version.
//!
//! The unit of planning is one service. [`plan_service`] says what a service
//! needs, without ids; the [`Planner`] gives out ids and tables, and turns what
//! changed into a [`op::Batch`] of writes. A change plans the services that it
//! touches, a resync plans all of them, by the same function.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, DefaultHasher},
};

mod admit;
mod backends;
mod batch;
pub mod cidr;
mod claims;
mod dump;
pub mod endpoints;
mod expected;
mod filter;
pub mod frontends;
mod ghosts;
mod ids;
pub mod maglev;
pub mod model;
pub mod op;
pub mod plan;
mod planner;
mod restore;
pub mod service;
mod slots;
mod tables;
pub mod topology;

pub use expected::Expectation;
pub use ghosts::SlotReader;
pub use plan::{BackendSet, FrontendPlan, HealthCheck, PlannedBackend, PortPlan, ServicePlan};
pub use planner::{Limits, Planner, Usage};
pub use restore::Actual;
pub use service::plan_service;

/// A hash map that is the same in every run: nothing here is random.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;
/// As [`Map`].
type Set<K> = HashSet<K, BuildHasherDefault<DefaultHasher>>;
