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
            Event::Address(index, ip) => {
                self.addresses.entry(index).or_default().insert(ip);
            }
            Event::DefaultRoute(index) => {
                self.routed.insert(index);
            }
            Event::Lost => {}
        }
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
mod tests {
    use super::*;

    fn veth(index: u32, name: &str, peer_elsewhere: bool) -> Event {
        Event::Device(Device {
            index,
            name: name.into(),
            kind: Some("veth".into()),
            peer_elsewhere,
            loopback: false,
        })
    }

    fn physical(index: u32, name: &str) -> Event {
        let name = name.into();
        Event::Device(Device {
            index,
            name,
            ..Device::default()
        })
    }

    fn roles(events: &[Event], rules: &Rules) -> Vec<(u32, Role)> {
        let mut inventory = Inventory::default();
        events
            .iter()
            .cloned()
            .for_each(|event| inventory.note(event));
        inventory
            .wanted(rules)
            .into_iter()
            .map(|(i, (role, _))| (i, role))
            .collect()
    }

    #[test]
    fn a_veth_whose_peer_is_elsewhere_is_a_pods() {
        let events = [
            veth(3, "veth1", true),
            veth(4, "veth2", false),
            physical(2, "eth0"),
        ];
        assert_eq!(roles(&events, &Rules::default()), [(3, Role::Pod)]);
    }

    #[test]
    fn the_device_of_a_default_route_is_an_uplink_even_if_it_is_a_veth() {
        let events = [
            veth(3, "up", true),
            veth(4, "pod", true),
            Event::DefaultRoute(3),
        ];
        assert_eq!(
            roles(&events, &Rules::default()),
            [(3, Role::Uplink), (4, Role::Pod)]
        );
    }

    #[test]
    fn the_device_with_the_nodes_address_is_an_uplink() {
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let rules = Rules {
            node_addresses: vec![ip],
            ..Rules::default()
        };
        let events = [
            physical(2, "eth0"),
            physical(3, "eth1"),
            Event::Address(3, ip),
        ];
        assert_eq!(roles(&events, &rules), [(3, Role::Uplink)]);
    }

    #[test]
    fn patterns_take_the_rules_place() {
        let rules = Rules {
            pod_patterns: vec!["cali*".into()],
            uplink_patterns: vec!["eth?".into()],
            ..Rules::default()
        };
        let events = [
            veth(3, "veth1", true),
            veth(4, "cali12ab", false),
            physical(5, "eth1"),
            physical(6, "eth10"),
            Event::DefaultRoute(6),
        ];
        assert_eq!(roles(&events, &rules), [(4, Role::Pod), (5, Role::Uplink)]);
    }

    #[test]
    fn loopback_is_never_covered() {
        let rules = Rules {
            uplink_patterns: vec!["*".into()],
            ..Rules::default()
        };
        let lo = Device {
            index: 1,
            name: "lo".into(),
            loopback: true,
            ..Device::default()
        };
        assert_eq!(roles(&[Event::Device(lo)], &rules), []);
    }

    #[test]
    fn a_device_that_is_gone_leaves_nothing_to_the_next_one_with_its_index() {
        let events = [
            physical(3, "eth0"),
            Event::DefaultRoute(3),
            Event::Gone(3),
            physical(3, "eth1"),
        ];
        assert_eq!(roles(&events, &Rules::default()), []);
    }

    #[test]
    fn a_dump_after_lost_events_ends_devices_that_are_gone() {
        let mut inventory = Inventory::default();
        inventory.note(veth(3, "veth1", true));
        inventory.note(veth(4, "veth2", true));
        inventory.replace(vec![veth(4, "veth2", true), veth(5, "veth3", true)]);
        let found: Vec<u32> = inventory.wanted(&Rules::default()).into_keys().collect();
        assert_eq!(found, [4, 5]);
    }

    #[test]
    fn a_pair_with_both_ends_here_is_looked_at_again() {
        let mut inventory = Inventory::default();
        inventory.note(veth(3, "veth1", false));
        inventory.note(veth(4, "veth2", true));
        assert_eq!(inventory.undecided(&Rules::default()), [3]);
        let rules = Rules {
            pod_patterns: vec!["x*".into()],
            ..Rules::default()
        };
        assert!(inventory.undecided(&rules).is_empty());
    }

    #[test]
    fn patterns_match_whole_names() {
        assert!(matches("veth*", "veth0") && matches("veth*", "veth"));
        assert!(matches("*0", "veth0") && matches("v*t?0", "vetht10"));
        assert!(!matches("veth", "veth0") && !matches("?", "") && !matches("a*b", "abc"));
    }
}
