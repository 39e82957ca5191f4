//! Routing: from the rules of Ingresses to one immutable table, and from a request's host and
//! path to a rule.
//!
//! Everything here is pure: no clock, no I/O, no async. A table is made anew when a rule changes,
//! and asked by any number of threads.
//!
//! There are two ways to compare paths ([`Mode`]): as `networking.k8s.io/v1` specifies it, and as
//! ingress-nginx does it, which Ingresses that were written for it rely on.

pub mod action;
pub mod affinity;
pub mod annotations;
pub mod balance;
mod build;
mod canary;
pub mod class;
pub mod client_cert;
mod compile;
pub mod context;
pub mod cors;
mod decide;
mod forwarded;
pub mod globals;
pub mod headers;
pub mod host;
pub mod htpasswd;
pub mod input;
pub mod limits;
mod locations;
pub mod overall;
pub mod request;
mod routes;
pub mod settings;
mod table;
mod target;
pub mod trace;
pub mod trouble;
mod upstreams;
pub mod uri;
mod values;
pub mod variables;

pub use compile::{Check, Compiler, Options};
pub use forwarded::{Set, error_headers};
pub use routes::{Mode, PathType};
pub use table::{Certificate, ClientAuthority, Host, Table};
