//! Choosing a backend for a new flow.

use lb_common::{
    Addr, Affinity, AffinityKey, Backend, Frontend, Reason, backend_flags, frontend_flags, hash,
};

use crate::{
    env::{Run, Step},
    tables::Maps,
};

/// Who asks for a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// The address that affinity goes by: the client's, or its namespace's cookie.
    pub addr: Addr,
    /// The hash that chooses the slot.
    pub hash: u32,
    /// One of [`lb_common::scope`].
    pub scope: u8,
}

/// Whether a bit of the filter is set.
#[inline(always)]
pub fn filtered<T: Maps>(t: &T, kind: u32, addr: Addr, port: lb_common::Be16, proto: u8) -> bool {
    let bit = hash::filter_bit(kind, addr, port, proto);
    (t.filter(bit >> 6) >> (bit & 63)) & 1 != 0
}

/// Chooses a backend for a new flow.
///
/// # Errors
/// The reason of the refusal or drop: no endpoints, source range, or a table
/// that names no live backend.
#[inline(always)]
pub fn select<T: Maps, R: Run>(
    t: &T,
    run: &R,
    frontend: &Frontend,
    client: &Client,
) -> Result<(u32, Backend), Reason> {
    if frontend.len == 0 {
        return Err(if frontend.flags & frontend_flags::DROP_IF_EMPTY != 0 {
            Reason::NoLocalEndpoint
        } else {
            Reason::NoEndpoints
        });
    }
    if frontend.affinity == 0 {
        return by_hash(t, run, frontend, client.hash);
    }
    let key = AffinityKey {
        client: client.addr,
        service: frontend.service,
        scope: u32::from(client.scope),
    };
    let now = run.now();
    let chosen = match bound(t, frontend, &key, now) {
        Some(found) => {
            run.step(Step::Affinity(found.0));
            found
        }
        None => by_hash(t, run, frontend, client.hash)?,
    };
    if !R::DRY {
        let value = Affinity {
            backend: chosen.0,
            last_use: now,
        };
        t.set_affinity(&key, &value);
    }
    Ok(chosen)
}

/// The live backend that a client is bound to, unless the binding has timed out.
#[inline(always)]
fn bound<T: Maps>(
    t: &T,
    frontend: &Frontend,
    key: &AffinityKey,
    now: u32,
) -> Option<(u32, Backend)> {
    let affinity = t.affinity(key)?;
    let idle_ns =
        u64::from(now.wrapping_sub(affinity.last_use)) << lb_common::conntrack::TICK_SHIFT;
    if idle_ns > u64::from(frontend.affinity) * 1_000_000_000 {
        return None;
    }
    live(t, affinity.backend)
}

#[inline(always)]
fn by_hash<T: Maps, R: Run>(
    t: &T,
    run: &R,
    frontend: &Frontend,
    hash: u32,
) -> Result<(u32, Backend), Reason> {
    let id = if frontend.len == 1 {
        frontend.slots
    } else {
        let slot = hash::slot(hash, frontend.len);
        run.step(Step::Slot(slot));
        t.slot(frontend.slots.wrapping_add(slot))
            .ok_or(Reason::BackendMissing)?
    };
    let found = live(t, id).ok_or(Reason::BackendMissing)?;
    run.step(Step::Backend(id));
    Ok(found)
}

#[inline(always)]
fn live<T: Maps>(t: &T, id: u32) -> Option<(u32, Backend)> {
    let backend = t.backend(id)?;
    (backend.flags & backend_flags::LIVE != 0).then_some((id, backend))
}
