//! The HTTP data path of the Ingress proxy.
//!
//! A connection of a client ([`Proxy::serve`]) speaks HTTP/1 or HTTP/2, and what it sends is looked
//! at before a parser sees it (`client/scan.rs`). Each request goes through phases (`service.rs`),
//! at whose end an endpoint answers it, by a connection that the pool keeps (`upstream/`).
//!
//! TLS of clients is what makes of a connection the one that is served; TLS towards endpoints is
//! what a [`Connect`] makes.

mod access;
mod answer;
mod answered;
mod body;
mod check;
mod choose;
mod client;
mod compress;
mod errors;
mod exchange;
mod forward;
mod headers;
pub mod listen;
mod mirror;
mod options;
mod pace;
pub mod peers;
mod proxy;
pub mod proxy_protocol;
mod record;
mod response;
pub mod rest;
mod serve;
mod service;
mod timer;
pub mod tls;
mod upload;
mod upstream;
mod write;

pub use client::{Peer, Protocol};
pub use options::Options;
pub use proxy::{Decide, Proxy};
pub use record::{Asked, Attempt, Nobody, Observe, Record, Trace};
pub use serve::{Addresses, Error, Server, View};
pub use upload::KEPT;
pub use upstream::{Broken, Connect, Dial, Plain, Speaks, Stream, Target};
