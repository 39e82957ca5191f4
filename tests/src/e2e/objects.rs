//! Objects of Kubernetes, as manifests have them.

use std::process::Command;

use serde_json::{Value, json};

use super::pod::{PORT, Pod};

/// A Service with the port 80, TCP and UDP, in front of the pods' port, and whatever `spec`
/// has besides or instead.
#[must_use]
pub fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [
            {"name": "tcp", "protocol": "TCP", "port": 80, "targetPort": PORT},
            {"name": "udp", "protocol": "UDP", "port": 80, "targetPort": PORT},
        ]},
    });
    merge(&mut object["spec"], spec);
    object
}

/// [`service`] with a ClusterIP of each family: `10.97.0.N` and `fd97::N`.
#[must_use]
pub fn dual(name: &str, n: u8, spec: Value) -> Value {
    let (v4, v6) = (format!("10.97.0.{n}"), format!("fd97::{n:x}"));
    let mut object = service(
        name,
        json!({"clusterIP": v4, "clusterIPs": [v4, v6], "ipFamilies": ["IPv4", "IPv6"],
               "ipFamilyPolicy": "RequireDualStack"}),
    );
    merge(&mut object["spec"], spec);
    object
}

/// The two ports with NodePorts, as `spec.ports`.
#[must_use]
pub fn node_ports(tcp: u16, udp: u16) -> Value {
    json!([
        {"name": "tcp", "protocol": "TCP", "port": 80, "targetPort": PORT, "nodePort": tcp},
        {"name": "udp", "protocol": "UDP", "port": 80, "targetPort": PORT, "nodePort": udp},
    ])
}

/// A status with a load balancer's addresses.
#[must_use]
pub fn load_balancer(mut service: Value, ips: &[&str]) -> Value {
    let ingress: Vec<Value> = ips
        .iter()
        .map(|ip| json!({"ip": ip, "ipMode": "VIP"}))
        .collect();
    service["status"] = json!({"loadBalancer": {"ingress": ingress}});
    service
}

/// The EndpointSlices of a service, one of each family, with these pods, all ready.
#[must_use]
pub fn slices(service: &str, pods: &[&Pod]) -> Vec<Value> {
    let slice = |v6: bool| {
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|pod| {
                json!({"addresses": [pod.addr(v6)], "nodeName": pod.node(),
                       "conditions": {"ready": true, "serving": true, "terminating": false}})
            })
            .collect();
        let family = if v6 { "IPv6" } else { "IPv4" };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{service}-{}", family.to_lowercase()), "namespace": "default",
                         "labels": {"kubernetes.io/service-name": service}},
            "addressType": family,
            "ports": [{"name": "tcp", "protocol": "TCP", "port": PORT},
                      {"name": "udp", "protocol": "UDP", "port": PORT}],
            "endpoints": endpoints,
        })
    };
    vec![slice(false), slice(true)]
}

/// Notes on slices that their endpoints have changed now, as the control plane does.
///
/// # Panics
/// The machine has no date(1).
pub fn change_now(slices: &mut [Value]) {
    let date = Command::new("date").args(["-u", "+%FT%T.%NZ"]).output();
    let date = date.expect("date(1) runs").stdout;
    let now = String::from_utf8(date).expect("a date is text");
    for slice in slices {
        let key = "endpoints.kubernetes.io/last-change-trigger-time";
        slice["metadata"]["annotations"] = json!({key: now.trim()});
    }
}

/// A service and its slices.
#[must_use]
pub fn with_pods(service: Value, pods: &[&Pod]) -> Vec<Value> {
    let name = service["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let mut all = vec![service];
    all.extend(slices(&name, pods));
    all
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}
