//! The seam between the straight line and the kernel.

use std::io;

use lb_common::NodeConfig;
use lb_plan::{Actual, Expectation, Planner, Usage, op::Batch};

use super::state::Datapath;
use crate::bpf::{ApplyReport, examine::Finding};

/// Something wrong with the node, which an object of the cluster cannot help.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeProblem {
    /// A stable identifier in CamelCase.
    pub reason: &'static str,
    /// One sentence: what is wrong, and what to do.
    pub message: String,
}

/// The maps, as far as this line writes them.
pub trait Dataplane {
    /// Writes what failed before, then a batch.
    fn apply(&mut self, batch: &Batch) -> ApplyReport;
    /// Writes what the datapath must know of its node.
    ///
    /// # Errors
    /// If the map cannot be written.
    fn configure(&mut self, config: &NodeConfig) -> io::Result<()>;
    /// How many writes wait to be tried again.
    fn pending(&self) -> usize;
    /// Removes filter bits that nothing needs any more; called now and then.
    fn tidy(&mut self, planner: &mut Planner);
    /// Every source has been read and nothing is in the maps yet, of this agent.
    fn begin(&mut self) {}
    /// Every source has been read and is in the maps, for the first time.
    fn programmed(&mut self, planner: &Planner) {
        let _ = planner;
    }
    /// A second has passed.
    fn tick(&mut self, planner: &Planner) {
        let _ = planner;
    }
    /// Compares a frontend's entries with what is planned, and what the programs decide for a
    /// client with this port.
    ///
    /// # Errors
    /// If that cannot be found out.
    fn examine(&self, expected: &Expectation, port: u16) -> io::Result<Finding> {
        let _ = (expected, port);
        Ok(Finding::Right)
    }
    /// What the maps hold, to plan anew from it.
    ///
    /// # Errors
    /// If they cannot be read.
    fn reread(&mut self) -> io::Result<Actual> {
        Ok(Actual::default())
    }
    /// Which pods of the node are kube-proxy's, or why that is not known.
    fn set_proxies(&mut self, pods: Result<Vec<String>, String>) {
        let _ = pods;
    }
    /// Whether the datapath wants to know of such pods.
    fn asks_for_proxies(&self) -> bool {
        false
    }
    /// What is wrong with the node.
    fn problems(&self) -> Vec<NodeProblem> {
        Vec::new()
    }
    /// Entries in use and most entries of each map, where that is known without
    /// reading them.
    fn fill(&self, usage: &Usage) -> Vec<(&'static str, u64, u64)> {
        let _ = usage;
        Vec::new()
    }
    /// What the datapath says about itself.
    fn describe(&self) -> Datapath {
        Datapath::default()
    }
}
