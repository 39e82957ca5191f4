//! Kubernetes: the only place that knows its client and its types.
//!
//! [`convert`] turns its objects into the types of planning, [`manifest`] does
//! the same for YAML, [`reflect`] follows a cluster, [`events`] tells its users
//! what cannot be served, and [`status`] which addresses Ingresses have.

pub mod convert;
pub mod events;
pub mod find;
pub mod ingress;
mod lease;
pub mod manifest;
mod named;
pub mod pods;
pub mod reflect;
mod server;
mod slices;
pub mod status;
mod trouble;
