//! The command line: what the user types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, builder::NonEmptyStringValueParser};
use clap_complete::Shell;
use lb_common::limits;

use super::{
    explain::ExplainArgs,
    health::HealthArgs,
    kube_flags::KubeFlags,
    list_args::{AffinityCommand, BackendCommand, ConntrackCommand, MaglevCommand, ServiceCommand},
    migrate::MigrateCommand,
    monitor::MonitorArgs,
    proxy::ProxyArgs,
    sysdump::SysdumpArgs,
    top::TopArgs,
};
pub use crate::{
    config::{MetricsDetail, SocketLb, Xdp},
    log::LogFormat,
};

const EXIT_CODES: &str = "Exit status: 0 success, 1 failure, 2 wrong usage, 3 something has to be seen to (`status`, `migrate`).";

/// Kubernetes services balanced in the kernel.
#[derive(Parser, Debug)]
#[command(name = "bascule", version = env!("BASCULE_VERSION"), propagate_version = true, about, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the agent of a node
    #[command(
        args_override_self = true,
        after_help = "Examples:
  bascule agent --kubeconfig /etc/bascule/kubeconfig --node-name \"$(hostname)\"
  bascule agent --apiserver https://10.0.0.1:6443      # in a pod: the ClusterIP is not there yet
  bascule agent --source ./manifests --node-name n1    # YAML files instead of a cluster
  bascule agent --config /var/lib/kube-proxy/config.conf    # kube-proxy's own configuration

The programs and maps stay in the kernel when the agent ends, and serve on."
    )]
    Agent(Box<AgentArgs>),
    /// Take off this node what agents left: links, programs, maps, pins
    #[command(after_help = "Examples:
  bascule cleanup
  bascule cleanup --bpffs /sys/fs/bpf --state-dir /run/bascule

Services are no longer served by this node. End its agent first: one that runs is refused.")]
    Cleanup {
        /// The paths.
        #[command(flatten)]
        paths: Paths,
    },
    /// Answer the agent's health checks in its place, so that they are answered while it restarts
    #[command(after_help = "Examples:
  bascule health
  bascule health --state-dir /run/bascule

Runs beside the agent, as the same user and without any capability. While it runs, it answers
/healthz, /livez and the healthCheckNodePorts, and the agent does not; without it the agent does.")]
    Health(HealthArgs),
    /// Show how the node is: agent, hooks, maps, problems
    #[command(after_help = "Examples:
  bascule status
  bascule status --json | jq .findings
  bascule status > /dev/null || echo \"see to this node\"

What is degraded is said first, and what to do about it.
Exit status: 0 well; 3 degraded: no agent runs, or it hangs or has not read everything, a hook is
missing, an object cannot be served, a map is full; 1 it cannot be told: there are no maps, or
what the agent says cannot be read.")]
    Status(View),
    /// Say what becomes of a connection, decision by decision, and why
    #[command(after_help = "Examples:
  bascule explain pod/web-1 svc/api:80
  bascule explain 203.0.113.9 192.0.2.10:30080
  bascule explain node 10.96.0.10:53 --proto udp --json

The programs in the kernel decide, by the maps in place, about a first packet that is never sent:
no flow, binding or counter changes.")]
    Explain(Box<ExplainArgs>),
    /// Watch what services, backends and the node carry, on a terminal
    #[command(after_help = "Examples:
  bascule top
  bascule top --interval 5

Keys: enter goes down into a service's backends, esc back; tab switches between services and the
node; c, p, b, n sort by connections, packets, bytes, name, and r reverses that; / filters by a
part of the name; arrows, page keys, home and end move; q ends.
SHARE is a backend's part of the slots of its service's tables, GETS its part of the new
connections. A backend of several services has one counter. Packets of sockets that connect
straight to a backend are not seen, their connections are.")]
    Top(TopArgs),
    /// Show packets and calls of sockets as the datapath meets them, and what becomes of each
    #[command(after_help = "Examples:
  bascule monitor --drops
  bascule monitor --service shop/web --new --closed --json
  bascule monitor --service shop/web --pcap - | tcpdump -r -

Without --drops, --new and --closed, packets of every kind that are for a service or of its flows.
A capture has each packet twice: on the interface `before` as it came, on `after` as it left.
What local sockets dial (see --socket-lb of the agent) is shown once, as a call of theirs, and is in
no capture: its packets go straight to the backend. One at a time; the datapath stops telling when this ends, however it ends. Needs root, or
CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.")]
    Monitor(Box<MonitorArgs>),
    /// Serve Ingresses, as ingress-nginx did: hosts, paths, TLS, and its annotations
    #[command(after_help = "Examples:
  bascule proxy --kubeconfig /etc/bascule/kubeconfig --configmap ingress-nginx/ingress-nginx-controller
  bascule proxy --source ./manifests --http 127.0.0.1:8080 --https 127.0.0.1:8443

Ingresses of the class whose controller is k8s.io/ingress-nginx are served as ingress-nginx does,
those of bascule.dev/ingress as Kubernetes specifies. SIGTERM ends it when its requests are done.")]
    Proxy(Box<ProxyArgs>),
    /// Say what becomes of what another controller of Ingresses serves
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Services as the maps have them
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Backends as the maps have them
    #[command(subcommand)]
    Backend(BackendCommand),
    /// The flows that the datapath tracks
    #[command(subcommand)]
    Conntrack(ConntrackCommand),
    /// Which client is bound to which backend
    #[command(subcommand)]
    Affinity(AffinityCommand),
    /// The tables by which new flows are spread over backends
    #[command(subcommand)]
    Maglev(MaglevCommand),
    /// The maps: entries in use, most entries, memory
    #[command(after_help = "Examples:
  bascule maps
  bascule maps --json
  bpftool map dump pinned /sys/fs/bpf/bascule/lb_frontends_v1    # the entries themselves")]
    Maps(View),
    /// Put everything that a report of a bug needs into an archive
    #[command(after_help = "Examples:
  bascule sysdump
  bascule sysdump /tmp/n1.tar.gz
  kubectl exec -n kube-system POD -- bascule sysdump - > n1.tar.gz

It has status, health, configuration, every list, maps with their layouts, devices, what the kernel
is, metrics, and the last lines of the agent's log. What cannot be had is named in errors.txt.
Passwords in URLs and tokens are left out; addresses and names of services are not. It works
while the agent is down, and changes nothing.")]
    Sysdump(SysdumpArgs),
    /// Print a shell's completions
    #[command(after_help = "Examples:
  bascule completions bash > /etc/bash_completion.d/bascule
  bascule completions zsh > \"${fpath[1]}/_bascule\"")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages, and the completions of bash, fish and zsh, where packages have them
    #[command(after_help = "Examples:
  bascule manual /usr/share
  bascule manual /tmp/share && man /tmp/share/man/man1/bascule-status.1

Makes man/man1, bash-completion/completions, fish/vendor_completions.d and zsh/site-functions.
The container image has them in /usr/share.")]
    Manual {
        /// The directory that stands for /usr/share
        #[arg(value_name = "DIR")]
        share: PathBuf,
    },
}

/// Where to look, and how to show it.
#[derive(Args, Clone, Debug)]
pub struct View {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The paths.
    #[command(flatten)]
    pub paths: Paths,
}

/// Default of `--bpffs`.
pub(super) const BPFFS: &str = "/sys/fs/bpf";
/// Default of `--state-dir`.
pub(super) const STATE_DIR: &str = "/run/bascule";

/// Where a node's state is.
#[derive(Args, Clone, Debug)]
pub struct Paths {
    /// Directory of a bpffs, with the pins in `bascule/` below it
    #[arg(
        long,
        value_name = "DIR",
        default_value = BPFFS,
        env = "BASCULE_BPFFS"
    )]
    pub bpffs: PathBuf,
    /// Where the agent writes names and status for these commands; it never reads them
    #[arg(
        long,
        value_name = "DIR",
        default_value = STATE_DIR,
        env = "BASCULE_STATE_DIR"
    )]
    pub state_dir: PathBuf,
}

/// `bascule agent`. What has no value is taken from the file of `--config`, and
/// then from the defaults.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// Read kube-proxy's KubeProxyConfiguration, and a BasculeConfiguration beside it; kube-proxy's flags but those of the log, --hostname-override and --master are ignored then
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the configuration, every field with its value, and end
    #[arg(long, value_name = "FILE")]
    pub write_config_to: Option<PathBuf>,
    /// Only do what needs CAP_SYS_ADMIN, which is to mount the bpffs, and end
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_possible_values = true, action = clap::ArgAction::Set)]
    pub init_only: bool,
    /// As `bascule cleanup`: take what agents left off this node, and end
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_possible_values = true, action = clap::ArgAction::Set)]
    pub cleanup: bool,
    /// Read Services, EndpointSlices and Nodes from the .yaml, .yml and .json files of a directory, but not of those below it, and follow them
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "apiserver"])]
    pub source: Option<PathBuf>,
    /// Name of this node's Node object [default: the host's name]
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = NonEmptyStringValueParser::new())]
    pub node_name: Option<String>,
    /// URL of the API server, instead of the configured one
    #[arg(long, value_name = "URL", visible_alias = "master")]
    pub apiserver: Option<String>,
    /// Directory of a bpffs, with the pins in `bascule/` below it [default: /sys/fs/bpf]
    #[arg(long, value_name = "DIR", env = "BASCULE_BPFFS")]
    pub bpffs: Option<PathBuf>,
    /// Where names and status are written for the other commands; they are never read [default: /run/bascule]
    #[arg(long, value_name = "DIR", env = "BASCULE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Directory of a cgroup2 mount: the socket hooks serve its subtree [default: the first cgroup2 mount]
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Where the settings of the kernel's conntrack are, to be made as kube-proxy makes them: a container mounts the node's; `off` makes none [default: /proc/sys/net/netfilter]
    #[arg(long, value_name = "DIR|off")]
    pub netfilter_sysctls: Option<PathBuf>,
    /// Devices that lead to pods, by name (* and ? match) [default: veths of other namespaces]
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_delimiter = ',')]
    pub pod_devices: Vec<String>,
    /// Devices that lead out of the node, by name (* and ? match) [default: those of the default routes and of the node's addresses]
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_delimiter = ',')]
    pub uplinks: Vec<String>,
    /// XDP on uplinks [default: auto]
    #[arg(long, value_enum)]
    pub xdp: Option<Xdp>,
    /// Which local sockets connect straight to a backend [default: all]
    #[arg(long, value_enum)]
    pub socket_lb: Option<SocketLb>,
    /// The API server's --service-node-port-range [default: 30000-32767]
    #[arg(long, value_name = "FIRST-LAST", value_parser = port_range)]
    pub service_node_port_range: Option<(u16, u16)>,
    /// Answer NodePorts on 127.0.0.1 and ::1 too, to the node's own sockets [default: true]
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub localhost_nodeports: Option<bool>,
    /// Serve only Services with this label service.kubernetes.io/service-proxy-name
    #[arg(long, value_name = "NAME")]
    pub service_proxy_name: Option<String>,
    /// Take over from a running kube-proxy without breaking a connection, and remove its rules once it is gone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub takeover: Option<bool>,
    /// Which series the metrics have besides the node's: none, those of Services, or those of Services and of backends [default: services]
    #[arg(long, value_enum)]
    pub metrics_detail: Option<MetricsDetail>,
    /// The sizes.
    #[command(flatten)]
    pub sizes: Sizes,
    /// Log lines for people or for machines [default: text]
    #[arg(long, value_enum, help_heading = "Options")]
    pub log_format: Option<LogFormat>,
    /// Say more: -v, -vv; $RUST_LOG chooses by module
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = "Options")]
    pub verbose: u8,
    /// kube-proxy's.
    #[command(flatten)]
    pub kube: KubeFlags,
}

/// Most entries of each map. A change takes effect when the agent starts.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sizes of the maps")]
pub struct Sizes {
    /// Frontends.
    #[arg(long, value_name = "N", value_parser = size(), help = with_default("Frontends", limits::FRONTENDS))]
    pub max_frontends: Option<u32>,
    /// Backends.
    #[arg(long, value_name = "N", value_parser = size(), help = with_default("Backends", limits::BACKENDS))]
    pub max_backends: Option<u32>,
    /// Service ports.
    #[arg(long, value_name = "N", value_parser = size(), help = with_default("Service ports", limits::SERVICES))]
    pub max_services: Option<u32>,
    /// Slots of all maglev tables, 4 bytes each.
    #[arg(long, value_name = "N", value_parser = size(), help = with_default("Slots of all maglev tables, 4 bytes each", limits::SLOTS))]
    pub max_slots: Option<u32>,
    /// Networks of all loadBalancerSourceRanges.
    #[arg(long, value_name = "N", value_parser = size(), help = with_default("Networks of all loadBalancerSourceRanges", limits::RANGES))]
    pub max_source_ranges: Option<u32>,
    /// Room for conntrack entries of each IP family, two a flow; from six tenths of it
    /// on, some flows are refused.
    #[arg(long, value_name = "N", value_parser = size(), help = with_default("Room for conntrack entries of each IP family, two a flow; some flows are refused from six tenths of it on", limits::CONNTRACK))]
    pub max_conntrack: Option<u32>,
    /// Clients with session affinity.
    #[arg(long, value_name = "N", value_parser = size(), help = with_default("Clients with session affinity", limits::AFFINITY))]
    pub max_affinity: Option<u32>,
    /// Sockets that the socket hooks translated.
    #[arg(long, value_name = "N", value_parser = size(), help = with_default("Sockets that the socket hooks translated", limits::SOCK_NAT))]
    pub max_sockets: Option<u32>,
}

fn with_default(help: &str, default: u32) -> String {
    format!("{help} [default: {default}]")
}

/// At least a few entries: a map of none cannot be made, and one of id 0 only
/// holds nothing.
pub(super) fn size() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(16..=1 << 28)
}

pub(super) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let bad = || format!("{text:?} is not FIRST-LAST, such as 30000-32767");
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let first = first.parse().map_err(|_| bad())?;
    let last = last.parse().map_err(|_| bad())?;
    if first == 0 || first > last {
        return Err(bad());
    }
    Ok((first, last))
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
