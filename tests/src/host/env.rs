//! A kernel that answers as it is told.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
};

use lb_common::{Addr, CtKey, Reason};
use lb_datapath::{Env, Family, Hook, Route, Run, Step, Way, tables::Hit};

/// What the FIB says of the addresses of a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FibRoute {
    /// The network.
    pub net: IpAddr,
    /// Bits of its prefix.
    pub prefix: u8,
    /// Index of the device.
    pub ifindex: u32,
    /// Link address of the device.
    pub device: [u8; 6],
    /// Link address of the next hop; `None` where it is not known.
    pub next_hop: Option<[u8; 6]>,
    /// Bytes that fit, IP header included.
    pub mtu: u32,
}

/// The surroundings of a packet. `DRY` is [`Run::DRY`].
#[derive(Debug)]
pub struct HostEnv<const DRY: bool> {
    /// The hook.
    pub hook: Hook,
    /// The clock, in ticks.
    pub now: Cell<u32>,
    /// The FIB; the first route that covers an address is its route.
    pub fib: Vec<FibRoute>,
    /// Addresses that sockets of the node own, by protocol.
    pub sockets: Vec<(u8, SocketAddr)>,
    /// What the pipeline decided.
    pub steps: RefCell<Vec<Step>>,
}

impl<const DRY: bool> HostEnv<DRY> {
    /// No routes, no sockets.
    #[must_use]
    pub fn new(hook: Hook, now: u32) -> Self {
        Self {
            hook,
            now: Cell::new(now),
            fib: Vec::new(),
            sockets: Vec::new(),
            steps: RefCell::default(),
        }
    }
}

impl<const DRY: bool> Run for HostEnv<DRY> {
    const DRY: bool = DRY;

    fn now(&self) -> u32 {
        self.now.get()
    }
    fn step(&self, step: Step) {
        self.steps.borrow_mut().push(step);
    }
}

fn words(mac: [u8; 6]) -> [u16; 3] {
    bytemuck::cast(mac)
}

impl FibRoute {
    fn covers(&self, addr: IpAddr) -> bool {
        let bits = |a: IpAddr| match a {
            IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
            IpAddr::V6(a) => a.to_bits(),
        };
        self.net.is_ipv4() == addr.is_ipv4()
            && (self.prefix == 0
                || (bits(self.net) ^ bits(addr)) >> (128 - u32::from(self.prefix)) == 0)
    }
}

impl<F: Family, const DRY: bool> Env<F> for HostEnv<DRY> {
    fn hook(&self) -> Hook {
        self.hook
    }
    fn socket_owns(&self, tuple: &CtKey<F::Addr>) -> bool {
        let local = SocketAddr::new(F::wide(tuple.dst).into(), tuple.dport.get());
        self.sockets.contains(&(tuple.proto as u8, local))
    }
    fn route(&self, _proto: u32, to: &Hit<F::Addr>, len: u32) -> Route {
        let dst: Addr = F::wide(to.dst);
        let none = |reason| Route {
            way: Way::None,
            reason,
            ifindex: 0,
            dst: [0; 3],
            src: [0; 3],
        };
        let Some(route) = self.fib.iter().find(|r| r.covers(dst.into())) else {
            return none(Reason::NoRoute);
        };
        if len > route.mtu {
            return none(Reason::TooBig);
        }
        Route {
            way: if route.next_hop.is_some() {
                Way::Hop
            } else {
                Way::Unresolved
            },
            reason: Reason::NoRoute,
            ifindex: route.ifindex,
            dst: words(route.next_hop.unwrap_or_default()),
            src: words(route.device),
        }
    }
}
