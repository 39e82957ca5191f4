//! `bascule proxy` sends spans: while it runs, and those that are left when it ends. What is in
//! them, and how a collector is spoken with, tests of its crate know.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use bascule_tests::{
    e2e::netns::Netns,
    ingress::{certificates::Certificates, client::ask, proxy::Proxy, services},
};
use serde_json::{Value, json};

const PROXY: [u8; 4] = [10, 79, 0, 1];
const PATIENCE: Duration = Duration::from_secs(20);

fn manifests(delay: &str) -> String {
    let mut all = services::manifests();
    all.extend([
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "traced-ingress", "namespace": "default"},
            "spec": {"ingressClassName": "nginx", "rules": [{
                "host": "traced.test",
                "http": {"paths": [{
                    "path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": "one", "port": {"number": 80}}},
                }]},
            }]},
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "default"},
            "data": {
                "enable-opentelemetry": "true", "otlp-collector-host": "10.79.0.1",
                "otel-schedule-delay-millis": delay,
            },
        }),
    ]);
    let documents = all.iter().map(Value::to_string);
    documents.collect::<Vec<_>>().join("\n---\n")
}

/// Takes what comes to the collector's port, and says when a text has come.
fn sink(text: &'static [u8]) -> mpsc::Receiver<()> {
    let listener = TcpListener::bind(SocketAddr::from((PROXY, 4317))).expect("it is free");
    let (say, said) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody comes");
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            all.extend_from_slice(&piece[..read]);
            if all.windows(text.len()).any(|window| window == text) {
                // The test may be over.
                let _ = say.send(());
            }
        }
    });
    said
}

/// Has a request answered by a proxy whose spans wait so long.
fn with_span(name: &str, delay: &str, test: impl FnOnce(Proxy, mpsc::Receiver<()>) + Send) {
    let netns = Netns::new(&format!("traces-{name}-{}", std::process::id()));
    netns.ip("addr add 10.79.0.1/16 dev lo\n");
    netns.inside(|| {
        services::serve(&Certificates::new());
        let comes = sink(b"traced-ingress");
        let flags = ["--configmap", "default/settings"];
        let proxy = Proxy::start(PROXY, &manifests(delay), &flags);
        let head = "GET / HTTP/1.1\r\nhost: traced.test\r\nconnection: close\r\n";
        let answer = ask(proxy.http, head, "").expect("it answers");
        assert_eq!(answer.status, 200);
        test(proxy, comes);
    });
}

#[test]
fn spans_are_sent_while_it_runs() {
    with_span("runs", "100", |proxy, comes| {
        let came = comes.recv_timeout(PATIENCE);
        assert!(came.is_ok(), "{}", proxy.log());
    });
}

#[test]
fn spans_that_are_left_are_sent_when_it_ends() {
    with_span("ends", "3600000", |mut proxy, comes| {
        assert!(comes.try_recv().is_err(), "they wait");
        let begun = Instant::now();
        proxy.terminate();
        let came = comes.recv_timeout(PATIENCE);
        assert!(came.is_ok(), "{}", proxy.log());
        // A collector that does not answer holds nothing up.
        assert!(proxy.ended().success());
        assert!(begun.elapsed() < PATIENCE);
    });
}
