//! How long the agent takes at scale, with the kernel's own maps:
//! `program_scale BPFFS [REPETITIONS [SERVICES [ENDPOINTS]]]`, by default 5
//! repetitions of 10,000 services with 10 endpoints each. `cargo xtask bench`
//! calls it, in network and mount namespaces of its own.
//!
//! A line of JSON for each sample: `{"case": …, "unit": …, "value": …}`.

#[path = "../../lb-plan/examples/scale/mod.rs"]
mod scale;

use std::{
    env,
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use lb_plan::{
    Limits, ServicePlan,
    model::{EndpointSlice, NodePortAddresses},
    plan_service,
};
use lb_userspace::{
    agent::{Core, Dataplane, Input, Setup, Shared, kernel},
    bpf,
    change::{Change, Content, Kind, Node, Object, ObjectKey},
    health::service::Servers,
    node,
};

/// Changes of a repetition.
const CHANGES: u32 = 1000;

fn main() -> anyhow::Result<()> {
    let mut args = env::args().skip(1);
    let bpffs = args.next().ok_or_else(|| {
        anyhow::anyhow!("the directory of a bpffs is missing: program_scale BPFFS")
    })?;
    let mut number = |default: u32| match args.next() {
        Some(arg) => arg.parse(),
        None => Ok(default),
    };
    let (repetitions, services, endpoints) = (number(5)?, number(10_000)?, number(10)?);
    for repetition in 0..repetitions {
        let dir = Path::new(&bpffs).join(repetition.to_string());
        std::fs::create_dir(&dir)?;
        full(&dir, services, endpoints)?;
        std::fs::remove_dir_all(dir.join("bascule"))?;
        changes(&dir, services, endpoints)?;
        std::fs::remove_dir_all(&dir)?;
        let (_, took) = scale::maglev_table(1000);
        tell("maglev table of 1,000 backends", "ms", milliseconds(took));
    }
    Ok(())
}

fn tell(case: &str, unit: &str, value: f64) {
    println!("{{\"case\": \"{case}\", \"unit\": \"{unit}\", \"value\": {value}}}");
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn settings(bpffs: &Path) -> bpf::Settings {
    bpf::Settings {
        bpffs: bpffs.to_owned(),
        socket_lb: bpf::SocketLb::Off,
        xdp: bpf::XdpMode::Off,
        ..bpf::Settings::default()
    }
}

/// Planned services to empty maps.
fn full(bpffs: &Path, services: u32, endpoints: u32) -> anyhow::Result<()> {
    let (mut dataplane, mut planner) = kernel::load(&settings(bpffs), Limits::default())?;
    let view = scale::view();
    let input = scale::cluster(services, endpoints);
    let start = Instant::now();
    let plans: Vec<ServicePlan> = input
        .iter()
        .map(|(service, slice)| plan_service(service, &[slice], &view))
        .collect();
    tell("plan all services", "ms", milliseconds(start.elapsed()));
    let start = Instant::now();
    plans.into_iter().for_each(|plan| planner.upsert(plan));
    planner.finish_sync();
    while planner.has_pending() {
        let report = dataplane.apply(&planner.take_batch());
        anyhow::ensure!(report.failed.is_empty(), "writes failed: {report:?}");
    }
    let took = milliseconds(start.elapsed());
    let usage = planner.usage();
    anyhow::ensure!(
        usage.backends == services * endpoints,
        "the maps lack backends: {usage:?}"
    );
    tell("planned state to maps", "ms", took);
    Ok(())
}

/// Changes of one endpoint each, from the change to the map.
fn changes(bpffs: &Path, services: u32, endpoints: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (dataplane, planner) = kernel::load(&settings(bpffs), Limits::default())?;
    let shared = Shared::default();
    let setup = Setup {
        dataplane,
        planner,
        node: node::Settings {
            name: scale::NODE.into(),
            node_port_addresses: NodePortAddresses::Primary,
            localhost_node_ports: false,
            node_port_range: (30_000, 32_767),
            proxy_name: None,
            socket_lb_host_only: false,
            bind_address: None,
        },
        kernel: node::Kernel::read()?,
        facts: node::Facts::default(),
        servers: Servers::new(runtime.handle().clone(), shared.health.clone()),
        shared,
    };
    let mut core = Core::new(setup, Instant::now());
    let start = Instant::now();
    for change in snapshot(services, endpoints) {
        core.take(Input::Change(change));
    }
    core.work(Instant::now());
    tell(
        "listed objects to maps",
        "ms",
        milliseconds(start.elapsed()),
    );
    let mut times = Vec::new();
    for n in 0..CHANGES {
        let change = put(scale::change(n, services, endpoints).1);
        // As for the agent: a change some time after the one before.
        while core.due() <= Instant::now() {
            core.work(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(3));
        let start = Instant::now();
        core.take(Input::Change(change));
        core.work(Instant::now());
        times.push(start.elapsed());
        anyhow::ensure!(core.dataplane().pending() == 0, "a write failed");
    }
    times.sort_unstable();
    let at = |percent: usize| milliseconds(times[times.len() * percent / 100]);
    tell("one endpoint's change, median", "ms", at(50));
    tell("one endpoint's change, 99th percentile", "ms", at(99));
    Ok(())
}

fn snapshot(services: u32, endpoints: u32) -> impl Iterator<Item = Change> {
    let node = Node {
        name: scale::NODE.into(),
        internal_ips: vec![Ipv4Addr::new(192, 168, 0, 1).into()],
        ..Node::default()
    };
    let node_key = ObjectKey {
        kind: Kind::Node,
        namespace: "".into(),
        name: scale::NODE.into(),
    };
    let nodes = [object(node_key, Content::Node(Box::new(node)))];
    let own = (0..services).map(|i| {
        let service = scale::service(i);
        let key = ObjectKey::service(&service.key);
        object(key, Content::Service(service.into()))
    });
    let slices = (0..services).map(move |i| put(scale::slice(i, endpoints, 0)));
    std::iter::once(Change::Begin(Kind::Node))
        .chain(nodes)
        .chain([Change::Done(Kind::Node), Change::Begin(Kind::Service)])
        .chain(own)
        .chain([
            Change::Done(Kind::Service),
            Change::Begin(Kind::EndpointSlice),
        ])
        .chain(slices)
        .chain([Change::Done(Kind::EndpointSlice)])
}

fn object(key: ObjectKey, content: Content) -> Change {
    Change::Put(Object {
        key,
        content,
        problems: Vec::new(),
    })
}

fn put(slice: EndpointSlice) -> Change {
    let key = ObjectKey {
        kind: Kind::EndpointSlice,
        namespace: slice.service.namespace.clone(),
        name: slice.name.clone(),
    };
    object(key, Content::Slice(std::sync::Arc::new(slice), None))
}
