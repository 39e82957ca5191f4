//! Telling `bascule monitor` of packets and of calls of sockets (`lb_common::monitor`): of a packet
//! a look at the frame before the pipeline, and one after it.
//!
//! While nobody looks a packet costs two loads and two branches. The rest is in global
//! functions, called when the pipeline's frames are not on the stack, which the verifier looks
//! at by themselves (Linux 5.6, commit 51c39bb1d5d1). Whether a packet is looked at is a number
//! that it does not know, in either case: it does not follow the pipeline twice.

use core::arch::asm;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_RB_NO_WAKEUP, xdp_md},
    btf_maps::{PerCpuArray, RingBuf},
    helpers::generated::{bpf_ktime_get_ns, bpf_skb_load_bytes},
    macros::btf_map,
};
use lb_common::{
    Addr, Be16, Reason,
    monitor::{CallEvent, Control, Event, RING, SNAP, Watch, closes, control_flags, hook, taken},
};
use lb_datapath::{Words as _, socket::Call};

use crate::{bytes, env::now, words::Memory, xdp::bounds};

/// The map `.bss`: nothing else may be in it.
#[unsafe(no_mangle)]
static mut LB_MONITOR: Control = Control {
    until: 0,
    nothing: 0,
    over: 0,
    every: 0,
    budget: 0,
    reasons: 0,
    flags: 0,
};

#[allow(non_upper_case_globals, reason = "the symbol is the map's name")]
#[btf_map]
static lb_mon_cpu_v1: PerCpuArray<Watch, 1> = PerCpuArray::new();
#[allow(non_upper_case_globals, reason = "the symbol is the map's name")]
#[btf_map]
static lb_mon_ring_v2: RingBuf<Event, { RING as usize }> = RingBuf::new();

/// A field of [`Control`], as it is now.
macro_rules! control {
    ($field:ident) => {
        // SAFETY: the static is a map's value, aligned to words; volatile, since it is
        // written by user space.
        unsafe { (&raw const LB_MONITOR.$field).read_volatile() }
    };
}

/// Runs the pipeline, with a look before and one after where somebody looks.
#[inline(always)]
pub(crate) fn watched<C>(
    ctx: *mut C,
    look: impl FnOnce(*mut C) -> u64,
    pipeline: impl FnOnce(*mut C) -> u32,
    tell: impl FnOnce(*mut C, u32, u64) -> u32,
) -> u32 {
    let mut looked = control!(nothing);
    if control!(until) != 0 && is_due() {
        looked = match is_in_vain() {
            true => control!(over),
            false => look(ctx),
        };
    }
    let decided = pipeline(ctx);
    if looked != taken::NO {
        tell(ctx, decided, looked);
    }
    decided
}

/// Whether it is the packet's turn. Of those that are not looked at each pays for this.
#[inline(always)]
fn is_due() -> bool {
    let Some(watch) = lb_mon_cpu_v1.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the record is this CPU's, and packets come one after the other.
    let seen = unsafe { &mut (*watch).seen };
    *seen += 1;
    if *seen < control!(every) {
        return false;
    }
    *seen = 0;
    true
}

/// Whether there is no budget for an event, and no other reason to look: a call less for
/// packets that are more than the limit allows.
#[inline(always)]
fn is_in_vain() -> bool {
    let closed = control!(flags) & control_flags::CLOSED != 0;
    control!(budget) <= 0 && !closed && u64::from(now()) <= control!(until)
}

/// Whether nobody looks any more; says so to all, if it is the first to find that.
#[inline(always)]
fn is_over() -> bool {
    let until = control!(until);
    if u64::from(now()) <= until {
        return false;
    }
    // SAFETY: the words of a map's value. Whoever looks by now has written another time.
    unsafe { Memory::new((&raw mut LB_MONITOR).cast()) }.compare_exchange(0, until, 0);
    true
}

/// A context that has a frame.
trait Frame {
    /// The device, and the frame's length.
    fn place(this: *mut Self) -> (u32, u32);
    /// Copies the frame's first bytes.
    fn copy(this: *mut Self, to: *mut [u8; SNAP]);
}

impl Frame for xdp_md {
    #[inline(always)]
    fn place(this: *mut Self) -> (u32, u32) {
        let (data, end) = bounds(this);
        // SAFETY: the kernel hands every XDP program a valid context.
        (unsafe { (*this).ingress_ifindex }, (end - data) as u32)
    }
    #[inline(always)]
    fn copy(this: *mut Self, to: *mut [u8; SNAP]) {
        const WORDS: usize = size_of::<[u32; 2]>();
        let (data, end) = bounds(this);
        let to: *mut u8 = to.cast();
        let mut at = 0;
        while at < SNAP && data + at + WORDS <= end {
            // SAFETY: the bounds were checked, here and by the verifier; both arrays of an
            // event are aligned to words.
            unsafe {
                let words: [u32; 2] = bytes::load(data + at);
                to.add(at).cast::<[u32; 2]>().write(words);
            }
            at += WORDS;
        }
        // The end of a frame that has no whole words: its last bytes as a word, over what
        // is there. Opaque, or LLVM compares lengths, of which the verifier learns nothing.
        let last = core::hint::black_box(end - data).wrapping_sub(WORDS);
        if at < SNAP && last <= SNAP - WORDS {
            let from = core::hint::black_box(data + last);
            if from + WORDS <= end {
                // SAFETY: as above; the bytes are stored where they lie, aligned to nothing.
                unsafe {
                    let words: [u32; 2] = bytes::load(from);
                    bytes::store(to as usize + last, &words);
                }
            }
        }
    }
}

impl Frame for __sk_buff {
    #[inline(always)]
    fn place(this: *mut Self) -> (u32, u32) {
        // SAFETY: the kernel hands every TC program a valid context.
        unsafe { ((*this).ifindex, (*this).len) }
    }
    #[inline(always)]
    fn copy(this: *mut Self, to: *mut [u8; SNAP]) {
        let (_, len) = Self::place(this);
        // From 1 to `SNAP`, in a way that every verifier understands.
        let len = (len.min(SNAP as u32).wrapping_sub(1) & (SNAP as u32 - 1)) + 1;
        // SAFETY: the context is valid, and there is room for so many bytes. An empty frame
        // leaves zeros there.
        unsafe { bpf_skb_load_bytes(this.cast(), 0, to.cast(), len) };
    }
}

/// The first look: whether the packet is looked at ([`taken`]), and its bytes.
#[inline(always)]
fn look<C: Frame>(ctx: *mut C, hook: u8) -> u64 {
    if is_over() {
        return taken::NO;
    }
    let Some(watch) = lb_mon_cpu_v1.get_ptr_mut(0) else {
        return taken::NO;
    };
    // SAFETY: as in `is_due`.
    let event = unsafe { &mut (*watch).event };
    (event.device, event.len) = C::place(ctx);
    event.hook = hook;
    C::copy(ctx, &raw mut event.before);
    // Whether a packet ends a connection is seen by its bytes: they are taken in any case.
    if control!(budget) <= 0 {
        taken::OVER
    } else {
        taken::YES
    }
}

/// The second look: tells of the packet, if it is wanted.
#[inline(always)]
fn tell<C: Frame>(ctx: *mut C, decided: u32, looked: u64) {
    let reason = decided >> 8 & 0xff;
    let wanted = control!(reasons) >> (reason & 63) & 1 != 0;
    let closed = control!(flags) & control_flags::CLOSED != 0;
    if !wanted && (!closed || reason == Reason::NotOurs as u32) {
        return;
    }
    let Some(watch) = lb_mon_cpu_v1.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as in `is_due`.
    let watch = unsafe { &mut *watch };
    if !wanted && !closes(&watch.event.before) {
        return;
    }
    if looked == taken::OVER {
        watch.over += 1;
        return;
    }
    let event = &mut watch.event;
    // SAFETY: the helper has no arguments and cannot fail.
    event.time = unsafe { bpf_ktime_get_ns() };
    event.reason = reason as u8;
    event.action = decided as u8;
    (_, event.len_after) = C::place(ctx);
    C::copy(ctx, &raw mut event.after);
    let event: &Event = event;
    // Who looks comes by itself: to wake somebody would cost more than all the rest.
    match lb_mon_ring_v2.output(event, u64::from(BPF_RB_NO_WAKEUP)) {
        Ok(()) => spend(),
        Err(_) => watch.full += 1,
    }
}

/// Takes one event off the budget. CPUs that do so at once may spend one each too many.
#[inline(always)]
fn spend() {
    // SAFETY: a word of a map's value.
    unsafe { add((&raw mut LB_MONITOR.budget).cast(), -1) };
}

/// Adds to a number, whoever else does so at the same time.
///
/// # Safety
/// The pointer is of a word of a map's value.
#[inline(always)]
unsafe fn add(to: *mut u64, what: i64) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "lock *(u64 *)({p} + 0) += {v}",
            v = in(reg) what, p = in(reg) to,
            options(nostack)
        );
    }
}

/// Tells of a socket's call, and where it goes on, if somebody looks and it is wanted. Packets may
/// interrupt it, on its CPU: it keeps nothing in the CPU's record, and a turn that is counted by
/// both is one.
#[inline(always)]
pub(crate) fn called(call: &Call, at: u8, reason: Reason, goes_on: impl FnOnce() -> (Addr, Be16)) {
    let number = reason as u32;
    let wanted = control!(until) != 0 && control!(reasons) >> (number & 63) & 1 != 0;
    if !wanted || !is_due() || is_over() {
        return;
    }
    let Some(watch) = lb_mon_cpu_v1.get_ptr_mut(0) else {
        return;
    };
    if control!(budget) <= 0 {
        // SAFETY: the record is a map's value.
        unsafe { add(&raw mut (*watch).over, 1) };
        return;
    }
    let (backend, backend_port) = goes_on();
    let event = CallEvent {
        // SAFETY: the helper has no arguments and cannot fail.
        time: unsafe { bpf_ktime_get_ns() },
        netns: call.netns,
        addr: call.addr,
        backend,
        port: call.port,
        backend_port,
        proto: call.proto,
        hook: at,
        reason: number as u8,
        reserved: 0,
    };
    match lb_mon_ring_v2.output_untyped::<CallEvent>(&event, u64::from(BPF_RB_NO_WAKEUP)) {
        Ok(()) => spend(),
        // SAFETY: as above.
        Err(_) => unsafe { add(&raw mut (*watch).full, 1) },
    }
}

/// [`look`] of XDP.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_xdp_look(ctx: *mut xdp_md) -> u64 {
    look(ctx, hook::XDP)
}

/// [`tell`] of XDP.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_xdp_tell(ctx: *mut xdp_md, decided: u32, looked: u64) -> u32 {
    tell(ctx, decided, looked);
    0
}

/// [`look`] of TC.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_tc_look(ctx: *mut __sk_buff, hook: u32) -> u64 {
    look(ctx, hook as u8)
}

/// [`tell`] of TC.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_tc_tell(ctx: *mut __sk_buff, decided: u32, looked: u64) -> u32 {
    tell(ctx, decided, looked);
    0
}
