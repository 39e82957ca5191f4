//! Memory and time of the agent's own part, without a kernel, at 10,000 services
//! with 100,000 endpoints: `cargo run --release -p lb-userspace --example agent_scale`.

use std::{
    io,
    time::{Duration, Instant},
};

use lb_common::NodeConfig;
use lb_plan::{Limits, Planner, model::NodePortAddresses, op::Batch};
use lb_userspace::{
    agent::{Core, Dataplane, Input, Setup, Shared},
    bpf::ApplyReport,
    change::{Change, Kind, Object},
    health::service::Servers,
    intern::Interner,
    node::{self, Facts, Kernel},
    watch::manifest,
};

/// Maps that take everything and keep nothing.
struct Nowhere(usize);

impl Dataplane for Nowhere {
    fn apply(&mut self, batch: &Batch) -> ApplyReport {
        self.0 += batch.ops.len();
        ApplyReport::default()
    }
    fn configure(&mut self, _: &NodeConfig) -> io::Result<()> {
        Ok(())
    }
    fn pending(&self) -> usize {
        0
    }
    fn tidy(&mut self, _: &mut Planner) {}
}

const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 10;

fn service(i: usize) -> String {
    let (b, c) = (i / 250, i % 250 + 1);
    format!(
        "kind: Service\nmetadata: {{name: service-{i}, namespace: ns-{}}}\nspec: {{clusterIPs: [10.96.{b}.{c}], ports: [{{name: http, port: 80}}]}}\n",
        i % 100
    )
}

fn slice(i: usize, version: usize) -> String {
    let endpoints: Vec<String> = (0..ENDPOINTS)
        .map(|e| {
            let n = i * ENDPOINTS + e + if e == 0 { version * SERVICES * ENDPOINTS } else { 0 };
            let ip = format!("10.{}.{}.{}", 128 + n / 65_536, n / 256 % 256, n % 256);
            format!("{{addresses: [{ip}], nodeName: node-{}, zone: z{}, conditions: {{ready: true, serving: true, terminating: false}}}}", n % 500, n % 3)
        })
        .collect();
    format!(
        "kind: EndpointSlice\nmetadata: {{name: service-{i}-x7k2p, namespace: ns-{}, labels: {{kubernetes.io/service-name: service-{i}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{}]\n",
        i % 100,
        endpoints.join(", ")
    )
}

/// Resident memory in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0);
    kib / 1024.0
}

fn object(text: &str, interner: &Interner) -> Object {
    manifest::parse(text, &Kind::AGENT, interner)
        .objects
        .remove(0)
}

fn setup(shared: &Shared, servers: Servers) -> io::Result<Setup<Nowhere>> {
    let own = std::net::Ipv4Addr::new(10, 0, 0, 1).into();
    Ok(Setup {
        dataplane: Nowhere(0),
        planner: Planner::new(Limits::default()),
        node: node::Settings {
            name: "node-1".into(),
            node_port_addresses: NodePortAddresses::Primary,
            localhost_node_ports: true,
            node_port_range: (30_000, 32_767),
            proxy_name: None,
            socket_lb_host_only: false,
            bind_address: None,
        },
        kernel: Kernel::read()?,
        facts: Facts {
            addresses: vec![own],
            default_sources: vec![own],
        },
        servers,
        shared: shared.clone(),
    })
}

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shared = Shared::default();
    println!("{:>8.1} MiB at start", resident());
    let servers = Servers::new(runtime.handle().clone(), shared.health.clone());
    let interner = Interner::default();
    let mut core = Core::new(setup(&shared, servers)?, Instant::now());
    let start = Instant::now();
    for i in 0..SERVICES {
        core.take(Input::Change(Change::Put(object(&service(i), &interner))));
        core.take(Input::Change(Change::Put(object(&slice(i, 0), &interner))));
    }
    println!(
        "{:>8.1} MiB, {:?} to read the objects",
        resident(),
        start.elapsed()
    );
    Kind::AGENT
        .into_iter()
        .for_each(|k| core.take(Input::Change(Change::Done(k))));
    let start = Instant::now();
    core.work(Instant::now());
    println!(
        "{:>8.1} MiB, {:?} to plan everything, {} writes",
        resident(),
        start.elapsed(),
        core.dataplane().0
    );
    let start = Instant::now();
    core.tell();
    println!("{:>8.1} MiB, {:?} to tell", resident(), start.elapsed());
    changes(&mut core, &interner);
    Ok(())
}

/// Times the change of one endpoint, from event to writes.
fn changes(core: &mut Core<Nowhere>, interner: &Interner) {
    let mut times: Vec<Duration> = (0..2000)
        .map(|i| {
            let object = object(&slice(i * 5, 1), interner);
            let start = Instant::now();
            core.take(Input::Change(Change::Put(object)));
            core.work(core.due().max(Instant::now()));
            start.elapsed()
        })
        .collect();
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100 - 1];
    println!(
        "{:>8.1} MiB, one endpoint's change: median {:?}, p99 {:?}, max {:?}",
        resident(),
        at(50),
        at(99),
        at(100)
    );
}
