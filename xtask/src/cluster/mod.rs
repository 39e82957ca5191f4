//! `cargo xtask cluster`: a real Kubernetes cluster in namespaces of this machine, and
//! Kubernetes' own tests against it. Neither Docker nor an image registry is needed.
//!
//! The control plane has a network namespace. A node has one of every kind, its own cgroups,
//! bpffs, `/run`, `/var/lib` and `/var/log`, and runs containerd and a kubelet.

mod apiserver_pod;
mod cgroup;
pub(crate) mod control;
mod daemonset;
pub(crate) mod down;
mod e2e;
mod golang;
mod images;
mod ingress;
mod init;
mod load_clients;
mod load_test;
mod node;
mod pki;
pub(crate) mod pods;
pub(crate) mod process;
pub(crate) mod proxy;
mod rootfs;
mod state;
mod tools;
pub(crate) mod topology;
mod verbs;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use self::process::{Place, wait_for};
use self::proxy::{Choice, Kind};
use self::state::{Settings, State};
pub(crate) use self::tools::{ensure_api, ensure_oauth2_proxy};
use self::topology::{COREDNS, DNS_SERVICE, Node};
use crate::setup::Unfit;
use crate::{cache, paths, ui};

/// How long cluster DNS may take.
const DNS_PATIENCE: Duration = Duration::from_secs(120);

/// What to do with the cluster.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask cluster up --nodes 2\n  cargo xtask cluster kubectl get pods -A\n  \
                  cargo xtask cluster exec n1 bpftool net\n  cargo xtask cluster e2e '\\[Conformance\\]'\n  \
                  cargo xtask cluster proxy --proxy kube-proxy\n  cargo xtask cluster down\n\n\
                  All need root, except e2e with --kubeconfig. The first `up` builds Kubernetes."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build what is missing, and bring a cluster up
    Up {
        /// Number of nodes
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
        nodes: u8,
        #[command(flatten)]
        proxy: Choice,
    },
    /// Remove the cluster with all that belongs to it
    Down,
    /// Build or fetch everything that a cluster needs, and start nothing
    Build,
    /// kubectl, as the administrator
    #[command(disable_help_flag = true)]
    Kubectl {
        /// kubectl's arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run a command on a node
    Exec {
        /// The node: n1, n2, …
        node: String,
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Give images to all nodes: there is no registry to pull from
    Load {
        /// OCI or Docker archives
        #[arg(required = true, value_name = "FILE")]
        archives: Vec<PathBuf>,
    },
    /// Replace the proxy on all nodes, or start it anew; one of another kind leaves nothing behind
    Proxy {
        /// Do not wait until it serves
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        proxy: Choice,
    },
    /// Tear a node down and bring it up again, as a reboot does
    Reboot {
        /// The node: n1, n2, …
        node: String,
    },
    /// Stop or start the API server
    Apiserver {
        /// What to do
        #[arg(value_parser = ["stop", "start"])]
        action: String,
    },
    /// Dial services by every way while a command runs: does a connection fail, a stream break?
    LoadTest(load_test::Args),
    /// Try every command of an operator, by `kubectl bascule`: the agents must be pods
    Verbs,
    /// Try the proxy of Ingresses, from clients outside to pods: the agents must be pods
    #[command(
        after_help = "Examples:\n  cargo xtask cluster up --proxy daemonset\n  cargo xtask cluster ingress\n\nSwitches the \
                      chart's proxy on (proxy.enabled), gives its Service a load balancer's address, which leads to the nodes, \
                      tries it, and removes it again. The last check replaces all of its pods under load."
    )]
    Ingress,
    /// Run Kubernetes' own tests
    E2e(e2e::Args),
}

/// The subcommand.
///
/// # Errors
/// Something is missing, does not build, or does not come up in time.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let foreign = matches!(&args.action, Action::E2e(e) if e.is_foreign());
    if !foreign {
        require_root()?;
    }
    match args.action {
        Action::Up { nodes, proxy } => up(nodes, proxy)?,
        Action::Down => down::down()?,
        Action::Build => node::ensure()?,
        Action::Kubectl { args } => {
            let mut command = control::kubectl_command()?;
            command.env("PATH", control::plugin_path()?);
            return replace(command.args(args));
        }
        Action::Exec { node, command } => return exec(&node, &command),
        Action::Load { archives } => load(&archives)?,
        Action::Proxy { no_wait, proxy } => change_proxy(proxy, !no_wait)?,
        Action::Reboot { node } => reboot(&node)?,
        Action::Apiserver { action } if action == "stop" => down::end("apiserver")?,
        Action::Apiserver { .. } => control::start_apiserver()?,
        Action::Verbs => verbs::run()?,
        Action::Ingress => ingress::run()?,
        Action::LoadTest(args) => return load_test::run(&args),
        Action::E2e(args) => return e2e::run(&args),
    }
    Ok(ExitCode::SUCCESS)
}

/// The first process of a node.
///
/// # Errors
/// See [`init::run`].
pub(crate) fn node_init(number: u8) -> Result<()> {
    init::run(number)
}

fn require_root() -> Result<()> {
    // SAFETY: a system call without arguments.
    if unsafe { libc::geteuid() } == 0 {
        return Ok(());
    }
    Err(Unfit::new(
        "the cluster makes namespaces and cgroups, which only root may: run it with sudo",
    )
    .into())
}

/// Brings a cluster up.
///
/// # Errors
/// One is up, something cannot be built, or does not come up in time.
pub(crate) fn up(nodes: u8, choice: Choice) -> Result<()> {
    if topology::state().exists() {
        bail!("a cluster is up, or its remains are there: `cargo xtask cluster down` first");
    }
    seen_by_nodes()?;
    node::ensure()?;
    let start = Instant::now();
    let dir = topology::state();
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let state = State {
        nodes,
        proxy: choice,
    };
    state.store()?;
    bring_up(&state)
        .context("the cluster is not complete; `cargo xtask cluster down` removes it")?;
    ui::say(format!(
        "the cluster is up after {}: `cargo xtask cluster kubectl get nodes`",
        ui::duration(start.elapsed())
    ));
    Ok(())
}

/// Nodes have directories of their own in some places, and would not see this machine's.
fn seen_by_nodes() -> Result<()> {
    for (dir, what) in [
        (
            cache::root(),
            cache::VARIABLE.to_owned() + " names another place",
        ),
        (paths::root(), "use a checkout in another place".to_owned()),
    ] {
        if init::OWN.iter().any(|own| dir.starts_with(own)) {
            bail!("nodes do not see {}: {what}", dir.display());
        }
    }
    Ok(())
}

fn bring_up(state: &State) -> Result<()> {
    Settings::keep()?;
    pki::make(state.nodes)?;
    let nodes = Node::first(state.nodes);
    control::make_fabric()?;
    control::make(state.nodes)?;
    nodes.clone().try_for_each(|n| node::make(n, state.nodes))?;
    control::start()?;
    nodes.clone().try_for_each(node::start)?;
    nodes.clone().try_for_each(node::join_cluster)?;
    proxy::start(state.nodes, &state.proxy)?;
    proxy::wait(state.nodes, state.proxy.proxy)?;
    dns(state.proxy.proxy != Kind::None)
}

/// Starts cluster DNS; it reaches the API server by its service, so it is ready only with a
/// proxy.
fn dns(wait: bool) -> Result<()> {
    let file = topology::source().join("coredns.yaml");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    control::apply(
        &text
            .replace("@COREDNS@", COREDNS)
            .replace("@DNS@", DNS_SERVICE),
    )?;
    if !wait {
        return Ok(());
    }
    let ready = [
        "-n",
        "kube-system",
        "get",
        "deployment",
        "coredns",
        "-o",
        "jsonpath={.status.readyReplicas}",
    ];
    wait_for("cluster DNS gets ready", DNS_PATIENCE, None, || {
        anyhow::ensure!(
            control::kubectl(&ready)? == "1",
            "its pod is not: see `cargo xtask cluster kubectl describe pods -n kube-system`"
        );
        Ok(())
    })
}

fn load(archives: &[PathBuf]) -> Result<()> {
    let nodes = State::load()?.nodes;
    for archive in archives {
        let archive = archive
            .canonicalize()
            .with_context(|| format!("cannot find {}", archive.display()))?;
        Node::first(nodes).try_for_each(|n| node::load(n, &archive))?;
    }
    Ok(())
}

fn change_proxy(choice: Choice, wait: bool) -> Result<()> {
    let mut state = State::load()?;
    if choice.takeover {
        if (state.proxy.proxy, choice.proxy) != (Kind::KubeProxy, Kind::Daemonset) {
            bail!("a takeover is from a kube-proxy that runs to `--proxy daemonset`");
        }
        proxy::take_over(state.nodes, &choice)?;
    } else {
        proxy::stop(state.nodes, state.proxy.proxy, choice.proxy)?;
        proxy::start(state.nodes, &choice)?;
    }
    state.proxy = choice;
    state.store()?;
    if wait {
        proxy::wait(state.nodes, state.proxy.proxy)?;
    }
    Ok(())
}

fn reboot(word: &str) -> Result<()> {
    let state = State::load()?;
    let node = node::named(word, state.nodes)?;
    node::stop(node)?;
    node::unmake(node)?;
    node::make(node, state.nodes)?;
    node::start(node)?;
    proxy::start_on(node, &state.proxy)?;
    proxy::wait_on(node, state.proxy.proxy)?;
    node::join_cluster(node)
}

fn exec(word: &str, words: &[OsString]) -> Result<ExitCode> {
    let node = node::named(word, State::load()?.nodes)?;
    let (program, args) = words.split_first().context("no command is given")?;
    let mut command = process::command(Place::Node(node), program)?;
    replace(command.args(args))
}

/// Becomes the command: its exit status is ours, and its terminal.
fn replace(command: &mut std::process::Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", command.get_program().display()))
}
