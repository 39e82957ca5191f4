//! The kernel's netfilter as a takeover from kube-proxy meets it: connections that are
//! translated, rules of kube-proxy's, and a table that keeps the kernel's NAT alive.
//! By netlink: there is no program `nft` in the image.

pub mod affinity;
pub mod commit;
pub mod conntrack;
pub mod kube_proxy;
mod legacy;
pub mod nft;
mod recent;
