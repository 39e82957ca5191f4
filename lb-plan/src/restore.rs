//! Starting from what the maps hold: the agent has no other memory.

use std::collections::BTreeSet;

use lb_common::{Backend, Frontend, FrontendKey, RangeKey};

use crate::{
    filter::Filter,
    ghosts::{Ghosts, SlotReader},
    planner::{Limits, Planner},
};

/// What was read from the maps.
pub struct Actual {
    /// Every entry of the frontends map.
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// The backends that are live, with their ids; others do no harm.
    pub backends: Vec<(u32, Backend)>,
    /// The slot array. The planner keeps it until it has compared all tables.
    pub slots: Box<dyn SlotReader + Send>,
    /// Every entry of the source ranges map.
    pub ranges: Vec<RangeKey>,
    /// The words of the filter.
    pub filter: Vec<u64>,
    /// Whether the counters are known to be zero for ids that are not in use (the
    /// maps were just made): then ids that are given out need no reset.
    pub counters_zero: bool,
}

/// Empty maps.
impl Default for Actual {
    fn default() -> Self {
        Self {
            frontends: Vec::new(),
            backends: Vec::new(),
            slots: Box::new(Vec::new()),
            ranges: Vec::new(),
            filter: Vec::new(),
            counters_zero: false,
        }
    }
}

impl std::fmt::Debug for Actual {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actual")
            .field("frontends", &self.frontends)
            .field("backends", &self.backends)
            .field("ranges", &self.ranges)
            .finish_non_exhaustive()
    }
}

impl Planner {
    /// A planner for maps that hold something already, whoever wrote it and
    /// however far it came: ids and tables that are still right are kept, so that
    /// an unchanged input leads to an empty batch. What no service claims is
    /// deleted in the batches after [`Self::finish_sync`].
    pub fn restore(limits: Limits, mut actual: Actual) -> Self {
        let mut planner = Self::new(limits);
        planner.unsettled = true;
        planner.filter = Filter::new(actual.filter);
        if !actual.counters_zero {
            planner.backends.mark_used();
            planner.service_ids.mark_used();
        }
        for (id, backend) in actual.backends {
            planner.backends.restore(id, backend);
        }
        planner.ghosts = Ghosts::new(actual.slots, limits.backends);
        // The slots are read by pieces, each of which is mapped once that way.
        actual.frontends.sort_by_key(|(_, value)| value.slots);
        for (key, value) in &actual.frontends {
            planner.claims.restore(*key, *value, &mut planner.filter);
            planner
                .ghosts
                .add(value, &mut planner.backends, &mut planner.tables.space);
        }
        let of_frontends = actual.frontends.iter().map(|(_, value)| value.service);
        let of_ranges = actual.ranges.iter().map(|r| r.service.get());
        let services: BTreeSet<u32> = of_frontends.chain(of_ranges).collect();
        for id in services {
            // Id 0 is that of vips; ids beyond the limit are from larger maps.
            if planner.service_ids.reserve(id) {
                planner.ghost_services.insert(id);
            }
        }
        planner.ranges.extend(actual.ranges);
        planner
    }
}
