//! The agent's settings: from the flags, from the file of `--config`, and from
//! the defaults, in this order; kube-proxy's flags are ignored beside a file with
//! kube-proxy's document, as kube-proxy ignores them.

use std::{fs, path::PathBuf};

use anyhow::{Context, anyhow, bail};

use super::args::{AgentArgs, Sizes, port_range, size};
use crate::{
    config::{self, Bascule, KubeProxy, Max},
    log::{self, LogFormat},
};

/// The configuration in force.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// kube-proxy's part.
    pub kube: KubeProxy,
    /// Bascule's part: what flags or the file say.
    pub own: Bascule,
    /// Name of the node, unless it is the host's.
    pub node_name: Option<String>,
    /// The file and its content.
    pub file: Option<(PathBuf, Vec<u8>)>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// Reads the file, if there is one, and joins it with the flags.
///
/// # Errors
/// The file or a flag is wrong; the message names the field.
pub fn resolve(args: &AgentArgs) -> anyhow::Result<Resolved> {
    let mut warnings = Vec::new();
    let mut document = Bascule::default();
    let mut kube = None;
    let mut content = None;
    if let Some(path) = &args.config {
        let file = config::read(path)?;
        content = Some((path.clone(), fs::read(path)?));
        (kube, document, warnings) = (file.kube_proxy, file.bascule, file.warnings);
    }
    let flags = args.kube.0.iter().cloned();
    let kube = match kube {
        Some(mut kube) => {
            let ignored = kube.overlay(flags);
            if !ignored.is_empty() {
                warnings.push(format!(
                    "--{} ignored beside --config, as by kube-proxy: set the fields of the file",
                    ignored.join(", --")
                ));
            }
            kube
        }
        None => KubeProxy::from_flags(flags),
    };
    kube.check()
        .map_err(|errors| anyhow!("{}: {}", config::KUBE_PROXY.1, errors.join("; ")))?;
    warnings.extend(kube.meaningless().map(|(field, value)| {
        let name = match field.path {
            "" => format!("--{}", field.flag),
            path => path.to_owned(),
        };
        let note = field.note;
        format!("{name} has no meaning here, and {value} is ignored: {note}")
    }));
    let own = merge(args, document)?;
    let node_name = node_name(args, &kube, &own)?;
    Ok(Resolved {
        kube,
        own,
        node_name,
        file: content,
        warnings,
    })
}

/// The node's name, if any setting says it: the flag of kube-proxy goes first,
/// its field last.
fn node_name(args: &AgentArgs, kube: &KubeProxy, own: &Bascule) -> anyhow::Result<Option<String>> {
    let given = args.kube.0.iter();
    let flagged = given.map(|(f, _)| f.flag).any(|f| f == "hostname-override");
    let name = kube.text("hostnameOverride").trim().to_lowercase();
    let name = Some(name).filter(|name| !name.is_empty());
    match (flagged, name) {
        (true, None) => bail!("--hostname-override is empty: give a name, or leave it out"),
        (true, name) => Ok(name),
        (false, name) => Ok(own.node_name.clone().or(name)),
    }
}

/// Bascule's own settings: a flag goes before its field.
fn merge(args: &AgentArgs, file: Bascule) -> anyhow::Result<Bascule> {
    let list = |flag: &[String], field: Vec<String>| match flag {
        [] => field,
        flag => flag.to_vec(),
    };
    let range = args.service_node_port_range;
    let range = range.map(|(first, last)| format!("{first}-{last}"));
    let merged = Bascule {
        node_name: args.node_name.clone().or(file.node_name),
        apiserver: args.apiserver.clone().or(file.apiserver),
        bpffs: args.bpffs.clone().or(file.bpffs),
        state_dir: args.state_dir.clone().or(file.state_dir),
        cgroup: args.cgroup.clone().or(file.cgroup),
        netfilter_sysctls: args.netfilter_sysctls.clone().or(file.netfilter_sysctls),
        pod_devices: list(&args.pod_devices, file.pod_devices),
        uplinks: list(&args.uplinks, file.uplinks),
        xdp: args.xdp.or(file.xdp),
        socket_lb: args.socket_lb.or(file.socket_lb),
        service_node_port_range: range.or(file.service_node_port_range),
        localhost_nodeports: args.localhost_nodeports.or(file.localhost_nodeports),
        service_proxy_name: args.service_proxy_name.clone().or(file.service_proxy_name),
        takeover: args.takeover.or(file.takeover),
        metrics_detail: args.metrics_detail.or(file.metrics_detail),
        log_levels: file.log_levels,
        max: merge_max(&args.sizes, file.max),
    };
    if let Some(range) = &merged.service_node_port_range {
        port_range(range)
            .map_err(|e| anyhow!("{e}"))
            .context("serviceNodePortRange")?;
    }
    log::check(merged.log_levels.as_deref()).map_err(|e| anyhow!("logLevels: {e}"))?;
    check_max(&merged.max)?;
    Ok(merged)
}

fn merge_max(flags: &Sizes, file: Max) -> Max {
    Max {
        frontends: flags.max_frontends.or(file.frontends),
        backends: flags.max_backends.or(file.backends),
        services: flags.max_services.or(file.services),
        slots: flags.max_slots.or(file.slots),
        source_ranges: flags.max_source_ranges.or(file.source_ranges),
        conntrack: flags.max_conntrack.or(file.conntrack),
        affinity: flags.max_affinity.or(file.affinity),
        sockets: flags.max_sockets.or(file.sockets),
    }
}

/// The flags' own rule counts for the file too.
fn check_max(max: &Max) -> anyhow::Result<()> {
    let fields = serde_json::to_value(max)?;
    for (name, value) in fields.as_object().into_iter().flatten() {
        let text = value.to_string();
        let command = clap::Command::new("max").no_binary_name(true);
        let command = command.arg(clap::Arg::new("size").value_parser(size()));
        if command.try_get_matches_from([&text]).is_err() {
            bail!("max.{name}: {text} is not in 16..=268435456");
        }
    }
    Ok(())
}

impl Resolved {
    /// What is in effect, for `bascule sysdump`.
    pub fn shown(&self) -> serde_json::Value {
        serde_json::json!({
            "kubeProxy": self.kube.document(),
            "bascule": self.own,
            "metrics": self.kube.metrics(),
            "healthz": self.kube.healthz(),
        })
    }

    /// How the log looks, and how much it says.
    pub fn log(&self, args: &AgentArgs) -> (LogFormat, u8) {
        let configured = match self.kube.text("logging.format").as_str() {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        };
        let format = args.log_format.unwrap_or(configured);
        (format, args.verbose.max(self.kube.verbose()))
    }
}
