//! What the maps should hold, a frontend at a time: to compare it with what they do hold,
//! and with what the datapath makes of it.

use lb_common::{Backend, Frontend, FrontendKey};

use crate::planner::Planner;

/// A frontend as it is planned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expectation {
    /// Its key.
    pub key: FrontendKey,
    /// Its entry.
    pub frontend: Frontend,
    /// The backends that its slots may name, with their ids and entries.
    pub backends: Vec<(u32, Backend)>,
}

impl Planner {
    /// Up to `count` frontends, those of vips left out, from the one at `skip` on, in an order
    /// that stays while nothing changes. None while the maps are behind.
    pub fn expectations(&self, skip: usize, count: usize) -> Vec<Expectation> {
        if !self.is_synced() || self.has_pending() {
            return Vec::new();
        }
        let frontends = self.claims.all().filter(|(key, _)| key.proto != 0);
        let of = |(key, value)| self.expectation(key, value);
        frontends.skip(skip).take(count).map(of).collect()
    }

    fn expectation(&self, key: &FrontendKey, frontend: &Frontend) -> Expectation {
        let port = self.port(frontend.service);
        let plan = port.and_then(|p| p.frontends.iter().find(|f| f.key(key.proto) == *key));
        let set = plan.and_then(|plan| port?.sets.get(usize::from(plan.set?)));
        let members = set.map_or(&[][..], |set| self.tables.members(*set));
        let backend = |id| (id, self.backends.get(id));
        Expectation {
            key: *key,
            frontend: *frontend,
            backends: members.iter().map(|r| backend(r.id())).collect(),
        }
    }
}
