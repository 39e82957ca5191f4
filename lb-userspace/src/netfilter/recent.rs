//! The clients that kube-proxy has bound to endpoints, in mode iptables: a list of the match
//! `recent` for each endpoint, which the kernel shows as a file.
//!
//! kubernetes v1.36.3, pkg/proxy/iptables/proxier.go, `servicePortEndpointChainName`: the list
//! is named as the endpoint's chain, by a hash. Linux, net/netfilter/xt_recent.c,
//! `recent_seq_show`.

use std::{cmp::Reverse, collections::HashMap, fs, net::IpAddr, path::Path, time::Duration};

use lb_common::proto;
use sha2::{Digest as _, Sha256};

use super::affinity::{Bound, Endpoint};

/// Where the kernel shows the lists of the network namespace.
pub(super) const LISTS: &str = "/proc/net/xt_recent";
/// RFC 4648, section 6.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Every client that is in the list of one of these endpoints, the latest first. Of when that
/// was the kernel tells only the order: a client counts as one that has just dialled.
pub(super) fn bound(lists: &Path, endpoints: &[Endpoint]) -> Vec<Bound> {
    let by_list: HashMap<String, &Endpoint> = endpoints
        .iter()
        .filter_map(|endpoint| Some((list(endpoint)?, endpoint)))
        .collect();
    let mut found = Vec::new();
    // There is none without the module, and a list may go meanwhile.
    for file in fs::read_dir(lists).into_iter().flatten().flatten() {
        let name = file.file_name().into_string().unwrap_or_default();
        let Some(endpoint) = by_list.get(&name) else {
            continue;
        };
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        let clients = text.lines().filter_map(client);
        found.extend(clients.map(|(client, seen)| (Reverse(seen), client, *endpoint)));
    }
    found.sort_by_key(|(seen, ..)| *seen);
    let all = found.into_iter().map(|(_, client, endpoint)| Bound {
        client,
        endpoint: endpoint.clone(),
        idle: Duration::ZERO,
    });
    all.collect()
}

/// The name of an endpoint's list.
fn list(endpoint: &Endpoint) -> Option<String> {
    let mut text = format!("{}/{}", endpoint.namespace, endpoint.service);
    if !endpoint.port.is_empty() {
        text.extend([":", &endpoint.port]);
    }
    text.push_str(match endpoint.protocol {
        proto::TCP => "tcp",
        proto::UDP => "udp",
        proto::SCTP => "sctp",
        _ => return None,
    });
    text.push_str(&endpoint.addr.to_string());
    let hash = Sha256::digest(text.as_bytes());
    // 16 characters of five bits each.
    let (bits, _) = hash.split_first_chunk::<10>()?;
    let of = |group: &[u8]| {
        let bits = group
            .iter()
            .fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        (0..8).map(move |nth| BASE32[(bits >> (35 - 5 * nth)) as usize & 31] as char)
    };
    let name: String = bits.chunks(5).flat_map(of).collect();
    Some(format!("KUBE-SEP-{name}"))
}

/// A client and when it dialled last, in jiffies, of a line as
/// `src=10.0.0.1 ttl: 64 last_seen: 4295376247 oldest_pkt: 2 4295376171, 4295376247`.
fn client(line: &str) -> Option<(IpAddr, u64)> {
    let ip = line.strip_prefix("src=")?.split(' ').next()?;
    let (_, seen) = line.split_once("last_seen: ")?;
    Some((ip.parse().ok()?, seen.split(' ').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(service: &str, port: &str, protocol: u8, addr: &str) -> Endpoint {
        let (namespace, service) = service.split_once('/').unwrap();
        Endpoint {
            namespace: namespace.into(),
            service: service.into(),
            port: port.into(),
            protocol,
            addr: addr.parse().unwrap(),
        }
    }

    /// The first is kube-proxy's own: pkg/proxy/iptables/proxier_test.go. The others were
    /// made by Python's hashlib and base64.
    #[test]
    fn a_list_is_named_as_its_chain() {
        let named = [
            (
                endpoint("ns1/svc1", "p80", proto::TCP, "10.180.0.1:80"),
                "SXIVWICOYRO3J4NJ",
            ),
            (
                endpoint("a/b", "", proto::UDP, "[fd00::1]:53"),
                "3VMZ5OZAHF6QKMIK",
            ),
            (
                endpoint("a/b", "s", proto::SCTP, "10.0.0.1:9"),
                "M33HOMGF4TQDZZT7",
            ),
        ];
        for (endpoint, name) in named {
            assert_eq!(list(&endpoint).unwrap(), format!("KUBE-SEP-{name}"));
        }
    }

    /// The lines are a kernel's.
    #[test]
    fn clients_of_known_endpoints_are_found_the_latest_first() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let one = endpoint("ns1/svc1", "p80", proto::TCP, "10.180.0.1:80");
        let two = endpoint("a/b", "", proto::UDP, "[fd00::1]:53");
        write(
            &list(&one).unwrap(),
            "src=127.0.0.2 ttl: 64 last_seen: 4295376210 oldest_pkt: 1 4295376210\n\
             src=127.0.0.1 ttl: 64 last_seen: 4295376247 oldest_pkt: 2 4295376171, 4295376247\n",
        );
        write(
            &list(&two).unwrap(),
            "src=0000:0000:0000:0000:0000:0000:0000:0001 ttl: 64 last_seen: 4295376230 \
             oldest_pkt: 1 4295376230\nnonsense\nsrc=x last_seen: 1\nsrc=10.0.0.1 ttl: 64\n",
        );
        write(
            "KUBE-SEP-OTHER",
            "src=10.0.0.9 ttl: 64 last_seen: 4295376299\n",
        );
        let of = |client: &str, endpoint: &Endpoint| Bound {
            client: client.parse().unwrap(),
            endpoint: endpoint.clone(),
            idle: Duration::ZERO,
        };
        assert_eq!(
            bound(dir.path(), &[one.clone(), two.clone()]),
            [
                of("127.0.0.1", &one),
                of("::1", &two),
                of("127.0.0.2", &one)
            ]
        );
        assert_eq!(bound(&dir.path().join("none"), &[one]), []);
    }
}
