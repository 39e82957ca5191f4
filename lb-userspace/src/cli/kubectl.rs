//! `kubectl bascule`: the same commands on any node, or on all. kubectl finds the plugin by
//! the name of a program, `kubectl-bascule`, which is a link to this one; and it runs what is
//! asked in the agents' pods, with the rights of its user.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output, Stdio},
    thread,
};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::watch::pods;

/// The name by which kubectl finds the plugin.
const NAME: &str = "kubectl-bascule";
/// The label of the agents' pods, and the name of their container.
const LABEL: &str = "app.kubernetes.io/name=bascule,app.kubernetes.io/component=service-proxy";
const CONTAINER: &str = "agent";
/// Where the image has the program.
const PROGRAM: &str = "/usr/bin/bascule";
/// Nodes that are asked at a time.
const AT_ONCE: usize = 16;
/// Commands that do not end by themselves: of one node only, and with the terminal.
const ENDLESS: [&str; 2] = ["top", "monitor"];

/// Look at Bascule on any node, with your own rights.
#[derive(Parser, Debug)]
#[command(
    name = "kubectl-bascule",
    bin_name = "kubectl bascule",
    version = env!("BASCULE_VERSION"),
    after_help = "Examples:
  kubectl bascule status                                  # of every node
  kubectl bascule --node n1 conntrack list --service shop/web
  kubectl bascule explain pod/web-1 svc/api:80            # on the pod's node
  kubectl bascule service list --json | jq 'keys'         # an object, by node
  kubectl bascule --node n1 top

It needs the rights to list pods and to run commands in the agents' (pods/exec). Install it with:
ln -s \"$(command -v bascule)\" /usr/local/bin/kubectl-bascule

Exit status: that of the command; of several nodes 1 if it failed on any, else 3 if any is degraded."
)]
struct Plugin {
    /// Only of this node [default: all; for `explain pod/…` the pod's]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// As in kubectl
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// As in kubectl
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// A command of `bascule`, with its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    words: Vec<String>,
}

/// kubectl's list, whose kind is always `List`.
#[derive(Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

/// An agent's pod.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Agent {
    node: String,
    namespace: String,
    pod: String,
    /// Why it cannot be asked, if it cannot.
    trouble: Option<String>,
}

/// Whether the process was started as the plugin.
pub fn is_called(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new(NAME))
}

/// Runs the plugin.
///
/// # Errors
/// kubectl cannot be run, or nobody can be asked.
pub fn run(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let mut plugin = Plugin::parse_from(arguments);
    if plugin.words[0] == "explain" {
        plugin.locate()?;
    }
    let list: Pods =
        serde_json::from_slice(&plugin.read(&["get", "pods", "-A", "-l", LABEL, "-o", "json"])?)
            .context("what kubectl says of pods cannot be read")?;
    let agents = chosen(&list.items, plugin.node.as_deref())?;
    if ENDLESS.contains(&plugin.words[0].as_str()) {
        let [agent] = &agents[..] else {
            bail!("`{}` is for one node: name it with --node", plugin.words[0]);
        };
        return plugin.attach(agent);
    }
    let answers = plugin.ask(&agents);
    let json = plugin.words.iter().any(|word| word == "--json");
    match json && plugin.node.is_none() {
        true => print_json(&answers)?,
        false => print_text(&answers)?,
    }
    Ok(ExitCode::from(status(&answers)))
}

/// The agents to ask, by the names of their nodes.
fn chosen(pods: &[Pod], node: Option<&str>) -> anyhow::Result<Vec<Agent>> {
    let mut agents: Vec<Agent> = pods.iter().filter_map(agent).collect();
    agents.retain(|agent| node.is_none_or(|node| agent.node == node));
    agents.sort_by(|a, b| (&a.node, a.trouble.is_some()).cmp(&(&b.node, b.trouble.is_some())));
    agents.dedup_by(|a, b| a.node == b.node);
    let on = node.map_or(String::new(), |node| format!(" on the node {node}"));
    ensure!(
        !agents.is_empty(),
        "no pod of an agent was found{on}: kubectl get pods -A -o wide -l {LABEL}"
    );
    Ok(agents)
}

fn agent(pod: &Pod) -> Option<Agent> {
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or("Unknown");
    let reason = status.and_then(|s| s.reason.as_deref());
    let running = phase == "Running" && reason.is_none();
    Some(Agent {
        node: pod.spec.as_ref()?.node_name.clone()?,
        namespace: pod.metadata.namespace.clone()?,
        pod: pod.metadata.name.clone()?,
        trouble: (!running).then(|| format!("the agent's pod is {}", reason.unwrap_or(phase))),
    })
}

/// What a node answered.
struct Answer<'a> {
    agent: &'a Agent,
    said: Result<Output, String>,
}

impl Plugin {
    /// kubectl, for the cluster that is meant.
    fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        if let Some(file) = &self.kubeconfig {
            command.arg("--kubeconfig").arg(file);
        }
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command
    }

    /// What kubectl prints.
    fn read(&self, words: &[&str]) -> anyhow::Result<Vec<u8>> {
        let said = self.kubectl().args(words).output();
        let said = said.context("kubectl cannot be run: it must be on the PATH")?;
        let complaint = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success(), "{}", complaint.trim());
        Ok(said.stdout)
    }

    /// Puts the address of a pod in place of its name, and asks its node: agents may not
    /// read pods, and their user may.
    fn locate(&mut self) -> anyhow::Result<()> {
        let at = self.words.iter().position(|word| word.starts_with("pod/"));
        let Some(at) = at else {
            return Ok(());
        };
        let name = self.words[at].trim_start_matches("pod/").to_owned();
        let (namespace, name) = name.split_once('/').unwrap_or(("default", &name));
        let said = self.read(&["get", "pod", name, "-n", namespace, "-o", "json"])?;
        let pod: Pod = serde_json::from_slice(&said)?;
        let ips = pods::ips(&pod);
        // TO's family, where that is an address: `[` begins one of IPv6 with its port.
        let v6 = self.words.iter().skip(at + 1).any(|to| to.starts_with('['));
        let ip = ips.iter().find(|ip| ip.is_ipv6() == v6).or(ips.first());
        let ip = ip.with_context(|| format!("pod {namespace}/{name} has no address yet"))?;
        self.words[at] = ip.to_string();
        self.node = self
            .node
            .take()
            .or(pod.spec.and_then(|spec| spec.node_name));
        Ok(())
    }

    fn exec(&self, agent: &Agent, flags: &[&str]) -> Command {
        let mut command = self.kubectl();
        command.arg("exec").args(flags);
        command.args([
            "-n",
            &agent.namespace,
            &agent.pod,
            "-c",
            CONTAINER,
            "--",
            PROGRAM,
        ]);
        command.args(&self.words);
        command
    }

    /// Asks the agents, some at a time.
    fn ask<'a>(&self, agents: &'a [Agent]) -> Vec<Answer<'a>> {
        let one = |agent: &'a Agent| {
            let said = match &agent.trouble {
                Some(trouble) => Err(trouble.clone()),
                None => self
                    .exec(agent, &[])
                    .output()
                    .map_err(|e| format!("kubectl: {e}")),
            };
            Answer { agent, said }
        };
        let ask_some = |some: &'a [Agent]| {
            thread::scope(|scope| {
                let asked: Vec<_> = some
                    .iter()
                    .map(|agent| scope.spawn(move || one(agent)))
                    .collect();
                asked
                    .into_iter()
                    .filter_map(|thread| thread.join().ok())
                    .collect::<Vec<_>>()
            })
        };
        agents.chunks(AT_ONCE).flat_map(ask_some).collect()
    }

    /// Runs a command that has the terminal.
    fn attach(&self, agent: &Agent) -> anyhow::Result<ExitCode> {
        if let Some(trouble) = &agent.trouble {
            bail!("node {}: {trouble}", agent.node);
        }
        let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let flags = if terminal { &["-i", "-t"][..] } else { &[] };
        let status = self.exec(agent, flags).stdin(Stdio::inherit()).status()?;
        Ok(ExitCode::from(code(status.code())))
    }
}

fn code(of: Option<i32>) -> u8 {
    of.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The exit status for all nodes: a failure says more than a degraded node.
fn status(answers: &[Answer<'_>]) -> u8 {
    let codes = answers.iter().map(|answer| match &answer.said {
        Ok(said) => code(said.status.code()),
        Err(_) => 1,
    });
    codes.fold(0, |all, one| match (all, one) {
        (0, one) => one,
        (all, 0) => all,
        (super::DEGRADED, one) => one,
        (all, _) => all,
    })
}

/// What nodes say, under their names where there are several.
fn print_text(answers: &[Answer<'_>]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (i, Answer { agent, said }) in answers.iter().enumerate() {
        if answers.len() > 1 {
            let gap = if i > 0 { "\n" } else { "" };
            writeln!(out, "{gap}== {}", agent.node)?;
        }
        match said {
            Ok(said) => {
                out.write_all(&said.stdout)?;
                let complaint = String::from_utf8_lossy(&said.stderr);
                for line in complaint.lines() {
                    eprintln!("node {}: {line}", agent.node);
                }
            }
            Err(trouble) => eprintln!("node {}: {trouble}", agent.node),
        }
    }
    out.flush()
}

/// An object: the node's name, and its answer; who did not answer is told on standard error.
fn print_json(answers: &[Answer<'_>]) -> anyhow::Result<()> {
    let mut all = Map::new();
    for Answer { agent, said } in answers {
        let value = match said {
            Ok(said) => serde_json::from_slice::<Value>(&said.stdout)
                .map_err(|_| String::from_utf8_lossy(&said.stderr).trim().to_owned()),
            Err(trouble) => Err(trouble.clone()),
        };
        match value {
            Ok(value) => drop(all.insert(agent.node.clone(), value)),
            Err(trouble) => eprintln!("node {}: {trouble}", agent.node),
        }
    }
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &all)?;
    Ok(writeln!(out)?)
}
