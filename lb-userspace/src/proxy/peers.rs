//! The other proxies: where they are, and that they hear what this one counts
//! ([`lb_proxy::peers`]).

use std::{collections::BTreeSet, fs, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use lb_plan::model::{EndpointSlice, Protocol};
use lb_proxy::peers::{self, Peers, Together};
use tokio::{sync::watch, task::JoinHandle};

/// How this proxy and the others hear each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where it hears (`--peers-listen`).
    pub listen: SocketAddr,
    /// The file with what they all know (`--peers-key`).
    pub key: Option<PathBuf>,
    /// Those that are always there (`--peer`), beside those of a Service.
    pub fixed: BTreeSet<SocketAddr>,
}

/// The proxies by the slices of their Service: ready or not, and those that terminate too, for
/// they all have counted something.
pub(super) fn addresses(slices: &[&EndpointSlice]) -> BTreeSet<SocketAddr> {
    let of_slice = |slice: &&EndpointSlice| {
        let ports = slice.ports.iter();
        let ports = ports.filter(|port| port.protocol == Protocol::Udp);
        let ports: Vec<u16> = ports.map(|port| port.port).collect();
        let ips = slice.endpoints.iter().filter_map(|e| e.addresses.first());
        let all = ips.flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port)));
        all.collect::<Vec<_>>()
    };
    slices.iter().flat_map(of_slice).collect()
}

/// The other proxies, which hear this one until this is dropped.
pub(super) struct Others {
    peers: Arc<Peers>,
    following: JoinHandle<()>,
}

impl Drop for Others {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Others {
    /// Hears them and tells them, wherever a Service says that they are.
    pub(super) fn start(
        settings: &Settings,
        together: Arc<Together>,
        of_service: watch::Receiver<BTreeSet<SocketAddr>>,
    ) -> anyhow::Result<Self> {
        let read = |path: &PathBuf| {
            let text = fs::read(path);
            let text = text.with_context(|| format!("--peers-key {}", path.display()))?;
            anyhow::Ok(text.trim_ascii().to_vec())
        };
        let settings_of_socket = peers::Settings {
            listen: settings.listen,
            key: settings.key.as_ref().map(read).transpose()?,
        };
        if settings.key.is_none() {
            tracing::warn!(
                "without --peers-key other proxies are known by their addresses only: whoever can \
                 send from these can use up the limits of all"
            );
        }
        let peers = Arc::new(Peers::start(&settings_of_socket, together)?);
        let following = follow(peers.clone(), settings.fixed.clone(), of_service);
        Ok(Self {
            peers,
            following: tokio::spawn(following),
        })
    }

    /// Tells the last.
    pub(super) async fn end(self) {
        self.peers.tell_last().await;
    }
}

async fn follow(
    peers: Arc<Peers>,
    fixed: BTreeSet<SocketAddr>,
    mut of_service: watch::Receiver<BTreeSet<SocketAddr>>,
) {
    loop {
        let all = &*of_service.borrow_and_update() | &fixed;
        peers.set(&all);
        tracing::debug!(?all, "these are the proxies");
        if of_service.changed().await.is_err() {
            // The source has ended, and the proxy with it.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_plan::model::{Endpoint, EndpointPort, ServiceKey};

    use super::*;

    #[test]
    fn all_endpoints_are_proxies_by_their_ports_of_udp() {
        let endpoint = |last: u8, ready: bool, terminating: bool| Endpoint {
            addresses: vec![[192, 0, 2, last].into(), [192, 0, 2, 99].into()],
            ready: Some(ready),
            serving: None,
            terminating: Some(terminating),
            node: None,
            zone: None,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
            weight: 1,
        };
        let port = |protocol, port| EndpointPort {
            name: "".into(),
            protocol,
            port,
        };
        let slice = |endpoints, ports| EndpointSlice {
            name: "peers".into(),
            service: ServiceKey {
                namespace: "default".into(),
                name: "peers".into(),
            },
            endpoints,
            ports,
        };
        let one = slice(
            vec![endpoint(1, true, false), endpoint(2, false, true)],
            vec![port(Protocol::Tcp, 80), port(Protocol::Udp, 10253)],
        );
        let other = slice(
            vec![endpoint(3, true, false)],
            vec![port(Protocol::Udp, 10254)],
        );
        let expected = ["192.0.2.1:10253", "192.0.2.2:10253", "192.0.2.3:10254"];
        let expected: BTreeSet<SocketAddr> = expected.map(|a| a.parse().unwrap()).into();
        assert_eq!(addresses(&[&one, &other]), expected);
        assert_eq!(addresses(&[]), BTreeSet::new());
    }
}
