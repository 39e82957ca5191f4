//! The proxy of Ingresses on the cluster, by image and chart: the whole way from a client outside
//! by the L4 datapath to the proxy's pods, and from there to pods. What the tests without a cluster
//! cannot show is a real API server's rights and webhooks, pods that come and go, and the agents
//! that serve the Service in front.

mod ask;
mod checks;
mod install;
mod load;
mod objects;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::ask::Site;
use self::install::Kind as Workload;
use self::objects::NAMESPACE;
use super::control::kubectl;
use super::pods;
use super::process::wait_for;
use super::proxy::Kind;
use super::state::State;
use super::topology::{CONTROL, Node};
use crate::ui;

/// How long a change of objects may take until it counts.
const PATIENCE: Duration = Duration::from_secs(30);
/// The addresses of the load balancer (RFC 5737, RFC 3849).
const BALANCER: [&str; 2] = ["192.0.2.80", "2001:db8:2::80"];

/// A proxy that serves, and how clients outside reach it.
struct Stage {
    nodes: u8,
    /// The chart's objects with a Deployment, which comes later.
    deployment: String,
    /// NodePorts of HTTP and HTTPS.
    node_ports: [u16; 2],
}

/// A check, by its name.
type Check = (&'static str, fn(&Stage) -> Result<()>);

/// Switches the proxy on, tries it, and switches it off.
///
/// # Errors
/// The agents are no pods, or something is not as it should be.
pub(super) fn run() -> Result<()> {
    let state = State::load()?;
    ensure!(
        state.proxy.proxy == Kind::Daemonset,
        "the agents are not pods: `cargo xtask cluster proxy --proxy daemonset` first"
    );
    ensure!(
        !state
            .proxy
            .flags
            .iter()
            .any(|flag| flag.starts_with("proxy.")),
        "the chart's values have a proxy already: `cargo xtask cluster proxy --proxy none` removes it; then \
         `--proxy daemonset` without proxy.*"
    );
    let first = Workload::DaemonSet.objects(&state.proxy)?;
    let second = Workload::Deployment.objects(&state.proxy)?;
    let outcome = try_it(&state, &first, &second);
    if outcome.is_err() {
        install::show_logs();
    }
    let removed = pods::remove(NAMESPACE).and_then(|()| install::remove(&[&first, &second]));
    outcome.and(removed)
}

fn try_it(state: &State, daemonset: &str, deployment: &str) -> Result<()> {
    let node_ports = install::start(state.nodes, daemonset)?;
    objects::make(state.nodes)?;
    let stage = Stage {
        nodes: state.nodes,
        deployment: deployment.to_owned(),
        node_ports,
    };
    stage.reach()?;
    let all: [Check; 13] = [
        ("hosts, by HTTP", checks::hosts),
        ("TLS by the name that is asked for", checks::tls),
        ("a path that is rewritten", checks::rewritten),
        ("on to a Service's own address", checks::by_service),
        ("the client's address, with Local", checks::client),
        ("the status of Ingresses", checks::status),
        ("an Ingress that comes", checks::newcomer),
        ("a certificate that changes", checks::rotation),
        ("an Event for a Secret that is missing", checks::event),
        ("the webhook refuses a path that is taken", checks::refusal),
        (
            "every pod of the DaemonSet replaced under load, with Local",
            checks::restart,
        ),
        ("the client's address, with Cluster", checks::client_hidden),
        (
            "a Deployment in its place, and each of its pods replaced, under load, with Cluster",
            checks::deployment,
        ),
    ];
    for (name, check) in all {
        check(&stage).with_context(|| name.to_owned())?;
        ui::say(format!("{name}: as it should be"));
    }
    Ok(())
}

impl Stage {
    /// Waits until every way leads to the proxy: agents may learn of its pods late.
    fn reach(&self) -> Result<()> {
        wait_for("the agents lead to the proxy", PATIENCE, None, || {
            for entry in self.entries(0) {
                let answer = Site::plain(objects::PLAIN).at(&entry).get("/hostname")?;
                ensure!(answer.status == 200, "{entry:?}: {answer:?}");
            }
            Ok(())
        })
    }

    /// Where clients dial: the load balancer and every node, in both families. The scheme is HTTP
    /// (0) or HTTPS (1).
    fn entries(&self, scheme: usize) -> Vec<Entry> {
        let mut all = self.balancer(scheme);
        for node in Node::first(self.nodes) {
            all.extend(self.node(node, scheme));
        }
        all
    }

    fn balancer(&self, scheme: usize) -> Vec<Entry> {
        let port = [80, 443][scheme];
        let entry = |addr: &str| Entry::new(addr, port);
        BALANCER.map(entry).to_vec()
    }

    fn node(&self, node: Node, scheme: usize) -> Vec<Entry> {
        let port = self.node_ports[scheme];
        let (v4, v6) = node.addrs();
        vec![Entry::new(&v4, port), Entry::new(&v6, port)]
    }
}

/// What a client dials.
#[derive(Clone, Debug)]
struct Entry {
    addr: String,
    port: u16,
}

impl Entry {
    fn new(addr: &str, port: u16) -> Self {
        let addr = addr.to_owned();
        Self { addr, port }
    }

    /// The client's own address towards it.
    fn client(&self) -> &'static str {
        match self.addr.contains(':') {
            true => CONTROL.1,
            false => CONTROL.0,
        }
    }
}

/// A field of an object in the test's namespace.
fn field(kind: &str, name: &str, path: &str) -> Result<String> {
    let path = format!("jsonpath={path}");
    kubectl(&["-n", NAMESPACE, "get", kind, name, "-o", &path])
}
