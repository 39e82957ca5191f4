//! Once a tick some frontends are examined, in rotation: whether the maps hold what is
//! planned, and whether the programs decide so. What differs in the maps is written anew.

use lb_plan::{Expectation, Planner};

use super::{
    core::Core,
    dataplane::{Dataplane, NodeProblem},
};
use crate::bpf::{examine::Finding, frame::CLIENT_PORT};

/// Frontends that are examined in a tick: a service has some four, so that 10,000 services
/// take three quarters of an hour. An examination takes some 20 µs.
const SAMPLE: usize = 16;

/// Where the self-test stands.
#[derive(Debug, Default)]
pub(super) struct SelfTest {
    /// How many frontends of this rotation have been examined.
    at: usize,
    /// What the programs decided otherwise, and still do.
    astray: Option<(Expectation, String)>,
}

impl SelfTest {
    /// What a user ought to know of it.
    pub(super) fn problems(&self) -> Vec<NodeProblem> {
        let problem = |(_, what): &(Expectation, String)| NodeProblem {
            reason: "DatapathAstray",
            message: format!(
                "the programs do not decide as planned, although the maps are right: {what}; restart the agent, and report it if it comes back"
            ),
        };
        self.astray.iter().map(problem).collect()
    }
}

impl<D: Dataplane> Core<D> {
    /// Examines the next frontends. Returns whether the maps are to be written anew.
    pub(super) fn self_test(&mut self) -> bool {
        if self.dataplane.pending() > 0 {
            return false;
        }
        let next = self.planner.expectations(self.self_test.at, SAMPLE);
        self.self_test.at = match next.len() {
            SAMPLE => self.self_test.at + SAMPLE,
            _ => 0,
        };
        // What was astray is asked again, to see whether it has healed.
        let before = self.self_test.astray.take().map(|(expected, _)| expected);
        let mut drifted = false;
        for expected in before.iter().chain(&next) {
            drifted |= self.examine(expected);
        }
        self.shared.health.astray(self.self_test.astray.is_some());
        drifted
    }

    fn examine(&mut self, expected: &Expectation) -> bool {
        let port = CLIENT_PORT + (self.ticks % 16_384) as u16;
        let metrics = &self.shared.metrics;
        metrics.examined.inc();
        match self.dataplane.examine(expected, port) {
            Ok(Finding::Right) => {}
            Ok(Finding::Drift(what)) => {
                tracing::warn!("the maps are not as planned, and are written anew: {what}");
                metrics.drifts.inc();
                return true;
            }
            Ok(Finding::Astray(what)) => {
                tracing::error!("the programs do not decide as planned: {what}");
                metrics.astray.inc();
                self.self_test.astray = Some((expected.clone(), what));
            }
            Err(error) => tracing::warn!(%error, "the self-test cannot be made"),
        }
        false
    }

    /// Begins planning anew from what the maps hold: the next round writes the difference.
    pub(super) fn start_over(&mut self) {
        match self.dataplane.reread() {
            Ok(actual) => {
                self.planner = Planner::restore(self.planner.limits(), actual);
                self.planner.tick(self.ticks);
                self.configured = None;
                self.anew = true;
            }
            Err(error) => {
                tracing::error!(%error, "the maps cannot be read, to be written anew: tried again when something else differs")
            }
        }
    }
}
