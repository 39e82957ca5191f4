//! What an apply tells its caller.

use std::io;

use lb_common::{Addr, Backend, Be16, proto, scope};
use lb_plan::op::Op;

use super::{apply::table_of, settings::MapSizes, table::Table};

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyReport {
    /// Ops that were executed.
    pub written: usize,
    /// Ops that were not, in the order in which they failed.
    pub failed: Vec<Failure>,
    /// Flows, sockets and affinities to forget, which the datapath does in the
    /// background: they are found by searching.
    pub purges: Vec<Purge>,
}

impl ApplyReport {
    /// Whether every op was executed.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }
}

/// An op that was not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The op. It is kept, and tried again before the next batch.
    pub op: Op,
    /// The map that it writes.
    pub map: Option<Table>,
    /// Why: an errno; `ECANCELED` if something that it depends on failed before.
    pub errno: i32,
    /// One sentence: the object, what is wrong, and what to do.
    pub message: String,
}

impl Failure {
    /// Whether the op itself did not fail, but something that it depends on.
    pub fn is_consequence(&self) -> bool {
        self.errno == libc::ECANCELED
    }

    /// `capacity` tells how many entries a map has.
    pub(super) fn new(op: &Op, error: &io::Error, capacity: impl Fn(Table) -> u32) -> Self {
        let map = table_of(op);
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let why = match (errno, map) {
            (libc::ECANCELED, _) => {
                "left as it was, because a write that it depends on failed".to_owned()
            }
            (libc::E2BIG | libc::ENOSPC, Some(map)) => format!(
                "{map} is full ({} entries): raise {} and restart the agent",
                capacity(map),
                MapSizes::setting(map)
            ),
            (libc::ENOMEM, _) => {
                "the kernel has no memory for it: raise the memory limit of the agent's cgroup"
                    .to_owned()
            }
            (libc::EPERM, _) => "not permitted: the agent needs CAP_BPF, or root".to_owned(),
            _ => error.to_string(),
        };
        Self {
            op: op.clone(),
            map,
            errno,
            message: format!("{}: {why}", object(op)),
        }
    }
}

/// What is to be forgotten after a batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Purge {
    /// See [`Op::PurgeAffinity`].
    Affinity {
        /// Service id.
        service: u32,
        /// Backend id.
        backend: u32,
    },
    /// See [`Op::PurgeUdp`].
    Udp {
        /// Service id.
        service: u32,
        /// Backend id.
        id: u32,
        /// The backend.
        backend: Backend,
    },
}

/// An address with its port and protocol as users write it.
pub(super) fn endpoint(addr: Addr, port: Be16, protocol: u8) -> String {
    let socket = std::net::SocketAddr::new(addr.into(), port.get());
    format!("{socket}/{}", protocol_name(protocol))
}

/// The name of an IP protocol, as Kubernetes writes it.
pub fn protocol_name(protocol: u8) -> std::borrow::Cow<'static, str> {
    match protocol {
        proto::TCP => "TCP".into(),
        proto::UDP => "UDP".into(),
        proto::SCTP => "SCTP".into(),
        proto::ICMP => "ICMP".into(),
        proto::ICMPV6 => "ICMPv6".into(),
        other => other.to_string().into(),
    }
}

/// The name of a scope.
pub fn scope_name(of: u8) -> &'static str {
    if of == scope::EXTERNAL {
        "external"
    } else {
        "internal"
    }
}

/// The object of an op, for messages.
fn object(op: &Op) -> String {
    match op {
        Op::PutBackend { id, backend: b } | Op::DeleteBackend { id, backend: b } => {
            format!("backend {id} ({})", endpoint(b.addr, b.port, b.proto))
        }
        Op::PutSlots { start, slots } => {
            format!("maglev table of {} slots at {start}", slots.len())
        }
        Op::PutRange(key) | Op::DeleteRange(key) => {
            format!(
                "source range {}/{} of service {}",
                key.addr,
                key.prefix_len,
                key.service.get()
            )
        }
        Op::SetFilterBit(bit) | Op::ClearFilterBit(bit) => format!("filter bit {bit}"),
        Op::PutFrontend { key, .. } | Op::DeleteFrontend(key) => {
            let scope = scope_name(key.scope);
            match key.proto {
                0 => format!("vip {} ({scope})", key.addr),
                _ => format!(
                    "frontend {} ({scope})",
                    endpoint(key.addr, key.port, key.proto)
                ),
            }
        }
        Op::ResetServiceCounter(id) => format!("counters of service {id}"),
        Op::ResetBackendCounter(id) => format!("counters of backend {id}"),
        Op::PurgeAffinity { service, backend } => {
            format!("affinity of service {service} to backend {backend}")
        }
        Op::PurgeUdp { service, id, .. } => {
            format!("UDP flows of service {service} to backend {id}")
        }
    }
}
