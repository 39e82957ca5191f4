//! A bulk TCP stream through a node, translated and not: two nodes that are
//! alike but for the agent that one of them has.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::isolate::{self, Running};
use super::stats::{Row, Target};
use super::{Plan, control, manifests};
use crate::sh::Sh;
use crate::ui;

/// Port of iperf3.
const PORT: u16 = 5201;
/// The service's address, which only the programs know.
const SERVICE: &str = "203.0.113.1";
/// The pod's address.
const POD: &str = "10.8.0.2";
/// The server must answer within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures the only row of this suite.
///
/// # Errors
/// A namespace cannot be made, or a stream fails.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let plan = plan.clone();
    isolate::run(move |dir| streams(&plan, dir))
}

fn streams(plan: &Plan, dir: &Path) -> Result<Vec<Row>> {
    // `ip netns` keeps its names here; these vanish with our mount namespace.
    let names = Path::new("/run/netns");
    fs::create_dir_all(names).context("cannot make /run/netns")?;
    isolate::mount("tmpfs", names, Some("tmpfs"), 0)?;
    let mut servers = Vec::new();
    for world in ["plain", "served"] {
        network(world)?;
        servers.push(Running(inside(world, "pod", "iperf3", &["-s"])?));
    }
    let source = dir.join("bulk");
    fs::create_dir_all(&source).context("cannot make a directory of manifests")?;
    let manifest = manifests::one(SERVICE, POD, "node-0", PORT);
    manifests::write(&source.join("bulk.yaml"), &manifest)?;
    let exec = ["ip", "netns", "exec", "served-node"];
    let mut agent = Running(control::spawn(&source, dir, &exec)?);
    control::until_synced(&mut agent, &dir.join("state"))?;
    let mut row = Row::new("bulk", "TCP stream over veth, by a service", "Gbit/s");
    row.reference = Some(("the same without".to_owned(), Vec::new()));
    row.target = Some(Target::AtLeast(0.96));
    let mut progress = ui::Progress::start("bulk streams");
    let seconds = if plan.divisor > 1 { 1 } else { 4 };
    for repetition in 0..=plan.reps {
        progress.tick(&format!("{repetition}/{}", plan.reps));
        // Each is first in turn.
        let (plain, served) = if repetition % 2 == 0 {
            let plain = stream("plain", POD, seconds)?;
            (plain, stream("served", SERVICE, seconds)?)
        } else {
            let served = stream("served", SERVICE, seconds)?;
            (stream("plain", POD, seconds)?, served)
        };
        // The first round only warms up: neighbours, caches, buffers.
        if repetition > 0 {
            row.add(served, plain);
        }
    }
    progress.end(true);
    let mut plain = Row::new("bulk", "TCP stream over veth, without", "Gbit/s");
    plain.samples = row
        .reference
        .as_ref()
        .map(|r| r.1.clone())
        .unwrap_or_default();
    Ok(vec![plain, row])
}

/// A client, a node and its pod, in a row.
fn network(world: &str) -> Result<()> {
    let script = "\
        netns add W-client\nnetns add W-node\nnetns add W-pod\n\
        link add up0 netns W-node type veth peer name eth0 netns W-client\n\
        link add pod0 netns W-node type veth peer name eth0 netns W-pod\n\
        -n W-client addr add 10.9.0.2/24 dev eth0\n\
        -n W-node addr add 10.9.0.1/24 dev up0\n\
        -n W-node addr add 10.8.0.1/24 dev pod0\n\
        -n W-pod addr add 10.8.0.2/24 dev eth0\n\
        -n W-client link set eth0 up\n-n W-node link set up0 up\n\
        -n W-node link set pod0 up\n-n W-pod link set eth0 up\n\
        -n W-client link set lo up\n-n W-node link set lo up\n-n W-pod link set lo up\n\
        -n W-client route add default via 10.9.0.1\n\
        -n W-pod route add default via 10.8.0.1\n";
    for line in script.replace('W', world).lines() {
        Sh::new("ip").args(line.split_whitespace()).read()?;
    }
    Sh::new("ip")
        .args(["netns", "exec", &format!("{world}-node")])
        .args(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        .read()?;
    Ok(())
}

fn inside(world: &str, place: &str, program: &str, args: &[&str]) -> Result<std::process::Child> {
    Command::new("ip")
        .args(["netns", "exec", &format!("{world}-{place}"), program])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {program}"))
}

/// Gbit/s of a stream from a world's client.
fn stream(world: &str, to: &str, seconds: u32) -> Result<f64> {
    let start = Instant::now();
    loop {
        let sent = Sh::new("ip")
            .args(["netns", "exec", &format!("{world}-client"), "iperf3"])
            .args(["--client", to, "--json", "--connect-timeout", "2000"])
            .args(["--time", &seconds.to_string()])
            .read();
        match sent {
            Ok(json) => return gigabits(&json),
            // The server is not there yet, or busy with the stream before.
            Err(_) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(e) => return Err(e.context(format!("no stream to {to}"))),
        }
    }
}

fn gigabits(json: &str) -> Result<f64> {
    let value: serde_json::Value = serde_json::from_str(json).context("iperf3 wrote no JSON")?;
    match value["end"]["sum_received"]["bits_per_second"].as_f64() {
        Some(bits) => Ok(bits / 1e9),
        None => bail!("iperf3 does not tell how much was received"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receiver_counts() {
        let json = r#"{"end": {"sum_sent": {"bits_per_second": 3e9},
            "sum_received": {"bits_per_second": 2.5e9}}}"#;
        assert_eq!(gigabits(json).unwrap(), 2.5);
        assert!(gigabits("{}").is_err());
    }
}
