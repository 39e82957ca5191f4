//! The text of a scrape, over HTTP.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb_common::{PacketCounter, Reason, ServiceCounter};
use lb_plan::model::{Protocol, ServiceKey, ServicePortKey};
use lb_userspace::{
    health::Health,
    http,
    metrics::{Exposition, Metrics, Readings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

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
            ServiceCounter {
                packets: 9,
                bytes: 820,
                connections: 7,
            },
        )],
        backends: 5,
    };
    let health = Arc::new(Health::default());
    health.healthz_at(SystemTime::now());
    Exposition::new(metrics, health, Box::new(readings))
}

/// Samples by name and labels, from the text format.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name, value.parse().unwrap())
        })
        .collect()
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of samples")]
fn every_family_is_exposed_under_its_name() {
    let metrics = Metrics::default();
    metrics.synced_round(true, Duration::from_millis(3), SystemTime::now());
    metrics.synced_round(false, Duration::from_millis(1), SystemTime::now());
    metrics.network_programming.observe(0.3);
    metrics.service_changes.total.inc();
    metrics.set_fill(&[("lb_frontends_v1", 12, 262_144)]);
    metrics.set_problems(["NoEndpoints", "NoEndpoints", "InvalidAddress"]);
    let text = exposition(&metrics).text();
    let samples = samples(&text);
    for (name, value) in [
        ("kubeproxy_sync_proxy_rules_duration_seconds_count", 2.0),
        (
            r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.002"}"#,
            1.0,
        ),
        (
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count",
            1.0,
        ),
        (
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count",
            1.0,
        ),
        (
            r#"kubeproxy_network_programming_duration_seconds_bucket{le="0.25"}"#,
            0.0,
        ),
        (
            r#"kubeproxy_network_programming_duration_seconds_bucket{le="0.5"}"#,
            1.0,
        ),
        (
            r#"kubeproxy_network_programming_duration_seconds_bucket{le="300.0"}"#,
            1.0,
        ),
        ("kubeproxy_sync_proxy_rules_service_changes_total", 1.0),
        ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", 0.0),
        (r#"kubeproxy_proxy_healthz_total{code="503"}"#, 1.0),
        (r#"kubeproxy_proxy_livez_total{code="200"}"#, 0.0),
        (r#"bascule_problems{reason="NoEndpoints"}"#, 2.0),
        (r#"bascule_problems{reason="InvalidAddress"}"#, 1.0),
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
        (r#"bascule_map_entries{map="lb_frontends_v1"}"#, 12.0),
        (r#"bascule_map_capacity{map="lb_frontends_v1"}"#, 262_144.0),
        ("bascule_backends", 5.0),
        ("bascule_sync_age_seconds", 0.0),
        ("bascule_apply_failures_total", 0.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name} in\n{text}");
    }
    // kube-proxy's buckets: 2 + 59 + 12 + 7, and +Inf.
    let buckets = samples
        .keys()
        .filter(|k| k.starts_with("kubeproxy_network_programming_duration_seconds_bucket"));
    assert_eq!(buckets.count(), 81);
}

#[tokio::test]
async fn the_server_answers_get_and_head_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = exposition(&Metrics::default()).handler();
    let server = tokio::spawn(async move { http::accept(listener, handler).await });
    let ask = async |line: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let metrics = ask("GET /metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(
        metrics.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{metrics}"
    );
    assert!(metrics.contains("bascule_backends 5\n"), "{metrics}");
    let head = ask("HEAD /metrics").await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(ask("GET /other").await.starts_with("HTTP/1.1 404 "));
    assert!(ask("POST /metrics").await.starts_with("HTTP/1.1 405 "));
    server.abort();
}
