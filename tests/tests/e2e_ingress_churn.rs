//! What changes while requests come: endpoints, Ingresses, and the end of the proxy.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use bascule_tests::{
    e2e::netns::Netns,
    ingress::{
        backend::{self, Kind},
        client::ask,
        proxy::Proxy,
    },
};
use serde_json::{Value, json};

const PROXY: [u8; 4] = [10, 79, 0, 1];

fn endpoint(last: usize) -> SocketAddr {
    ([10, 79, 1, last as u8], 8080).into()
}

/// The Service `web` with some endpoints, and an Ingress with a path of its own for each version.
fn manifests(endpoints: &[usize], version: usize) -> String {
    let address = |last: &usize| json!({"addresses": [endpoint(*last).ip().to_string()]});
    let endpoints: Vec<_> = endpoints.iter().map(address).collect();
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = |path: &str| json!({"path": path, "pathType": "Prefix", "backend": backend});
    let objects = [
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": "bascule"}, "spec": {"controller": "bascule.dev/ingress"},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.79.2.1", "ports": [{"port": 80, "targetPort": 8080}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "web", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}],
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "ingressClassName": "bascule",
                "rules": [{"host": "web.test", "http": {
                    "paths": [path("/"), path(&format!("/version-{version}"))],
                }}],
            },
        }),
    ];
    let documents = objects.iter().map(Value::to_string);
    documents.collect::<Vec<_>>().join("\n---\n")
}

/// Runs a test in a namespace where five endpoints serve.
fn with_endpoints(name: &str, test: impl FnOnce() + Send) {
    let netns = Netns::new(&format!("churn-{}-{name}", std::process::id()));
    netns.ip("addr add 10.79.0.1/16 dev lo\n");
    netns.inside(|| {
        for last in 1..=5 {
            backend::serve(&format!("web-{last}"), endpoint(last), Kind::Echo);
        }
        test();
    });
}

const REQUEST: &str = "GET /x HTTP/1.1\r\nhost: web.test\r\n";

/// Asks on one connection, again and again until the end. How often, or what went wrong.
fn keep_asking(to: SocketAddr, end: &AtomicBool) -> Result<usize, String> {
    let stream = TcpStream::connect(to).map_err(|e| e.to_string())?;
    let patience = Some(Duration::from_secs(10));
    stream
        .set_read_timeout(patience)
        .map_err(|e| e.to_string())?;
    let mut input = BufReader::new(&stream);
    let mut asked = 0;
    while !end.load(Ordering::Relaxed) && asked < 900 {
        (&stream)
            .write_all(format!("{REQUEST}\r\n").as_bytes())
            .map_err(|e| e.to_string())?;
        let mut head = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            input.read_line(&mut line).map_err(|e| e.to_string())?;
            if line.trim().is_empty() {
                break;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(|_| "a length".to_owned())?;
            }
            head += &line;
        }
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(format!("request {asked}: {head:?}"));
        }
        let mut body = vec![0; length];
        input.read_exact(&mut body).map_err(|e| e.to_string())?;
        asked += 1;
    }
    Ok(asked)
}

/// One of five endpoints leaves and comes back every 100 ms, an Ingress changes every second: no
/// request fails, on connections that stay and on new ones.
#[test]
fn no_request_fails_while_endpoints_and_ingresses_change() {
    with_endpoints("endpoints", || {
        let proxy = Proxy::start(PROXY, &manifests(&[1, 2, 3, 4, 5], 0), &[]);
        let (end, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (to, end, asked) = (proxy.http, &end, &asked);
        thread::scope(|scope| {
            let kept = |_| {
                scope.spawn(move || {
                    while !end.load(Ordering::Relaxed) {
                        let done = keep_asking(to, end).expect("every request is answered");
                        asked.fetch_add(done, Ordering::Relaxed);
                    }
                })
            };
            let new = |_| {
                scope.spawn(move || {
                    let head = format!("{REQUEST}connection: close\r\n");
                    while !end.load(Ordering::Relaxed) {
                        let answer = ask(to, &head, "").expect("every request is answered");
                        assert_eq!(answer.status, 200, "{answer:?}");
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                })
            };
            let threads: Vec<_> = (0..2).map(kept).chain((0..2).map(new)).collect();
            let start = Instant::now();
            for step in 0..60 {
                let all = 1..=5_usize;
                let left: Vec<_> = match step % 2 {
                    0 => all.filter(|last| last % 5 != step / 2 % 5).collect(),
                    _ => all.collect(),
                };
                proxy.write(&manifests(&left, step / 10));
                let next = Duration::from_millis(100) * (step as u32 + 1);
                thread::sleep(next.saturating_sub(start.elapsed()));
            }
            end.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().expect("no request failed");
            }
        });
        let asked = asked.load(Ordering::Relaxed);
        assert!(
            asked > 180,
            "{asked} requests are too few to show something"
        );
    });
}

/// SIGTERM: what is under way is answered, nothing new is accepted, and the process ends.
#[test]
fn requests_that_are_under_way_are_answered_before_it_ends() {
    with_endpoints("drain", || {
        let mut proxy = Proxy::start(PROXY, &manifests(&[1], 0), &[]);
        let mut stream = TcpStream::connect(proxy.http).expect("it listens");
        let head = "POST /x HTTP/1.1\r\nhost: web.test\r\ncontent-length: 6\r\n\r\nabc";
        stream.write_all(head.as_bytes()).expect("it reads");
        // The backend waits for the rest of the body.
        thread::sleep(Duration::from_millis(300));
        proxy.terminate();
        thread::sleep(Duration::from_millis(300));
        assert!(
            TcpStream::connect(proxy.http).is_err(),
            "it listens no more"
        );
        stream.write_all(b"def").expect("it still reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        assert!(answer.contains("abcdef"), "{answer:?}");
        let status = proxy.ended();
        assert!(status.success(), "{status}: {}", proxy.log());
    });
}
