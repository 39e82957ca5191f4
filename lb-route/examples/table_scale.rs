//! How long a table takes, and how much memory: `cargo run --release -p lb-route --example
//! table_scale -- INGRESSES`. Each Ingress has two hosts with five paths, and a Service of its own
//! with five endpoints. Each result is a line of JSON.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, Uri, Version, header};
use lb_route::{
    Compiler, Mode, Options, PathType, Table,
    input::{BackendRef, Ingress, IngressPath, IngressRule, Name, PortRef, Service, ServicePort},
    request::{Client, Head},
};

fn ingress(number: usize, service: &str) -> Ingress {
    let path = |path: usize| IngressPath {
        path: format!("/path-{path}"),
        kind: PathType::Prefix,
        backend: Some(BackendRef {
            service: service.into(),
            port: PortRef::Number(80),
        }),
    };
    let rule = |host: usize| IngressRule {
        host: format!("host-{host}.ingress-{number}.example.com"),
        paths: (0..5).map(path).collect(),
    };
    let prefixed = |key: &str, value: &str| {
        (
            format!("nginx.ingress.kubernetes.io/{key}"),
            value.to_owned(),
        )
    };
    Ingress {
        key: Name::new("default", &format!("ingress-{number}")),
        mode: Mode::Nginx,
        uid: number.to_string().into(),
        created: number as i64,
        annotations: BTreeMap::from([
            prefixed("proxy-body-size", "8m"),
            prefixed("proxy-read-timeout", "120"),
            prefixed("enable-cors", "true"),
        ]),
        default_backend: None,
        rules: (0..2).map(rule).collect(),
        tls: vec![],
    }
}

fn service(number: usize) -> Service {
    let endpoint = |at: u8| ([10, (number >> 8) as u8, number as u8, at], 8080).into();
    let endpoints: Vec<_> = (0..5).map(endpoint).collect();
    let port = ServicePort {
        name: "".into(),
        number: 80,
        address: None,
        endpoints: endpoints.into(),
    };
    Service {
        ports: vec![port],
        external_name: None,
    }
}

/// Memory of the process, KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// Changes objects one by one, and says how long a table with each takes.
fn change(compiler: &mut Compiler) {
    let mut ingresses = Vec::new();
    let mut endpoints = Vec::new();
    for number in 0..100 {
        let start = Instant::now();
        let name = format!("service-{}", number + 1);
        compiler.put_ingress(Arc::new(ingress(number, &name)));
        std::hint::black_box(compiler.compile());
        ingresses.push(start.elapsed());
        let start = Instant::now();
        let changed = Arc::new(service(number));
        compiler.put_service(&Name::new("default", &name), Some(changed));
        std::hint::black_box(compiler.compile());
        endpoints.push(start.elapsed());
    }
    say(
        "change of one Ingress",
        "ms",
        1e3 * median(ingresses).as_secs_f64(),
    );
    say(
        "change of a Service's endpoints",
        "ms",
        1e3 * median(endpoints).as_secs_f64(),
    );
}

/// Says how long a decision takes.
fn ask(table: &Table) {
    let mut headers = HeaderMap::new();
    let host = "host-1.ingress-7.example.com";
    headers.insert(header::HOST, host.parse().expect("a value"));
    let head = Head {
        method: &Method::GET,
        uri: &Uri::from_static("/path-3/some/thing?x=y"),
        version: Version::HTTP_11,
        headers: &headers,
    };
    let client = Client {
        address: ([192, 0, 2, 1], 1234).into(),
        port: 80,
        tls: None,
        random: 0,
        request_id: "0".repeat(32),
    };
    const RUNS: u32 = 100_000;
    let start = Instant::now();
    for _ in 0..RUNS {
        std::hint::black_box(table.decide(std::hint::black_box(&head), &client));
    }
    say(
        "decision",
        "us",
        1e6 * start.elapsed().as_secs_f64() / f64::from(RUNS),
    );
}

fn say(case: &str, unit: &str, value: f64) {
    println!("{{\"case\": \"{case}\", \"unit\": \"{unit}\", \"value\": {value}}}");
}

fn main() {
    let many = std::env::args().nth(1);
    let many = many.map_or(5_000, |text| text.parse().expect("a number of Ingresses"));
    let before = resident();
    let start = Instant::now();
    let mut compiler = Compiler::new(Options::default());
    for number in 0..many {
        let name = format!("service-{number}");
        let service = Arc::new(service(number));
        compiler.put_service(&Name::new("default", &name), Some(service));
        compiler.put_ingress(Arc::new(ingress(number, &name)));
    }
    let table = compiler.compile();
    say("compile", "s", start.elapsed().as_secs_f64());
    let memory = resident().saturating_sub(before);
    say("memory", "MiB", memory as f64 / 1024.0);
    ask(&table);
    change(&mut compiler);
}
