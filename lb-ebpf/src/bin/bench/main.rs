//! The programs of `cargo xtask bench`, none of which runs anywhere else.
//!
//! `BPF_PROG_TEST_RUN` does not restore the packet between runs. So a `front`
//! program writes the headers anew from a template each time, with another
//! source for each flow, and calls the program that is measured. Another kind of it
//! writes one frame whole, of whatever kind that is.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod frame;

/// On the host there is nothing to run.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        EbpfContext as _,
        bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, xdp_action, xdp_md},
        btf_maps::{Array, PerCpuArray, ProgramArray},
        helpers::generated::bpf_redirect,
        macros::{btf_map, classifier, xdp},
        programs::{TcContext, XdpContext},
    };

    use super::frame::{Frame, load32, store16, store32, store64};

    const XDP_ABORTED: u32 = xdp_action::XDP_ABORTED;

    /// What the front program does: a frame's headers as the words that it stores, and how many
    /// flows it makes. The benchmark's code in xtask writes the same layout.
    #[repr(C)]
    struct Front {
        /// First 8 bytes of the Ethernet header.
        link: u64,
        /// First 8 bytes of the IP header.
        ip: u64,
        /// 16 bytes after the ports.
        rest: [u64; 2],
        /// Source address, its last two bytes 0 where the client is the source.
        src: [u32; 4],
        /// Destination address, likewise.
        dst: [u32; 4],
        /// Bytes 8 to 12 of the Ethernet header.
        link_end: u32,
        /// EtherType.
        ethertype: u32,
        /// Bytes 8 to 12 of the IPv4 header.
        ip_end: u32,
        /// The server's port, in its place among the ports; the client's is 0.
        ports: u32,
        /// Bytes of the frame.
        len: u32,
        /// Number of the next run.
        next: u32,
        /// Flows less one, a power of two less one.
        mask: u32,
        /// First port of the clients.
        base: u32,
    }

    #[allow(non_upper_case_globals, reason = "the symbol is the map's name")]
    #[btf_map]
    static bench_front: Array<Front, 1> = Array::new();

    /// Words of a frame that are restored: all headers that the datapath writes to.
    const WORDS: usize = 31;

    /// A frame that is written whole; likewise in xtask.
    #[repr(C)]
    struct Whole {
        /// Bytes of the frame.
        len: u32,
        /// The Ethernet header; the last word is half used.
        link: [u32; 4],
        /// What follows it.
        words: [u32; WORDS],
    }

    #[allow(non_upper_case_globals, reason = "the symbol is the map's name")]
    #[btf_map]
    static bench_whole: Array<Whole, 1> = Array::new();

    /// What a counter of the datapath is made of.
    #[allow(non_upper_case_globals, reason = "the symbol is the map's name")]
    #[btf_map]
    static bench_count: PerCpuArray<u64, 1> = PerCpuArray::new();

    #[allow(non_upper_case_globals, reason = "the symbol is the map's name")]
    #[btf_map]
    static bench_xdp: ProgramArray<1> = ProgramArray::new();

    #[allow(non_upper_case_globals, reason = "the symbol is the map's name")]
    #[btf_map]
    static bench_tc: ProgramArray<1> = ProgramArray::new();

    /// What the headers are, and where the client is.
    trait Kind {
        const V6: bool;
        /// The client is the destination.
        const REPLY: bool;
    }
    macro_rules! kinds {
        ($($name:ident $v6:literal $reply:literal;)+) => {
            $(struct $name;
            impl Kind for $name {
                const V6: bool = $v6;
                const REPLY: bool = $reply;
            })+
        };
    }
    kinds! {
        From4 false false;
        To4 false true;
        From6 true false;
        To6 true true;
    }

    /// Ports that flows of one client address have.
    const PORTS: u32 = 1 << 12;

    /// Restores the packet; false where the kernel has no room for it.
    ///
    /// The stores are as wide as the fields: a load that has to gather what two
    /// stores wrote waits for them, which no packet from a device does.
    #[inline(always)]
    fn restore<K: Kind, F: Frame>(frame: F) -> bool {
        let Some(front) = bench_front.get_ptr_mut(0) else {
            return false;
        };
        // SAFETY: the lookup succeeded, and one CPU runs the benchmark.
        let front = unsafe { &mut *front };
        if frame.len() != front.len && !frame.resize(front.len) {
            return false;
        }
        let (p, end) = frame.bounds();
        if p + if K::V6 { 74 } else { 54 } > end {
            return false;
        }
        let flow = front.next & front.mask;
        front.next = front.next.wrapping_add(1);
        let addr = u32::from(((flow / PORTS) as u16).to_be()) << 16;
        let port = u32::from(((front.base + flow % PORTS) as u16).to_be());
        let (client_src, client_dst, ports) = if K::REPLY {
            (0, addr, port << 16)
        } else {
            (addr, 0, port)
        };
        // SAFETY: the bounds were checked, here and by the verifier.
        unsafe {
            store64(p, front.link);
            store32(p + 8, front.link_end);
            store16(p + 12, front.ethertype);
            store64(p + 14, front.ip);
            let l4 = if K::V6 {
                address(p + 22, &front.src, client_src);
                address(p + 38, &front.dst, client_dst);
                p + 54
            } else {
                store32(p + 22, front.ip_end);
                store32(p + 26, front.src[3] | client_src);
                store32(p + 30, front.dst[3] | client_dst);
                p + 34
            };
            store32(l4, front.ports | ports);
            store64(l4 + 4, front.rest[0]);
            store64(l4 + 12, front.rest[1]);
        }
        true
    }

    /// Stores an IPv6 address.
    ///
    /// # Safety
    /// The bytes lie within the packet.
    #[inline(always)]
    unsafe fn address(p: usize, words: &[u32; 4], client: u32) {
        // SAFETY: the caller's.
        unsafe {
            store32(p, words[0]);
            store32(p + 4, words[1]);
            store32(p + 8, words[2]);
            store32(p + 12, words[3] | client);
        }
    }

    macro_rules! fronts {
        ($($attr:ident $name:ident $kind:ident $context:ident $map:ident $failed:ident $ret:ty;)+) => {
            $(#[$attr]
            fn $name(ctx: $context) -> $ret {
                if restore::<$kind, _>(ctx.as_ptr().cast::<<$context as Raw>::Of>()) {
                    // SAFETY: the kernel compares the programs' types.
                    unsafe { $map.tail_call(&ctx, 0) };
                }
                $failed
            })+
        };
    }

    /// Restores a packet whole; false where the kernel has no room for it.
    #[inline(always)]
    fn restore_whole<F: Frame>(frame: F) -> bool {
        let Some(whole) = bench_whole.get_ptr(0) else {
            return false;
        };
        // SAFETY: the lookup succeeded, and nobody writes while programs run.
        let whole = unsafe { &*whole };
        if frame.len() != whole.len && !frame.resize(whole.len) {
            return false;
        }
        let (p, end) = frame.bounds();
        if p + 14 > end {
            return false;
        }
        // SAFETY: the bounds were checked, here and by the verifier.
        unsafe {
            for at in 0..3 {
                store32(p + 4 * at, whole.link[at]);
            }
            store16(p + 12, whole.link[3]);
        }
        for (at, word) in whole.words.iter().enumerate() {
            let to = p + 14 + 4 * at;
            if to + 4 > end {
                break;
            }
            // SAFETY: as above.
            unsafe { store32(to, *word) };
        }
        true
    }

    macro_rules! whole {
        ($($attr:ident $name:ident $context:ident $map:ident $failed:ident $ret:ty;)+) => {
            $(#[$attr]
            fn $name(ctx: $context) -> $ret {
                if restore_whole(ctx.as_ptr().cast::<<$context as Raw>::Of>()) {
                    // SAFETY: the kernel compares the programs' types.
                    unsafe { $map.tail_call(&ctx, 0) };
                }
                $failed
            })+
        };
    }
    whole! {
        xdp xdp_whole XdpContext bench_xdp XDP_ABORTED u32;
        classifier tc_whole TcContext bench_tc TC_ACT_SHOT i32;
    }

    /// The kernel's own type of a context.
    trait Raw {
        type Of;
    }
    impl Raw for XdpContext {
        type Of = xdp_md;
    }
    impl Raw for TcContext {
        type Of = __sk_buff;
    }

    fronts! {
        xdp xdp_from4 From4 XdpContext bench_xdp XDP_ABORTED u32;
        xdp xdp_from6 From6 XdpContext bench_xdp XDP_ABORTED u32;
        classifier tc_from4 From4 TcContext bench_tc TC_ACT_SHOT i32;
        classifier tc_from6 From6 TcContext bench_tc TC_ACT_SHOT i32;
        classifier tc_to4 To4 TcContext bench_tc TC_ACT_SHOT i32;
        classifier tc_to6 To6 TcContext bench_tc TC_ACT_SHOT i32;
    }

    /// Exchanges the link addresses.
    #[inline(always)]
    fn swap<F: Frame>(frame: F) -> bool {
        let (p, end) = frame.bounds();
        if p + 14 > end {
            return false;
        }
        // SAFETY: the bounds were checked, here and by the verifier.
        unsafe {
            let (a, b, c) = (load32(p), load32(p + 4), load32(p + 8));
            // Six bytes each: destination in `a` and half of `b`, source behind.
            store32(p, (b >> 16) | (c << 16));
            store32(p + 4, (c >> 16) | (a << 16));
            store32(p + 8, (a >> 16) | (b << 16));
        }
        true
    }

    /// The floor: sends the frame back where it came from.
    #[xdp]
    fn xdp_floor(ctx: XdpContext) -> u32 {
        if swap(ctx.ctx) {
            xdp_action::XDP_TX
        } else {
            XDP_ABORTED
        }
    }

    /// The least that a program can do.
    #[xdp]
    fn xdp_empty(_: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// The least with a counter.
    #[xdp]
    fn xdp_count(_: XdpContext) -> u32 {
        if let Some(count) = bench_count.get_ptr_mut(0) {
            // SAFETY: the lookup succeeded, and each CPU has a counter of its own.
            unsafe { *count = (*count).wrapping_add(1) };
        }
        xdp_action::XDP_PASS
    }

    /// The floor: sends the frame back where it came from.
    #[classifier]
    fn tc_floor(ctx: TcContext) -> i32 {
        let skb = ctx.skb.skb;
        if !swap(skb) {
            return TC_ACT_SHOT;
        }
        // SAFETY: the context is valid; the helper only records where to send the skb.
        unsafe { bpf_redirect((*skb).ifindex, 0) as i32 }
    }

    /// The least that a program can do.
    #[classifier]
    fn tc_empty(_: TcContext) -> i32 {
        TC_ACT_OK
    }
}

/// No panic is reachable: the build fails when the object refers to
/// `core::panicking`.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence that the kernel checks before it allows GPL-only helpers.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
