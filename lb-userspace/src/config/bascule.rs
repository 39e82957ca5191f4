//! Bascule's own settings: a document of the same file.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// XDP on uplinks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Xdp {
    /// Where the driver has it natively.
    Auto,
    /// In the generic hook where the driver does not have it.
    Generic,
    /// Nowhere.
    Off,
}

/// Which sockets connect straight to a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketLb {
    /// Pods' and the host's.
    All,
    /// The host's only; pods are served packet by packet.
    Host,
    /// None.
    Off,
}

/// Which series the metrics have beyond those of the node.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum MetricsDetail {
    /// None.
    Node,
    /// Those of each Service port.
    #[default]
    Services,
    /// Those of each backend too.
    Backends,
}

/// `BasculeConfiguration` (`config.bascule.dev/v1alpha1`). Each field but the log's levels is
/// a flag of `bascule agent`, which goes before it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Bascule {
    /// `--node-name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// `--apiserver`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apiserver: Option<String>,
    /// `--bpffs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpffs: Option<PathBuf>,
    /// `--state-dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// `--cgroup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// `--netfilter-sysctls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netfilter_sysctls: Option<PathBuf>,
    /// `--pod-devices`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pod_devices: Vec<String>,
    /// `--uplinks`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<String>,
    /// `--xdp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp: Option<Xdp>,
    /// `--socket-lb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_lb: Option<SocketLb>,
    /// `--service-node-port-range`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_node_port_range: Option<String>,
    /// `--localhost-nodeports`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub localhost_nodeports: Option<bool>,
    /// `--service-proxy-name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_proxy_name: Option<String>,
    /// `--takeover`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub takeover: Option<bool>,
    /// `--metrics-detail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_detail: Option<MetricsDetail>,
    /// Levels of the log by module, on top of what `$RUST_LOG` or `-v` says. A change of this
    /// field alone takes effect in the agent that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_levels: Option<String>,
    /// `--max-frontends` and the others.
    #[serde(skip_serializing_if = "is_default")]
    pub max: Max,
}

/// Most entries of each map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Max {
    /// `--max-frontends`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontends: Option<u32>,
    /// `--max-backends`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<u32>,
    /// `--max-services`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<u32>,
    /// `--max-slots`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// `--max-source-ranges`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ranges: Option<u32>,
    /// `--max-conntrack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<u32>,
    /// `--max-affinity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<u32>,
    /// `--max-sockets`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<u32>,
}

fn is_default(max: &Max) -> bool {
    *max == Max::default()
}

impl Bascule {
    /// Takes a document. Unknown fields are refused.
    ///
    /// # Errors
    /// A field is unknown, or its value is of another type; the message names it.
    pub fn decode(mut document: Value) -> Result<Self, String> {
        if let Some(fields) = document.as_object_mut() {
            fields.retain(|name, value| {
                !matches!(name.as_str(), "apiVersion" | "kind") && !value.is_null()
            });
        }
        serde_path_to_error::deserialize(document).map_err(|e| match e.path().to_string() {
            path if path == "." => e.into_inner().to_string(),
            path => format!("{path}: {}", e.into_inner()),
        })
    }
}
