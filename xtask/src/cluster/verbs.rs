//! Every command of an operator, by `kubectl bascule`, on a cluster whose agents are pods: what
//! the lab cannot show is a real API server's pods, names and rights, and the image's program.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::control::{kubectl, kubectl_command, plugin_path};
use super::process::{Place, bytes, command, output};
use super::proxy::Kind;
use super::state::State;
use super::topology::Node;
use crate::ui;

/// What every cluster serves.
const SERVICE: &str = "default/kubernetes";
/// The node that is asked where a command is for one.
const NODE: Node = Node(1);
/// How long a command that goes on is let to begin.
const BEGIN: Duration = Duration::from_secs(3);
/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// From a connection to the next.
const PAUSE: Duration = Duration::from_millis(300);

/// A command, and what it is asked, of a cluster with so many nodes.
type Verb = (&'static str, fn(usize) -> Result<()>);

/// Asks every command, and looks at what it says.
///
/// # Errors
/// The agents are no pods, or a command does not say what it should.
pub(super) fn run() -> Result<()> {
    let state = State::load()?;
    ensure!(
        state.proxy.proxy == Kind::Daemonset,
        "the agents are not pods: `cargo xtask cluster proxy --proxy daemonset` first"
    );
    let nodes = usize::from(state.nodes);
    let all: [Verb; 11] = [
        ("status", |_| plugin(&["status"]).map(|_| ())),
        ("explain", |_| explain()),
        ("service list", services),
        ("backend list", |nodes| listed(nodes, &["backend", "list"])),
        ("conntrack list", |nodes| {
            rows(nodes, &["conntrack", "list"]).map(|_| ())
        }),
        ("affinity list", |nodes| {
            rows(nodes, &["affinity", "list"]).map(|_| ())
        }),
        ("maglev show", |nodes| {
            listed(nodes, &["maglev", "show", SERVICE])
        }),
        ("maps", |nodes| listed(nodes, &["maps"])),
        ("monitor", |_| monitor()),
        ("top", |_| top()),
        ("sysdump", |_| sysdump()),
    ];
    for (name, ask) in all {
        ask(nodes).with_context(|| format!("kubectl bascule {name}"))?;
        ui::say(format!("kubectl bascule {name}: as it should be"));
    }
    Ok(())
}

fn bascule(words: &[&str]) -> Result<Command> {
    let mut command = kubectl_command()?;
    command
        .env("PATH", plugin_path()?)
        .arg("bascule")
        .args(words);
    Ok(command)
}

/// What the plugin prints.
fn plugin(words: &[&str]) -> Result<String> {
    output(bascule(words)?)
}

/// The rows of every node.
fn rows(nodes: usize, words: &[&str]) -> Result<Vec<Vec<Value>>> {
    let said = plugin(&[words, &["--json"]].concat())?;
    let Value::Object(said) = serde_json::from_str(&said)? else {
        bail!("it does not answer by node");
    };
    ensure!(
        said.len() == nodes,
        "{} nodes of {nodes} answer",
        said.len()
    );
    let rows = |(node, rows): (String, Value)| match rows {
        Value::Array(rows) => Ok(rows),
        other => bail!("{node} has no rows: {other}"),
    };
    said.into_iter().map(rows).collect()
}

fn listed(nodes: usize, words: &[&str]) -> Result<()> {
    let empty = rows(nodes, words)?.iter().any(Vec::is_empty);
    ensure!(!empty, "a node shows nothing");
    Ok(())
}

fn services(nodes: usize) -> Result<()> {
    let is_it = |row: &Value| {
        row["service"]
            .as_str()
            .is_some_and(|s| s.starts_with(SERVICE))
    };
    let all = rows(nodes, &["service", "list"])?;
    let missing = all.iter().any(|rows| !rows.iter().any(is_it));
    ensure!(!missing, "a node does not serve {SERVICE}");
    Ok(())
}

/// From a pod of cluster DNS, by its name.
fn explain() -> Result<()> {
    let text = "jsonpath={.items[0].metadata.name}";
    let pod = kubectl(&[
        "-n",
        "kube-system",
        "get",
        "pods",
        "-l",
        "k8s-app=kube-dns",
        "-o",
        text,
    ])?;
    let from = format!("pod/kube-system/{pod}");
    let to = format!("svc/{SERVICE}:443");
    let said = plugin(&["explain", &from, &to])?;
    ensure!(said.contains("backend"), "it finds no backend: {said}");
    Ok(())
}

/// A connection of the node itself is seen while it looks.
fn monitor() -> Result<()> {
    let node = NODE.name();
    let words = [
        "--node",
        &node,
        "monitor",
        "--new",
        "--service",
        SERVICE,
        "--count",
        "1",
        "--json",
    ];
    let mut look = bascule(&words)?;
    look.stdin(Stdio::null());
    look.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = look.spawn().context("kubectl cannot be run")?;
    let ip = kubectl(&[
        "get",
        "service",
        "kubernetes",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ])?;
    let end = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
        }
        let mut dial = command(Place::Node(NODE), "bash")?;
        dial.args(["-c", &format!("exec 3<>/dev/tcp/{ip}/443")]);
        let dialled = dial.status().context("bash cannot be run")?;
        ensure!(dialled.success(), "the node cannot reach {ip}");
        sleep(PAUSE);
    }
    let said = child.wait_with_output()?;
    let row: Value = serde_json::from_slice(&said.stdout)
        .with_context(|| String::from_utf8_lossy(&said.stderr).trim().to_owned())?;
    ensure!(
        row["backend"].is_string(),
        "an event without a backend: {row}"
    );
    Ok(())
}

/// On a terminal that `script` makes; `q` ends it.
fn top() -> Result<()> {
    let plugin = bascule(&["--node", &NODE.name(), "top"])?;
    let words: Vec<String> = std::iter::once(plugin.get_program())
        .chain(plugin.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    // A terminal that nobody has opened has no size.
    let inner = format!("stty rows 24 cols 80; exec {}", words.join(" "));
    let mut terminal = command(Place::Control, "script")?;
    terminal
        .args(["-q", "-e", "-c", &inner, "/dev/null"])
        .env("TERM", "xterm")
        .envs(
            plugin
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = terminal.spawn().context("script cannot be run")?;
    sleep(BEGIN);
    if let Some(mut keys) = child.stdin.take() {
        std::io::Write::write_all(&mut keys, b"q")?;
        sleep(BEGIN);
    }
    let said = child.wait_with_output()?;
    let screen = String::from_utf8_lossy(&said.stdout);
    ensure!(said.status.success(), "{}: {screen}", said.status);
    ensure!(
        screen.contains("kubernetes"),
        "it shows no service: {screen}"
    );
    Ok(())
}

fn sysdump() -> Result<()> {
    let archive = bytes(bascule(&["--node", &NODE.name(), "sysdump", "-"])?)?;
    // gzip (RFC 1952, section 2.3.1).
    ensure!(archive.starts_with(&[0x1f, 0x8b]), "it is no archive");
    ensure!(archive.len() > 1000, "it has {} bytes", archive.len());
    Ok(())
}
