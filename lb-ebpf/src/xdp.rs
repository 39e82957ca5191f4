//! XDP on uplinks.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_tail},
    macros::xdp,
    programs::XdpContext,
};
use bytemuck::{NoUninit, Pod, checked::CheckedBitPattern};
use lb_common::{Be16, Reason, monitor::pack};
use lb_datapath::{
    Hook, Outcome, Packet, Step, Verdict,
    family::{Family, V4, V6},
    ingress,
    packet::{Delta, ethertype, fix_complete_csum},
};

use crate::{
    bytes::{self, MAX_OFF},
    env::{Context, Live, lb_crc32c_times},
    maps::KernelMaps,
    monitor::{lb_xdp_look, lb_xdp_tell, watched},
};

/// An XDP frame.
pub(crate) struct XdpPacket {
    ctx: *mut xdp_md,
    len: u32,
}

/// Start and end of the frame. Volatile, because LLVM takes them for numbers of
/// 32 bits, which they are for the compiler only: a register that holds one must
/// be spilled whole.
#[inline(always)]
pub(crate) fn bounds(ctx: *mut xdp_md) -> (usize, usize) {
    // SAFETY: the kernel hands every XDP program a valid context.
    unsafe {
        (
            (&raw const (*ctx).data).read_volatile() as usize,
            (&raw const (*ctx).data_end).read_volatile() as usize,
        )
    }
}

impl XdpPacket {
    #[inline(always)]
    fn new(ctx: *mut xdp_md) -> Self {
        let (data, end) = bounds(ctx);
        Self {
            ctx,
            len: (end - data) as u32,
        }
    }

    /// The place of a value, where the frame holds it whole. Start and end are
    /// read anew each time, since helpers may move the frame.
    #[inline(always)]
    fn at<T>(&self, off: u32) -> Option<usize> {
        let (data, end) = bounds(self.ctx);
        let at = data + (off & MAX_OFF) as usize;
        (at + size_of::<T>() <= end).then_some(at)
    }
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.len
    }
    #[inline(always)]
    fn read<T: CheckedBitPattern + Pod>(&self, off: u32) -> Option<T> {
        // SAFETY: the bounds were checked, here and by the verifier.
        self.at::<T>(off).map(|p| unsafe { bytes::load(p) })
    }
    #[inline(always)]
    fn write<T: NoUninit>(&mut self, off: u32, value: &T) -> Option<()> {
        // SAFETY: as in `read`; nobody else holds a reference into the frame.
        self.at::<T>(off).map(|p| unsafe { bytes::store(p, value) })
    }
    #[inline(always)]
    fn fix_l4_csum(&mut self, off: u32, delta: &Delta, udp: bool) -> Option<()> {
        fix_complete_csum(self, off, delta.addrs.plus(delta.ports), udp)
    }
    #[inline(always)]
    fn crc32c_times(a: u32, b: u32) -> u32 {
        lb_crc32c_times(a, b)
    }
    #[inline(always)]
    fn is_for_node(&self) -> bool {
        // The device lets in what is for its own address, and for many.
        self.read::<[u16; 3]>(0)
            .is_some_and(|dst| dst[0].to_ne_bytes()[0] & 1 == 0)
    }
    #[inline(always)]
    fn resize(&mut self, len: u32) -> Option<()> {
        let delta = len.wrapping_sub(self.len) as i32;
        // SAFETY: the context is valid; the helper refuses what does not fit.
        if unsafe { bpf_xdp_adjust_tail(self.ctx, delta) } != 0 {
            return None;
        }
        self.len = len;
        Some(())
    }
}

impl Context for xdp_md {
    #[inline(always)]
    fn ifindex(this: *mut Self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { (*this).ingress_ifindex }
    }
    // The dry program is one of TC.
    #[inline(always)]
    fn note(_: *mut Self, _: Step) {}
}

/// The uplink's XDP program.
#[xdp]
fn lb_xdp(ctx: XdpContext) -> u32 {
    watched(
        ctx.ctx,
        |ctx| lb_xdp_look(ctx),
        by_family,
        |ctx, decided, looked| lb_xdp_tell(ctx, decided, looked),
    ) & 0xff
}

#[inline(always)]
fn by_family(ctx: *mut xdp_md) -> u32 {
    let p = XdpPacket::new(ctx);
    match p.read::<Be16>(12) {
        Some(ethertype::IPV4) => v4(ctx),
        Some(ethertype::IPV6) => v6(ctx),
        _ => pack(xdp_action::XDP_PASS, Reason::NotOurs),
    }
}

/// What a function returns in place of what it decided ([`pack`]) for a packet without ports.
const PORTLESS: u32 = u32::MAX;

/// One family has a stack frame of its own: together they would not fit.
#[inline(always)]
fn v4(ctx: *mut xdp_md) -> u32 {
    match v4_main(ctx) {
        PORTLESS => lb_xdp4_rest(ctx),
        decided => decided,
    }
}

#[inline(always)]
fn v6(ctx: *mut xdp_md) -> u32 {
    match v6_main(ctx) {
        PORTLESS => lb_xdp6_rest(ctx),
        decided => decided,
    }
}

#[inline(never)]
fn v4_main(ctx: *mut xdp_md) -> u32 {
    main::<V4>(ctx)
}

#[inline(never)]
fn v6_main(ctx: *mut xdp_md) -> u32 {
    main::<V6>(ctx)
}

/// Packets of IPv4 without ports: see `tc`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_xdp4_rest(ctx: *mut xdp_md) -> u32 {
    portless::<V4>(ctx)
}

/// Packets of IPv6 without ports.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_xdp6_rest(ctx: *mut xdp_md) -> u32 {
    portless::<V6>(ctx)
}

#[inline(always)]
fn parts(ctx: *mut xdp_md) -> (XdpPacket, Live<xdp_md>) {
    let env = Live {
        ctx,
        hook: Hook::XDP,
    };
    (XdpPacket::new(ctx), env)
}

#[inline(always)]
fn main<F: Family>(ctx: *mut xdp_md) -> u32
where
    KernelMaps: lb_datapath::Tables<F>,
    Live<xdp_md>: lb_datapath::Env<F>,
{
    // Without this LLVM passes `data` and `data_end` instead of the context,
    // cut to 32 bits, which the verifier does not take for packet pointers.
    let ctx = core::hint::black_box(ctx);
    let (mut p, env) = parts(ctx);
    act(ingress::main::<F, _, _, _>(&mut p, &KernelMaps, &env), ctx)
}

#[inline(always)]
fn portless<F: Family>(ctx: *mut xdp_md) -> u32
where
    KernelMaps: lb_datapath::Tables<F>,
    Live<xdp_md>: lb_datapath::Env<F>,
{
    let ctx = core::hint::black_box(ctx);
    let (mut p, env) = parts(ctx);
    act(
        ingress::portless::<F, _, _, _>(&mut p, &KernelMaps, &env),
        ctx,
    )
}

#[inline(always)]
fn act(outcome: Outcome, ctx: *mut xdp_md) -> u32 {
    let action = match outcome.verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Portless => return PORTLESS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::TurnAround => xdp_action::XDP_TX,
        Verdict::Redirect if outcome.ifindex == Context::ifindex(ctx) => xdp_action::XDP_TX,
        // SAFETY: the helper only records where to send the frame.
        Verdict::Redirect => unsafe { bpf_redirect(outcome.ifindex, 0) as u32 },
        // `Hook::XDP` never asks for it.
        Verdict::RedirectNeigh => xdp_action::XDP_ABORTED,
    };
    pack(action, outcome.reason)
}
