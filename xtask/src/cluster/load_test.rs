//! Connections and streams by every way to a backend, while something happens to the cluster.
//!
//! The programs that dial and serve are those of the end-to-end tests (`tests/src/e2e`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::control::{apply, kubectl};
use super::load_clients::{Client, Report};
use super::process::wait_for;
use super::state::State;
use super::topology::{AGNHOST, Node};
use crate::setup::{self, Need};
use crate::{build, paths, ui};

/// Servers on each node.
const SERVERS: u8 = 2;
/// How long pods may take to be ready, or to be gone.
const PATIENCE: Duration = Duration::from_secs(120);
/// Load before the command begins and after it ended.
const AROUND: Duration = Duration::from_secs(5);
/// Where all objects are.
pub(super) const NAMESPACE: &str = "bascule-load";
/// Where the program is in the pods.
pub(super) const IN_POD: &str = "/peer/e2e_peer";
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
    remove()?;
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
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply(&namespace.to_string())?;
    let last = Node(nodes).name();
    let mut items = vec![
        service(EVERYWHERE, &json!({"app": "server"})),
        service(ON_ONE, &json!({"app": "server", "node": last})),
    ];
    for node in Node::first(nodes) {
        let ready = json!({"tcpSocket": {"port": 8080}});
        for number in 1..=SERVERS {
            let name = format!("server-{}-{number}", node.name());
            let command = json!([IN_POD, "serve", name, "8080"]);
            items.push(pod((node, &name, "server"), (&command, &ready), program));
        }
        let command = json!(["sleep", "infinity"]);
        let ready = json!({"exec": {"command": ["true"]}});
        items.push(pod(
            (node, &client_pod(node), "client"),
            (&command, &ready),
            program,
        ));
    }
    apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    let wanted = usize::from(nodes) * (usize::from(SERVERS) + 1);
    let ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
    wait_for("the pods of the load get ready", PATIENCE, None, || {
        let text = kubectl(&["-n", NAMESPACE, "get", "pods", "-o", ready])?;
        let count = text.split(' ').filter(|s| *s == "True").count();
        ensure!(
            count == wanted,
            "{count} of {wanted} are: `cargo xtask cluster kubectl -n {NAMESPACE} describe pods`"
        );
        Ok(())
    })
}

/// Name of the pod of a node that dials.
pub(super) fn client_pod(node: Node) -> String {
    format!("client-{}", node.name())
}

fn service(name: &str, selector: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "NodePort", "ipFamilyPolicy": "PreferDualStack", "selector": selector,
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    })
}

fn pod(
    (node, name, app): (Node, &str, &str),
    (command, ready): (&Value, &Value),
    program: &Path,
) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "labels": {"app": app, "node": node.name()},
        },
        "spec": {
            "nodeName": node.name(), "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "peer", "image": AGNHOST, "command": command,
                "readinessProbe": {"periodSeconds": 1, "tcpSocket": ready["tcpSocket"], "exec": ready["exec"]},
                "volumeMounts": [{"name": "peer", "mountPath": IN_POD, "readOnly": true}],
            }],
            // The nodes' root file system is this machine's.
            "volumes": [{"name": "peer", "hostPath": {"path": program, "type": "File"}}],
        },
    })
}

fn remove() -> Result<()> {
    kubectl(&[
        "delete",
        "namespace",
        NAMESPACE,
        "--wait=false",
        "--ignore-not-found",
    ])?;
    wait_for(
        "the pods of the load end",
        PATIENCE,
        None,
        || match kubectl(&[
            "get",
            "namespace",
            NAMESPACE,
            "--ignore-not-found",
            "-o",
            "name",
        ])? {
            text if text.is_empty() => Ok(()),
            text => bail!("{text} is there still"),
        },
    )
}
