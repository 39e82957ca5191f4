//! What is measured of changes on their way to the maps.

#[allow(dead_code, reason = "other tests use the rest")]
mod line;

use std::time::{Duration, SystemTime};

use lb_userspace::{
    bpf::{MapSizes, fake::FakeStore, table::Table},
    metrics::{Exposition, Readings},
};
use line::Agent;

const SERVICE: &str = "kind: Service
metadata: {name: web}
spec: {type: ClusterIP, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd96::1'], ports: [{port: 80}]}
---
";
const NODE: &str = "kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 10.9.0.1}, {type: InternalIP, address: 'fd09::1'}]}
---
";

fn slice(family: &str, ip: &str, trigger: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(trigger).unwrap();
    format!(
        "kind: EndpointSlice
metadata:
  name: web-{family}
  labels: {{kubernetes.io/service-name: web}}
  annotations: {{endpoints.kubernetes.io/last-change-trigger-time: '{at}'}}
addressType: {family}
ports: [{{port: 8080}}]
endpoints: [{{addresses: ['{ip}'], nodeName: n2}}]
---
"
    )
}

/// A sample of a scrape.
fn sample(agent: &Agent, series: &str) -> Option<f64> {
    let (metrics, health) = (&agent.shared.metrics, agent.shared.health.clone());
    let text = Exposition::new(metrics, health, Box::new(Readings::default)).text();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

fn programmed(agent: &Agent, family: &str, what: &str) -> Option<f64> {
    let name = "kubeproxy_network_programming_duration_seconds";
    sample(agent, &format!("{name}_{what}{{ip_family=\"{family}\"}}"))
}

#[test]
fn changes_of_endpoints_are_measured_from_their_trigger_by_family() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    let before = SystemTime::now() - Duration::from_secs(60);
    agent.list(&(NODE.to_owned() + SERVICE + &slice("IPv4", "10.1.0.1", before)));
    agent.settle();
    assert_eq!(
        programmed(&agent, "IPv4", "count"),
        None,
        "older than the agent"
    );

    let now = SystemTime::now();
    agent.put(&slice("IPv4", "10.1.0.2", now));
    agent.put(&slice("IPv6", "fd01::2", now));
    std::thread::sleep(Duration::from_millis(30));
    agent.settle();
    for family in ["IPv4", "IPv6"] {
        assert_eq!(programmed(&agent, family, "count"), Some(1.0));
        let took = programmed(&agent, family, "sum").unwrap();
        let most = now.elapsed().unwrap().as_secs_f64();
        assert!((0.03..=most).contains(&took), "{took} of {most}");
    }

    // The same again is no change; a clock that is ahead makes it no shorter than 0.
    agent.put(&slice("IPv4", "10.1.0.2", SystemTime::now()));
    agent.settle();
    assert_eq!(programmed(&agent, "IPv4", "count"), Some(1.0));
    let ahead = SystemTime::now() + Duration::from_secs(60);
    let sum = programmed(&agent, "IPv4", "sum");
    agent.put(&slice("IPv4", "10.1.0.3", ahead));
    agent.settle();
    assert_eq!(programmed(&agent, "IPv4", "count"), Some(2.0));
    assert_eq!(programmed(&agent, "IPv4", "sum"), sum);
}

#[test]
fn a_change_that_cannot_be_written_is_measured_when_it_is() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    agent.list(&(NODE.to_owned() + SERVICE));
    agent.settle();
    let last = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}";
    let synced = sample(&agent, last).unwrap();
    let store = agent.core.dataplane_mut().programmer.store_mut();
    (store.fail_after, store.only, store.forever) = (Some(0), Some(Table::lb_frontends_v1), true);
    let trigger = SystemTime::now();
    agent.put(&slice("IPv4", "10.1.0.1", trigger));
    agent.core.work(agent.core.due().max(agent.now));
    assert!(sample(&agent, "bascule_apply_pending").unwrap() > 0.0);
    assert_eq!(programmed(&agent, "IPv4", "count"), None);
    assert_eq!(
        sample(&agent, last),
        Some(synced),
        "that round did not succeed"
    );

    std::thread::sleep(Duration::from_millis(150));
    agent.core.dataplane_mut().programmer.store_mut().fail_after = None;
    agent.now = std::time::Instant::now() + Duration::from_secs(1);
    agent.core.work(agent.now);
    assert_eq!(programmed(&agent, "IPv4", "count"), Some(1.0));
    assert!(programmed(&agent, "IPv4", "sum").unwrap() >= 0.15);
}

#[test]
fn service_ports_without_local_endpoints_are_counted_by_policy_and_family() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    let local = SERVICE
        .replace(
            "type: ClusterIP",
            "type: NodePort, internalTrafficPolicy: Local",
        )
        .replace("{port: 80}", "{port: 80, nodePort: 30080}");
    let here = slice("IPv4", "10.1.0.1", SystemTime::now()).replace("n2", "n1");
    agent.list(&(NODE.to_owned() + &local + &slice("IPv6", "fd01::1", SystemTime::now()) + &here));
    agent.settle();
    let count = |agent: &Agent, policy: &str, family: &str| {
        let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
        let labels = format!("{{traffic_policy=\"{policy}\",ip_family=\"{family}\"}}");
        sample(agent, &format!("{name}{labels}"))
    };
    let all = |agent: &Agent| {
        [
            count(agent, "internal", "IPv4"),
            count(agent, "internal", "IPv6"),
            count(agent, "external", "IPv4"),
            count(agent, "external", "IPv6"),
        ]
        .map(|n| n.unwrap() as u32)
    };
    assert_eq!(all(&agent), [0, 1, 0, 0]);
    agent.put(&slice("IPv4", "10.1.0.1", SystemTime::now()));
    agent.settle();
    assert_eq!(all(&agent), [1, 1, 0, 0]);
    agent.put(&local.replace("internalTraffic", "externalTraffic"));
    agent.settle();
    assert_eq!(
        all(&agent),
        [0, 0, 1, 0],
        "this node answers no NodePorts by IPv6"
    );
    agent.delete(&local);
    agent.settle();
    assert_eq!(all(&agent), [0, 0, 0, 0]);
}
