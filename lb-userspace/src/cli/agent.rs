//! `bascule agent`: from the command line to a running agent.

use std::{fs, net::IpAddr, path::PathBuf};

use anyhow::{Context, bail};
use lb_plan::{Limits, model::NodePortAddresses};

use super::args::{self, AgentArgs, Sizes};
use crate::{
    agent::{
        kernel,
        run::{self, Source},
        state::StateDir,
    },
    bpf::{self, MapSizes, SocketLb, XdpMode},
    node,
    watch::reflect,
};

/// Runs the agent until a signal ends it.
///
/// # Errors
/// If it cannot start, or cannot go on; the message names the object and the
/// remedy.
pub fn run(args: &AgentArgs) -> anyhow::Result<()> {
    super::log::init(args.log_format, args.verbose);
    let facts =
        node::addresses::read().context("the node's addresses cannot be read by netlink")?;
    let node = node_settings(args)?;
    let state_dir = StateDir::new(&args.paths.state_dir);
    // Another agent on the same maps would undo what this one writes.
    let _claim = state_dir
        .claim()
        .context("the state directory cannot be used")?;
    let datapath = datapath_settings(args, facts.default_sources.clone())?;
    let settings = run::Settings {
        source: source(args, &node.name),
        node,
        healthz: args.healthz_bind_address,
        metrics: args.metrics_bind_address,
        state_dir,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = %settings.node.name, "starts");
    let limits = limits(&args.sizes);
    let readings = kernel::readings(&datapath.bpffs);
    run::run(
        settings,
        facts,
        move || kernel::load(&datapath, limits),
        readings,
    )
}

fn source(args: &AgentArgs, node: &str) -> Source {
    match &args.source {
        Some(dir) => Source::Dir(dir.clone()),
        None => Source::Cluster(reflect::Settings {
            kubeconfig: args.kubeconfig.clone(),
            apiserver: args.apiserver.clone(),
            node_name: node.to_owned(),
            proxy_name: args.service_proxy_name.clone(),
        }),
    }
}

fn node_settings(args: &AgentArgs) -> anyhow::Result<node::Settings> {
    let name = match &args.node_name {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    Ok(node::Settings {
        name: name.into(),
        node_port_addresses: node_port_addresses(&args.nodeport_addresses)?,
        localhost_node_ports: args.localhost_nodeports,
        node_port_range: args.service_node_port_range,
        proxy_name: args.service_proxy_name.clone(),
        socket_lb_host_only: args.socket_lb == args::SocketLb::Host,
    })
}

/// Kubernetes' names are in lower case, host names need not be.
fn host_name() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/hostname";
    let name = fs::read_to_string(path).with_context(|| format!("{path}: give --node-name"))?;
    Ok(name.trim().to_lowercase())
}

fn node_port_addresses(list: &[String]) -> anyhow::Result<NodePortAddresses> {
    if list.iter().any(|item| item == "primary") {
        if list.len() > 1 {
            bail!(
                "--nodeport-addresses: `primary` stands alone; leave out either it or the networks"
            );
        }
        return Ok(NodePortAddresses::Primary);
    }
    let cidrs = list.iter().map(|text| {
        let parsed = text.split_once('/').and_then(|(ip, len)| {
            let ip: IpAddr = ip.parse().ok()?;
            let len: u8 = len.parse().ok()?;
            let most = if ip.is_ipv4() { 32 } else { 128 };
            (len <= most).then_some((ip, len))
        });
        parsed.with_context(|| format!("--nodeport-addresses: {text:?} is neither `primary` nor a network such as 10.0.0.0/8"))
    });
    Ok(NodePortAddresses::Cidrs(
        cidrs.collect::<anyhow::Result<_>>()?,
    ))
}

fn datapath_settings(
    args: &AgentArgs,
    node_addresses: Vec<IpAddr>,
) -> anyhow::Result<bpf::Settings> {
    let cgroup = match &args.cgroup {
        Some(dir) => dir.clone(),
        None => cgroup2_mount(&fs::read_to_string("/proc/mounts").context("/proc/mounts")?)
            .context("no cgroup2 is mounted: mount one with `mount -t cgroup2 none /sys/fs/cgroup`, or give --cgroup")?,
    };
    let s = &args.sizes;
    Ok(bpf::Settings {
        bpffs: args.paths.bpffs.clone(),
        cgroup,
        sizes: MapSizes {
            frontends: s.max_frontends,
            backends: s.max_backends,
            services: s.max_services,
            slots: s.max_slots,
            ranges: s.max_source_ranges,
            conntrack: s.max_conntrack,
            affinity: s.max_affinity,
            sock_nat: s.max_sockets,
        },
        pod_devices: args.pod_devices.clone(),
        uplinks: args.uplinks.clone(),
        node_addresses,
        xdp: match args.xdp {
            args::Xdp::Auto => XdpMode::Auto,
            args::Xdp::Generic => XdpMode::Generic,
            args::Xdp::Off => XdpMode::Off,
        },
        socket_lb: match args.socket_lb {
            args::SocketLb::All => SocketLb::All,
            args::SocketLb::Host => SocketLb::Host,
            args::SocketLb::Off => SocketLb::Off,
        },
        ..bpf::Settings::default()
    })
}

fn limits(sizes: &Sizes) -> Limits {
    Limits {
        frontends: sizes.max_frontends,
        backends: sizes.max_backends,
        services: sizes.max_services,
        slots: sizes.max_slots,
        ranges: sizes.max_source_ranges,
        ..Limits::default()
    }
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
    fn networks_of_node_ports_are_checked() {
        let parse = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            node_port_addresses(&list).map_err(|e| e.to_string())
        };
        assert_eq!(parse(&["primary"]), Ok(NodePortAddresses::Primary));
        let net = |ip: &str, len| (ip.parse::<IpAddr>().unwrap(), len);
        let both = vec![net("10.0.0.0", 8), net("fd00::", 64)];
        assert_eq!(
            parse(&["10.0.0.0/8", "fd00::/64"]),
            Ok(NodePortAddresses::Cidrs(both))
        );
        for bad in [
            &["10.0.0.0"][..],
            &["10.0.0.0/33"],
            &["x/8"],
            &["primary", "10.0.0.0/8"],
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.starts_with("--nodeport-addresses: "), "{error}");
        }
    }

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
