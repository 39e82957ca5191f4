//! What the pipeline asks of the kernel besides its maps.

use aya_ebpf::{
    Global,
    bindings::{BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS},
    helpers::generated::{
        bpf_fib_lookup, bpf_jiffies64, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp,
    },
};
use lb_common::{Addr, Be16, Be32, CtKey, Reason, conntrack::TICK_SHIFT, proto};
use lb_datapath::{Env, Family, Hook, Route, Run, Step, Way, crc32c, tables::Hit};

/// Runs `crc32c::multiply`. A global function, which the verifier looks at by itself (Linux
/// 5.6, commit 51c39bb1d5d1): it would follow the loop for each bit of a length, set or not.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_crc32c_times(a: u32, b: u32) -> u32 {
    crc32c::multiply(a, b)
}

/// A program's context.
pub(crate) trait Context {
    /// Index of the device by which the packet came. In XDP three loads, which
    /// most packets do not need.
    fn ifindex(this: *mut Self) -> u32;
    /// Keeps a decision of a dry run for who asked for it.
    fn note(this: *mut Self, step: Step);
}

/// A packet's environment. `DRY` is [`Run::DRY`].
pub(crate) struct Live<C, const DRY: bool = false> {
    /// The program's context: `xdp_md` or `__sk_buff`.
    pub(crate) ctx: *mut C,
    /// The hook.
    pub(crate) hook: Hook,
}

/// Nanoseconds of one of this kernel's jiffies; set by the loader. The default is
/// that of the most common build, 250 Hz.
#[unsafe(no_mangle)]
static NS_PER_JIFFY: Global<u64> = Global::new(4_000_000);

/// The clock's reading, in ticks. The verifier makes one load of the helper
/// (Linux 5.6), where the coarse monotonic clock is a call of 11 ns.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: the helper has no arguments and cannot fail.
    let jiffies = unsafe { bpf_jiffies64() };
    (jiffies.wrapping_mul(NS_PER_JIFFY.load()) >> TICK_SHIFT) as u32
}

impl<C: Context, const DRY: bool> Run for Live<C, DRY> {
    const DRY: bool = DRY;

    #[inline(always)]
    fn now(&self) -> u32 {
        now()
    }
    #[inline(always)]
    fn step(&self, step: Step) {
        if DRY {
            C::note(self.ctx, step);
        }
    }
}

/// `struct bpf_fib_lookup` of the kernel's `uapi/linux/bpf.h`, its unions as
/// the widest member.
#[repr(C)]
struct FibParams {
    family: u8,
    l4_protocol: u8,
    sport: Be16,
    dport: Be16,
    tot_len: u16,
    ifindex: u32,
    tos_flowinfo: u32,
    src: [Be32; 4],
    dst: [Be32; 4],
    vlan: u32,
    smac: [u16; 3],
    dmac: [u16; 3],
}
const _: () = assert!(size_of::<FibParams>() == 64);

/// An address as the kernel's unions hold it: four words, or the first of them.
trait Words: Copy {
    const FAMILY: u8;
    fn words(self) -> [Be32; 4];
}
impl Words for Be32 {
    const FAMILY: u8 = 2;
    #[inline(always)]
    fn words(self) -> [Be32; 4] {
        [self, Be32::new(0), Be32::new(0), Be32::new(0)]
    }
}
impl Words for Addr {
    const FAMILY: u8 = 10;
    #[inline(always)]
    fn words(self) -> [Be32; 4] {
        self.0
    }
}

impl<F: Family, C: Context, const DRY: bool> Env<F> for Live<C, DRY>
where
    F::Addr: Words,
{
    #[inline(always)]
    fn hook(&self) -> Hook {
        self.hook
    }
    #[inline(always)]
    fn socket_owns(&self, tuple: &CtKey<F::Addr>) -> bool {
        /// `BPF_F_CURRENT_NETNS`.
        const CURRENT_NETNS: u64 = -1i32 as u32 as u64;
        // `struct bpf_sock_tuple` is our key without its protocol; its size
        // tells the family.
        let size = core::mem::offset_of!(CtKey<F::Addr>, proto) as u32;
        // SAFETY: the helpers only read the tuple, and its size is what they
        // expect of its family; a socket that is found is released.
        unsafe {
            let t = core::ptr::from_ref(tuple).cast_mut().cast();
            let found = if tuple.proto == u32::from(proto::TCP) {
                bpf_skc_lookup_tcp(self.ctx.cast(), t, size, CURRENT_NETNS, 0)
            } else if tuple.proto == u32::from(proto::UDP) {
                bpf_sk_lookup_udp(self.ctx.cast(), t, size, CURRENT_NETNS, 0)
            } else {
                // The kernel has no such helper for SCTP.
                return false;
            };
            if found.is_null() {
                return false;
            }
            bpf_sk_release(found.cast());
        }
        true
    }

    #[inline(always)]
    fn route(&self, proto: u32, to: &Hit<F::Addr>, len: u32) -> Route {
        fib(self.ctx, proto, to, len)
    }
}

/// Asks the FIB. A function of its own, for its 64 bytes of parameters.
#[inline(never)]
fn fib<A: Words, C: Context>(ctx: *mut C, proto: u32, to: &Hit<A>, len: u32) -> Route {
    let mut params = FibParams {
        family: A::FAMILY,
        l4_protocol: proto as u8,
        sport: to.sport,
        dport: to.dport,
        // An IPv6 datagram can be longer than the field can tell.
        tot_len: len.min(0xffff) as u16,
        ifindex: C::ifindex(ctx),
        tos_flowinfo: 0,
        src: to.src.words(),
        dst: to.dst.words(),
        vlan: 0,
        smac: [0; 3],
        dmac: [0; 3],
    };
    // SAFETY: the parameters live on this stack, and are of the size given.
    let ret = unsafe {
        let p = (&raw mut params).cast();
        bpf_fib_lookup(ctx.cast(), p, size_of::<FibParams>() as i32, 0)
    };
    let (way, reason) = match ret as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => (Way::Hop, Reason::NoRoute),
        BPF_FIB_LKUP_RET_NO_NEIGH => (Way::Unresolved, Reason::NoRoute),
        BPF_FIB_LKUP_RET_FRAG_NEEDED => (Way::None, Reason::TooBig),
        _ => (Way::None, Reason::NoRoute),
    };
    Route {
        way,
        reason,
        ifindex: params.ifindex,
        dst: params.dmac,
        src: params.smac,
    }
}
