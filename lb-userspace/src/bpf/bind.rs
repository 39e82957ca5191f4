//! Session affinity that another proxy began: its clients keep their backends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{
    Addr, Affinity, AffinityKey, Be16, Frontend, FrontendKey, conntrack::TICK_SHIFT, scope,
};
use lb_datapath::socket::affinity_client;

use super::{
    actual::live_backends,
    conntrack::now,
    datapath::Datapath,
    error::Error,
    kernel::KernelStore,
    load::map_error,
    store::MapStoreExt as _,
    sys::NOEXIST,
    table::{Table, typed},
};

/// A client that another proxy has bound to a backend.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The client.
    pub client: IpAddr,
    /// What it dials.
    pub what: Dialled,
    /// IP protocol number.
    pub proto: u8,
    /// The backend.
    pub backend: SocketAddr,
    /// How long ago the client was last seen.
    pub idle: Duration,
}

/// What a bound client dials.
#[derive(Clone, Copy, Debug)]
pub enum Dialled {
    /// A frontend.
    Frontend(SocketAddr),
    /// Any frontend of a service, by its id.
    Service(u32),
}

/// A backend of a service with affinity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Sticky {
    /// The service, by its id.
    pub service: u32,
    /// IP protocol number.
    pub proto: u8,
    /// The backend.
    pub addr: SocketAddr,
}

impl Datapath {
    /// The backends of services with affinity.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn sticky(&self) -> Result<BTreeSet<Sticky>, Error> {
        let fail = |source| map_error(Table::lb_frontends_v1, "read", source);
        let known = Known::read(self.store()).map_err(fail)?;
        let places: HashMap<u32, _> = known.backends.iter().map(|(at, id)| (*id, *at)).collect();
        let all = known.frontends.iter().flat_map(|(_, frontend, members)| {
            let found = members.iter().filter_map(|id| places.get(id));
            found.map(|(addr, port, proto)| Sticky {
                service: frontend.service,
                proto: *proto,
                addr: SocketAddr::new((*addr).into(), port.get()),
            })
        });
        Ok(all.collect())
    }

    /// Binds clients to backends of services with affinity, as if they had dialled them
    /// here: where a frontend of the service leads to that backend, and the client is not
    /// bound already. `cookies` are the network namespaces of addresses: sockets are
    /// bound by these. Returns how many clients were bound.
    ///
    /// # Errors
    /// A map cannot be read or written.
    pub fn bind(&self, bindings: &[Binding], cookies: &[(IpAddr, u64)]) -> Result<usize, Error> {
        let fail = |call| move |source| map_error(Table::lb_affinity_v1, call, source);
        let known = Known::read(self.store()).map_err(fail("read what is to be written to"))?;
        let affinity = self.map(Table::lb_affinity_v1);
        let mut bound = 0;
        for binding in bindings {
            let Some(id) = known.backend(binding) else {
                continue;
            };
            let ticks = binding.idle.as_nanos() >> TICK_SHIFT;
            let value = Affinity {
                backend: id,
                last_use: now().wrapping_sub(u32::try_from(ticks).unwrap_or(u32::MAX)),
            };
            let keys = known.keys(binding, id, cookies);
            bound += usize::from(!keys.is_empty());
            for key in keys {
                let (key, value) = (bytemuck::bytes_of(&key), bytemuck::bytes_of(&value));
                match affinity.write(key, value, NOEXIST) {
                    Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                    done => done.map_err(fail("write"))?,
                }
            }
        }
        Ok(bound)
    }
}

/// Frontends with affinity, and where they lead.
struct Known {
    frontends: Vec<(FrontendKey, Frontend, BTreeSet<u32>)>,
    backends: BTreeMap<(Addr, Be16, u8), u32>,
}

impl Known {
    fn read(store: &KernelStore) -> io::Result<Self> {
        let all = store.all::<typed::lb_frontends_v1>()?;
        let mut frontends = Vec::new();
        for (key, frontend) in all.into_iter().filter(|(_, f)| f.affinity > 0) {
            let members = match frontend.len {
                0 => BTreeSet::new(),
                1 => BTreeSet::from([frontend.slots]),
                len => {
                    let slots = store.load_many::<typed::lb_slots_v1>(frontend.slots, len)?;
                    slots.into_iter().collect()
                }
            };
            frontends.push((key, frontend, members));
        }
        let place = |b: &lb_common::Backend| (b.addr, b.port, b.proto);
        let backends = live_backends(store)?;
        Ok(Self {
            frontends,
            backends: backends.iter().map(|(id, b)| (place(b), *id)).collect(),
        })
    }

    fn backend(&self, binding: &Binding) -> Option<u32> {
        let (addr, port) = wide(binding.backend);
        self.backends.get(&(addr, port, binding.proto)).copied()
    }

    /// The keys of a client in the services that it dials and that lead to a backend.
    fn keys(&self, binding: &Binding, backend: u32, cookies: &[(IpAddr, u64)]) -> Vec<AffinityKey> {
        let dials = |key: &FrontendKey, frontend: &Frontend| match binding.what {
            Dialled::Frontend(at) => (key.addr, key.port) == wide(at) && key.proto == binding.proto,
            Dialled::Service(id) => frontend.service == id,
        };
        let all = self
            .frontends
            .iter()
            .filter(|(key, frontend, members)| dials(key, frontend) && members.contains(&backend));
        let mut keys = BTreeSet::new();
        for (key, frontend, _) in all {
            let of = |client| AffinityKey {
                client,
                service: frontend.service,
                scope: u32::from(key.scope),
            };
            keys.insert(of(binding.client.into()));
            if key.scope == scope::INTERNAL {
                let v4 = binding.backend.is_ipv4();
                let namespaces = cookies.iter().filter(|(ip, _)| *ip == binding.client);
                keys.extend(namespaces.map(|(_, cookie)| of(affinity_client(*cookie, v4))));
            }
        }
        keys.into_iter().collect()
    }
}

fn wide(at: SocketAddr) -> (Addr, Be16) {
    (at.ip().into(), Be16::new(at.port()))
}
