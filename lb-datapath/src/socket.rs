//! The socket hooks: a local socket that dials a frontend is connected straight
//! to a backend, and keeps believing that it talks to the frontend.

use lb_common::{
    Addr, Be16, Be32, Frontend, FrontendKey, Reason, SockNat, SockNatKey, frontend_flags, hash,
    node_flags, proto, scope,
};

use crate::{
    env::{Run, Step},
    select::{Client, filtered, select},
    tables::{Account, Maps},
};

/// A socket's call, as a socket hook sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// The address that the caller gave, or in `recvmsg` and `getpeername` the
    /// address that the kernel is about to return; IPv4 in mapped form.
    pub addr: Addr,
    /// Its port.
    pub port: Be16,
    /// IP protocol number of the socket.
    pub proto: u8,
    /// The socket's cookie.
    pub cookie: u64,
    /// The cookie of the socket's network namespace.
    pub netns: u64,
}

/// What becomes of a socket's call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketVerdict {
    /// It goes on as it is.
    Unchanged,
    /// It goes on with another address and port.
    Rewrite(Addr, Be16),
    /// It fails with ECONNREFUSED.
    Refuse,
    /// It fails with EPERM: a drop, which a caller cannot be left waiting for.
    Deny,
}

/// `connect` and `sendmsg`: from frontend to backend. What becomes of the call, and why.
#[inline(always)]
pub fn outgoing<T: Maps, R: Run>(t: &T, run: &R, call: &Call) -> (SocketVerdict, Reason) {
    let unchanged = (SocketVerdict::Unchanged, Reason::NotOurs);
    if !matches!(call.proto, proto::TCP | proto::UDP)
        || !filtered(t, hash::filter_kind::VIP, call.addr, Be16::new(0), 0)
    {
        return unchanged;
    }
    let Some(host) = serves(t, call) else {
        return unchanged;
    };
    let (verdict, reason) = match choose(t, run, call, host) {
        Err(Reason::NotOurs) => return unchanged,
        Ok((addr, port)) => (SocketVerdict::Rewrite(addr, port), Reason::Socket),
        Err(r @ (Reason::NoEndpoints | Reason::UnknownPort)) => (SocketVerdict::Refuse, r),
        Err(r) => (SocketVerdict::Deny, r),
    };
    if !R::DRY {
        t.count(reason, 0);
    }
    (verdict, reason)
}

/// Whether the socket is the node's own; `None` where the hooks do not serve it.
/// A loopback address is a NodePort's for the node's own sockets only: a pod's
/// loopback is the pod's.
#[inline(always)]
fn serves<T: Maps>(t: &T, call: &Call) -> Option<bool> {
    let node = t.node()?;
    if call.netns == node.host_netns {
        return Some(true);
    }
    let served = node.flags & node_flags::SOCKET_LB_HOST_ONLY == 0 && !is_loopback(call.addr);
    served.then_some(false)
}

#[inline(always)]
fn is_loopback(addr: Addr) -> bool {
    match addr.as_v4() {
        Some(v4) => v4.get() >> 24 == 127,
        None => addr == Addr([Be32::new(0), Be32::new(0), Be32::new(0), Be32::new(1)]),
    }
}

#[inline(always)]
fn find<T: Maps>(t: &T, call: &Call, port: Be16, proto: u8) -> Option<Frontend> {
    t.frontend(&FrontendKey {
        addr: call.addr,
        port,
        proto,
        scope: scope::INTERNAL,
    })
}

#[inline(always)]
fn choose<T: Maps, R: Run>(
    t: &T,
    run: &R,
    call: &Call,
    host: bool,
) -> Result<(Addr, Be16), Reason> {
    let Some(frontend) = find(t, call, call.port, call.proto) else {
        return match find(t, call, Be16::new(0), 0) {
            Some(vip) if vip.flags & frontend_flags::NODE_ADDR == 0 => Err(Reason::UnknownPort),
            _ => Err(Reason::NotOurs),
        };
    };
    run.step(Step::Frontend(frontend.service));
    if frontend.flags & frontend_flags::SOURCE_RANGES != 0 && !host {
        // Which address the pod will use is not known yet: TC decides.
        return Err(Reason::NotOurs);
    }
    // A socket has no source address yet: affinity goes by its namespace
    // (https://kubernetes.io/docs/reference/networking/virtual-ips/#session-affinity
    // speaks of the client's address, which within a pod is one per namespace).
    let by = if frontend.affinity == 0 {
        call.cookie
    } else {
        call.netns
    };
    let client = Client {
        addr: affinity_client(call.netns, call.addr.as_v4().is_some()),
        hash: hash::socket(by, call.addr, call.port, call.proto),
        scope: scope::INTERNAL,
    };
    let (id, backend) = select(t, run, &frontend, &client)?;
    if !R::DRY {
        let new = remember(t, call, id, &backend);
        t.account(&Account {
            service: frontend.service,
            backend: id,
            packets: 0,
            bytes: 0,
            connections: u32::from(new),
        });
    }
    Ok((backend.addr, backend.port))
}

/// Who the sockets of a network namespace are in affinity: no address that a packet
/// has. The families of a service share its id, and not its backends.
#[inline(always)]
pub fn affinity_client(netns: u64, v4: bool) -> Addr {
    Addr([
        Be32::from_raw(u32::MAX),
        Be32::new(u32::from(v4)),
        Be32::new((netns >> 32) as u32),
        Be32::new(netns as u32),
    ])
}

/// Remembers the frontend for `recvmsg` and `getpeername`. A socket that sends
/// datagram after datagram writes it once, and is one connection: false where it
/// was remembered already.
#[inline(always)]
fn remember<T: Maps>(t: &T, call: &Call, id: u32, backend: &lb_common::Backend) -> bool {
    let key = SockNatKey {
        cookie: call.cookie,
        addr: backend.addr,
        port: backend.port,
        reserved: [0; 3],
    };
    let value = SockNat {
        addr: call.addr,
        port: call.port,
        proto: call.proto,
        reserved: 0,
        backend: id,
    };
    let new = t.sock_nat(&key) != Some(value);
    if new {
        t.set_sock_nat(&key, &value);
    }
    new
}

/// `recvmsg` and `getpeername`: from backend to frontend.
#[inline(always)]
pub fn incoming<T: Maps>(t: &T, call: &Call) -> SocketVerdict {
    let key = SockNatKey {
        cookie: call.cookie,
        addr: call.addr,
        port: call.port,
        reserved: [0; 3],
    };
    match t.sock_nat(&key) {
        Some(frontend) => SocketVerdict::Rewrite(frontend.addr, frontend.port),
        None => SocketVerdict::Unchanged,
    }
}
