//! Kubernetes: the only place that knows its client and its types.
//!
//! [`convert`] turns its objects into the types of planning, [`manifest`] does
//! the same for YAML, and [`reflect`] follows a cluster.

pub mod convert;
pub mod manifest;
pub mod reflect;
mod server;
mod slices;
mod trouble;
