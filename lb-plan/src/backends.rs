//! Backend ids: one for each (address, port, protocol), shared by all services.

use lb_common::{Addr, Backend, Be16, backend_flags};

use crate::{
    Map,
    ids::{Ids, Quarantine},
    op::Op,
};

/// A backend's identity.
pub(crate) type Identity = (Addr, Be16, u8);

/// A backend id, and in the uppermost bit whether whoever refers to it takes the
/// backend for one of this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Ref(u32);

impl Ref {
    const LOCAL: u32 = 1 << 31;

    pub(crate) fn new(id: u32, local: bool) -> Self {
        Self(id | if local { Self::LOCAL } else { 0 })
    }
    pub(crate) fn id(self) -> u32 {
        self.0 & !Self::LOCAL
    }
    pub(crate) fn local(self) -> bool {
        self.0 & Self::LOCAL != 0
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// As it is in the map; flags are 0 where it is not.
    written: Backend,
    refs: u32,
    /// How many of `refs` say that it is on this node.
    local: u32,
    /// Deleted from the map, and waiting for its grace to pass.
    retired: Option<u32>,
    /// Not written yet, and its counters are another backend's.
    fresh: bool,
}

/// All backends.
#[derive(Debug)]
pub(crate) struct Backends {
    ids: Ids,
    entries: Vec<Entry>,
    by_identity: Map<Identity, u32>,
    /// Ids whose entry may differ from the map.
    touched: Vec<u32>,
    quarantine: Quarantine<(u32, u32)>,
    retirements: u32,
    live: u32,
}

/// What a batch does about backends, in the order of ids.
#[derive(Default, Debug)]
pub(crate) struct BackendOps {
    pub(crate) resets: Vec<Op>,
    pub(crate) puts: Vec<Op>,
    pub(crate) deletes: Vec<Op>,
}

impl Backends {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            ids: Ids::new(limit.min(Ref::LOCAL)),
            entries: Vec::new(),
            by_identity: Map::default(),
            touched: Vec::new(),
            quarantine: Quarantine::new(),
            retirements: 0,
            live: 0,
        }
    }

    /// Counters of every id may count a former life.
    pub(crate) fn mark_used(&mut self) {
        self.ids.mark_used();
    }

    /// Takes a backend over from the map; nothing refers to it yet.
    pub(crate) fn restore(&mut self, id: u32, written: Backend) {
        if written.flags & backend_flags::LIVE == 0 || !self.ids.reserve(id) {
            return;
        }
        let identity = (written.addr, written.port, written.proto);
        self.by_identity.entry(identity).or_insert(id);
        *self.slot(id) = Entry {
            written,
            fresh: false,
            ..BLANK
        };
        self.touched.push(id);
        self.live += 1;
    }

    /// A reference to a backend, which gets an id if it has none; `None` when
    /// there are no more ids.
    pub(crate) fn acquire(&mut self, identity: Identity, local: bool) -> Option<Ref> {
        let id = match self.by_identity.get(&identity) {
            Some(&id) => id,
            None => {
                let (id, fresh) = self.ids.take()?;
                let (addr, port, proto) = identity;
                let written = Backend {
                    addr,
                    port,
                    proto,
                    reserved: 0,
                    flags: 0,
                };
                *self.slot(id) = Entry {
                    written,
                    fresh,
                    ..BLANK
                };
                self.by_identity.insert(identity, id);
                id
            }
        };
        let reference = Ref::new(id, local);
        self.retain(reference);
        Some(reference)
    }

    /// One more reference to a backend that has an id.
    pub(crate) fn retain(&mut self, reference: Ref) {
        let entry = &mut self.entries[reference.id() as usize];
        entry.refs += 1;
        entry.local += u32::from(reference.local());
        self.touched.push(reference.id());
    }

    /// One reference less.
    pub(crate) fn release(&mut self, reference: Ref) {
        let entry = &mut self.entries[reference.id() as usize];
        entry.refs -= 1;
        entry.local -= u32::from(reference.local());
        self.touched.push(reference.id());
    }

    /// A reference to a backend in the map as it stands there; `None` if it is
    /// not live.
    pub(crate) fn written(&self, id: u32) -> Option<Ref> {
        let flags = self.entries.get(id as usize)?.written.flags;
        let local = flags & backend_flags::LOCAL != 0;
        (flags & backend_flags::LIVE != 0).then(|| Ref::new(id, local))
    }

    /// The backend of an id, as it is or last was in the map.
    pub(crate) fn get(&self, id: u32) -> Backend {
        self.entries[id as usize].written
    }

    /// Backends in the map.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Ids in use, those in quarantine included.
    pub(crate) fn ids(&self) -> u32 {
        self.ids.count()
    }

    /// Every backend in the map, with its id.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, &Backend)> {
        let live = |e: &&Entry| e.written.flags & backend_flags::LIVE != 0;
        (0..)
            .zip(&self.entries)
            .filter_map(move |(id, e)| live(&e).then_some((id, &e.written)))
    }

    /// Every backend that has an id, those in quarantine included.
    pub(crate) fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.by_identity.keys()
    }

    /// The writes that bring the map in line with the references, and the state
    /// after them.
    pub(crate) fn settle(&mut self, now: u64) -> BackendOps {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        let mut ops = BackendOps::default();
        for id in touched {
            self.settle_one(id, now, &mut ops);
        }
        ops
    }

    fn settle_one(&mut self, id: u32, now: u64, ops: &mut BackendOps) {
        let entry = &mut self.entries[id as usize];
        let flags = entry.written.flags;
        if entry.refs == 0 && flags == 0 {
            // Given out and given back within this batch, or deleted before.
            if entry.retired.is_none() {
                self.drop_id(id);
            }
            return;
        }
        if entry.refs == 0 {
            ops.deletes.push(Op::DeleteBackend {
                id,
                backend: entry.written,
            });
            entry.written.flags = 0;
            self.retirements = self.retirements.wrapping_add(1);
            entry.retired = Some(self.retirements);
            self.quarantine.push(now, (id, self.retirements));
            self.live -= 1;
            return;
        }
        let local = if entry.local > 0 {
            backend_flags::LOCAL
        } else {
            0
        };
        let wanted = backend_flags::LIVE | local;
        if wanted == flags {
            return;
        }
        entry.written.flags = wanted;
        entry.retired = None;
        if std::mem::take(&mut entry.fresh) {
            ops.resets.push(Op::ResetBackendCounter(id));
        }
        ops.puts.push(Op::PutBackend {
            id,
            backend: entry.written,
        });
        self.live += u32::from(flags == 0);
    }

    /// Makes ids whose grace has passed available; true if there were any.
    pub(crate) fn expire(&mut self, now: u64, grace: u64) -> bool {
        let mut any = false;
        while let Some((_, (id, retirement))) = self.quarantine.pop(now, grace) {
            // A backend that came back in the meantime keeps its id.
            if self.entries[id as usize].retired == Some(retirement) {
                self.drop_id(id);
                any = true;
            }
        }
        any
    }

    fn drop_id(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        let Backend {
            addr, port, proto, ..
        } = entry.written;
        if self.by_identity.get(&(addr, port, proto)) == Some(&id) {
            self.by_identity.remove(&(addr, port, proto));
        }
        *entry = BLANK;
        self.ids.free(id);
    }

    fn slot(&mut self, id: u32) -> &mut Entry {
        let index = id as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, BLANK);
        }
        &mut self.entries[index]
    }
}

const BLANK: Entry = Entry {
    written: Backend {
        addr: Addr::UNSPECIFIED,
        port: Be16::new(0),
        proto: 0,
        reserved: 0,
        flags: 0,
    },
    refs: 0,
    local: 0,
    retired: None,
    fresh: false,
};
