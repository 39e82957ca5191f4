//! Packets from a client: towards a backend, or back to a client that was
//! hidden behind the node's address.

use lb_common::{Reason, ct_flags, frontend_flags, hash, node_flags, proto};

use crate::{
    Hook, Outcome, Verdict,
    env::{Env, Step, Way},
    family::Family,
    flow, nat,
    packet::Packet,
    parse::{self, Headers},
    portless, refuse,
    select::filtered,
    table,
    tables::{Hit, Maps, Tables, Touch},
};

/// The ingress pipeline, whole.
pub fn ingress<F: Family, P: Packet, T: Tables<F>, E: Env<F>>(p: &mut P, t: &T, e: &E) -> Outcome {
    main(p, t, e).or_portless(|| portless(p, t, e))
}

/// The ingress pipeline, for all packets but those without ports: the verifier would
/// follow these through all that was found out before.
#[inline(always)]
pub fn main<F: Family, P: Packet, T: Tables<F>, E: Env<F>>(p: &mut P, t: &T, e: &E) -> Outcome {
    let Some(mut h) = F::parse(p) else {
        return Outcome::pass(Reason::NotOurs);
    };
    if !filtered(
        t,
        hash::filter_kind::VIP,
        F::wide(h.tuple.dst),
        lb_common::Be16::new(0),
        0,
    ) {
        return Outcome::pass(Reason::NotOurs);
    }
    if !p.is_for_node() {
        return Outcome::pass(Reason::NotOurs);
    }
    if !h.has_ports() {
        return Outcome::new(Verdict::Portless, Reason::NotOurs);
    }
    // An answer of ours has another length.
    let bytes = p.len();
    let outcome = to_vip(p, t, e, &mut h);
    if outcome.counted() && !E::DRY {
        t.count(outcome.reason, bytes);
    }
    outcome
}

/// A packet whose destination is, by the filter, a vip.
#[inline(always)]
fn to_vip<F: Family, P: Packet, T: Tables<F>, E: Env<F>>(
    p: &mut P,
    t: &T,
    e: &E,
    h: &mut Headers<F::Addr>,
) -> Outcome {
    if parse::ports(p, h).is_none() {
        return truncated::<F, T>(t, e.hook(), h);
    }
    // The wide addresses are in memory, as the key of lookups: without this they
    // would be kept in spill slots besides.
    let h: &Headers<F::Addr> = if F::V6 { core::hint::black_box(h) } else { h };
    let frontend = filtered(
        t,
        hash::filter_kind::FRONTEND,
        F::wide(h.tuple.dst),
        h.tuple.dport,
        h.proto(),
    );
    let mut hit = Hit::nothing(&h.tuple);
    let mut known = false;
    if frontend || is_snat_port(t, h.tuple.dport) {
        known = lookup::<F, P, T, E>(p, t, e, h, &mut hit);
    }
    if known {
        e.step(Step::Conntrack(hit.service, hit.backend));
    } else {
        let opened = match frontend {
            true if is_left(t, h) => Err(Reason::NotOurs),
            true => flow::open(t, e, h, &mut hit, p.len()),
            false if flow::vip_only::<F, T>(t, h, e.hook().scope).is_some() => {
                Err(Reason::UnknownPort)
            }
            false => Err(Reason::NotOurs),
        };
        if let Err(reason) = opened {
            return unopened::<F, P>(p, h, reason);
        }
    }
    if h.is_first_fragment()
        && !E::DRY
        && let Err(reason) = portless::remember(t, e, h, &hit)
    {
        return Outcome::drop(reason);
    }
    let reason = reason_of(hit.flags, known);
    if reason == Reason::NotOurs {
        return Outcome::pass(reason);
    }
    if !E::DRY {
        t.account(&hit.account(p.len(), !known));
    }
    let passage = Passage {
        h,
        hit: &hit,
        reason,
    };
    forward(p, e, &passage, |p, hop| nat::apply::<F, P>(p, h, &hit, hop))
}

/// A packet that goes on: what it was, what to write into it, and why it passes.
struct Passage<'a, F: Family> {
    h: &'a Headers<F::Addr>,
    hit: &'a Hit<F::Addr>,
    reason: Reason,
}

/// What becomes of a packet that opened no flow.
#[inline(always)]
fn unopened<F: Family, P: Packet>(p: &mut P, h: &Headers<F::Addr>, reason: Reason) -> Outcome {
    match reason {
        Reason::NotOurs => Outcome::pass(reason),
        Reason::NoEndpoints | Reason::UnknownPort => refuse::refuse::<F, P>(p, h, reason),
        _ => Outcome::drop(reason),
    }
}

/// The reason to pass a packet of a flow with these [`ct_flags`]. Replies to a
/// client whose address was kept are not ours here: they are translated on egress.
/// Nor is what the kernel translates.
#[inline(always)]
fn reason_of(flags: u32, known: bool) -> Reason {
    const REPLY_TO_NODE: u32 = ct_flags::REPLY | ct_flags::SNAT;
    match flags & (REPLY_TO_NODE | ct_flags::LEFT) {
        0 | ct_flags::SNAT if known => Reason::Established,
        0 | ct_flags::SNAT => Reason::NewFlow,
        REPLY_TO_NODE => Reason::Reply,
        _ => Reason::NotOurs,
    }
}

/// Whether a packet of no known flow is one of another proxy's, whose rules are in
/// place: the kernel's own conntrack knows the flow.
#[inline(always)]
fn is_left<F: Family, T: Tables<F>>(t: &T, h: &Headers<F::Addr>) -> bool {
    h.proto() == proto::TCP
        && !h.opens()
        && t.node()
            .is_some_and(|node| node.flags & node_flags::BESIDE_RULES != 0)
}

/// Whether a port is of the range that SNAT uses.
#[inline(always)]
fn is_snat_port<T: Maps>(t: &T, port: lb_common::Be16) -> bool {
    match t.node() {
        Some(node) => node.snat_port_min <= port.get() && port.get() <= node.snat_port_max,
        None => false,
    }
}

/// Whether conntrack knows the packet's flow, and then what it says; not where
/// the packet opens a new flow under the tuple of one that is over, or that was
/// left to the kernel: that would translate the new one by rules, and has none.
#[inline(always)]
fn lookup<F: Family, P: Packet, T: Tables<F>, E: Env<F>>(
    p: &P,
    t: &T,
    e: &E,
    h: &Headers<F::Addr>,
    hit: &mut Hit<F::Addr>,
) -> bool {
    let known = if E::DRY {
        let found = table::peek(t, &h.tuple, e.now());
        found.map(|found| *hit = found).is_some()
    } else {
        let touch = Touch {
            now: e.now(),
            bytes: p.len(),
            flags: h.flags,
        };
        if F::V6 {
            table::hit_apart(t, &h.tuple, &touch, hit)
        } else {
            table::hit(t, &h.tuple, &touch, hit)
        }
    };
    let anew = hit.flags & (ct_flags::FIN | ct_flags::RST | ct_flags::LEFT) != 0;
    known && !(h.opens() && anew)
}

/// Translates a packet by `write`, which is told whether the packet is forwarded here,
/// and sends it on.
#[inline(always)]
fn forward<F: Family, P: Packet, E: Env<F>>(
    p: &mut P,
    e: &E,
    passage: &Passage<'_, F>,
    write: impl FnOnce(&mut P, bool) -> Option<()>,
) -> Outcome {
    let failed = Outcome::drop(Reason::WriteFailed);
    let flags = passage.hit.flags;
    if flags & (ct_flags::SNAT | ct_flags::HAIRPIN) == ct_flags::SNAT {
        return leave(p, e, passage, write);
    }
    if write(p, false).is_none() {
        return failed;
    }
    if flags & ct_flags::HAIRPIN == 0 {
        return Outcome::pass(passage.reason);
    }
    match nat::swap_link_addrs(p) {
        Some(()) => Outcome::new(Verdict::TurnAround, passage.reason),
        None => failed,
    }
}

/// Sends a packet out by the FIB. Source and destination change: the stack would
/// take it for a martian (docs/adr/0004-snat-leaves-by-the-fib.md).
#[inline(always)]
fn leave<F: Family, P: Packet, E: Env<F>>(
    p: &mut P,
    e: &E,
    passage: &Passage<'_, F>,
    write: impl FnOnce(&mut P, bool) -> Option<()>,
) -> Outcome {
    let h = passage.h;
    if h.ttl <= 1 {
        return Outcome::drop(Reason::TtlExceeded);
    }
    let len = if p.is_gso() { 0 } else { h.len };
    let route = e.route(h.tuple.proto, passage.hit, len);
    let verdict = match route.way {
        // The generic hook sees joined segments, and cannot tell: TC can.
        Way::None if route.reason == Reason::TooBig && !e.hook().can_resolve => {
            return Outcome::pass(Reason::LeftToTc);
        }
        Way::None => return Outcome::drop(route.reason),
        // The packet is as it was, for another hook to send.
        Way::Unresolved if !e.hook().can_resolve => return Outcome::pass(Reason::NoNeighbour),
        Way::Unresolved => Verdict::RedirectNeigh,
        Way::Hop => Verdict::Redirect,
    };
    let mut written = write(p, true);
    if verdict == Verdict::Redirect {
        written = written.and_then(|()| nat::set_link_addrs(p, route.dst, route.src));
    }
    match written {
        Some(()) => Outcome {
            verdict,
            reason: passage.reason,
            ifindex: route.ifindex,
        },
        None => Outcome::drop(Reason::WriteFailed),
    }
}

/// The ingress pipeline for packets to a vip without TCP, UDP or SCTP header: later
/// fragments and ICMP errors go where their flow does; pings are answered; the rest is
/// dropped, unless the vip is the node's.
#[inline(always)]
pub fn portless<F: Family, P: Packet, T: Tables<F>, E: Env<F>>(p: &mut P, t: &T, e: &E) -> Outcome {
    let Some(h) = F::parse(p) else {
        return Outcome::pass(Reason::NotOurs);
    };
    let bytes = p.len();
    let outcome = without_ports(p, t, e, &h);
    if outcome.counted() && !E::DRY {
        t.count(outcome.reason, bytes);
    }
    outcome
}

#[inline(always)]
fn without_ports<F: Family, P: Packet, T: Tables<F>, E: Env<F>>(
    p: &mut P,
    t: &T,
    e: &E,
    h: &Headers<F::Addr>,
) -> Outcome {
    let mut hit = Hit::nothing(&h.tuple);
    let Some(kind) = portless::find::<F, P, T, E>(p, t, e, h, &mut hit) else {
        return of_no_flow(p, t, e.hook(), h);
    };
    let reason = reason_of(hit.flags, true);
    if reason == Reason::NotOurs {
        return Outcome::pass(reason);
    }
    if !E::DRY {
        portless::account(t, kind, &hit, p.len());
    }
    let passage = Passage {
        h,
        hit: &hit,
        reason: kind.reason(reason),
    };
    forward(p, e, &passage, |p, hop| {
        portless::apply::<F, P>(p, h, &hit, hop)
    })
}

/// A packet to a vip, without ports, that belongs to no flow.
#[inline(always)]
fn of_no_flow<F: Family, P: Packet, T: Tables<F>>(
    p: &mut P,
    t: &T,
    hook: Hook,
    h: &Headers<F::Addr>,
) -> Outcome {
    let Some(vip) = flow::vip_only::<F, T>(t, h, hook.scope) else {
        return Outcome::pass(Reason::NotOurs);
    };
    if h.is_later_fragment() {
        return Outcome::drop(Reason::Fragment);
    }
    if h.proto() == if F::V6 { proto::ICMPV6 } else { proto::ICMP } {
        return refuse::echo::<F, P>(p, h, vip & frontend_flags::EMPTY == 0);
    }
    Outcome::drop(Reason::UnknownPort)
}

/// A packet that ends before its ports do.
#[inline(always)]
fn truncated<F: Family, T: Tables<F>>(t: &T, hook: Hook, h: &Headers<F::Addr>) -> Outcome {
    if flow::vip_only::<F, T>(t, h, hook.scope).is_some() {
        Outcome::drop(Reason::Malformed)
    } else {
        Outcome::pass(Reason::NotOurs)
    }
}
