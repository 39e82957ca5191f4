//! The objects of a large cluster. Service `i` and its slice follow from `i`.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// Port of every service.
const PORT: u16 = 80;
/// Port of every endpoint.
const TARGET: u16 = 8080;
/// The namespace of services with real endpoints: the last one in a list.
pub const LAST: &str = "zz";

/// How many endpoints service `i` has. 1,000 services have 10,000 endpoints, 10,000 services
/// 55,000, and 44,000 services 250,000.
#[must_use]
pub fn endpoints(i: u32) -> u32 {
    match i {
        0..1_000 => 10,
        10_000..35_000 => 6,
        _ => 5,
    }
}

/// The namespace of service `i`, one of a hundred.
#[must_use]
pub fn namespace(i: u32) -> String {
    format!("ns-{}", i % 100)
}

/// Service `i`. The first address that is given to one is 10.97.0.0.
#[must_use]
pub fn service(i: u32) -> Value {
    let ip = Ipv4Addr::from_bits(0x0a61_0000 + i);
    service_at(&format!("service-{i}"), &namespace(i), ip)
}

/// A service without a selector.
#[must_use]
pub fn service_at(name: &str, namespace: &str, ip: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "clusterIP": ip, "clusterIPs": [ip],
            "ports": [{"name": "http", "port": PORT, "targetPort": TARGET, "protocol": "TCP"}],
        },
    })
}

/// The slice of service `i`, with endpoints that nobody answers at, on other nodes.
/// `version` changes the address of the first one.
#[must_use]
pub fn slice(i: u32, version: u32) -> Value {
    let name = format!("service-{i}");
    slice_of(&name, &namespace(i), dummies(i, version))
}

/// The endpoints of service `i`.
#[must_use]
pub fn dummies(i: u32, version: u32) -> Value {
    let all = (0..endpoints(i)).map(|n| {
        // 16 addresses for each service, and a half of the network for first endpoints.
        let number = match n {
            0 => (1 << 22) + (i << 4) + version % 16,
            n => (i << 4) + n,
        };
        let ip = Ipv4Addr::from_bits(0x0a80_0000 + number);
        endpoint(ip, &format!("node-{}", 1 + (i + n) % 500))
    });
    all.collect()
}

/// A slice of one service.
#[must_use]
pub fn slice_of(service: &str, namespace: &str, endpoints: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-x7k2p"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": TARGET, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// An endpoint that is ready.
#[must_use]
pub fn endpoint(ip: Ipv4Addr, node: &str) -> Value {
    json!({
        "addresses": [ip], "nodeName": node,
        "conditions": {"ready": true, "serving": true, "terminating": false},
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn sizes_are_those_that_are_told() {
        let all = |services: u32| (0..services).map(endpoints).sum::<u32>();
        assert_eq!([1_000, 10_000, 44_000].map(all), [10_000, 55_000, 250_000]);
    }

    #[test]
    fn a_change_is_of_the_first_endpoint_and_no_address_is_used_twice() {
        let mut seen = HashSet::new();
        for i in 0..44_000 {
            let (before, after) = (dummies(i, 0), dummies(i, 1));
            let addresses = |all: &Value| {
                let all = all.as_array().unwrap().iter();
                all.map(|e| e["addresses"][0].to_string())
                    .collect::<Vec<_>>()
            };
            let (before, after) = (addresses(&before), addresses(&after));
            assert_eq!(before[1..], after[1..]);
            assert!(before.into_iter().all(|ip| seen.insert(ip)));
            assert!(seen.insert(after[0].clone()));
        }
    }
}
