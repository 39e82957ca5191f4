//! Socket hooks on the node's cgroup.

use aya_ebpf::{
    Global,
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use lb_common::{Addr, Be16, Be32, monitor::hook};
use lb_datapath::{
    Run, Step,
    socket::{Call, SocketVerdict, incoming, outgoing},
};

use crate::{env::now, maps::KernelMaps, monitor::called};

/// Whether the kernel has `bpf_set_retval` for these hooks (Linux 5.18); set by
/// the loader. Without it a refused connection fails with EPERM.
#[unsafe(no_mangle)]
static HAVE_SET_RETVAL: Global<u32> = Global::new(0);

/// Let the call go on.
const ALLOW: i32 = 1;
/// Let the call fail.
const DENY: i32 = 0;
/// `-ECONNREFUSED`.
const REFUSED: i32 = -111;

struct Live;

impl Run for Live {
    const DRY: bool = false;

    #[inline(always)]
    fn now(&self) -> u32 {
        now()
    }
    #[inline(always)]
    fn step(&self, _: Step) {}
}

/// The family of a hook: IPv4 addresses travel in mapped form.
trait Kind {
    fn addr(ctx: *mut bpf_sock_addr) -> Addr;
    fn set_addr(ctx: *mut bpf_sock_addr, addr: Addr);
}

struct Inet;
struct Inet6;

impl Kind for Inet {
    #[inline(always)]
    fn addr(ctx: *mut bpf_sock_addr) -> Addr {
        // SAFETY: the kernel hands every program of these hooks a valid context.
        Addr::v4(Be32::from_raw(unsafe { (*ctx).user_ip4 }))
    }
    #[inline(always)]
    fn set_addr(ctx: *mut bpf_sock_addr, addr: Addr) {
        // SAFETY: as above; the hook may write this field.
        unsafe { (*ctx).user_ip4 = addr.0[3].raw() }
    }
}

impl Kind for Inet6 {
    #[inline(always)]
    fn addr(ctx: *mut bpf_sock_addr) -> Addr {
        // SAFETY: as above.
        let words = unsafe {
            [
                (&raw const (*ctx).user_ip6[0]).read_volatile(),
                (&raw const (*ctx).user_ip6[1]).read_volatile(),
                (&raw const (*ctx).user_ip6[2]).read_volatile(),
                (&raw const (*ctx).user_ip6[3]).read_volatile(),
            ]
        };
        Addr(words.map(Be32::from_raw))
    }
    #[inline(always)]
    fn set_addr(ctx: *mut bpf_sock_addr, addr: Addr) {
        // Volatile: the verifier takes no access wider than a word here.
        // SAFETY: as above; the hook may write this field.
        unsafe {
            (&raw mut (*ctx).user_ip6[0]).write_volatile(addr.0[0].raw());
            (&raw mut (*ctx).user_ip6[1]).write_volatile(addr.0[1].raw());
            (&raw mut (*ctx).user_ip6[2]).write_volatile(addr.0[2].raw());
            (&raw mut (*ctx).user_ip6[3]).write_volatile(addr.0[3].raw());
        }
    }
}

#[inline(always)]
fn port(ctx: *mut bpf_sock_addr) -> Be16 {
    // SAFETY: the context is valid. Volatile: what `act` has written is read.
    Be16::from_raw(unsafe { (&raw const (*ctx).user_port).read_volatile() } as u16)
}

#[inline(always)]
fn call<K: Kind>(ctx: *mut bpf_sock_addr) -> Call {
    // SAFETY: the context is valid.
    unsafe {
        Call {
            addr: K::addr(ctx),
            port: port(ctx),
            proto: (*ctx).protocol as u8,
            cookie: bpf_get_socket_cookie(ctx.cast()),
            netns: bpf_get_netns_cookie(ctx.cast()),
        }
    }
}

#[inline(always)]
fn act<K: Kind>(ctx: *mut bpf_sock_addr, verdict: SocketVerdict) -> i32 {
    match verdict {
        SocketVerdict::Unchanged => ALLOW,
        SocketVerdict::Rewrite(addr, port) => {
            K::set_addr(ctx, addr);
            // SAFETY: the context is valid; the hook may write this field.
            unsafe { (*ctx).user_port = u32::from(port.raw()) };
            ALLOW
        }
        SocketVerdict::Refuse => {
            if HAVE_SET_RETVAL.load() != 0 {
                // SAFETY: the helper takes an error number.
                unsafe { bpf_set_retval(REFUSED) };
            }
            DENY
        }
        SocketVerdict::Deny => DENY,
    }
}

#[inline(always)]
fn to_backend<K: Kind, const HOOK: u8>(ctx: *mut bpf_sock_addr) -> i32 {
    let call = call::<K>(ctx);
    let (verdict, reason) = outgoing(&KernelMaps, &Live, &call);
    let done = act::<K>(ctx, verdict);
    called(&call, HOOK, reason, || (K::addr(ctx), port(ctx)));
    done
}

#[inline(always)]
fn to_frontend<K: Kind>(ctx: *mut bpf_sock_addr) -> i32 {
    let verdict = incoming(&KernelMaps, &call::<K>(ctx));
    act::<K>(ctx, verdict)
}

macro_rules! hooks {
    ($($hook:ident $name:ident $doc:literal $run:expr;)+) => {
        $(
            #[doc = $doc]
            #[cgroup_sock_addr($hook)]
            fn $name(ctx: SockAddrContext) -> i32 {
                $run(ctx.sock_addr)
            }
        )+
    };
}

hooks! {
    connect4 lb_connect4 "`connect` over IPv4." to_backend::<Inet, { hook::CONNECT }>;
    connect6 lb_connect6 "`connect` over IPv6." to_backend::<Inet6, { hook::CONNECT }>;
    sendmsg4 lb_sendmsg4 "`sendmsg` of an unconnected IPv4 socket." to_backend::<Inet, { hook::SENDMSG }>;
    sendmsg6 lb_sendmsg6 "`sendmsg` of an unconnected IPv6 socket." to_backend::<Inet6, { hook::SENDMSG }>;
    recvmsg4 lb_recvmsg4 "`recvmsg` over IPv4." to_frontend::<Inet>;
    recvmsg6 lb_recvmsg6 "`recvmsg` over IPv6." to_frontend::<Inet6>;
    getpeername4 lb_getpeer4 "`getpeername` over IPv4." to_frontend::<Inet>;
    getpeername6 lb_getpeer6 "`getpeername` over IPv6." to_frontend::<Inet6>;
}
