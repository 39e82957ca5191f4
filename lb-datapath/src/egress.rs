//! Packets to a client: replies of backends get the frontend's address back.

use lb_common::{CtKey, Reason, ct_flags, hash};

use crate::{
    Outcome, Verdict,
    env::Env,
    family::Family,
    nat,
    packet::Packet,
    parse::{self, Headers},
    portless, table,
    tables::{Hit, Tables, Touch},
};

/// The egress pipeline, whole.
pub fn egress<F: Family, P: Packet, T: Tables<F>, E: Env<F>>(p: &mut P, t: &T, e: &E) -> Outcome {
    main(p, t, e).or_portless(|| portless(p, t, e))
}

/// The egress pipeline, for all packets but those without ports.
#[inline(always)]
pub fn main<F: Family, P: Packet, T: Tables<F>, E: Env<F>>(p: &mut P, t: &T, e: &E) -> Outcome {
    let none = Outcome::pass(Reason::NotOurs);
    let Some(mut h) = F::parse(p) else {
        return none;
    };
    if !h.has_ports() {
        return match h.may_follow() {
            true => Outcome::new(Verdict::Portless, Reason::NotOurs),
            false => none,
        };
    }
    if parse::ports(p, &mut h).is_none() {
        return none;
    }
    let key = &h.tuple;
    let src = F::wide(key.src);
    let bit = hash::filter_bit(hash::filter_kind::BACKEND, src, key.sport, h.proto());
    if (t.replies(bit >> 6) >> (bit & 63)) & 1 == 0 {
        return none;
    }
    let bytes = p.len();
    let Some(hit) = lookup(t, e, &h, bytes) else {
        return none;
    };
    if !is_ours(hit.flags) {
        return none;
    }
    if h.flags & ct_flags::SYN != 0 && is_over(hit.flags) {
        leave_alone::<F, T, E>(t, key);
        return none;
    }
    if !E::DRY {
        t.account(&hit.account(bytes, false));
    }
    if h.is_first_fragment()
        && !E::DRY
        && let Err(reason) = portless::remember(t, e, &h, &hit)
    {
        return dropped::<F, T, E>(t, reason, bytes);
    }
    match nat::apply::<F, P>(p, &h, &hit, false) {
        Some(()) => Outcome::pass(Reason::Reply),
        None => dropped::<F, T, E>(t, Reason::WriteFailed, bytes),
    }
}

#[inline(always)]
fn dropped<F: Family, T: Tables<F>, E: Env<F>>(t: &T, reason: Reason, bytes: u32) -> Outcome {
    if !E::DRY {
        t.count(reason, bytes);
    }
    Outcome::drop(reason)
}

/// Whether packets of an entry with these [`ct_flags`] are translated here.
#[inline(always)]
fn is_ours(flags: u32) -> bool {
    flags & (ct_flags::REPLY | ct_flags::SNAT | ct_flags::LEFT) == ct_flags::REPLY
}

/// The egress pipeline for packets without TCP, UDP or SCTP header: later fragments of
/// replies, and ICMP errors about requests.
#[inline(always)]
pub fn portless<F: Family, P: Packet, T: Tables<F>, E: Env<F>>(p: &mut P, t: &T, e: &E) -> Outcome {
    let Some(h) = F::parse(p) else {
        return Outcome::pass(Reason::NotOurs);
    };
    let h = &h;
    let mut hit = Hit::nothing(&h.tuple);
    let bytes = p.len();
    let Some(kind) = portless::find::<F, P, T, E>(p, t, e, h, &mut hit) else {
        return Outcome::pass(Reason::NotOurs);
    };
    if !is_ours(hit.flags) {
        return Outcome::pass(Reason::NotOurs);
    }
    if portless::apply::<F, P>(p, h, &hit, false).is_none() {
        return dropped::<F, T, E>(t, Reason::WriteFailed, bytes);
    }
    let reason = kind.reason(Reason::Reply);
    if !E::DRY {
        portless::account(t, kind, &hit, bytes);
        if reason == Reason::IcmpError {
            t.count(reason, bytes);
        }
    }
    Outcome::pass(reason)
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
fn leave_alone<F: Family, T: Tables<F>, E: Env<F>>(t: &T, key: &CtKey<F::Addr>) {
    if !E::DRY {
        table::mark(t, key, ct_flags::LEFT);
    }
}
