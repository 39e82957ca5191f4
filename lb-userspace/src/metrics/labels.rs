//! Labels of the agent's instruments.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

/// An IP family, as kube-proxy's label `ip_family` writes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
pub enum IpFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

impl IpFamily {
    /// Both.
    pub const ALL: [Self; 2] = [Self::IPv4, Self::IPv6];

    /// The family of IPv6, or the other one.
    pub fn of(ipv6: bool) -> Self {
        if ipv6 { Self::IPv6 } else { Self::IPv4 }
    }
}

/// A label with an IP family.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct FamilyLabel {
    /// The family.
    pub ip_family: IpFamily,
}

/// The traffic policy that has no endpoint here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "kube-proxy's values are in lower case")]
pub enum TrafficPolicy {
    /// `internalTrafficPolicy`.
    internal,
    /// `externalTrafficPolicy`.
    external,
}

/// Labels with a traffic policy and an IP family.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct PolicyLabel {
    /// The policy.
    pub traffic_policy: TrafficPolicy,
    /// The family.
    pub ip_family: IpFamily,
}

/// A label with the reason of a problem.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ReasonLabel {
    /// The reason.
    pub reason: &'static str,
}

/// A label with the name of a map.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct MapLabel {
    /// The map.
    pub map: &'static str,
}

/// Labels with the role of a device and what serves it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct DeviceLabel {
    /// The role.
    pub role: String,
    /// The hooks.
    pub hooks: String,
}

/// A label with a mode of kube-proxy.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ModeLabel {
    /// The mode.
    pub mode: &'static str,
}
