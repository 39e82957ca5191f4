//! `bascule agent`: from the command line to a running agent.

use std::{fs, net::IpAddr, path::PathBuf};

use anyhow::Context;
use lb_common::limits;
use lb_plan::Limits;

use super::{
    args::{AgentArgs, BPFFS, Paths, STATE_DIR, port_range},
    cleanup,
    resolve::{Resolved, resolve},
    secrets,
};
use crate::{
    agent::{
        host::Here,
        kernel,
        run::{self, Source},
        state::StateDir,
        takeover::Takeover,
    },
    bpf::{self, MapSizes, XdpMode},
    config::{self, Max, SocketLb, Xdp},
    log,
    node::{self, netfilter},
    watch::reflect,
};

/// Runs the agent until a signal ends it, or does what a flag asks for instead.
///
/// # Errors
/// If it cannot start, or cannot go on; the message names the object and the
/// remedy.
pub fn run(args: &AgentArgs) -> anyhow::Result<()> {
    let resolved = resolve(args)?;
    let (format, verbose) = resolved.log(args);
    log::init(format, verbose, resolved.own.log_levels.as_deref());
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    let paths = paths(&resolved);
    if let Some(path) = &args.write_config_to {
        let text = config::write(&resolved.kube, &resolved.own)?;
        return fs::write(path, text)
            .with_context(|| format!("--write-config-to {}", path.display()));
    }
    if args.cleanup {
        return cleanup::run(&paths);
    }
    let state_dir = StateDir::new(&paths.state_dir);
    if bpf::mount_bpffs(&paths.bpffs)? {
        let known = state_dir.set_mounted(&paths.bpffs);
        known.context("the state directory cannot be used")?;
    }
    if args.init_only {
        tracing::info!(bpffs = %paths.bpffs.display(), "all that needs CAP_SYS_ADMIN is done");
        return Ok(());
    }
    serve(args, &resolved, &paths, state_dir)
}

fn serve(
    args: &AgentArgs,
    resolved: &Resolved,
    paths: &Paths,
    state_dir: StateDir,
) -> anyhow::Result<()> {
    let facts =
        node::addresses::read().context("the node's addresses cannot be read by netlink")?;
    let node = node_settings(resolved)?;
    // Another agent on the same maps would undo what this one writes.
    let _claim = state_dir
        .claim()
        .context("the state directory cannot be used")?;
    let shown = secrets::without(&resolved.shown().to_string());
    state_dir
        .write_config(&serde_json::from_str(&shown)?)
        .context("the state directory cannot be used")?;
    adjust_oom_score(resolved.kube.number("oomScoreAdj"));
    let datapath = datapath_settings(resolved, paths, facts.default_sources.clone())?;
    let settings = run::Settings {
        source: source(args, resolved, &node.name),
        node,
        servers: run::Servers {
            healthz: resolved.kube.healthz(),
            metrics: resolved.kube.metrics(),
            hard_fail: resolved.kube.is("bindAddressHardFail"),
        },
        health_timeout: resolved.kube.health_timeout(),
        netfilter: netfilter(resolved),
        state_dir,
        config: resolved.file.clone(),
        configz: resolved.kube.document(),
        takeover: resolved.own.takeover.unwrap_or(false),
    };
    tracing::info!(version = env!("BASCULE_VERSION"), node = %settings.node.name, "starts");
    let limits = plan_limits(&datapath.sizes);
    let detail = resolved.own.metrics_detail.unwrap_or_default();
    let readings = kernel::readings(&datapath.bpffs, detail);
    let takeover = takeover(&settings, &datapath);
    run::run(
        settings,
        facts,
        move || {
            let (kernel, planner) = kernel::load(&datapath, limits)?;
            Ok((kernel.taking_over(takeover), planner))
        },
        readings,
    )
}

fn takeover(settings: &run::Settings, datapath: &bpf::Settings) -> Takeover<Here> {
    let of_pods = datapath.socket_lb == bpf::SocketLb::All;
    let cgroup = of_pods.then(|| datapath.cgroup.clone());
    let has_pods = matches!(settings.source, Source::Cluster(_));
    Takeover::new(Here { cgroup }, settings.takeover, has_pods)
}

fn paths(resolved: &Resolved) -> Paths {
    let or = |path: &Option<PathBuf>, default: &str| path.clone().unwrap_or_else(|| default.into());
    Paths {
        bpffs: or(&resolved.own.bpffs, BPFFS),
        state_dir: or(&resolved.own.state_dir, STATE_DIR),
    }
}

/// kube-proxy does the same, and does not mind when it may not.
fn adjust_oom_score(score: i64) {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::debug!(%error, score, "the OOM score could not be adjusted");
    }
}

/// What is to be set of the kernel's conntrack.
fn netfilter(resolved: &Resolved) -> Option<netfilter::Settings> {
    let dir = resolved.own.netfilter_sysctls.clone();
    let dir = dir.unwrap_or_else(|| netfilter::DIR.into());
    let sysctls = resolved.kube.conntrack(netfilter::cpus());
    let settings = netfilter::Settings { dir, sysctls };
    Some(settings).filter(|s| s.dir.as_os_str() != "off")
}

fn source(args: &AgentArgs, resolved: &Resolved, node: &str) -> Source {
    let kubeconfig = resolved.kube.text("clientConnection.kubeconfig");
    match &args.source {
        Some(dir) => Source::Dir(dir.clone()),
        None => Source::Cluster(reflect::Settings {
            kubeconfig: (!kubeconfig.is_empty()).then(|| kubeconfig.into()),
            apiserver: resolved.own.apiserver.clone(),
            node_name: node.to_owned(),
            proxy_name: resolved.own.service_proxy_name.clone(),
        }),
    }
}

fn node_settings(resolved: &Resolved) -> anyhow::Result<node::Settings> {
    let name = match &resolved.node_name {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    let (own, kube) = (&resolved.own, &resolved.kube);
    // The file's ranges were read when it was.
    let range = own.service_node_port_range.as_deref().map(port_range);
    Ok(node::Settings {
        name: name.into(),
        node_port_addresses: kube.node_port_addresses(),
        localhost_node_ports: own
            .localhost_nodeports
            .unwrap_or_else(|| kube.localhost_node_ports()),
        node_port_range: range.and_then(Result::ok).unwrap_or((30_000, 32_767)),
        proxy_name: own.service_proxy_name.clone(),
        socket_lb_host_only: own.socket_lb == Some(SocketLb::Host),
        bind_address: kube.bind_address(),
    })
}

/// Kubernetes' names are in lower case, host names need not be.
pub(super) fn host_name() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/hostname";
    let name = fs::read_to_string(path).with_context(|| format!("{path}: give --node-name"))?;
    Ok(name.trim().to_lowercase())
}

fn datapath_settings(
    resolved: &Resolved,
    paths: &Paths,
    node_addresses: Vec<IpAddr>,
) -> anyhow::Result<bpf::Settings> {
    let own = &resolved.own;
    let cgroup = match &own.cgroup {
        Some(dir) => dir.clone(),
        None => cgroup2()
            .context("no cgroup2 is mounted: mount one with `mount -t cgroup2 none /sys/fs/cgroup`, or give --cgroup")?,
    };
    let pod_devices = match own.pod_devices.as_slice() {
        [] => resolved.kube.pod_devices(),
        patterns => patterns.to_vec(),
    };
    Ok(bpf::Settings {
        bpffs: paths.bpffs.clone(),
        cgroup,
        sizes: sizes(&own.max),
        pod_devices,
        uplinks: own.uplinks.clone(),
        node_addresses,
        xdp: match own.xdp.unwrap_or(Xdp::Auto) {
            Xdp::Auto => XdpMode::Auto,
            Xdp::Generic => XdpMode::Generic,
            Xdp::Off => XdpMode::Off,
        },
        socket_lb: match own.socket_lb.unwrap_or(SocketLb::All) {
            SocketLb::All => bpf::SocketLb::All,
            SocketLb::Host => bpf::SocketLb::Host,
            SocketLb::Off => bpf::SocketLb::Off,
        },
        ..bpf::Settings::default()
    })
}

fn sizes(max: &Max) -> MapSizes {
    MapSizes {
        frontends: max.frontends.unwrap_or(limits::FRONTENDS),
        backends: max.backends.unwrap_or(limits::BACKENDS),
        services: max.services.unwrap_or(limits::SERVICES),
        slots: max.slots.unwrap_or(limits::SLOTS),
        ranges: max.source_ranges.unwrap_or(limits::RANGES),
        conntrack: max.conntrack.unwrap_or(limits::CONNTRACK),
        affinity: max.affinity.unwrap_or(limits::AFFINITY),
        sock_nat: max.sockets.unwrap_or(limits::SOCK_NAT),
    }
}

fn plan_limits(sizes: &MapSizes) -> Limits {
    Limits {
        frontends: sizes.frontends,
        backends: sizes.backends,
        services: sizes.services,
        slots: sizes.slots,
        ranges: sizes.ranges,
        ..Limits::default()
    }
}

/// The first cgroup2 mount.
pub(super) fn cgroup2() -> Option<PathBuf> {
    cgroup2_mount(&fs::read_to_string("/proc/mounts").ok()?)
}

/// The first cgroup2 mount of `/proc/mounts`.
fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts.lines().map(|line| line.split(' '));
    lines.find_map(|mut fields| {
        let path = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| unescape(path).into())
    })
}

/// Blanks and the like are octal in `/proc/mounts`: fs/proc_namespace.c, `mangle`.
fn unescape(path: &str) -> String {
    let mut text = path.to_owned();
    for (code, plain) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        text = text.replace(code, plain);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found() {
        let mounts = "proc /proc proc rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup2 /sys/fs/cgroup/my\\040unified cgroup2 rw 0 0
cgroup2 /other cgroup2 rw 0 0
";
        assert_eq!(
            cgroup2_mount(mounts),
            Some("/sys/fs/cgroup/my unified".into())
        );
        assert_eq!(cgroup2_mount("proc /proc proc rw 0 0\n"), None);
    }
}
