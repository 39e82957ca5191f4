//! The command line: what the user types.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use clap_complete::Shell;
use lb_common::limits;

const EXIT_CODES: &str =
    "Exit status: 0 success, 1 failure, 2 wrong usage, 3 degraded (`status` only).";

/// Kubernetes services balanced in the kernel.
#[derive(Parser, Debug)]
#[command(name = "bascule", version, about, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the agent of a node
    #[command(after_help = "Examples:
  bascule agent --kubeconfig /etc/bascule/kubeconfig --node-name \"$(hostname)\"
  bascule agent --apiserver https://10.0.0.1:6443      # in a pod: the ClusterIP is not there yet
  bascule agent --source ./manifests --node-name n1    # YAML files instead of a cluster

The programs and maps stay in the kernel when the agent ends, and serve on.")]
    Agent(Box<AgentArgs>),
    /// Show how the node is: agent, hooks, maps, problems
    #[command(after_help = "Examples:
  bascule status
  bascule status --json | jq .problems

Exit status: 0 well, 3 degraded (agent down or not synced, problems, a full map), 1 unknown.")]
    Status(View),
    /// Services as the maps have them
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Backends as the maps have them
    #[command(subcommand)]
    Backend(BackendCommand),
    /// The flows that the datapath tracks
    #[command(subcommand)]
    Conntrack(ConntrackCommand),
    /// The maps: entries in use, most entries, memory
    #[command(after_help = "Examples:
  bascule maps
  bascule maps --json
  bpftool map dump pinned /sys/fs/bpf/bascule/lb_frontends_v1    # the entries themselves")]
    Maps(View),
    /// Print a shell's completions
    #[command(after_help = "Examples:
  bascule completions bash > /etc/bash_completion.d/bascule
  bascule completions zsh > \"${fpath[1]}/_bascule\"")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// `bascule service`.
#[derive(Subcommand, Debug)]
pub enum ServiceCommand {
    /// List frontends, with the traffic of their service
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  bascule service list
  bascule service list --scope external
  bascule service list --json | jq '.[] | select(.backends == [])'"
    )]
    List {
        /// Only frontends of this scope.
        #[arg(long)]
        scope: Option<Scope>,
        /// How to show it.
        #[command(flatten)]
        view: View,
    },
}

/// `bascule backend`.
#[derive(Subcommand, Debug)]
pub enum BackendCommand {
    /// List backends, with their traffic
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  bascule backend list
  bascule backend list --json | jq '.[] | select(.local)'"
    )]
    List(View),
}

/// `bascule conntrack`.
#[derive(Subcommand, Debug)]
pub enum ConntrackCommand {
    /// List flows, both directions of each
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  bascule conntrack list
  bascule conntrack list --address 10.96.0.10
  bascule conntrack list --json | jq length"
    )]
    List {
        /// Only flows with this address at either end, before or after translation.
        #[arg(long)]
        address: Option<IpAddr>,
        /// How to show it.
        #[command(flatten)]
        view: View,
    },
    /// Forget flows: connections whose service changed its backends since may break
    #[command(after_help = "Examples:
  bascule conntrack flush --address 10.96.0.10 --yes
  bascule conntrack flush --yes")]
    Flush {
        /// Only flows with this address at either end, before or after translation.
        #[arg(long)]
        address: Option<IpAddr>,
        /// Really do it.
        #[arg(long, required = true)]
        yes: bool,
        /// How to show it.
        #[command(flatten)]
        view: View,
    },
}

/// Who dials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Scope {
    /// Pods and the node itself.
    Internal,
    /// Clients outside.
    External,
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

/// Where a node's state is.
#[derive(Args, Clone, Debug)]
pub struct Paths {
    /// Directory of a bpffs, with the pins in `bascule/` below it
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/sys/fs/bpf",
        env = "BASCULE_BPFFS"
    )]
    pub bpffs: PathBuf,
    /// Where the agent writes names and status for these commands; it never reads them
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/bascule",
        env = "BASCULE_STATE_DIR"
    )]
    pub state_dir: PathBuf,
}

/// XDP on uplinks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Xdp {
    /// Where the driver has it natively.
    Auto,
    /// In the generic hook where the driver does not have it.
    Generic,
    /// Nowhere.
    Off,
}

/// Which sockets connect straight to a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum SocketLb {
    /// Pods' and the host's.
    All,
    /// The host's only; pods are served packet by packet.
    Host,
    /// None.
    Off,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

/// `bascule agent`.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// Read Services, EndpointSlices and Nodes from the YAML files of a directory, and follow them
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "apiserver"])]
    pub source: Option<PathBuf>,
    /// Reach the cluster as this file says; without it $KUBECONFIG, then the pod's service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node's Node object [default: the host's name]
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = NonEmptyStringValueParser::new())]
    pub node_name: Option<String>,
    /// URL of the API server, instead of the configured one
    #[arg(long, value_name = "URL")]
    pub apiserver: Option<String>,
    /// The paths.
    #[command(flatten)]
    pub paths: Paths,
    /// Directory of a cgroup2 mount: the socket hooks serve its subtree [default: the first cgroup2 mount]
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Devices that lead to pods, by name (* and ? match) [default: veths of other namespaces]
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_delimiter = ',')]
    pub pod_devices: Vec<String>,
    /// Devices that lead out of the node, by name (* and ? match) [default: those of the default routes and of the node's addresses]
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_delimiter = ',')]
    pub uplinks: Vec<String>,
    /// XDP on uplinks
    #[arg(long, value_enum, default_value_t = Xdp::Auto)]
    pub xdp: Xdp,
    /// Which local sockets connect straight to a backend
    #[arg(long, value_enum, default_value_t = SocketLb::All)]
    pub socket_lb: SocketLb,
    /// Node addresses that answer NodePorts: `primary`, or networks such as 10.0.0.0/8
    #[arg(long, value_name = "CIDR", num_args = 1.., value_delimiter = ',', default_value = "primary")]
    pub nodeport_addresses: Vec<String>,
    /// The API server's --service-node-port-range
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: (u16, u16),
    /// Answer NodePorts on 127.0.0.1 and ::1 too, to the node's own sockets
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub localhost_nodeports: bool,
    /// Serve only Services with this label service.kubernetes.io/service-proxy-name
    #[arg(long, value_name = "NAME")]
    pub service_proxy_name: Option<String>,
    /// Where /healthz and /livez are answered
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: SocketAddr,
    /// Where /metrics is answered
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: SocketAddr,
    /// The sizes.
    #[command(flatten)]
    pub sizes: Sizes,
    /// Log lines for people or for machines
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Say more: -v, -vv; $RUST_LOG chooses by module
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Most entries of each map. A change takes effect when the agent starts.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sizes of the maps")]
pub struct Sizes {
    /// Frontends
    #[arg(long, value_name = "N", default_value_t = limits::FRONTENDS, value_parser = size())]
    pub max_frontends: u32,
    /// Backends
    #[arg(long, value_name = "N", default_value_t = limits::BACKENDS, value_parser = size())]
    pub max_backends: u32,
    /// Service ports
    #[arg(long, value_name = "N", default_value_t = limits::SERVICES, value_parser = size())]
    pub max_services: u32,
    /// Slots of all maglev tables, 4 bytes each
    #[arg(long, value_name = "N", default_value_t = limits::SLOTS, value_parser = size())]
    pub max_slots: u32,
    /// Networks of all loadBalancerSourceRanges
    #[arg(long, value_name = "N", default_value_t = limits::RANGES, value_parser = size())]
    pub max_source_ranges: u32,
    /// Room for conntrack entries of each IP family, two a flow; from six tenths of it on some flows
    /// are refused
    #[arg(long, value_name = "N", default_value_t = limits::CONNTRACK, value_parser = size())]
    pub max_conntrack: u32,
    /// Clients with session affinity
    #[arg(long, value_name = "N", default_value_t = limits::AFFINITY, value_parser = size())]
    pub max_affinity: u32,
    /// Sockets that the socket hooks translated
    #[arg(long, value_name = "N", default_value_t = limits::SOCK_NAT, value_parser = size())]
    pub max_sockets: u32,
}

/// At least a few entries: a map of none cannot be made, and one of id 0 only
/// holds nothing.
fn size() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(16..=1 << 28)
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
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
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
                let help = sub
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let is_group = sub.has_subcommands();
                assert!(
                    is_group || help.contains("bascule "),
                    "{} has no example",
                    sub.get_name()
                );
                check(sub);
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn lists_are_given_with_commas_or_spaces() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        let Ok(Command::Agent(args)) = parse(
            "bascule agent --source x --uplinks eth0,eth1 --pod-devices a* b? --nodeport-addresses 10.0.0.0/8 --service-node-port-range 30000-30100",
        ) else {
            panic!()
        };
        assert_eq!(args.uplinks, ["eth0", "eth1"]);
        assert_eq!(args.pod_devices, ["a*", "b?"]);
        assert_eq!(args.nodeport_addresses, ["10.0.0.0/8"]);
        assert_eq!(args.service_node_port_range, (30_000, 30_100));
        for bad in [
            "bascule agent --source x --kubeconfig y",
            "bascule agent --service-node-port-range 5",
            "bascule agent --service-node-port-range 9-5",
            "bascule agent --max-backends 0",
            "bascule agent --xdp always",
            "bascule conntrack flush",
            "bascule",
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
