//! Which endpoints a traffic policy uses: kube-proxy's `CategorizeEndpoints`
//! (`pkg/proxy/topology.go`, v1.36.3).

use std::sync::Arc;

use crate::{
    endpoints::Candidate,
    model::{Endpoint, NodeView},
};

/// The endpoints that a service port's traffic may go to, of one family.
#[derive(Default, Debug)]
pub struct Categories<'a> {
    /// Those of policy `Cluster`.
    pub cluster: Vec<Candidate<'a>>,
    /// Those of policy `Local`.
    pub local: Vec<Candidate<'a>>,
    /// Whether any endpoint of the cluster could take traffic: if not, clients
    /// are refused, whatever the policy.
    pub any: bool,
}

/// Sorts endpoints into the two policies. Ready endpoints are used; where there
/// is none, the serving ones that terminate, decided for each policy by itself
/// (KEP-1669).
pub fn categorize<'a>(candidates: &[Candidate<'a>], node: &NodeView) -> Categories<'a> {
    let preference = preference(candidates, node);
    let cluster = ready_or_serving(candidates, |c| preference.admits(c, node));
    let local = ready_or_serving(candidates, |c| c.local);
    let any = candidates
        .iter()
        .any(|c| c.ready || c.serving_terminating());
    Categories {
        cluster,
        local,
        any,
    }
}

/// The ready endpoints that `usable` admits. Where there are none, the serving
/// terminating ones; hints do not apply to these, but `preference` sees to it
/// that some ready endpoint fits the hints, or none are heeded.
fn ready_or_serving<'a>(
    candidates: &[Candidate<'a>],
    usable: impl Fn(&Candidate<'a>) -> bool,
) -> Vec<Candidate<'a>> {
    let ready: Vec<_> = candidates
        .iter()
        .filter(|c| c.ready && usable(c))
        .copied()
        .collect();
    if !ready.is_empty() {
        return ready;
    }
    candidates
        .iter()
        .filter(|c| c.serving_terminating() && usable(c))
        .copied()
        .collect()
}

/// Which hints are heeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Preference {
    None,
    SameNode,
    SameZone,
}

impl Preference {
    fn admits(self, candidate: &Candidate<'_>, node: &NodeView) -> bool {
        match self {
            Self::None => true,
            Self::SameNode => names(&candidate.endpoint.node_hints, &node.name),
            Self::SameZone => names(&candidate.endpoint.zone_hints, zone(node)),
        }
    }
}

/// Hints count only if every ready endpoint has them and one names this node or
/// zone: first the node's (KEP-3015), then the zone's (KEP-2433, KEP-4444).
fn preference(candidates: &[Candidate<'_>], node: &NodeView) -> Preference {
    let ready = || candidates.iter().filter(|c| c.ready);
    let heeded = |hints: fn(&Endpoint) -> &[Arc<str>], name: &str| {
        ready().all(|c| !hints(c.endpoint).is_empty())
            && ready().any(|c| names(hints(c.endpoint), name))
    };
    if heeded(|e| &e.node_hints, &node.name) {
        Preference::SameNode
    } else if heeded(|e| &e.zone_hints, zone(node)) {
        Preference::SameZone
    } else {
        Preference::None
    }
}

fn names(hints: &[Arc<str>], name: &str) -> bool {
    hints.iter().any(|h| **h == *name)
}

fn zone(node: &NodeView) -> &str {
    node.zone.as_deref().unwrap_or_default()
}
