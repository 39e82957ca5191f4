//! The cluster that is measured: two nodes for every proxy, alike but for it.
//!
//! All proxies are there at the same time, each on nodes of its own, so that what the machine
//! does besides meets all of them: a repetition asks one after the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::cell::{Cell, From, To};
use super::proxy::Proxy;
use crate::bench::loadgen::{Load, Outcome, Request};
use crate::cluster::control::kubectl;
use crate::cluster::pods::{self, IN_POD, Pod, Running};
use crate::cluster::process::{Daemon, Place, command, output, wait_for};
use crate::cluster::proxy;
use crate::cluster::topology::Node;
use crate::cluster::{self, down};
use crate::worker::Worker;
use crate::{paths, ui};

/// Where all objects are.
const NAMESPACE: &str = "bascule-bench";
/// Port of the servers.
const PORT: u16 = 8080;
/// Port of the services.
const SERVICE_PORT: u16 = 80;
/// Settings of every network that is measured: a client that closes connections at these rates
/// would have no port left, and the kernel's table of connections no room, after seconds.
const SETTINGS: [(&str, &str); 2] = [
    ("net.ipv4.tcp_tw_reuse", "1"),
    ("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "1"),
];
/// Ports of clients that are no nodes. A proxy takes ports for masquerading outside the range
/// that its node's sockets have when it starts.
const PORTS: (&str, &str) = ("net.ipv4.ip_local_port_range", "1024 65535");

/// Two nodes with one proxy: the first has the server.
pub(super) struct Pair {
    pub(super) proxy: Proxy,
    nodes: [Node; 2],
    clients: BTreeMap<From, Worker>,
    addrs: Addrs,
}

/// Whom clients dial.
struct Addrs {
    pod: String,
    cluster_ip: String,
    node_port: String,
}

/// The cluster. It goes with this.
pub(super) struct World {
    pub(super) pairs: Vec<Pair>,
    outside: Worker,
}

impl Drop for World {
    fn drop(&mut self) {
        // Clients are in the cgroups of their pods and nodes.
        self.pairs.clear();
        caretakers().for_each(|daemon| daemon.go_on());
        if let Err(e) = down::down() {
            ui::error(format!(
                "the cluster of the benchmark is not all gone: {e:#}"
            ));
        }
    }
}

impl World {
    /// Brings it up: nodes, proxies, pods, services.
    ///
    /// # Errors
    /// A part of it does not come up; what was there goes again.
    pub(super) fn up() -> Result<Self> {
        cluster::up(2 * Proxy::ALL.len() as u8, Proxy::None.choice())?;
        let built = Self::fill();
        if built.is_err() {
            // The first error says more than one of the removal's.
            let _ = down::down();
        }
        built
    }

    fn fill() -> Result<Self> {
        let program = paths::root().join("target/release/loadgen");
        let places: Vec<(Proxy, [Node; 2])> = (0..).zip(Proxy::ALL).map(place).collect();
        for (proxy, nodes) in &places {
            for node in nodes {
                proxy::start_on(*node, &proxy.choice())?;
            }
        }
        for (proxy, nodes) in &places {
            for node in nodes {
                proxy::wait_on(*node, proxy.choice().proxy)?;
            }
        }
        objects(&places, &program)?;
        let outside = command(Place::Control, &program)?;
        tune(command(Place::Control, "sysctl")?, &[PORTS])?;
        let mut world = Self {
            pairs: Vec::new(),
            outside: client("the client outside", outside)?,
        };
        for (proxy, nodes) in places {
            world.pairs.push(Pair::new(proxy, nodes, &program)?);
        }
        world.reach()?;
        // Whoever looks after pods takes a tenth of the machine, in bursts. From now on there is
        // nothing to look after.
        caretakers().for_each(|daemon| daemon.pause());
        Ok(world)
    }

    /// Waits until every cell is answered by the server of its pair.
    fn reach(&mut self) -> Result<()> {
        let probe = Load::probe();
        for pair in 0..self.pairs.len() {
            let proxy = self.pairs[pair].proxy;
            let server = proxy.word().chars().next();
            for cell in Cell::SERVED {
                let what = format!("{} serves: {}", proxy.name(), cell.name());
                wait_for(&what, super::PATIENCE, None, || {
                    self.turn(pair, cell, &probe)?.check(server)
                })?;
            }
        }
        Ok(())
    }

    /// Waits until every proxy has programmed a service, of which any server answers.
    ///
    /// # Errors
    /// One does not in time.
    pub(super) fn programmed(&mut self, target: &str) -> Result<()> {
        let probe = Load {
            target: target.to_owned(),
            ..Load::probe()
        };
        for pair in self.pairs.iter_mut().filter(|p| !p.proxy.is_direct()) {
            let proxy = pair.proxy;
            for client in pair.clients.values_mut() {
                let what = format!("{} has programmed all services", proxy.name());
                wait_for(&what, super::PATIENCE, None, || {
                    let outcome: Outcome = client.call(&Request::Run(&probe))?;
                    outcome.check(Proxy::None.word().chars().next())
                })?;
            }
        }
        Ok(())
    }

    /// The address of the server without a proxy.
    pub(super) fn pod(&self) -> &str {
        let pod = self.pairs.first().map(|pair| pair.addrs.pod.as_str());
        pod.and_then(|pod| pod.split(':').next())
            .unwrap_or_default()
    }

    /// Ends a proxy, which is measured no more.
    ///
    /// # Errors
    /// It does not end.
    pub(super) fn leave_out(&mut self, proxy: Proxy) -> Result<()> {
        let gone = self.pairs.extract_if(.., |pair| pair.proxy == proxy);
        gone.flat_map(|pair| pair.nodes).try_for_each(proxy::end_on)
    }

    /// Asks the client of a cell for a turn of a load by the service, or of the server's pod where
    /// there is no proxy, and waits for what became of it.
    ///
    /// # Errors
    /// The client has ended.
    pub(super) fn turn(&mut self, pair: usize, cell: Cell, load: &Load) -> Result<Outcome> {
        let pair = &mut self.pairs[pair];
        let load = Load {
            target: pair.target(cell),
            ..load.clone()
        };
        let client = match cell.from {
            From::Outside => &mut self.outside,
            inside => pair
                .clients
                .get_mut(&inside)
                .with_context(|| format!("there is no client for {}", cell.name()))?,
        };
        client.call(&Request::Turn(&load))
    }
}

/// What makes and watches the pods of a cluster, and changes nothing that proxies see while it
/// pauses.
fn caretakers() -> impl Iterator<Item = Daemon> {
    let is = |daemon: &Daemon| {
        let name = daemon.name();
        let of_a_node = name.ends_with(".kubelet") || name.ends_with(".containerd");
        of_a_node || matches!(name, "controller-manager" | "scheduler")
    };
    Daemon::all().into_iter().filter(is)
}

/// The nodes of a proxy.
fn place((at, proxy): (u8, Proxy)) -> (Proxy, [Node; 2]) {
    (proxy, [Node(2 * at + 1), Node(2 * at + 2)])
}

fn client(name: &str, mut command: std::process::Command) -> Result<Worker> {
    command.args(["client", "--cpu", "0"]);
    Worker::start(name, command)
}

/// Sets what all networks have that are measured.
fn tune(mut sysctl: std::process::Command, more: &[(&str, &str)]) -> Result<()> {
    // Where the kernel's connection tracking is not loaded, there is nothing to set.
    let there = |name: &&str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        Path::new(&path).exists()
    };
    sysctl.args(["--quiet", "--write"]);
    let all = SETTINGS.iter().chain(more);
    let settings = all.filter(|(name, _)| there(name));
    sysctl.args(settings.map(|(name, value)| format!("{name}={value}")));
    output(sysctl).map(|_| ())
}

/// A server and clients of every pair, and the services.
fn objects(places: &[(Proxy, [Node; 2])], program: &Path) -> Result<()> {
    let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
    let cpu = last.to_string();
    let port = PORT.to_string();
    let mut objects = Vec::new();
    let mut pods = 0;
    for (proxy, nodes) in places {
        let word = proxy.word();
        let mut add = |node: Node, name: &str, app: &str| {
            let pod = Pod {
                node,
                name,
                app,
                command: vec![
                    IN_POD, "serve", "--id", word, "--cpu", &cpu, "--port", &port,
                ],
                ready: json!({"tcpSocket": {"port": PORT}}),
            };
            objects.push(pod.object(program));
            pods += 1;
        };
        add(nodes[0], &format!("{word}-server"), word);
        add(nodes[0], &format!("{word}-same"), "client");
        add(nodes[1], &format!("{word}-across"), "client");
        if !proxy.is_direct() {
            let ports = ["TCP", "UDP"].map(|protocol| {
                json!({"name": protocol.to_lowercase(), "port": SERVICE_PORT, "targetPort": PORT, "protocol": protocol})
            });
            objects.push(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": word},
                "spec": {"type": "NodePort", "selector": {"app": word}, "ports": ports},
            }));
        }
    }
    pods::make(NAMESPACE, objects, pods)
}

impl Pair {
    fn new(proxy: Proxy, nodes: [Node; 2], program: &PathBuf) -> Result<Self> {
        let word = proxy.word();
        let mut clients = BTreeMap::new();
        for (from, pod) in [(From::Same, "same"), (From::Across, "across")] {
            let pod = Running::find(NAMESPACE, &format!("{word}-{pod}"))?;
            let mut sysctl = std::process::Command::new("sysctl");
            pod.enter(&mut sysctl)?;
            tune(sysctl, &[PORTS])?;
            let name = format!("the client of {} in a pod", proxy.name());
            clients.insert(from, client(&name, pod.command(program)?)?);
        }
        for node in nodes {
            tune(command(Place::Node(node), "sysctl")?, &[])?;
        }
        let name = format!("the client of {} on a node", proxy.name());
        let on_node = command(Place::Node(nodes[1]), program)?;
        clients.insert(From::Node, client(&name, on_node)?);
        Ok(Self {
            proxy,
            nodes,
            clients,
            addrs: Addrs::find(proxy)?,
        })
    }

    /// Whom a cell's client dials.
    fn target(&self, cell: Cell) -> String {
        let node = |at: usize| {
            let (v4, _) = self.nodes[at].addrs();
            format!("{v4}:{}", self.addrs.node_port)
        };
        match cell.to {
            _ if self.proxy.is_direct() => self.addrs.pod.clone(),
            To::ClusterIp => self.addrs.cluster_ip.clone(),
            To::NodePortThere => node(0),
            To::NodePortElsewhere => node(1),
        }
    }
}

impl Addrs {
    fn find(proxy: Proxy) -> Result<Self> {
        let word = proxy.word();
        let server = Running::find(NAMESPACE, &format!("{word}-server"))?;
        let v4 = server.addrs.iter().find(|a| !a.contains(':'));
        let pod = format!("{}:{PORT}", v4.context("the server has no IPv4 address")?);
        if proxy.is_direct() {
            return Ok(Self {
                pod,
                cluster_ip: String::new(),
                node_port: String::new(),
            });
        }
        let text = "jsonpath={.spec.clusterIP} {.spec.ports[*].nodePort}";
        let text = kubectl(&["-n", NAMESPACE, "get", "service", word, "-o", text])?;
        let words: Vec<&str> = text.split(' ').collect();
        ensure!(words.len() == 3, "service {word} has {text:?}");
        Ok(Self {
            pod,
            cluster_ip: format!("{}:{SERVICE_PORT}", words[0]),
            node_port: words[1].to_owned(),
        })
    }
}
