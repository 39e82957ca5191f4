//! What the user may choose about maps and hooks.

use std::{net::IpAddr, path::PathBuf};

use lb_common::{
    conntrack::{buckets, elements},
    limits,
};
use serde::Serialize;

use super::table::Table;

/// How the datapath is loaded and attached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A directory of a bpffs: pins lie in `bascule/` below it.
    pub bpffs: PathBuf,
    /// A directory of a cgroup2 mount: the socket hooks serve its subtree.
    pub cgroup: PathBuf,
    /// Sizes of the maps.
    pub sizes: MapSizes,
    /// Patterns of pod devices (`*` and `?`); empty for the rule: veth and
    /// netkit devices whose peer is in another network namespace.
    pub pod_devices: Vec<String>,
    /// Patterns of uplinks; empty for the rule: devices with a default route or
    /// with an address of the node.
    pub uplinks: Vec<String>,
    /// Addresses of the node that make the device which carries them an uplink.
    pub node_addresses: Vec<IpAddr>,
    /// XDP on uplinks.
    pub xdp: XdpMode,
    /// Which sockets the socket hooks serve.
    pub socket_lb: SocketLb,
    /// Features to take as present or absent, instead of probing for them.
    pub probes: ProbeOverrides,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bpffs: PathBuf::from("/sys/fs/bpf"),
            cgroup: PathBuf::from("/sys/fs/cgroup"),
            sizes: MapSizes::default(),
            pod_devices: Vec::new(),
            uplinks: Vec::new(),
            node_addresses: Vec::new(),
            xdp: XdpMode::default(),
            socket_lb: SocketLb::default(),
            probes: ProbeOverrides::default(),
        }
    }
}

impl Settings {
    /// The directory of all pins.
    pub fn pin_dir(&self) -> PathBuf {
        self.bpffs.join("bascule")
    }
}

/// XDP on uplinks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpMode {
    /// Where the driver has it natively; never on veth.
    #[default]
    Auto,
    /// In the generic hook where the driver does not have it.
    Generic,
    /// Nowhere.
    Off,
}

/// Which sockets the socket hooks serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub enum SocketLb {
    /// All sockets of the cgroup's subtree.
    #[default]
    All,
    /// The host's; pods are served by TC.
    Host,
    /// None.
    Off,
}

/// Features to take as present (`Some(true)`) or absent (`Some(false)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProbeOverrides {
    /// TCX, Linux 6.6; else clsact.
    pub tcx: Option<bool>,
    /// `bpf_set_retval` in socket hooks, Linux 5.18.
    pub set_retval: Option<bool>,
}

/// Most entries of each map that has a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapSizes {
    /// Frontends, the entries of vips included.
    pub frontends: u32,
    /// Backends of the whole cluster.
    pub backends: u32,
    /// Service ports: counters.
    pub services: u32,
    /// Slots of all maglev tables.
    pub slots: u32,
    /// Prefixes of all source ranges.
    pub ranges: u32,
    /// Room for conntrack entries of each IP family; a flow takes two.
    pub conntrack: u32,
    /// Clients with session affinity.
    pub affinity: u32,
    /// Sockets that the socket hooks translated.
    pub sock_nat: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            frontends: limits::FRONTENDS,
            backends: limits::BACKENDS,
            services: limits::SERVICES,
            slots: limits::SLOTS,
            ranges: limits::RANGES,
            conntrack: limits::CONNTRACK,
            affinity: limits::AFFINITY,
            sock_nat: limits::SOCK_NAT,
        }
    }
}

impl MapSizes {
    /// Most elements of a map: entries, or conntrack's buckets.
    pub fn of(&self, table: Table) -> u32 {
        match table {
            Table::lb_frontends_v1 => self.frontends,
            Table::lb_backends_v1 | Table::lb_be_ctr_v1 => self.backends,
            Table::lb_svc_ctr_v1 => self.services,
            Table::lb_slots_v1 => self.slots,
            Table::lb_ranges_v1 => self.ranges,
            Table::lb_ct4_v1 | Table::lb_ct6_v1 => elements(buckets(self.conntrack)),
            Table::lb_affinity_v1 => self.affinity,
            Table::lb_sock_nat_v1 => self.sock_nat,
            // One entry, or as many as the code has reasons or filter words.
            _ => table.def().max_entries,
        }
    }

    /// The setting that makes a map larger, for messages.
    pub fn setting(table: Table) -> &'static str {
        match table {
            Table::lb_frontends_v1 => "--max-frontends",
            Table::lb_backends_v1 | Table::lb_be_ctr_v1 => "--max-backends",
            Table::lb_svc_ctr_v1 => "--max-services",
            Table::lb_slots_v1 => "--max-slots",
            Table::lb_ranges_v1 => "--max-source-ranges",
            Table::lb_ct4_v1 | Table::lb_ct6_v1 => "--max-conntrack",
            Table::lb_affinity_v1 => "--max-affinity",
            Table::lb_sock_nat_v1 => "--max-sockets",
            _ => "(fixed)",
        }
    }
}
