//! What the maps hold while the datapath is measured: a few services, each of
//! another kind, and the network that SNAT sends to.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData};
use bytemuck::{NoUninit, bytes_of};
use lb_common::hash::{filter_bit, filter_kind};
use lb_common::schema::{PACK, name};
use lb_common::{
    Addr, Backend, Be16, Be32, Frontend, FrontendKey, NodeConfig, RangeKey, backend_flags,
    frontend_flags, proto, scope,
};

use crate::sh::Sh;

/// Port of every backend.
pub(super) const BACKEND_PORT: u16 = 8080;
/// The node's address of each family, on the uplink.
pub(super) const NODE: [&str; 2] = ["192.168.77.1", "fd00:77::1"];
/// An address that is nobody's business.
pub(super) const STRANGER: [&str; 2] = ["10.0.0.9", "fd00:9::9"];
/// An address that the filter lets in although no service has it.
pub(super) const LOOKALIKE: &str = "10.0.0.10";

/// A service, its backends numbered from 1 in the last bytes of their addresses.
pub(super) struct Service {
    /// Service id.
    pub(super) id: u32,
    /// Its vip.
    pub(super) vip: &'static str,
    /// Its port.
    pub(super) port: u16,
    /// IP protocol number.
    pub(super) proto: u8,
    /// Network of its backends.
    pub(super) net: &'static str,
    /// How many they are.
    pub(super) backends: u32,
    /// Whether they are on this node.
    pub(super) local: bool,
    /// Seconds of session affinity.
    pub(super) affinity: u32,
    /// What it has besides.
    quirk: Quirk,
}

/// What is special about a service.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quirk {
    Nothing,
    /// Its external policy is Local.
    Local,
    /// Its source ranges have this network, with so many bits.
    From(&'static str, u32),
    /// Its backends are dead: the tables name what is not there.
    Dead,
}

impl Quirk {
    fn flags(self) -> u32 {
        match self {
            Self::Nothing | Self::Dead => 0,
            Self::Local => frontend_flags::DROP_IF_EMPTY | frontend_flags::NO_SNAT,
            Self::From(..) => frontend_flags::SOURCE_RANGES,
        }
    }
}

macro_rules! services {
    ($($name:ident = $id:literal $vip:literal $port:literal $proto:ident, $n:literal $local:literal $net:literal $affinity:literal $quirk:expr, $doc:literal;)+) => {
        $(#[doc = $doc]
        pub(super) const $name: Service = Service {
            id: $id,
            vip: $vip,
            port: $port,
            proto: proto::$proto,
            net: $net,
            backends: $n,
            local: $local,
            affinity: $affinity,
            quirk: $quirk,
        };)+
        const SERVICES: [&Service; [$($id),+].len()] = [$(&$name),+];
    };
}
services! {
    LOCAL4 = 1 "10.96.0.1" 80 TCP, 8 true "10.244.1.0" 0 Quirk::Nothing, "TCP over IPv4, backends on this node.";
    REMOTE4 = 2 "10.96.0.2" 80 TCP, 256 false "10.245.0.0" 0 Quirk::Nothing, "TCP over IPv4, backends elsewhere.";
    STICKY4 = 3 "10.96.0.3" 80 TCP, 8 true "10.244.3.0" 10_800 Quirk::Nothing, "With session affinity.";
    EMPTY4 = 4 "10.96.0.4" 80 TCP, 0 true "10.244.4.0" 0 Quirk::Nothing, "Without an endpoint.";
    DNS4 = 5 "10.96.0.5" 53 UDP, 8 true "10.244.5.0" 0 Quirk::Nothing, "UDP over IPv4.";
    SINGLE4 = 6 "10.96.0.6" 80 TCP, 1 true "10.244.6.0" 0 Quirk::Nothing, "One backend, IPv4.";
    LOCAL6 = 7 "fd00:96::1" 80 TCP, 8 true "fd00:244:1::" 0 Quirk::Nothing, "TCP over IPv6, backends on this node.";
    REMOTE6 = 8 "fd00:96::2" 80 TCP, 256 false "fd00:245::" 0 Quirk::Nothing, "TCP over IPv6, backends elsewhere.";
    SINGLE6 = 9 "fd00:96::6" 80 TCP, 1 true "fd00:244:6::" 0 Quirk::Nothing, "One backend, IPv6.";
    POLICY4 = 10 "10.96.0.7" 80 TCP, 0 true "10.244.7.0" 0 Quirk::Local, "Policy Local, and no endpoint here.";
    RANGED4 = 11 "10.96.0.8" 80 TCP, 8 true "10.244.8.0" 0 Quirk::From("172.16.0.0", 12), "With source ranges that the clients are in.";
    DENIED4 = 12 "10.96.0.9" 80 TCP, 8 true "10.244.9.0" 0 Quirk::From("10.0.0.0", 8), "With source ranges that they are not in.";
    UNROUTED4 = 13 "10.96.0.10" 80 TCP, 2 false "10.246.0.0" 0 Quirk::Nothing, "No route leads to the backends.";
    UNKNOWN4 = 14 "10.96.0.11" 80 TCP, 2 false "192.168.77.100" 0 Quirk::Nothing, "Backends whose link address is not known.";
    DEAD4 = 15 "10.96.0.12" 80 TCP, 2 true "10.244.12.0" 0 Quirk::Dead, "Dead backends.";
    SCTP4 = 16 "10.96.0.13" 3868 SCTP, 8 true "10.244.13.0" 0 Quirk::Nothing, "SCTP over IPv4.";
    ELSEWHERE4 = 17 "10.96.0.14" 80 TCP, 1 false "10.245.14.0" 0 Quirk::Nothing, "One backend, elsewhere, IPv4.";
    ELSEWHERE6 = 18 "fd00:96::14" 80 TCP, 1 false "fd00:245:14::" 0 Quirk::Nothing, "One backend, elsewhere, IPv6.";
}

impl Service {
    /// What clients dial.
    pub(super) fn frontend(&self) -> (IpAddr, u16) {
        (ip(self.vip), self.port)
    }

    /// The address of a backend; `n` counts from 0.
    pub(super) fn backend(&self, n: u32) -> IpAddr {
        match ip(self.net) {
            IpAddr::V4(net) => IpAddr::V4((net.to_bits() + n + 1).into()),
            IpAddr::V6(net) => IpAddr::V6((net.to_bits() + u128::from(n) + 1).into()),
        }
    }

    /// Whether an address is one of its backends'.
    pub(super) fn has(&self, addr: IpAddr) -> bool {
        (0..self.backends).any(|n| self.backend(n) == addr)
    }
}

/// A literal of this module, which its tests parse.
pub(super) fn ip(literal: &str) -> IpAddr {
    literal.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

/// Fills the maps.
///
/// # Errors
/// A map is missing or cannot be written.
pub(super) fn fill(lb: &mut Ebpf) -> Result<()> {
    let mut backend_id = 1;
    let mut all: Vec<u32> = Vec::new();
    for service in SERVICES {
        let first = backend_id;
        for n in 0..service.backends {
            if service.quirk != Quirk::Dead {
                put_backend(lb, service, backend_id, n)?;
            }
            backend_id += 1;
        }
        let (slots, len) = match service.backends {
            0 | 1 => (first, service.backends),
            n => (all.len() as u32, n * 100 + 1),
        };
        if len > 1 {
            // Every backend as often as every other: what a maglev table comes to.
            all.extend((0..len).map(|at| first + at % service.backends));
        }
        let value = Frontend {
            service: service.id,
            flags: service.quirk.flags(),
            slots,
            len,
            affinity: service.affinity,
        };
        put_frontend(lb, service, value)?;
        if let Quirk::From(net, bits) = service.quirk {
            put_range(lb, service, (ip(net), bits))?;
        }
    }
    for (index, ids) in (0..).zip(all.chunks(PACK as usize)) {
        let mut element = [0; PACK as usize];
        element[..ids.len()].copy_from_slice(ids);
        put(lb, name::lb_slots_v1, index, &element)?;
    }
    node(lb)
}

fn put_backend(lb: &mut Ebpf, service: &Service, id: u32, n: u32) -> Result<()> {
    let addr = Addr::from(service.backend(n));
    let local = if service.local {
        backend_flags::LOCAL
    } else {
        0
    };
    let backend = Backend {
        addr,
        port: Be16::new(BACKEND_PORT),
        proto: service.proto,
        reserved: 0,
        flags: backend_flags::LIVE | local,
    };
    put(lb, name::lb_backends_v1, id, &backend)
}

fn put_frontend(lb: &mut Ebpf, service: &Service, value: Frontend) -> Result<()> {
    let (addr, port) = (Addr::from(ip(service.vip)), Be16::new(service.port));
    let bit = filter_bit(filter_kind::FRONTEND, addr, port, service.proto);
    set_bit(lb, bit)?;
    for scope in [scope::INTERNAL, scope::EXTERNAL] {
        let key = FrontendKey {
            addr,
            port,
            proto: service.proto,
            scope,
        };
        frontend(lb, &key, &value)?;
    }
    put_vip(lb, addr, 0)
}

/// Lets a network of IPv4 in.
fn put_range(lb: &mut Ebpf, service: &Service, (net, bits): (IpAddr, u32)) -> Result<()> {
    const DATA: usize = size_of::<RangeKey>() - 4;
    let key = RangeKey {
        prefix_len: 32 + 96 + bits,
        service: Be32::new(service.id),
        addr: Addr::from(net),
    };
    let bytes: [u8; size_of::<RangeKey>()] = bytemuck::cast(key);
    let (_, data) = bytes.split_at(4);
    let data: [u8; DATA] = data.try_into().context("a range's key has another size")?;
    let mut map: LpmTrie<_, [u8; DATA], u32> = LpmTrie::try_from(map(lb, name::lb_ranges_v1)?)?;
    map.insert(&Key::new(key.prefix_len, data), 1, 0)
        .context("cannot write a source range")
}

/// The entry of a vip itself.
fn put_vip(lb: &mut Ebpf, addr: Addr, flags: u32) -> Result<()> {
    for scope in [scope::INTERNAL, scope::EXTERNAL] {
        let key = FrontendKey {
            addr,
            port: Be16::new(0),
            proto: 0,
            scope,
        };
        let value = Frontend {
            service: 0,
            flags: frontend_flags::VIP | flags,
            slots: 0,
            len: 0,
            affinity: 0,
        };
        frontend(lb, &key, &value)?;
    }
    set_bit(lb, filter_bit(filter_kind::VIP, addr, Be16::new(0), 0))
}

fn node(lb: &mut Ebpf) -> Result<()> {
    for addr in NODE {
        put_vip(lb, Addr::from(ip(addr)), frontend_flags::NODE_ADDR)?;
    }
    let lookalike = Addr::from(ip(LOOKALIKE));
    set_bit(lb, filter_bit(filter_kind::VIP, lookalike, Be16::new(0), 0))?;
    configure(lb, &config())
}

/// What the agent finds out of the node, usually.
pub(super) fn config() -> NodeConfig {
    NodeConfig {
        snat4: Addr::from(ip(NODE[0])),
        snat6: Addr::from(ip(NODE[1])),
        // What the agent takes by default.
        snat_port_min: 1024,
        snat_port_max: 29_999,
        flags: 0,
        host_netns: 0,
    }
}

/// Writes what the datapath knows of the node.
///
/// # Errors
/// The map is missing or cannot be written.
pub(super) fn configure(lb: &mut Ebpf, config: &NodeConfig) -> Result<()> {
    put(lb, name::lb_node_v1, 0, config)
}

fn frontend(lb: &mut Ebpf, key: &FrontendKey, value: &Frontend) -> Result<()> {
    const VALUE: usize = size_of::<Frontend>();
    let map = map(lb, name::lb_frontends_v1)?;
    let mut map: HashMap<_, [u8; size_of::<FrontendKey>()], [u8; VALUE]> = HashMap::try_from(map)?;
    let key: [u8; size_of::<FrontendKey>()] = bytemuck::cast(*key);
    let value: [u8; VALUE] = bytemuck::cast(*value);
    map.insert(key, value, 0).context("cannot write a frontend")
}

fn set_bit(lb: &mut Ebpf, bit: u32) -> Result<()> {
    let map = map(lb, name::lb_filter_v1)?;
    let mut words: Array<&mut MapData, u64> = Array::try_from(map)?;
    let word = words.get(&(bit >> 6), 0)? | 1 << (bit & 63);
    words
        .set(bit >> 6, word, 0)
        .context("cannot write the filter")
}

/// Writes an element of an array.
pub(super) fn put<T: NoUninit>(lb: &mut Ebpf, name: &str, index: u32, value: &T) -> Result<()> {
    use std::os::fd::AsFd as _;
    let map = map(lb, name)?;
    let Map::Array(data) = map else {
        anyhow::bail!("the map {name} is no array");
    };
    super::sys::update(data.fd().as_fd(), &index.to_ne_bytes(), bytes_of(value))
        .with_context(|| format!("cannot write element {index} of the map {name}"))
}

fn map<'a>(lb: &'a mut Ebpf, name: &str) -> Result<&'a mut Map> {
    lb.map_mut(name)
        .with_context(|| format!("the object has no map {name}"))
}

/// Makes the network of the calling thread's namespace: an uplink with the
/// node's addresses, and a next hop whose link address is known.
///
/// # Errors
/// A device, address or route cannot be made.
pub(super) fn network() -> Result<()> {
    let script = "\
        link add up0 type veth peer name up1\n\
        link set up1 up\n\
        link set up0 up\n\
        addr add 192.168.77.1/24 dev up0\n\
        addr add fd00:77::1/64 dev up0 nodad\n\
        neigh add 192.168.77.2 lladdr 02:00:00:00:00:02 dev up0 nud permanent\n\
        neigh add fd00:77::2 lladdr 02:00:00:00:00:02 dev up0 nud permanent\n\
        route add default via 192.168.77.2\n\
        route add unreachable 10.246.0.0/16\n\
        -6 route add default via fd00:77::2\n";
    for line in script.lines() {
        Sh::new("ip").args(line.split_whitespace()).read()?;
    }
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/conf/all/forwarding");
        std::fs::write(&path, "1").with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_one() {
        let all = SERVICES.iter().flat_map(|s| [s.vip, s.net]);
        for literal in all.chain(NODE).chain(STRANGER).chain([LOOKALIKE]) {
            assert!(literal.parse::<IpAddr>().is_ok(), "{literal}");
        }
    }

    #[test]
    fn ids_are_distinct_and_backends_lie_in_their_network() {
        let mut ids: Vec<u32> = SERVICES.iter().map(|s| s.id).collect();
        ids.dedup();
        assert_eq!(ids.len(), SERVICES.len());
        assert_eq!(REMOTE4.backend(255), ip("10.245.1.0"));
        assert!(LOCAL4.has(ip("10.244.1.8")) && !LOCAL4.has(ip("10.244.1.9")));
    }

    #[test]
    fn the_stranger_is_none_of_ours() {
        let bit = |addr: &str| filter_bit(filter_kind::VIP, Addr::from(ip(addr)), Be16::new(0), 0);
        let ours: Vec<u32> = SERVICES
            .iter()
            .map(|s| bit(s.vip))
            .chain(NODE.map(bit))
            .chain([bit(LOOKALIKE)])
            .collect();
        assert!(STRANGER.iter().all(|s| !ours.contains(&bit(s))));
    }
}
