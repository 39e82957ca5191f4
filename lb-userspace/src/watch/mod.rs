//! Kubernetes: the only place that knows its client and its types.
//!
//! [`convert`] turns its objects into the types of planning, [`manifest`] does
//! the same for YAML, [`reflect`] follows a cluster, and [`events`] tells its users
//! what cannot be served.

pub mod convert;
pub mod events;
pub mod manifest;
pub mod pods;
pub mod reflect;
mod server;
mod slices;
mod trouble;
