//! The text of a scrape, over HTTP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytemuck::Zeroable as _;
use lb_common::{Backend, Be16, PacketCounter, Reason, ServiceCounter, proto};
use lb_plan::model::{Protocol, ServiceKey, ServicePortKey};
use lb_userspace::{
    health::Health,
    http,
    metrics::{Exposition, IpFamily, Metrics, PolicyLabel, Readings, TrafficPolicy},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

fn carried(packets: u64, bytes: u64, connections: u64) -> ServiceCounter {
    ServiceCounter {
        packets,
        bytes,
        connections,
    }
}

fn exposition(metrics: &Metrics) -> Exposition {
    let readings = || Readings {
        reasons: vec![
            (
                Reason::NewFlow,
                PacketCounter {
                    packets: 7,
                    bytes: 700,
                },
            ),
            (
                Reason::SourceRange,
                PacketCounter {
                    packets: 2,
                    bytes: 120,
                },
            ),
        ],
        services: vec![(
            ServicePortKey {
                service: ServiceKey {
                    namespace: "shop".into(),
                    name: "web".into(),
                },
                port: "http".into(),
                protocol: Protocol::Tcp,
            },
            carried(9, 820, 7),
        )],
        backends: 5,
        carried: vec![(
            Backend {
                addr: IpAddr::from(Ipv6Addr::LOCALHOST).into(),
                port: Be16::new(8080),
                proto: proto::UDP,
                ..Backend::zeroed()
            },
            carried(4, 410, 3),
        )],
    };
    let health = Arc::new(Health::default());
    health.healthz_at(SystemTime::now());
    health.node(Some(true));
    Exposition::new(metrics, health, Box::new(readings))
}

/// Samples by name and labels, from the text format.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name, value.parse().unwrap())
        })
        .collect()
}

/// Every instrument with every label, used once.
fn used() -> Metrics {
    let metrics = Metrics::default();
    let (both, now) = (IpFamily::ALL, Some(SystemTime::now()));
    metrics.synced_round(&both, true, (Duration::from_millis(3), now));
    metrics.synced_round(&both, false, (Duration::from_millis(1), now));
    metrics.queued(&both, SystemTime::now());
    for ip_family in both {
        metrics.programmed(ip_family, Duration::from_millis(300));
        for traffic_policy in [TrafficPolicy::internal, TrafficPolicy::external] {
            let label = PolicyLabel {
                traffic_policy,
                ip_family,
            };
            metrics.no_local_endpoints.get_or_create(&label).set(1);
        }
    }
    metrics.service_changes.total.inc();
    metrics.set_fill(&[("lb_frontends_v1", 12, 262_144)]);
    let pods = [("pod", "tcx"), ("pod", ""), ("pod", "tcx")];
    metrics.set_devices(pods.into_iter().chain([("uplink", "tcx, XDP native")]));
    metrics.set_takeover(&["nftables".to_owned()], 3);
    metrics.set_problems(["NoEndpoints", "NoEndpoints", "InvalidAddress"]);
    metrics
}

/// Samples of [`exposition`] and [`used`].
const EXPECTED: &[(&str, f64)] = &[
    (
        r#"kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"}"#,
        2.0,
    ),
    (
        r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.002",ip_family="IPv6"}"#,
        1.0,
    ),
    (
        r#"kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv6"}"#,
        1.0,
    ),
    (
        r#"kubeproxy_network_programming_duration_seconds_bucket{le="0.25",ip_family="IPv4"}"#,
        0.0,
    ),
    (
        r#"kubeproxy_network_programming_duration_seconds_bucket{le="0.5",ip_family="IPv4"}"#,
        1.0,
    ),
    ("kubeproxy_sync_proxy_rules_service_changes_total", 1.0),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", 0.0),
    (r#"kubeproxy_proxy_healthz_total{code="503"}"#, 1.0),
    (r#"bascule_problems{reason="NoEndpoints"}"#, 2.0),
    (
        r#"bascule_packets_total{class="pass",reason="new_flow"}"#,
        7.0,
    ),
    (
        r#"bascule_bytes_total{class="drop",reason="source_range"}"#,
        120.0,
    ),
    (
        r#"bascule_service_connections_total{namespace="shop",service="web",port="http",protocol="TCP"}"#,
        7.0,
    ),
    (
        r#"bascule_backend_bytes_total{backend="[::1]:8080",protocol="UDP"}"#,
        410.0,
    ),
    (r#"bascule_devices{role="pod",hooks="tcx"}"#, 2.0),
    (r#"bascule_devices{role="pod",hooks="none"}"#, 1.0),
    (r#"bascule_devices{role="uplink",hooks="none"}"#, 0.0),
    (
        r#"bascule_devices{role="uplink",hooks="tcx, XDP native"}"#,
        1.0,
    ),
    ("bascule_socket_hooks_failed", 0.0),
    (r#"bascule_unhealthy{reason="not_synced"}"#, 1.0),
    (r#"bascule_unhealthy{reason="node_leaving"}"#, 1.0),
    (r#"bascule_unhealthy{reason="late"}"#, 0.0),
    (r#"bascule_map_capacity{map="lb_frontends_v1"}"#, 262_144.0),
    ("bascule_backends", 5.0),
    ("bascule_sync_age_seconds", 0.0),
    ("bascule_apply_failures_total", 0.0),
];

#[test]
fn every_family_is_exposed_under_its_name() {
    let text = exposition(&used()).text();
    let samples = samples(&text);
    for (name, value) in EXPECTED {
        assert_eq!(samples.get(name), Some(value), "{name} in\n{text}");
    }
}

/// The families of a scrape: name and type.
fn families(text: &str) -> BTreeSet<(&str, &str)> {
    let types = text.lines().filter_map(|l| l.strip_prefix("# TYPE "));
    types.map(|t| t.split_once(' ').unwrap()).collect()
}

/// The samples of kube-proxy's metrics without their values: names and labels,
/// these sorted, numbers as numbers.
fn series(text: &str) -> BTreeSet<(String, Vec<String>)> {
    let ours = text.lines().filter(|l| l.starts_with("kubeproxy_"));
    let series = ours.map(|line| {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',');
        let mut labels: Vec<String> = labels
            .map(|label| match label.strip_prefix("le=\"") {
                Some(bound) if bound != "+Inf\"" => {
                    let bound: f64 = bound.trim_end_matches('"').parse().unwrap();
                    format!("le={bound}")
                }
                _ => label.to_owned(),
            })
            .collect();
        labels.sort();
        (name.to_owned(), labels)
    });
    series.collect()
}

/// kube-proxy's metrics of its own conntrack: Bascule has no such rounds.
fn of_conntrack(name: &str) -> bool {
    name.starts_with("kubeproxy_conntrack_reconciler_")
}

/// The file is what kube-proxy v1.36.3 registers for mode nftables, every metric
/// with every label used once, but for those of nftables itself.
#[tokio::test]
async fn kube_proxys_metrics_have_its_types_labels_and_buckets() {
    let theirs = include_str!("kube_proxy/metrics.txt");
    let answer = ask(exposition(&used()), "GET /metrics").await;
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    let mut expected = families(theirs);
    expected.retain(|(name, _)| !of_conntrack(name));
    let mut found = families(text);
    found.retain(|(name, _)| name.starts_with("kubeproxy_"));
    assert_eq!(found, expected);
    let mut expected = series(theirs);
    expected.retain(|(name, _)| !of_conntrack(name));
    assert_eq!(series(text), expected);
}

#[test]
fn the_page_has_every_metric_and_no_other() {
    let text = exposition(&used()).text();
    let found: BTreeSet<String> = families(&text)
        .into_iter()
        .map(|(name, kind)| format!("| `{name}` | {kind} |"))
        .collect();
    let page = include_str!("../../docs/metrics.md");
    // What the proxy has, a test of its own compares.
    let (page, _) = page.split_once("\n## The Ingress proxy\n").unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<String> = rows
        .map(|row| row.splitn(4, '|').take(3).collect::<Vec<_>>().join("|") + "|")
        .collect();
    assert_eq!(listed, found);
}

/// The answer of a metrics server to a request.
async fn ask(exposition: Exposition, line: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = exposition.handler(serde_json::json!({"mode": "nftables"}));
    let server = tokio::spawn(async move { http::accept(listener, handler, &mut None).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    server.abort();
    answer
}

#[tokio::test]
async fn the_server_answers_get_and_head_and_nothing_else() {
    let ask = async |line: &str| ask(exposition(&Metrics::default()), line).await;
    let metrics = ask("GET /metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(
        metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{metrics}"
    );
    assert!(metrics.contains("bascule_backends 5\n"), "{metrics}");
    let head = ask("HEAD /metrics").await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(ask("GET /proxyMode").await.ends_with("\r\n\r\nbascule"));
    assert!(ask("GET /healthz").await.ends_with("\r\n\r\nok"));
    let configz = r#"{"kubeproxy.config.k8s.io":{"mode":"nftables"}}"#;
    assert!(ask("GET /configz").await.ends_with(configz));
    assert!(ask("GET /other").await.starts_with("HTTP/1.1 404 "));
    assert!(ask("POST /metrics").await.starts_with("HTTP/1.1 405 "));
}
