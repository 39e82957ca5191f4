//! Routing: from the rules of Ingresses to one immutable table, and from a request's host and
//! path to a rule.
//!
//! Everything here is pure: no clock, no I/O, no async. A table is made anew when a rule changes,
//! and asked by any number of threads.
//!
//! There are two ways to compare paths ([`Mode`]): as `networking.k8s.io/v1` specifies it, and as
//! ingress-nginx does it, which Ingresses that were written for it rely on.

pub mod host;
mod locations;
mod routes;
pub mod uri;

pub use routes::{Mode, PathType, Problem, Route, Routes, Rule};
