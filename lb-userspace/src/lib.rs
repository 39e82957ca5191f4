//! The node agent and command line of Bascule.
//!
//! Objects come from a source ([`watch`] or [`source`]), are joined in the
//! [`store`], planned by `lb-plan` and written to the maps, all in one straight
//! line ([`agent`]).

pub mod agent;
pub mod backoff;
pub mod bpf;
pub mod change;
pub mod cli;
pub mod config;
pub mod health;
pub mod http;
pub mod intern;
pub mod log;
pub mod metrics;
pub mod netfilter;
mod netlink;
pub mod node;
pub mod proxy;
mod signals;
pub mod source;
pub mod store;
pub mod watch;
pub mod webhook;
