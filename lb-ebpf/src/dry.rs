//! The dry program: what the others would decide about a packet, for who asks by
//! `BPF_PROG_TEST_RUN`. It is attached to nothing.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use lb_common::trace::{self, answer, from, how, word};
use lb_datapath::{
    Env, Family, Hook, Outcome, Step, Tables, V4, V6, Verdict, ingress, parse,
    socket::{Call, SocketVerdict, outgoing},
};

use crate::{
    env::Live,
    maps::KernelMaps,
    tc::{by_family, parts},
};

/// Answers as `lb_common::trace` says.
#[classifier]
fn lb_dry(ctx: TcContext) -> i32 {
    by_family(ctx.skb.skb, by_origin4, by_origin6)
}

macro_rules! families {
    ($($by_origin:ident $packet:ident $socket:ident $family:ty;)+) => {
        $(
            #[inline(always)]
            fn $by_origin(ctx: *mut __sk_buff) -> i32 {
                // SAFETY: the context is valid.
                match unsafe { (*ctx).mark } {
                    from::POD => $packet(ctx, from::POD),
                    from::UPLINK => $packet(ctx, from::UPLINK),
                    from::SOCKET => $socket(ctx),
                    _ => TC_ACT_UNSPEC,
                }
            }

            #[inline(never)]
            fn $packet(ctx: *mut __sk_buff, origin: u32) -> i32 {
                packet::<$family>(core::hint::black_box(ctx), origin)
            }

            #[inline(never)]
            fn $socket(ctx: *mut __sk_buff) -> i32 {
                socket::<$family>(core::hint::black_box(ctx))
            }
        )+
    };
}
families! {
    by_origin4 packet4 socket4 V4;
    by_origin6 packet6 socket6 V6;
}

#[inline(always)]
fn packet<F: Family>(ctx: *mut __sk_buff, origin: u32) -> i32
where
    KernelMaps: Tables<F>,
    Live<__sk_buff, true>: Env<F>,
{
    clear(ctx);
    let hook = match origin {
        from::POD => Hook::POD,
        _ => Hook::UPLINK,
    };
    let (mut p, env) = parts::<F, true, true>(ctx, hook);
    let outcome = ingress::main::<F, _, _, _>(&mut p, &KernelMaps, &env);
    // SAFETY: the context is valid; a program of TC may write this field.
    unsafe { (*ctx).mark = outcome.ifindex };
    answer(verdict(&outcome), outcome.reason).cast_signed()
}

#[inline(always)]
fn verdict(outcome: &Outcome) -> u32 {
    match outcome.verdict {
        Verdict::Pass => trace::verdict::PASS,
        Verdict::Drop => trace::verdict::DROP,
        Verdict::TurnAround => trace::verdict::TURN_AROUND,
        Verdict::Redirect => trace::verdict::REDIRECT,
        Verdict::RedirectNeigh => trace::verdict::REDIRECT_NEIGH,
        Verdict::Portless => trace::verdict::PORTLESS,
    }
}

#[inline(always)]
fn socket<F: Family>(ctx: *mut __sk_buff) -> i32
where
    KernelMaps: Tables<F>,
    Live<__sk_buff, true>: Env<F>,
{
    let (p, env) = parts::<F, true, true>(ctx, Hook::POD);
    let Some(mut h) = F::parse(&p) else {
        return TC_ACT_UNSPEC;
    };
    if parse::ports(&p, &mut h).is_none() {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the context is valid.
    let words = unsafe {
        [
            (&raw const (*ctx).cb[0]).read_volatile(),
            (&raw const (*ctx).cb[1]).read_volatile(),
            (&raw const (*ctx).cb[2]).read_volatile(),
            (&raw const (*ctx).cb[3]).read_volatile(),
        ]
    };
    let call = Call {
        addr: F::wide(h.tuple.dst),
        port: h.tuple.dport,
        proto: h.proto(),
        cookie: u64::from(words[0]) | u64::from(words[1]) << 32,
        netns: u64::from(words[2]) | u64::from(words[3]) << 32,
    };
    clear(ctx);
    let (verdict, reason) = outgoing(&KernelMaps, &env, &call);
    let verdict = match verdict {
        SocketVerdict::Unchanged | SocketVerdict::Rewrite(..) => trace::verdict::PASS,
        SocketVerdict::Refuse | SocketVerdict::Deny => trace::verdict::DROP,
    };
    answer(verdict, reason).cast_signed()
}

/// Makes an answer without decisions of the question.
#[inline(always)]
fn clear(ctx: *mut __sk_buff) {
    set::<{ word::HOW }>(ctx, trace::NONE);
    set::<{ word::SERVICE }>(ctx, trace::NONE);
    set::<{ word::SLOT }>(ctx, trace::NONE);
    set::<{ word::BACKEND }>(ctx, trace::NONE);
    set::<{ word::SNAT }>(ctx, trace::NONE);
    // SAFETY: the context is valid; a program of TC may write this field.
    unsafe { (*ctx).mark = 0 };
}

/// Writes down a decision.
#[inline(always)]
pub(crate) fn note(ctx: *mut __sk_buff, step: Step) {
    match step {
        Step::Conntrack(service, backend) => {
            set::<{ word::HOW }>(ctx, how::CONNTRACK);
            set::<{ word::SERVICE }>(ctx, service);
            set::<{ word::BACKEND }>(ctx, backend);
        }
        Step::Frontend(service) => set::<{ word::SERVICE }>(ctx, service),
        Step::Affinity(backend) => {
            set::<{ word::HOW }>(ctx, how::AFFINITY);
            set::<{ word::BACKEND }>(ctx, backend);
        }
        Step::Slot(slot) => set::<{ word::SLOT }>(ctx, slot),
        Step::Backend(backend) => {
            set::<{ word::HOW }>(ctx, how::TABLE);
            set::<{ word::BACKEND }>(ctx, backend);
        }
        Step::Snat(port) => set::<{ word::SNAT }>(ctx, u32::from(port)),
    }
}

/// Volatile, for an access of one word at a constant place: the verifier takes no other.
#[inline(always)]
fn set<const WORD: usize>(ctx: *mut __sk_buff, value: u32) {
    // SAFETY: the context is valid; a program of TC may write these words.
    unsafe { (&raw mut (*ctx).cb[WORD]).write_volatile(value) }
}
