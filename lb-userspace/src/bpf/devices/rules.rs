//! Which devices get which hooks: pure, from what netlink told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::Serialize;

use super::netlink::Event;

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    /// `IFLA_INFO_KIND`: `veth`, `bridge`, …; `None` for a physical device.
    pub(super) kind: Option<String>,
    /// Index of the other end (`IFLA_LINK`), in the namespace where that is; 0 if the
    /// kernel did not know it yet.
    pub(super) peer: u32,
    /// The other end is in another network namespace (`IFLA_LINK_NETNSID`).
    pub(super) peer_elsewhere: bool,
    pub(super) loopback: bool,
}

impl Device {
    /// Whether it is one half of a pair, of which the other may be a pod's.
    pub(super) fn is_pair(&self) -> bool {
        matches!(self.kind.as_deref(), Some("veth" | "netkit"))
    }
}

/// What a device is to the datapath.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It leads to a pod.
    Pod,
    /// It leads out of the node.
    Uplink,
}

/// Which devices are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) pod_patterns: Vec<String>,
    pub(super) uplink_patterns: Vec<String>,
    pub(super) node_addresses: Vec<IpAddr>,
}

/// What netlink told.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    devices: BTreeMap<u32, Device>,
    // A device that once led out stays an uplink until it is gone: hooks on one
    // device too many do no harm, and a route that is replaced (deleted, then
    // added) must not take them away in between.
    routed: BTreeSet<u32>,
    addresses: BTreeMap<u32, BTreeSet<IpAddr>>,
}

impl Inventory {
    /// Takes note of an event.
    pub(super) fn note(&mut self, event: Event) {
        match event {
            Event::Device(device) => {
                self.devices.insert(device.index, device);
            }
            Event::Gone(index) => self.forget(index),
            Event::Moved(index) => {
                if let Some(partner) = self.partner(index)
                    && let Some(device) = self.devices.get_mut(&partner)
                {
                    device.peer_elsewhere = true;
                }
                self.forget(index);
            }
            Event::Address(index, ip) => {
                self.addresses.entry(index).or_default().insert(ip);
            }
            Event::DefaultRoute(index) => {
                self.routed.insert(index);
            }
            Event::Lost => {}
        }
    }

    /// The other end of a pair, as far as both are here. The kernel tells of the
    /// end that it makes first before there is another.
    pub(super) fn partner(&self, index: u32) -> Option<u32> {
        let here = |d: &Device| d.is_pair() && !d.peer_elsewhere && d.peer != 0;
        let own = self.devices.get(&index).filter(|d| here(d)).map(|d| d.peer);
        own.filter(|peer| self.devices.contains_key(peer))
            .or_else(|| {
                let mut all = self.devices.values();
                all.find(|d| here(d) && d.peer == index).map(|d| d.index)
            })
    }

    /// Takes a dump for the whole truth about which devices there are.
    pub(super) fn replace(&mut self, events: Vec<Event>) {
        let present: BTreeSet<u32> = events
            .iter()
            .filter_map(|event| match event {
                Event::Device(device) => Some(device.index),
                _ => None,
            })
            .collect();
        let gone: Vec<u32> = self
            .devices
            .keys()
            .copied()
            .filter(|index| !present.contains(index))
            .collect();
        gone.into_iter().for_each(|index| self.forget(index));
        events.into_iter().for_each(|event| self.note(event));
    }

    fn forget(&mut self, index: u32) {
        self.devices.remove(&index);
        self.routed.remove(&index);
        self.addresses.remove(&index);
    }

    /// A device, by its index.
    pub(super) fn device(&self, index: u32) -> Option<&Device> {
        self.devices.get(&index)
    }

    /// The devices to cover, with the reason.
    pub(super) fn wanted(&self, rules: &Rules) -> BTreeMap<u32, (Role, String)> {
        let mut wanted = BTreeMap::new();
        for (index, device) in &self.devices {
            if let Some(found) = self.role(device, rules) {
                wanted.insert(*index, found);
            }
        }
        wanted
    }

    /// Pairs whose other end may yet move to a pod. The kernel tells us nothing
    /// when it does, unless something else changes too.
    pub(super) fn undecided(&self, rules: &Rules) -> Vec<u32> {
        if !rules.pod_patterns.is_empty() {
            return Vec::new();
        }
        let pairs = self
            .devices
            .values()
            .filter(|d| d.is_pair() && !d.peer_elsewhere);
        pairs
            .filter(|device| self.role(device, rules).is_none())
            .map(|device| device.index)
            .collect()
    }

    fn role(&self, device: &Device, rules: &Rules) -> Option<(Role, String)> {
        if device.loopback {
            return None;
        }
        if let Some(reason) = self.uplink(device, rules) {
            return Some((Role::Uplink, reason));
        }
        if !rules.pod_patterns.is_empty() {
            let pattern = rules
                .pod_patterns
                .iter()
                .find(|p| matches(p, &device.name))?;
            return Some((Role::Pod, format!("its name matches {pattern}")));
        }
        (device.is_pair() && device.peer_elsewhere).then(|| {
            (
                Role::Pod,
                "its peer is in another network namespace".to_owned(),
            )
        })
    }

    fn uplink(&self, device: &Device, rules: &Rules) -> Option<String> {
        if !rules.uplink_patterns.is_empty() {
            let pattern = rules
                .uplink_patterns
                .iter()
                .find(|p| matches(p, &device.name))?;
            return Some(format!("its name matches {pattern}"));
        }
        if self.routed.contains(&device.index) {
            return Some("a default route leads out by it".to_owned());
        }
        let addresses = self.addresses.get(&device.index)?;
        let own = rules
            .node_addresses
            .iter()
            .find(|ip| addresses.contains(ip))?;
        Some(format!("it has the node's address {own}"))
    }
}

/// Whether a name matches a pattern, in which `*` stands for any text and `?`
/// for one character.
fn matches(pattern: &str, name: &str) -> bool {
    let mut chars = pattern.chars();
    match chars.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = chars.as_str();
            let mut tails = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            tails.any(|at| matches(rest, &name[at..]))
        }
        Some(first) => {
            let mut name = name.chars();
            name.next().is_some_and(|c| first == '?' || first == c)
                && matches(chars.as_str(), name.as_str())
        }
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
