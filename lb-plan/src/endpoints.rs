//! The endpoints of a service port, gathered from the slices of its service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::Addr;

use crate::model::{Endpoint, EndpointSlice, NodeView, ServicePort};

/// One endpoint of a service port.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its address.
    pub addr: Addr,
    /// Its port, host byte order.
    pub port: u16,
    /// Ready for new connections; absent means so.
    pub ready: bool,
    /// Able to answer, terminating or not; absent means so.
    pub serving: bool,
    /// About to end.
    pub terminating: bool,
    /// On this node.
    pub local: bool,
    /// Where it came from, with its hints and weight.
    pub endpoint: &'a Endpoint,
}

impl Candidate<'_> {
    /// The state that KEP-1669 falls back to when nothing is ready.
    pub fn serving_terminating(&self) -> bool {
        self.serving && self.terminating
    }

    /// Of two endpoints with one address and port, the better is kept: a running
    /// pod before the terminating one whose address it inherited, else the one
    /// that can do more (kube-proxy leaves that to chance).
    fn rank(&self) -> (bool, bool, bool) {
        (!self.terminating, self.ready, self.serving)
    }
}

/// Endpoints by family.
#[derive(Default, Debug)]
pub struct Candidates<'a> {
    /// IPv4, in order of address and port.
    pub v4: Vec<Candidate<'a>>,
    /// IPv6, in order of address and port.
    pub v6: Vec<Candidate<'a>>,
}

/// Gathers the endpoints of a port. `slices` are in order of their names.
/// Endpoints with an unusable address are left out and described in `invalid`.
pub fn gather<'a>(
    port: &ServicePort,
    slices: &[&'a EndpointSlice],
    node: &NodeView,
    invalid: &mut BTreeSet<String>,
) -> Candidates<'a> {
    let mut found: BTreeMap<(Addr, u16), Candidate<'a>> = BTreeMap::new();
    for slice in slices {
        let of_port = |p: &&crate::model::EndpointPort| {
            p.name == port.name && p.protocol == port.protocol && p.port != 0
        };
        for target in slice.ports.iter().filter(of_port) {
            for endpoint in &slice.endpoints {
                match candidate(endpoint, target.port, node) {
                    Ok(new) => {
                        let old = found.entry((new.addr, new.port)).or_insert(new);
                        if new.rank() > old.rank() {
                            *old = new;
                        }
                    }
                    Err(why) => {
                        invalid.insert(format!("EndpointSlice {}: {why}", slice.name));
                    }
                }
            }
        }
    }
    let (v4, v6) = found.into_values().partition(|c| c.addr.is_v4());
    Candidates { v4, v6 }
}

fn candidate<'a>(
    endpoint: &'a Endpoint,
    port: u16,
    node: &NodeView,
) -> Result<Candidate<'a>, String> {
    let Some(&addr) = endpoint.addresses.first() else {
        return Err("an endpoint has no address".into());
    };
    let addr = addr.to_canonical();
    if let Some(what) = unusable(addr) {
        return Err(format!("the endpoint address {addr} is {what}"));
    }
    let local = !node.name.is_empty() && endpoint.node.as_deref() == Some(&*node.name);
    Ok(Candidate {
        addr: addr.into(),
        port,
        ready: endpoint.ready.unwrap_or(true),
        serving: endpoint.serving.unwrap_or(true),
        terminating: endpoint.terminating.unwrap_or(false),
        local,
        endpoint,
    })
}

/// What makes an address unfit for a vip or endpoint. The API server refuses
/// the same ones (`ValidateNonSpecialIP`), files and old objects may have them.
pub fn unusable(addr: IpAddr) -> Option<&'static str> {
    let link_local = match addr {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    if addr.is_unspecified() {
        Some("unspecified")
    } else if addr.is_loopback() {
        Some("a loopback address")
    } else if addr.is_multicast() {
        Some("a multicast address")
    } else if link_local {
        Some("link-local")
    } else {
        None
    }
}
