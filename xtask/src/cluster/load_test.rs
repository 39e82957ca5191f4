//! Connections and streams by every way to a backend, while something happens to the cluster.
//!
//! The programs that dial and serve are those of the end-to-end tests (`tests/src/e2e`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::load_clients::{Client, Report};
use super::pods::{self, IN_POD, Pod};
use super::state::State;
use super::topology::Node;
use crate::setup::{self, Need};
use crate::{build, paths, ui};

/// Servers on each node.
const SERVERS: u8 = 2;
/// Load before the command begins and after it ended.
const AROUND: Duration = Duration::from_secs(5);
/// Where all objects are.
pub(super) const NAMESPACE: &str = "bascule-load";
/// Backends on all nodes.
pub(super) const EVERYWHERE: &str = "everywhere";
/// Backends on the last node only, so that a node that is dialled has one or none.
pub(super) const ON_ONE: &str = "on-one";

/// How much load, and what happens meanwhile.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask cluster load-test --seconds 60\n  cargo xtask cluster load-test -- cargo xtask \
                  cluster proxy --proxy daemonset --image NEXT.tar\n\nThe clients share rate and streams: a pod on every node, \
                  and a node, dial a ClusterIP; a node dials its own NodePort; a host outside dials a NodePort whose backend \
                  is on the node that it dials, and one whose backend is on another. Each over IPv4 and IPv6 in turn.\n\nThe \
                  exit status is 0 if no connection failed, no stream broke or moved to another backend, and the command \
                  ended well."
)]
pub(crate) struct Args {
    /// New connections a second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Streams that live as long as the load and exchange a line every 100 ms
    #[arg(long, default_value_t = 200)]
    streams: u32,
    /// Length of the load, where no command says how long
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    /// Runs under the load, which begins 5 s before it and ends 5 s after it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Brings the servers up, dials them, and says how that went.
///
/// # Errors
/// No cluster is up, or the servers or clients do not start.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let nodes = State::load()?.nodes;
    let program = self::build()?;
    let outcome = serve(nodes, &program).and_then(|()| load(args, nodes, &program));
    pods::remove(NAMESPACE)?;
    let (report, ended_well) = outcome?;
    if args.json {
        println!("{}", report.json()?);
    } else {
        println!("{}", report.text());
    }
    let good = ended_well && report.is_good();
    Ok(ExitCode::from(u8::from(!good)))
}

/// Builds the program that dials and serves, with all others: alone it would have other features,
/// and all that it depends on would be compiled again.
fn build() -> Result<PathBuf> {
    let nightly = setup::ensure(Need::Build)?;
    build::bpf(&nightly)?;
    build::host(false)?;
    let program = paths::root().join("target/debug/e2e_peer");
    program
        .canonicalize()
        .with_context(|| format!("cannot find {}", program.display()))
}

/// The load with what happens meanwhile, and whether that ended well.
fn load(args: &Args, nodes: u8, program: &Path) -> Result<(Report, bool)> {
    let mut clients = Client::start_all(nodes, program)?;
    let share = |all: u32, at: usize, of: usize| {
        let (at, of) = (at as u32, of as u32);
        all * (at + 1) / of - all * at / of
    };
    clients.iter_mut().try_for_each(Client::reach)?;
    let count = clients.len();
    let start = Instant::now();
    for (at, client) in clients.iter_mut().enumerate() {
        client.load(share(args.rate, at, count), share(args.streams, at, count))?;
    }
    let ended_well = meanwhile(args)?;
    let outcomes = clients
        .iter_mut()
        .map(Client::rest)
        .collect::<Result<_>>()?;
    Ok((Report::new(outcomes, start.elapsed()), ended_well))
}

fn meanwhile(args: &Args) -> Result<bool> {
    let Some((program, words)) = args.command.split_first() else {
        ui::say(format!("the load runs for {} s", args.seconds));
        sleep(Duration::from_secs(args.seconds.into()));
        return Ok(true);
    };
    sleep(AROUND);
    let status = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        // Standard output is the report's.
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        ui::error(format!("{} ended with {status}", program.display()));
    }
    sleep(AROUND);
    Ok(status.success())
}

/// Starts the servers, the pods that dial, and the services, and waits until all are ready.
fn serve(nodes: u8, program: &Path) -> Result<()> {
    let last = Node(nodes).name();
    let mut objects = vec![
        service(EVERYWHERE, &json!({"app": "server"})),
        service(ON_ONE, &json!({"app": "server", "node": last})),
    ];
    for node in Node::first(nodes) {
        for number in 1..=SERVERS {
            let name = &format!("server-{}-{number}", node.name());
            let pod = Pod {
                node,
                name,
                app: "server",
                command: vec![IN_POD, "serve", name, "8080"],
                ready: json!({"tcpSocket": {"port": 8080}}),
            };
            objects.push(pod.object(program));
        }
        let pod = Pod {
            node,
            name: &client_pod(node),
            app: "client",
            command: vec!["sleep", "infinity"],
            ready: json!({"exec": {"command": ["true"]}}),
        };
        objects.push(pod.object(program));
    }
    let pods = usize::from(nodes) * (usize::from(SERVERS) + 1);
    pods::make(NAMESPACE, objects, pods)
}

/// Name of the pod of a node that dials.
pub(super) fn client_pod(node: Node) -> String {
    format!("client-{}", node.name())
}

fn service(name: &str, selector: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "NodePort", "ipFamilyPolicy": "PreferDualStack", "selector": selector,
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    })
}
