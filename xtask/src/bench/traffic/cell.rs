//! The ways to a server: from where, and whom a client dials.

use super::world::Proxy;

/// Where the client is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum From {
    /// A pod of the server's node.
    Same,
    /// A pod of the other node.
    Across,
    /// The other node itself.
    Node,
    /// A host outside.
    Outside,
}

/// Whom it dials.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum To {
    /// The server's pod.
    Pod,
    /// The service.
    ClusterIp,
    /// The service's port of the server's node.
    NodePortThere,
    /// The service's port of the other node: one hop more.
    NodePortElsewhere,
}

/// One way to the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Cell {
    pub(super) from: From,
    pub(super) to: To,
}

impl Cell {
    /// The ways by a service, in the order of the tables.
    pub(super) const SERVED: [Self; 5] = [
        Self::new(From::Same, To::ClusterIp),
        Self::new(From::Across, To::ClusterIp),
        Self::new(From::Node, To::ClusterIp),
        Self::new(From::Outside, To::NodePortThere),
        Self::new(From::Outside, To::NodePortElsewhere),
    ];

    const fn new(from: From, to: To) -> Self {
        Self { from, to }
    }

    /// The way from the same place without a service.
    pub(super) const fn direct(self) -> Self {
        Self::new(self.from, To::Pod)
    }

    /// All ways of a pair of nodes: each by a service after the one that it is compared with.
    pub(super) fn of(proxy: Proxy) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for cell in Self::SERVED {
            if !all.contains(&cell.direct()) {
                all.push(cell.direct());
            }
            if proxy != Proxy::None {
                all.push(cell);
            }
        }
        all
    }

    /// Its name in the tables.
    pub(super) fn name(self) -> &'static str {
        match (self.from, self.to) {
            (From::Same, To::Pod) => "pod, same node, direct",
            (From::Across, To::Pod) => "pod, across nodes, direct",
            (From::Node, To::Pod) => "node, across nodes, direct",
            (From::Outside, To::Pod) => "outside, direct",
            (From::Same, _) => "pod, same node, ClusterIP",
            (From::Across, _) => "pod, across nodes, ClusterIP",
            (From::Node, _) => "node, across nodes, ClusterIP",
            (From::Outside, To::NodePortElsewhere) => {
                "outside, NodePort, backend on the other node"
            }
            (From::Outside, _) => "outside, NodePort, backend on that node",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_by_a_service_follows_the_direct_one_from_there() {
        let all = Cell::of(Proxy::Bascule);
        assert_eq!(all.len(), 9);
        for cell in Cell::SERVED {
            let at = |c: Cell| all.iter().position(|other| *other == c);
            assert!(at(cell.direct()) < at(cell));
        }
        assert!(Cell::of(Proxy::None).iter().all(|c| c.to == To::Pod));
    }
}
