//! The proxies that are measured.

use crate::cluster::proxy::{Choice, Kind};
use crate::paths;

/// What serves a pair of nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Proxy {
    /// Nothing: pods are dialled directly.
    None,
    /// The same once more, on other nodes: how far the two differ is what cannot be told.
    Again,
    /// Bascule, with socket hooks for all.
    Bascule,
    /// Bascule, with socket hooks for the node's own sockets only: pods are served per packet.
    Host,
    /// kube-proxy.
    Nftables,
    /// kube-proxy.
    Iptables,
}

impl Proxy {
    /// All, in the order of the nodes.
    pub(super) const ALL: [Self; 6] = [
        Self::None,
        Self::Again,
        Self::Bascule,
        Self::Host,
        Self::Nftables,
        Self::Iptables,
    ];
    /// Those that are compared with.
    pub(super) const PEERS: [Self; 2] = [Self::Nftables, Self::Iptables];
    /// Those that must be ahead.
    pub(super) const OURS: [Self; 2] = [Self::Bascule, Self::Host];

    /// Whether pods are dialled directly.
    pub(super) fn is_direct(self) -> bool {
        matches!(self, Self::None | Self::Again)
    }

    /// Its name in the tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "no proxy",
            Self::Again => "no proxy, other nodes",
            Self::Bascule => "Bascule",
            Self::Host => "Bascule, --socket-lb=host",
            Self::Nftables => "kube-proxy nftables",
            Self::Iptables => "kube-proxy iptables",
        }
    }

    /// One word: part of names of objects. Its first letter is what its server answers.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::None => "direct",
            Self::Again => "again",
            Self::Bascule => "bascule",
            Self::Host => "host",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }

    /// How the cluster starts it.
    pub(super) fn choice(self) -> Choice {
        let (proxy, mode, flags) = match self {
            Self::None | Self::Again => (Kind::None, "", vec![]),
            Self::Bascule => (Kind::Bascule, "", vec![]),
            Self::Host => (Kind::Bascule, "", vec!["--socket-lb=host".to_owned()]),
            Self::Nftables | Self::Iptables => (Kind::KubeProxy, self.word(), vec![]),
        };
        Choice {
            proxy,
            mode: mode.to_owned(),
            bascule: Some(paths::root().join("target/release/bascule")),
            image: None,
            takeover: false,
            flags,
        }
    }
}
