//! Effects as data: what is written to the maps, in which order.

use std::sync::Arc;

use lb_common::{Backend, Frontend, FrontendKey, RangeKey};

use crate::model::ServicePortKey;

/// One write. The applier executes them in the order of their batch and knows
/// nothing of services.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Write a backend at its id.
    PutBackend {
        /// Backend id.
        id: u32,
        /// What to write.
        backend: Backend,
    },
    /// Write a maglev table. Its slots are referred to by no frontend yet.
    PutSlots {
        /// First slot.
        start: u32,
        /// Backend ids.
        slots: Arc<[u32]>,
    },
    /// Admit a network to a service.
    PutRange(RangeKey),
    /// Set a bit of the filter.
    SetFilterBit(u32),
    /// Point a frontend somewhere: the one write that switches it.
    PutFrontend {
        /// Which.
        key: FrontendKey,
        /// Where to.
        value: Frontend,
    },
    /// Remove a frontend.
    DeleteFrontend(FrontendKey),
    /// Take a network's admission back.
    DeleteRange(RangeKey),
    /// Clear a backend: writes zeros at its id.
    DeleteBackend {
        /// Backend id.
        id: u32,
        /// What stood there.
        backend: Backend,
    },
    /// Clear a bit of the filter.
    ClearFilterBit(u32),
    /// Zero the counters of a service id that was given to a new service port.
    ResetServiceCounter(u32),
    /// Zero the counters of a backend id that was given to a new backend.
    ResetBackendCounter(u32),
    /// Forget the session affinity of clients bound to a backend that left a
    /// service but lives on in another (a backend that is gone altogether is
    /// recognised by the datapath).
    PurgeAffinity {
        /// Service id.
        service: u32,
        /// Backend id.
        backend: u32,
    },
    /// End the UDP flows and connected UDP sockets that lead from a service to a
    /// backend which is no longer among its backends.
    PurgeUdp {
        /// Service id.
        service: u32,
        /// Backend id.
        id: u32,
        /// The backend.
        backend: Backend,
    },
}

/// An ordered list of writes. After any prefix of it every frontend names only
/// live backends.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// The writes, in order.
    pub ops: Vec<Op>,
}

/// Something about an object that cannot be served as written. The rest is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Problem {
    /// The service port, or the service with an empty port.
    pub object: ServicePortKey,
    /// A stable identifier in CamelCase: reason of the Event, label of the metric.
    pub reason: &'static str,
    /// One sentence: what is wrong, and what to do.
    pub message: String,
}
