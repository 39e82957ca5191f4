//! Packets to a client: replies of backends get the frontend's address back.

use lb_common::{CtKey, Reason, ct_flags, hash};

use crate::{
    Outcome,
    env::Env,
    family::Family,
    nat,
    packet::Packet,
    parse::{self, Headers},
    select::filtered,
    table,
    tables::{Account, Hit, Tables, Touch},
};

/// The egress pipeline.
#[inline(always)]
pub fn egress<F: Family, P: Packet, T: Tables<F>, E: Env<F>>(p: &mut P, t: &T, e: &E) -> Outcome {
    let none = Outcome::pass(Reason::NotOurs);
    let Some(mut h) = F::parse(p) else {
        return none;
    };
    if !h.has_ports() || parse::ports(p, &mut h).is_none() {
        return none;
    }
    let key = &h.tuple;
    let src = F::wide(key.src);
    if !filtered(t, hash::filter_kind::BACKEND, src, key.sport, h.proto()) {
        return none;
    }
    let bytes = p.len();
    let Some(hit) = lookup(t, e, &h, bytes) else {
        return none;
    };
    if hit.flags & (ct_flags::REPLY | ct_flags::SNAT | ct_flags::LEFT) != ct_flags::REPLY {
        return none;
    }
    if h.flags & ct_flags::SYN != 0 && is_over(hit.flags) {
        leave_alone::<F, T, E>(t, e, key);
        return none;
    }
    if !E::DRY {
        t.account(&Account {
            service: hit.service,
            backend: hit.backend,
            packets: 1,
            bytes,
            connections: 0,
        });
    }
    match nat::apply::<F, P>(p, &h, &hit, false) {
        Some(()) => Outcome::pass(Reason::Reply),
        None => {
            if !E::DRY {
                t.count(Reason::WriteFailed, bytes);
            }
            Outcome::drop(Reason::WriteFailed)
        }
    }
}

/// What conntrack knows of the packet.
#[inline(always)]
fn lookup<F: Family, T: Tables<F>, E: Env<F>>(
    t: &T,
    e: &E,
    h: &Headers<F::Addr>,
    bytes: u32,
) -> Option<Hit<F::Addr>> {
    if E::DRY {
        return table::peek(t, &h.tuple, e.now());
    }
    let touch = Touch {
        now: e.now(),
        bytes,
        flags: h.flags,
    };
    let mut hit = Hit::nothing(&h.tuple);
    let known = if F::V6 {
        table::hit_apart(t, &h.tuple, &touch, &mut hit)
    } else {
        table::hit(t, &h.tuple, &touch, &mut hit)
    };
    known.then_some(hit)
}

/// Whether a flow is over, of which an answer to a SYN came. Had its client opened
/// it anew by the frontend, its entries would be new: it has dialled the backend
/// itself, from the same port.
#[inline(always)]
fn is_over(flags: u32) -> bool {
    let client = flags >> ct_flags::PEER_SHIFT;
    flags & (ct_flags::FIN | ct_flags::RST) != 0 || client & ct_flags::RST != 0
}

/// Marks a reply's entry, so that what follows passes as it is.
#[inline(never)]
fn leave_alone<F: Family, T: Tables<F>, E: Env<F>>(t: &T, e: &E, key: &CtKey<F::Addr>) {
    if !E::DRY {
        let touch = Touch {
            now: e.now(),
            bytes: 0,
            flags: ct_flags::LEFT,
        };
        table::hit_apart(t, key, &touch, &mut Hit::nothing(key));
    }
}
