//! Packets without ports of their own: later fragments, which follow the first
//! fragment of their datagram, and ICMP errors, which quote a packet of a flow.

use lb_common::{Be16, CtEntry, CtKey, Reason, conntrack::FRAGMENT, ct_flags, proto};

use crate::{
    csum::Sum,
    env::Env,
    family::Family,
    flow::no_room,
    packet::{ETH_LEN, Packet},
    parse::{self, Headers},
    table::{self, Insert},
    tables::{Hit, Maps, Tables},
};

/// What a packet without ports is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A later fragment of a datagram whose first one has passed.
    Fragment,
    /// An ICMP error about a packet of a known flow.
    Error,
}

impl Kind {
    /// Why such a packet passes, where one with ports would for this reason.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self, with_ports: Reason) -> Reason {
        match self {
            Self::Fragment => with_ports,
            Self::Error => Reason::IcmpError,
        }
    }
}

/// Key of the entry that a datagram's later fragments go by (RFC 791, section 3.2;
/// RFC 8200, section 4.5: in IPv6 without the protocol, which fragments may differ in).
#[inline(always)]
fn fragment_key<F: Family>(h: &Headers<F::Addr>) -> CtKey<F::Addr> {
    CtKey {
        src: h.tuple.src,
        dst: h.tuple.dst,
        sport: Be16::from_raw(h.id as u16),
        dport: Be16::from_raw((h.id >> 16) as u16),
        proto: FRAGMENT | if F::V6 { 0 } else { h.tuple.proto },
    }
}

/// Remembers where the later fragments of a datagram go: where its first one does.
/// They lie in conntrack's table, for as long as Linux would wait for them.
///
/// # Errors
/// There is no room.
#[inline(never)]
pub fn remember<F: Family, T: Tables<F>, E: Env<F>>(
    t: &T,
    e: &E,
    h: &Headers<F::Addr>,
    to: &Hit<F::Addr>,
) -> Result<(), Reason> {
    let now = e.now();
    let key = fragment_key::<F>(h);
    // See `flow::record`.
    let zero = core::hint::black_box(0u32);
    t.with_entry(|entry| {
        *entry = CtEntry {
            packets: u64::from(zero),
            bytes: u64::from(zero),
            src: to.src,
            dst: to.dst,
            sport: Be16::from_raw(zero as u16),
            dport: Be16::from_raw(zero as u16),
            flags: to.flags & !ct_flags::ALL_SIGHTS,
            backend: to.backend,
            service: to.service,
            created: now,
            last_seen: now,
        };
        t.insert(&key, entry, Insert::Any, now).map_err(no_room)
    })
    .unwrap_or(Err(Reason::WriteFailed))
}

/// Finds the flow of a packet without ports, and says in `to` what a packet of this
/// direction gets. A function of its own in the kernel, as [`apply`], so that neither's
/// values lie on the stack while the other runs.
#[inline(never)]
pub fn find<F: Family, P: Packet, T: Tables<F>, E: Env<F>>(
    p: &P,
    t: &T,
    e: &E,
    h: &Headers<F::Addr>,
    to: &mut Hit<F::Addr>,
) -> Option<Kind> {
    let (kind, key) = if h.is_later_fragment() {
        (Kind::Fragment, fragment_key::<F>(h))
    } else {
        // The error goes the other way than the packet that it is about.
        let about = quoted::<F, P>(p, h)?.tuple;
        let key = CtKey {
            src: about.dst,
            dst: about.src,
            sport: about.dport,
            dport: about.sport,
            proto: about.proto,
        };
        (Kind::Error, key)
    };
    *to = table::peek(t, &key, e.now())?;
    Some(kind)
}

/// Whether a packet is an ICMP error (RFC 792; RFC 4443, section 2.1).
#[inline(always)]
fn is_error<F: Family, P: Packet>(p: &P, h: &Headers<F::Addr>) -> bool {
    let Some([kind, _code]) = p.read::<[u8; 2]>(h.l4()) else {
        return false;
    };
    if F::V6 {
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        h.proto() == proto::ICMPV6 && matches!(kind, 1..=4)
    } else {
        // Destination unreachable, time exceeded, parameter problem.
        h.proto() == proto::ICMP && matches!(kind, 3 | 11 | 12)
    }
}

/// Bytes of an ICMP error before what it quotes.
const ICMP_LEN: u32 = 8;

/// The headers of the packet that an ICMP error is about; `None` where it is no error,
/// or quotes no ports.
#[inline(always)]
fn quoted<F: Family, P: Packet>(p: &P, h: &Headers<F::Addr>) -> Option<Headers<F::Addr>> {
    if h.fragment != Be16::new(0) || !is_error::<F, P>(p, h) {
        return None;
    }
    let mut quote = F::parse_quoted(p, h.l4() + ICMP_LEN)?;
    if !quote.has_ports() {
        return None;
    }
    parse::only_ports(p, &mut quote)?;
    Some(quote)
}

/// Writes what [`find`] found into a packet; `hop` as for [`crate::nat::apply`].
#[inline(never)]
#[must_use]
pub fn apply<F: Family, P: Packet>(
    p: &mut P,
    h: &Headers<F::Addr>,
    to: &Hit<F::Addr>,
    hop: bool,
) -> Option<()> {
    let ttl = h.ttl - u8::from(hop);
    if h.is_later_fragment() {
        return F::write_ip(p, h, (to.src, to.dst), ttl);
    }
    let quote = quoted::<F, P>(p, h)?;
    // Who is about to learn of the backend or of the client behind the node learns of
    // the frontend or of the node instead. A router on the way stays itself where its
    // error needs no way back (RFC 5508, section 4.2).
    let at_end = h.tuple.src == quote.tuple.dst;
    let src = if at_end || to.flags & ct_flags::SNAT != 0 {
        to.src
    } else {
        h.tuple.src
    };
    let mut sum = rewrite_quote::<F, P>(p, h, &quote, to)?;
    if F::V6 {
        sum = sum
            .without(&h.tuple.src)
            .without(&h.tuple.dst)
            .with(&src)
            .with(&to.dst);
    }
    let field: u16 = p.read(h.l4() + 2)?;
    p.write(h.l4() + 2, &sum.update(field))?;
    F::write_ip(p, h, (src, to.dst), ttl)
}

/// Makes of the quoted packet the one that its sender sent. Returns the change of the
/// message's sum.
#[inline(always)]
fn rewrite_quote<F: Family, P: Packet>(
    p: &mut P,
    h: &Headers<F::Addr>,
    quote: &Headers<F::Addr>,
    to: &Hit<F::Addr>,
) -> Option<Sum> {
    let from = &quote.tuple;
    let addrs = Sum::ZERO
        .without(&from.src)
        .without(&from.dst)
        .with(&to.dst)
        .with(&to.src);
    let mut sum = Sum::ZERO
        .sub16(from.sport.raw())
        .sub16(from.dport.raw())
        .add16(to.dport.raw())
        .add16(to.sport.raw());
    if let Some(at) = quoted_csum::<F>(h, quote) {
        let field: u16 = p.read(at)?;
        let udp = quote.proto() == proto::UDP;
        if !(udp && field == 0) {
            let fixed = match sum.plus(addrs).update(field) {
                0 if udp => 0xffff,
                fixed => fixed,
            };
            p.write(at, &fixed)?;
            sum = sum.sub16(field).add16(fixed);
        }
    }
    let at = h.l4() + ICMP_LEN;
    if F::V6 {
        sum = sum.plus(addrs);
    } else {
        // The header's own checksum makes up for its addresses.
        p.write(at + 10, &addrs.update(quote.csum))?;
    }
    let at = at + if F::V6 { 8 } else { 12 };
    p.write(at, &to.dst)?;
    p.write(at + size_of::<F::Addr>() as u32, &to.src)?;
    p.write(quote.l4(), &to.dport)?;
    p.write(quote.l4() + 2, &to.sport)?;
    Some(sum)
}

/// Where the quoted packet's own checksum is, if that was quoted. SCTP's does not
/// change with addresses, and nobody compares it with ports.
#[inline(always)]
fn quoted_csum<F: Family>(h: &Headers<F::Addr>, quote: &Headers<F::Addr>) -> Option<u32> {
    let at = match quote.proto() {
        proto::UDP => quote.l4() + 6,
        proto::TCP => quote.l4() + 16,
        _ => return None,
    };
    (at + 2 <= ETH_LEN + h.len).then_some(at)
}

/// Counts a packet that is known by [`find`], where it is one of the flow's own.
#[inline(always)]
pub fn account<A: Copy, T: Maps>(t: &T, kind: Kind, to: &Hit<A>, bytes: u32) {
    if kind == Kind::Fragment {
        t.account(&to.account(bytes, false));
    }
}
