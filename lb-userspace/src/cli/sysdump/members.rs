//! What a dump has in it, each piece by itself: one that is not to be had costs no other.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::SystemTime};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};

use super::{kernel, scrape};
use crate::{
    agent::state::StateDir,
    bpf::views::Views,
    cli::{
        affinity::{AffinityRow, affinity_rows},
        args::Paths,
        flows::FlowRow,
        maglev::table_rows,
        show,
    },
    health::{self, View},
    node::{addresses, devices},
};

/// Whose pieces these are.
pub(super) struct Node<'a>(pub(super) &'a Paths);

/// Makes a piece.
type Make = fn(&Node<'_>) -> anyhow::Result<Vec<u8>>;

/// The pieces, by the names of their files.
pub(super) const MEMBERS: [(&str, Make); 22] = [
    ("versions.json", versions),
    ("status.json", |n| json(&show::report(n.0)?)),
    ("status.txt", |n| {
        Ok(show::report(n.0)?.text(false).into_bytes())
    }),
    ("health.json", health),
    ("config.json", |n| json(&config(n)?)),
    ("log.json", |n| json(&n.state().read_log()?)),
    ("metrics.txt", metrics),
    ("maps.json", |n| json(&show::map_rows(&n.views()?).0)),
    ("layouts.json", |n| json(&n.views()?.layouts())),
    ("links.json", |n| json(&n.views()?.links()?)),
    ("node.json", node),
    ("names.json", names),
    ("services.json", |n| json(&show::held(n.0)?.frontend_rows())),
    ("backends.json", |n| json(&show::held(n.0)?.backend_rows())),
    ("maglev.json", |n| {
        json(&table_rows(&show::held(n.0)?, None))
    }),
    ("affinity.json", affinity),
    ("conntrack.json", conntrack),
    ("kernel.json", |_| json(&kernel::facts())),
    ("kernel-config.txt", |_| kernel::config()),
    ("devices.json", |_| {
        let addresses = addresses::read()?.addresses;
        json(&json!({"devices": devices::devices()?, "addresses": addresses}))
    }),
    ("qdiscs.json", |_| json(&devices::qdiscs()?)),
    ("mounts.txt", |_| mounts()),
];

/// Flows that a dump has at most: a full conntrack would take gigabytes.
const FLOWS: usize = 100_000;

impl Node<'_> {
    fn views(&self) -> anyhow::Result<Views> {
        show::open(self.0)
    }

    fn state(&self) -> StateDir {
        StateDir::new(&self.0.state_dir)
    }

    /// The node's name, if its agent has said it.
    pub(super) fn name(&self) -> Option<String> {
        let status = self.state().read_status();
        status.ok().flatten().map(|status| status.node)
    }
}

fn json(value: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn versions(node: &Node<'_>) -> anyhow::Result<Vec<u8>> {
    let agent = node.state().read_status();
    let agent = agent.ok().flatten().map(|status| status.version);
    json(&json!({
        "bascule": env!("BASCULE_VERSION"),
        "agent": agent,
        "time": health::time(SystemTime::now()),
        "paths": {"bpffs": node.0.bpffs, "state_dir": node.0.state_dir},
    }))
}

/// What health checks follow from, and what they are answered with.
fn health(node: &Node<'_>) -> anyhow::Result<Vec<u8>> {
    let record = node.state().record()?;
    let (record, heard) = record.context("the agent has not said what it would answer")?;
    let view = View {
        facts: record.facts,
        heard: Some(heard),
    };
    let now = SystemTime::now();
    let answer = |a: crate::http::Answer| {
        let body: Value = serde_json::from_str(&a.body).unwrap_or_default();
        json!({"status": a.status, "body": body})
    };
    json(&json!({
        "healthz": answer(view.healthz(now)),
        "livez": answer(view.livez(now)),
        "record": record,
    }))
}

fn config(node: &Node<'_>) -> anyhow::Result<Value> {
    let config = node.state().read_config()?;
    config.context("the agent has not written its configuration")
}

fn metrics(node: &Node<'_>) -> anyhow::Result<Vec<u8>> {
    let config = config(node)?;
    let address = config["metrics"]
        .as_str()
        .context("no metrics are served")?;
    let address: SocketAddr = address.parse().context("the address of the metrics")?;
    scrape::get(address, "/metrics")
}

fn node(node: &Node<'_>) -> anyhow::Result<Vec<u8>> {
    let config = node.views()?.node()?;
    json(&json!({
        "snat4": std::net::IpAddr::from(config.snat4),
        "snat6": std::net::IpAddr::from(config.snat6),
        "snat_ports": [config.snat_port_min, config.snat_port_max],
        "flags": config.flags,
        "host_netns": config.host_netns,
    }))
}

fn names(node: &Node<'_>) -> anyhow::Result<Vec<u8>> {
    let names = node.state().read_names()?.into_iter();
    let names: BTreeMap<u32, String> = names.map(|(id, port)| (id, port.to_string())).collect();
    json(&names)
}

fn affinity(node: &Node<'_>) -> anyhow::Result<Vec<u8>> {
    let mut rows = affinity_rows(&show::held(node.0)?, &node.views()?.affinities()?);
    rows.sort_by_cached_key(AffinityRow::order);
    json(&rows)
}

fn conntrack(node: &Node<'_>) -> anyhow::Result<Vec<u8>> {
    let flows = node.views()?.flows()?;
    let names = node.state().read_names().unwrap_or_default();
    let shown = flows.iter().take(FLOWS);
    let mut rows: Vec<FlowRow> = shown.map(|flow| FlowRow::new(flow, &names)).collect();
    rows.sort_by_cached_key(FlowRow::order);
    json(&json!({"in_all": flows.len(), "flows": rows}))
}

/// The mounts of what Bascule needs.
fn mounts() -> anyhow::Result<Vec<u8>> {
    let mounts = fs::read_to_string("/proc/mounts").context("/proc/mounts")?;
    let kept = mounts.lines().filter(|line| {
        let kind = line.split(' ').nth(2).unwrap_or_default();
        matches!(kind, "bpf" | "cgroup" | "cgroup2")
    });
    Ok(kept
        .map(|line| format!("{line}\n"))
        .collect::<String>()
        .into_bytes())
}
