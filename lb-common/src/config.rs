//! What the datapath must know of its node.

use bytemuck::{Pod, Zeroable};

use crate::addr::Addr;

/// The only entry of the node map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
pub struct NodeConfig {
    /// IPv4 address (mapped) that SNAT writes; unspecified when the node has none.
    pub snat4: Addr,
    /// IPv6 address that SNAT writes; unspecified when the node has none.
    pub snat6: Addr,
    /// First port of SNAT, host byte order.
    pub snat_port_min: u16,
    /// Last port of SNAT, host byte order, inclusive.
    pub snat_port_max: u16,
    /// [`node_flags`].
    pub flags: u32,
    /// Cookie of the node's own network namespace: only its sockets reach a
    /// NodePort on a loopback address.
    pub host_netns: u64,
}

/// Flags of [`NodeConfig`].
pub mod node_flags {
    /// Socket hooks serve the host's sockets only; pods are served by TC.
    pub const SOCKET_LB_HOST_ONLY: u32 = 1 << 0;
    /// Another proxy's rules are in place: a TCP packet that opens nothing, of a flow
    /// that conntrack does not know, is one of that proxy's and passes as it is.
    pub const BESIDE_RULES: u32 = 1 << 1;
}

const _: () = assert!(size_of::<NodeConfig>() == 48);
