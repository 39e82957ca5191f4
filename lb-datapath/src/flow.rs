//! New flows: choose a backend, find a source port, write both directions.

use lb_common::{
    CtEntry, CtKey, Frontend, FrontendKey, NodeConfig, Reason, backend_flags, ct_flags,
    frontend_flags, hash, limits,
};

use crate::{
    env::{Env, Step},
    family::Family,
    parse::Headers,
    select::{Client, select},
    table::{Insert, InsertError},
    tables::{Hit, Tables},
};

/// Opens a flow to a backend of the packet's frontend, and says in `to` what to
/// write into its packets. `bytes` is the length of the frame.
///
/// # Errors
/// The reason of the refusal or drop; [`Reason::NotOurs`] where the packet is the
/// node's own.
#[inline(always)]
pub fn open<F: Family, T: Tables<F>, E: Env<F>>(
    t: &T,
    e: &E,
    h: &Headers<F::Addr>,
    to: &mut Hit<F::Addr>,
    bytes: u32,
) -> Result<(), Reason> {
    choose(t, e, h, to)?;
    if E::DRY {
        let reply = Ports::of::<F, T>(t, &h.tuple, to)?;
        if reply.snat {
            e.step(Step::Snat(to.sport.get()));
        }
        return Ok(());
    }
    reserve(t, e, h, to)?;
    expect_replies::<F, T>(t, to, h.proto());
    record(t, e, h, to, bytes)
}

/// Chooses the backend, and how the client's packets reach it.
///
/// A function of its own in the kernel, as [`reserve`] and [`record`], so that none's
/// values lie on the stack while another runs: a program and what it calls share 512
/// bytes.
#[inline(never)]
fn choose<F: Family, T: Tables<F>, E: Env<F>>(
    t: &T,
    e: &E,
    h: &Headers<F::Addr>,
    to: &mut Hit<F::Addr>,
) -> Result<(), Reason> {
    let key = &h.tuple;
    let scope = e.hook().scope;
    let frontend = find::<F, T>(t, h, scope)?;
    e.step(Step::Frontend(frontend.service));
    let client = F::wide(key.src);
    if frontend.flags & frontend_flags::SOURCE_RANGES != 0
        && !t.in_source_ranges(frontend.service, client)
    {
        return Err(Reason::SourceRange);
    }
    // With affinity the ports are left out, so that every node binds a client
    // to the same backend.
    let (sport, dport) = if frontend.affinity == 0 {
        (key.sport, key.dport)
    } else {
        (lb_common::Be16::new(0), lb_common::Be16::new(0))
    };
    let client = Client {
        addr: client,
        hash: F::hash(key.src, key.dst, sport, dport, h.proto()),
        scope,
    };
    let (id, backend) = select(t, e, &frontend, &client)?;
    *to = Hit {
        src: key.src,
        dst: F::narrow(&backend.addr),
        sport: key.sport,
        dport: backend.port,
        flags: 0,
        backend: id,
        service: frontend.service,
    };
    let external = scope == lb_common::scope::EXTERNAL;
    if external {
        to.flags |= ct_flags::EXTERNAL;
        if backend.flags & backend_flags::LOCAL == 0
            && frontend.flags & frontend_flags::NO_SNAT == 0
        {
            to.flags |= ct_flags::SNAT;
        }
    } else if to.dst == key.src {
        to.flags |= ct_flags::SNAT | ct_flags::HAIRPIN;
    }
    Ok(())
}

/// The address that SNAT writes.
#[inline(always)]
fn node_addr<F: Family>(node: &NodeConfig) -> Result<F::Addr, Reason> {
    let addr = if F::V6 { node.snat6 } else { node.snat4 };
    if addr == lb_common::Addr::UNSPECIFIED {
        return Err(Reason::NoNodeAddress);
    }
    Ok(F::narrow(&addr))
}

/// Writes the direction of a flow's replies. It comes first: its key must be unique, or
/// replies of two flows could not be told apart.
#[inline(never)]
fn reserve<F: Family, T: Tables<F>, E: Env<F>>(
    t: &T,
    e: &E,
    h: &Headers<F::Addr>,
    to: &mut Hit<F::Addr>,
) -> Result<(), Reason> {
    let now = e.now();
    let key = &h.tuple;
    // LLVM would make calls of `memset` from constant zeros: a loop over bytes.
    let zero = core::hint::black_box(0u32);
    t.with_entry(|entry| {
        *entry = CtEntry {
            packets: u64::from(zero),
            bytes: u64::from(zero),
            src: key.dst,
            dst: key.src,
            sport: key.dport,
            dport: key.sport,
            flags: to.flags
                | ct_flags::REPLY
                | (h.flags & ct_flags::SIGHTS) << ct_flags::PEER_SHIFT,
            backend: to.backend,
            service: to.service,
            created: now,
            last_seen: now,
        };
        find_port(t, e, to, entry, key)
    })
    .unwrap_or(Err(Reason::WriteFailed))
}

/// Has egress look replies of this backend up: those of a backend that no flow leads to are
/// not, and where sockets translate, no flow does.
#[inline(never)]
fn expect_replies<F: Family, T: Tables<F>>(t: &T, to: &Hit<F::Addr>, proto: u8) {
    let bit = hash::filter_bit(hash::filter_kind::BACKEND, F::wide(to.dst), to.dport, proto);
    t.expect_replies(bit >> 6, 1 << (bit & 63));
}

/// Writes the direction that the client opened.
#[inline(never)]
fn record<F: Family, T: Tables<F>, E: Env<F>>(
    t: &T,
    e: &E,
    h: &Headers<F::Addr>,
    to: &Hit<F::Addr>,
    bytes: u32,
) -> Result<(), Reason> {
    let now = e.now();
    t.with_entry(|entry| {
        *entry = CtEntry {
            packets: 1,
            bytes: u64::from(bytes),
            src: to.src,
            dst: to.dst,
            sport: to.sport,
            dport: to.dport,
            flags: to.flags | h.flags,
            backend: to.backend,
            service: to.service,
            created: now,
            last_seen: now,
        };
        t.insert(&h.tuple, entry, Insert::Any, now).map_err(no_room)
    })
    .unwrap_or(Err(Reason::WriteFailed))
}

/// The reason of an insertion that failed for want of room.
#[inline(always)]
pub(crate) fn no_room(error: InsertError) -> Reason {
    match error {
        InsertError::Busy => Reason::ConntrackBusy,
        _ => Reason::ConntrackFull,
    }
}

/// The tuple of a flow's replies.
#[inline(always)]
fn reply_key<A: Copy>(to: &Hit<A>, proto: u32) -> CtKey<A> {
    CtKey {
        src: to.dst,
        dst: to.src,
        sport: to.dport,
        dport: to.sport,
        proto,
    }
}

/// The source ports that a flow may have.
struct Ports {
    /// Whether they are the node's.
    snat: bool,
    min: u32,
    span: u32,
    /// Which one is tried first, from `min` on.
    at: u32,
}

impl Ports {
    /// Those of a client's flow. Where SNAT is wanted, the node's address and the first of
    /// its ports are put into `to`.
    #[inline(always)]
    fn of<F: Family, T: Tables<F>>(
        t: &T,
        client: &CtKey<F::Addr>,
        to: &mut Hit<F::Addr>,
    ) -> Result<Self, Reason> {
        let node = t.node().ok_or(Reason::NoNodeAddress)?;
        let snat = to.flags & ct_flags::SNAT != 0;
        let min = u32::from(node.snat_port_min);
        let span = u32::from(node.snat_port_max).wrapping_sub(min) + 1;
        let mut at = u32::from(client.sport.get());
        if snat {
            to.src = node_addr::<F>(&node)?;
            let hash = F::hash(
                client.src,
                client.dst,
                client.sport,
                client.dport,
                client.proto as u8,
            );
            at = lb_common::hash::slot(hash, span);
            to.sport = lb_common::Be16::new((min + at) as u16);
        }
        Ok(Self {
            snat,
            min,
            span,
            at,
        })
    }
}

/// Writes the reply's direction under a port that no other flow has. A client
/// that keeps its address keeps its port too, unless another flow of its own, by
/// another frontend, has the same tuple already; else ports of the node's range
/// are tried.
#[inline(always)]
fn find_port<F: Family, T: Tables<F>, E: Env<F>>(
    t: &T,
    e: &E,
    to: &mut Hit<F::Addr>,
    reply: &CtEntry<F::Addr>,
    client: &CtKey<F::Addr>,
) -> Result<(), Reason> {
    let Ports {
        snat,
        min,
        span,
        mut at,
    } = Ports::of::<F, T>(t, client, to)?;
    let mut key = reply_key(to, client.proto);
    for _ in 0..limits::SNAT_TRIES {
        if !(snat && e.socket_owns(&key)) {
            match t.insert(&key, reply, Insert::New, reply.created) {
                Ok(()) => {
                    e.step(Step::Snat(to.sport.get()));
                    return Ok(());
                }
                Err(InsertError::Exists) => {}
                Err(error) => return Err(no_room(error)),
            }
        }
        at = (at + STRIDE) % span.max(1);
        to.sport = lb_common::Be16::new((min + at) as u16);
        key.dport = to.sport;
    }
    Err(Reason::SnatExhausted)
}

/// Distance of one try from the next: a prime, so that tries do not cluster.
const STRIDE: u32 = 7919;

/// The frontend of a packet.
///
/// # Errors
/// [`Reason::UnknownPort`] where its destination is a vip without that port, and
/// [`Reason::NotOurs`] where it is none, or the node's own address.
#[inline(always)]
fn find<F: Family, T: Tables<F>>(
    t: &T,
    h: &Headers<F::Addr>,
    scope: u8,
) -> Result<Frontend, Reason> {
    let key = FrontendKey {
        addr: F::wide(h.tuple.dst),
        port: h.tuple.dport,
        proto: h.proto(),
        scope,
    };
    match t.frontend(&key) {
        Some(frontend) => Ok(frontend),
        None if vip_only::<F, T>(t, h, scope).is_some() => Err(Reason::UnknownPort),
        None => Err(Reason::NotOurs),
    }
}

/// The [`frontend_flags`] of a packet's destination, where that is a vip, and not an
/// address of the node besides: what the vip does not serve goes nowhere.
#[inline(never)]
pub(crate) fn vip_only<F: Family, T: Tables<F>>(
    t: &T,
    h: &Headers<F::Addr>,
    scope: u8,
) -> Option<u32> {
    let key = FrontendKey {
        addr: F::wide(h.tuple.dst),
        port: lb_common::Be16::new(0),
        proto: 0,
        scope,
    };
    let flags = t.frontend(&key)?.flags;
    (flags & frontend_flags::NODE_ADDR == 0).then_some(flags)
}
