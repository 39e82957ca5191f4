//! The command line of what shows the maps' entries.

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};

use super::{args::View, rows::is_called};

/// `bascule service`.
#[derive(Subcommand, Debug)]
pub enum ServiceCommand {
    /// List frontends, with the traffic of their service
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  bascule service list
  bascule service list --scope external
  bascule service list --service shop/web --wide
  bascule service list --json | jq '.[] | select(.backends == [])'"
    )]
    List {
        /// Only frontends of this scope.
        #[arg(long)]
        scope: Option<Scope>,
        /// Of which services.
        #[command(flatten)]
        which: Which,
        /// Every backend, and the id that the service has in the maps
        #[arg(long, short)]
        wide: bool,
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
  bascule backend list --service shop/web
  bascule backend list --json | jq '.[] | select(.local)'"
    )]
    List {
        /// Of which services.
        #[command(flatten)]
        which: Which,
        /// Every service that leads to it
        #[arg(long, short)]
        wide: bool,
        /// How to show it.
        #[command(flatten)]
        view: View,
    },
}

/// `bascule affinity`.
#[derive(Subcommand, Debug)]
pub enum AffinityCommand {
    /// List bindings of session affinity, those that have ended included
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  bascule affinity list
  bascule affinity list --service shop/web --client 203.0.113.9
  bascule affinity list --json | jq '.[] | select(.bound)'

Pods' sockets that connect straight to a backend are bound by their network namespace."
    )]
    List {
        /// Only bindings of this client.
        #[arg(long, value_name = "IP")]
        client: Option<IpAddr>,
        /// Of which services.
        #[command(flatten)]
        which: Which,
        /// How to show it.
        #[command(flatten)]
        view: View,
    },
}

/// `bascule maglev`.
#[derive(Subcommand, Debug)]
pub enum MaglevCommand {
    /// Show each backend's share of a service's new flows, beside the flows that it got
    #[command(after_help = "Examples:
  bascule maglev show shop/web
  bascule maglev show shop/web:http --json | jq '.[].backends'

Frontends of one service have different tables where their policies choose among different
backends: internal and external ones, or NodePorts of policy Local.")]
    Show {
        /// The service: [NAMESPACE/]NAME[:PORT]
        service: String,
        /// How to show it.
        #[command(flatten)]
        view: View,
    },
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
  bascule conntrack list --service shop/web:http
  bascule conntrack list --json | jq length"
    )]
    List {
        /// Only flows with this address at either end, before or after translation.
        #[arg(long)]
        address: Option<IpAddr>,
        /// Of which services.
        #[command(flatten)]
        which: Which,
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

/// Of which services something is shown.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Only of this service: [NAMESPACE/]NAME[:PORT], or #ID where names are not known
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
}

impl Which {
    /// Whether a service is asked for.
    pub(super) fn is(&self, service: &str) -> bool {
        let wanted = self.service.as_ref();
        wanted.is_none_or(|wanted| is_called(service, wanted))
    }
}

/// Who dials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Scope {
    /// Pods and the node itself.
    Internal,
    /// Clients outside.
    External,
}
