//! TC on every device that faces a client.

use core::marker::PhantomData;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{
        bpf_csum_update, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh,
        bpf_skb_change_tail, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    macros::classifier,
    programs::TcContext,
};
use bytemuck::{NoUninit, Pod, checked::CheckedBitPattern};
use lb_common::{
    Be16,
    monitor::{hook, pack},
};
use lb_datapath::{
    Hook, Outcome, Packet, Step, Verdict,
    csum::Sum,
    egress,
    family::{Family, V4, V6},
    ingress,
    packet::{Delta, ETH_LEN, ethertype, fix_complete_csum},
};

use crate::{
    bytes::{self, MAX_OFF},
    dry,
    env::{Context, Live, lb_crc32c_times},
    maps::KernelMaps,
    monitor::{lb_tc_look, lb_tc_tell, watched},
};

/// An skb. Where it comes from a local socket it is written by helpers only: a
/// program that wrote to it directly would make the kernel copy the head of every
/// cloned skb, that is of every TCP segment that a local socket sends, ours or
/// not. What arrives by an uplink is not cloned and is written directly.
pub(crate) struct TcPacket<F, const DIRECT: bool> {
    ctx: *mut __sk_buff,
    family: PhantomData<F>,
}

impl<F: Family, const DIRECT: bool> TcPacket<F, DIRECT> {
    #[inline(always)]
    fn at<T>(&self, off: u32) -> Option<usize> {
        // Volatile: see `xdp::bounds`.
        // SAFETY: the kernel hands every TC program a valid context.
        let (data, end) = unsafe {
            (
                (&raw const (*self.ctx).data).read_volatile() as usize,
                (&raw const (*self.ctx).data_end).read_volatile() as usize,
            )
        };
        let at = data + (off & MAX_OFF) as usize;
        (at + size_of::<T>() <= end).then_some(at)
    }

    #[inline(always)]
    fn replace(&mut self, off: u32, delta: u32, flags: u32) -> Option<()> {
        let flags = u64::from(flags);
        // SAFETY: the context is valid; the helper checks the offset.
        (unsafe { bpf_l4_csum_replace(self.ctx, off, 0, u64::from(delta), flags) } == 0)
            .then_some(())
    }

    /// Corrects a checksum of which nobody knows whether it is complete: the
    /// helpers know it by the skb. They take one call for the pseudo header and
    /// one for the rest, which changes a complete one only.
    #[inline(always)]
    fn fix_by_helpers(&mut self, off: u32, delta: &Delta, udp: bool) -> Option<()> {
        let mangled = if udp { BPF_F_MARK_MANGLED_0 } else { 0 };
        // What a device is to complete is the sum of the pseudo header, and will be that of the
        // new one. A complete checksum that happens to be the former goes the other way, and
        // will be the latter only where the addresses' sum stays. For IPv6 there is no room on
        // the stack for one value more.
        let may_be_partial =
            !F::V6 && self.is_sum(off, delta.pseudo)? && !is_zero(delta.addrs.fold16());
        let addrs = delta.addrs.fold32();
        self.replace(off, addrs, BPF_F_PSEUDO_HDR | mangled)?;
        if F::V6 {
            // With CHECKSUM_COMPLETE the helper takes the difference out of the
            // packet's sum, as if an IPv4 header checksum had made up for the
            // addresses; IPv6 has none. The flag that says so is of Linux 6.16;
            // this undoes it everywhere, and fails where there is no such sum.
            // SAFETY: the context is valid.
            let _ = unsafe { bpf_csum_update(self.ctx, addrs) };
        }
        if may_be_partial && self.is_sum(off, delta.pseudo.plus(delta.addrs))? {
            return Some(());
        }
        let ports = delta.ports.fold16();
        if !is_zero(ports) {
            self.replace(off, u32::from(ports), mangled)?;
        }
        Some(())
    }

    /// Whether the checksum at an offset is this sum.
    #[inline(always)]
    fn is_sum(&self, off: u32, sum: Sum) -> Option<bool> {
        let field: u16 = self.read(off)?;
        Some(field == sum.fold16())
    }

    /// Whether the checksum at an offset is certainly complete. One that a device
    /// is to complete later (CHECKSUM_PARTIAL) is the sum of the pseudo header; of
    /// GSO packets we do not know the length that went into it.
    #[inline(always)]
    fn is_complete(&self, off: u32, pseudo: Sum) -> Option<bool> {
        let field: u16 = self.read(off)?;
        Some(!self.is_gso() && field != pseudo.fold16())
    }
}

/// Whether a sum changes nothing: 0 and !0 are both zero in one's complement.
#[inline(always)]
fn is_zero(sum: u16) -> bool {
    sum == 0 || sum == u16::MAX
}

impl<F: Family, const DIRECT: bool> Packet for TcPacket<F, DIRECT> {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: as in `at`.
        unsafe { (*self.ctx).len }
    }
    #[inline(always)]
    fn read<T: CheckedBitPattern + Pod>(&self, off: u32) -> Option<T> {
        // SAFETY: the bounds were checked, here and by the verifier.
        self.at::<T>(off).map(|p| unsafe { bytes::load(p) })
    }
    #[inline(always)]
    fn write<T: NoUninit>(&mut self, off: u32, value: &T) -> Option<()> {
        if DIRECT {
            // SAFETY: the bounds were checked, here and by the verifier.
            return self.at::<T>(off).map(|p| unsafe { bytes::store(p, value) });
        }
        let from = core::ptr::from_ref(value).cast();
        // SAFETY: the value is as long as is said; the helper checks the offset.
        (unsafe { bpf_skb_store_bytes(self.ctx, off, from, size_of::<T>() as u32, 0) } == 0)
            .then_some(())
    }
    #[inline(always)]
    fn fix_l4_csum(&mut self, off: u32, delta: &Delta, udp: bool) -> Option<()> {
        if DIRECT && self.is_complete(off, delta.pseudo)? {
            fix_complete_csum(self, off, delta.addrs.plus(delta.ports), udp)?;
            if !F::V6 {
                // What went into the field came out of the ports and of the
                // pseudo header: with CHECKSUM_COMPLETE the packet's own sum
                // changes by the latter, which the IPv4 header makes up for
                // once only. Fails where there is no such sum.
                // SAFETY: the context is valid.
                let _ = unsafe { bpf_csum_update(self.ctx, !delta.addrs.fold32()) };
            }
            return Some(());
        }
        self.fix_by_helpers(off, delta, udp)
    }
    #[inline(always)]
    fn crc32c_times(a: u32, b: u32) -> u32 {
        lb_crc32c_times(a, b)
    }
    #[inline(always)]
    fn is_for_node(&self) -> bool {
        /// `PACKET_HOST` of include/uapi/linux/if_packet.h.
        const HOST: u32 = 0;
        // What a pod sends through a bridge is for the bridge's address.
        // SAFETY: the context is valid.
        !DIRECT || unsafe { (*self.ctx).pkt_type == HOST }
    }
    #[inline(always)]
    fn is_gso(&self) -> bool {
        // SAFETY: the context is valid.
        unsafe { (*self.ctx).gso_size != 0 }
    }
    #[inline(always)]
    fn resize(&mut self, len: u32) -> Option<()> {
        // SAFETY: the context is valid; the helper refuses what does not fit.
        (unsafe { bpf_skb_change_tail(self.ctx, len, 0) } == 0).then_some(())
    }
}

/// From a pod.
#[classifier]
fn lb_pod_ingress(ctx: TcContext) -> i32 {
    run::<{ hook::POD }>(ctx.skb.skb, pod4, pod6)
}

/// From the network.
#[classifier]
fn lb_up_ingress(ctx: TcContext) -> i32 {
    run::<{ hook::UPLINK }>(ctx.skb.skb, up4, up6)
}

/// To a pod, and to the network: replies are the same to either.
#[classifier]
fn lb_egress(ctx: TcContext) -> i32 {
    run::<{ hook::EGRESS }>(ctx.skb.skb, reply4, reply6)
}

#[inline(always)]
fn run<const HOOK: u8>(
    ctx: *mut __sk_buff,
    v4: impl FnOnce(*mut __sk_buff) -> i32,
    v6: impl FnOnce(*mut __sk_buff) -> i32,
) -> i32 {
    let decided = watched(
        ctx,
        |ctx| lb_tc_look(ctx, u32::from(HOOK)),
        |ctx| by_family(ctx, v4, v6).cast_unsigned(),
        |ctx, decided, looked| lb_tc_tell(ctx, decided, looked),
    );
    // TC_ACT_UNSPEC is -1.
    i32::from(decided as i8)
}

/// Bytes from the start of the frame within which every header lies that the pipeline reads of an
/// IPv4 packet without options: Ethernet, IP, TCP. What a local socket sends has its payload in
/// page fragments, and no more than its headers, with TCP's timestamps, before them: to ask for
/// more would move the payload, and copy the head that the socket keeps, of each.
const HEADERS4: u32 = ETH_LEN + 20 + 20;
/// The same of IPv6.
const HEADERS6: u32 = ETH_LEN + 40 + 20;
/// The same of an ICMP error, which quotes a packet: IP, ICMP, IP, ports.
const QUOTED: u32 = ETH_LEN + 40 + 8 + 40 + 8;

#[inline(always)]
pub(crate) fn by_family(
    ctx: *mut __sk_buff,
    v4: impl FnOnce(*mut __sk_buff) -> i32,
    v6: impl FnOnce(*mut __sk_buff) -> i32,
) -> i32 {
    // SAFETY: the context is valid.
    match Be16::from_raw(unsafe { (*ctx).protocol } as u16) {
        ethertype::IPV4 => {
            reach(ctx, HEADERS4);
            v4(ctx)
        }
        ethertype::IPV6 => {
            reach(ctx, HEADERS6);
            v6(ctx)
        }
        _ => TC_ACT_UNSPEC,
    }
}

/// Brings headers into direct reach, of which so many bytes may lie in page fragments. Where
/// there is no memory to move them, reads fail and the packet passes.
#[inline(always)]
fn reach(ctx: *mut __sk_buff, headers: u32) {
    // SAFETY: the context is valid.
    let (linear, len) = unsafe {
        let data = (&raw const (*ctx).data).read_volatile() as usize;
        let end = (&raw const (*ctx).data_end).read_volatile() as usize;
        ((end - data) as u32, (*ctx).len)
    };
    if linear < headers && linear < len {
        // SAFETY: the context is valid.
        let _ = unsafe { bpf_skb_pull_data(ctx, len.min(512)) };
    }
}

#[inline(always)]
pub(crate) fn parts<F: Family, const DIRECT: bool, const DRY: bool>(
    ctx: *mut __sk_buff,
    hook: Hook,
) -> (TcPacket<F, DIRECT>, Live<__sk_buff, DRY>) {
    let p = TcPacket {
        ctx,
        family: PhantomData,
    };
    (p, Live { ctx, hook })
}

/// What a function returns in place of what it decided ([`pack`]) for a packet without ports.
const PORTLESS: i32 = i32::MIN;

// One family has a stack frame of its own: together they would not fit. Packets without
// ports are for a global function, which the verifier looks at by itself, and not with
// all that was found out before (Linux 5.6, commit 51c39bb1d5d1); it is called when the
// other one's frame is gone.

macro_rules! paths {
    ($($name:ident $main:ident $portless:ident $pipeline:ident<$family:ty, $direct:literal>($hook:expr);)+) => {
        $(
            #[inline(always)]
            fn $name(ctx: *mut __sk_buff) -> i32 {
                match $main(ctx) {
                    PORTLESS => $portless(ctx),
                    decided => decided,
                }
            }

            #[inline(never)]
            fn $main(ctx: *mut __sk_buff) -> i32 {
                // See `xdp::main`.
                let ctx = core::hint::black_box(ctx);
                let (mut p, env) = parts::<$family, $direct, false>(ctx, $hook);
                act($pipeline::main::<$family, _, _, _>(&mut p, &KernelMaps, &env), ctx)
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $portless(ctx: *mut __sk_buff) -> i32 {
                let ctx = core::hint::black_box(ctx);
                reach(ctx, QUOTED);
                let (mut p, env) = parts::<$family, $direct, false>(ctx, $hook);
                act($pipeline::portless::<$family, _, _, _>(&mut p, &KernelMaps, &env), ctx)
            }
        )+
    };
}
paths! {
    pod4 pod4_main lb_pod4_rest ingress<V4, false>(Hook::POD);
    pod6 pod6_main lb_pod6_rest ingress<V6, false>(Hook::POD);
    up4 up4_main lb_up4_rest ingress<V4, true>(Hook::UPLINK);
    up6 up6_main lb_up6_rest ingress<V6, true>(Hook::UPLINK);
    reply4 reply4_main lb_reply4_rest egress<V4, false>(Hook::POD);
    reply6 reply6_main lb_reply6_rest egress<V6, false>(Hook::POD);
}

impl Context for __sk_buff {
    #[inline(always)]
    fn ifindex(this: *mut Self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { (*this).ifindex }
    }
    #[inline(always)]
    fn note(this: *mut Self, step: Step) {
        dry::note(this, step);
    }
}

#[inline(always)]
fn act(outcome: Outcome, ctx: *mut __sk_buff) -> i32 {
    let action = match outcome.verdict {
        // On to whatever program comes next, and to the stack.
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Portless => return PORTLESS,
        Verdict::Drop => TC_ACT_SHOT,
        // SAFETY: the helpers only record where to send the skb.
        Verdict::TurnAround => unsafe { bpf_redirect(Context::ifindex(ctx), 0) as i32 },
        // SAFETY: as above.
        Verdict::Redirect => unsafe { bpf_redirect(outcome.ifindex, 0) as i32 },
        // SAFETY: as above.
        Verdict::RedirectNeigh => unsafe {
            bpf_redirect_neigh(outcome.ifindex, core::ptr::null_mut(), 0, 0) as i32
        },
    };
    pack(action.cast_unsigned(), outcome.reason).cast_signed()
}
