//! What a service needs in the maps, without ids: the output of
//! [`crate::plan_service`], the input of the planner.

use lb_common::{Addr, FrontendKey};
use serde::{Deserialize, Serialize};

use crate::{
    cidr::Cidr,
    model::{ServiceKey, ServicePortKey},
    op::Problem,
};

/// The plan of one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePlan {
    /// The service.
    pub key: ServiceKey,
    /// Its ports, each with frontends; in the order of their keys.
    pub ports: Vec<PortPlan>,
    /// What its health check server answers, if it has one.
    pub health_check: Option<HealthCheck>,
    /// What about it cannot be served as written.
    pub problems: Vec<Problem>,
}

/// What an external load balancer asks a node about a service
/// (`spec.healthCheckNodePort`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Port of the health check server.
    pub port: u16,
    /// Ready endpoints of the service on this node: distinct addresses, of the
    /// service's first family.
    pub local_ready: u32,
}

/// The plan of one service port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortPlan {
    /// The service port.
    pub key: ServicePortKey,
    /// Frontends of both scopes; no two have the same address, port and scope.
    pub frontends: Vec<FrontendPlan>,
    /// The backend sets that the frontends refer to by index; none is empty.
    pub sets: Vec<BackendSet>,
    /// UDP only: every serving endpoint, whether the frontends lead there or not.
    /// UDP flows to other endpoints are ended, those to these live on, as with
    /// kube-proxy (`pkg/proxy/conntrack/cleanup.go`). Empty for other protocols.
    pub serving: BackendSet,
    /// The networks that frontends with
    /// [`lb_common::frontend_flags::SOURCE_RANGES`] admit.
    pub ranges: Vec<Cidr>,
    /// Session affinity by client address, in seconds; 0 for none.
    pub affinity: u32,
}

/// One frontend of a service port in one scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrontendPlan {
    /// The vip.
    pub addr: Addr,
    /// The port, host byte order.
    pub port: u16,
    /// One of [`lb_common::scope`].
    pub scope: u8,
    /// Whether ports of the vip that no service has are none of our business:
    /// the vip is an address of this node, or an external IP, which may be any
    /// machine's.
    pub pass_unknown: bool,
    /// [`lb_common::frontend_flags`].
    pub flags: u32,
    /// Index into [`PortPlan::sets`]; `None` where there is no backend.
    pub set: Option<u8>,
}

impl FrontendPlan {
    /// The key of the frontend's entry.
    pub fn key(&self, proto: u8) -> FrontendKey {
        FrontendKey {
            addr: self.addr,
            port: lb_common::Be16::new(self.port),
            proto,
            scope: self.scope,
        }
    }
}

/// Backends in canonical order: by address, port; without duplicates.
pub type BackendSet = Vec<PlannedBackend>;

/// One backend of a set; its protocol is that of the service port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlannedBackend {
    /// The endpoint's address.
    pub addr: Addr,
    /// The endpoint's port, host byte order.
    pub port: u16,
    /// Whether it runs on this node.
    pub local: bool,
    /// Its weight in the maglev table, relative to the others'.
    pub weight: u32,
}
