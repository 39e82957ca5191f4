//! Planning: from Services and EndpointSlices to the contents of the BPF maps.
//!
//! Everything here is pure: no clock, no randomness, no I/O, no async. The same
//! input gives the same maps on every node and in every version.
//!
//! The unit of planning is one service. [`plan_service`] says what a service
//! needs, without ids; the [`Planner`] gives out ids and tables, and turns what
//! changed into a [`op::Batch`] of writes. A change plans the services that it
//! touches, a resync plans all of them, by the same function.

pub mod cidr;
pub mod endpoints;
pub mod frontends;
pub mod model;
pub mod op;
pub mod plan;
pub mod service;
pub mod topology;

pub use plan::{BackendSet, FrontendPlan, HealthCheck, PlannedBackend, PortPlan, ServicePlan};
pub use service::plan_service;
