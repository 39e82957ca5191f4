//! The ways to a server: from where, and whom a client dials.

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

    /// Its name in the tables.
    pub(super) fn name(self) -> &'static str {
        match (self.from, self.to) {
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
