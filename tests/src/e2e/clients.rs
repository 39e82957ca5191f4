//! The load of the tests of restarts and churn: by every way to a backend at once.

use std::time::Duration;

use super::node::Node;
use super::pod::Pod;
use super::proto::Outcome;
use super::world::{Outside, World};

/// New connections a second, of all clients together.
pub const RATE: u32 = 500;
/// Long-lived streams, of all clients together.
pub const STREAMS: u32 = 50;

/// A pod whose sockets are connected by the socket hooks, one whose packets are translated on
/// its device, and a client outside.
#[derive(Debug)]
pub struct Clients {
    sockets: Pod,
    packets: Pod,
    outside: Outside,
}

impl Clients {
    /// Makes them; the pods are 100 and 101 of the node.
    #[must_use]
    pub fn new(world: &World, node: &Node) -> Self {
        Self {
            sockets: node.pod(100),
            packets: node.sandboxed_pod(101),
            outside: world.outside(100),
        }
    }

    /// Starts [`RATE`] new connections a second and [`STREAMS`] streams: pods dial `inside`,
    /// the client outside dials `outside`.
    pub fn load(&mut self, inside: &[&str], outside: &[&str]) {
        let (rate, streams) = (RATE / 3, STREAMS / 3);
        self.sockets.peer.load(inside, rate, streams);
        self.packets.peer.load(inside, rate, streams);
        self.outside
            .peer
            .load(outside, RATE - 2 * rate, STREAMS - 2 * streams);
    }

    /// Ends the load; what became of it, by client.
    pub fn rest(&mut self) -> [(&'static str, Outcome); 3] {
        [
            ("by socket hooks", self.sockets.peer.rest()),
            ("by packets of a pod", self.packets.peer.rest()),
            ("by packets from outside", self.outside.peer.rest()),
        ]
    }
}

/// Asserts that nothing failed, no stream broke or moved, and that there was load enough in
/// `time` to say so. Tells what there was.
///
/// # Panics
/// Something is not so.
pub fn unharmed(outcomes: &[(&str, Outcome)], time: Duration) {
    unharmed_at(outcomes, time, f64::from(RATE) / 3.0);
}

/// The same where each client was to make so many connections a second.
///
/// # Panics
/// As [`unharmed`].
pub fn unharmed_at(outcomes: &[(&str, Outcome)], time: Duration, rate: f64) {
    let mut bad = Vec::new();
    for (by, outcome) in outcomes {
        let broken: Vec<_> = outcome
            .streams
            .iter()
            .filter(|s| s.error.is_some() || s.pods.len() != 1)
            .collect();
        println!(
            "{by}: {} connections in {:.1} s, {} failed, {} slow (longest {} ms); {} streams, {} broken",
            outcome.answered(),
            time.as_secs_f32(),
            outcome.failed(),
            outcome.slow,
            outcome.slowest_ms,
            outcome.streams.len(),
            broken.len()
        );
        if outcome.failed() > 0 || !broken.is_empty() {
            bad.push(format!("{by}: {:?}, streams {broken:?}", outcome.errors));
        }
        // Less than half of what was asked for would prove little.
        let least = rate * time.as_secs_f64() / 2.0;
        if (outcome.answered() as f64) < least {
            bad.push(format!(
                "{by}: only {} connections, too few for a verdict",
                outcome.answered()
            ));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
