//! Packets to a client: replies of backends get the frontend's address back.

use lb_common::{Reason, ct_flags, hash};

use crate::{
    Outcome,
    env::Env,
    family::Family,
    nat,
    packet::Packet,
    parse,
    select::filtered,
    tables::{Account, Tables, Touch},
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
    let hit = if E::DRY {
        t.ct_peek(key)
    } else {
        let touch = Touch {
            now: e.now(),
            bytes,
            flags: h.flags,
        };
        t.ct_hit(key, &touch)
    };
    let Some(hit) = hit else {
        return none;
    };
    if hit.flags & (ct_flags::REPLY | ct_flags::SNAT) != ct_flags::REPLY {
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
