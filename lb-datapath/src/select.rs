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
        return by_hash(t, run, frontend, client.hash, NOBODY);
    }
    let key = AffinityKey {
        client: client.addr,
        service: frontend.service,
        scope: u32::from(client.scope),
    };
    let now = run.now();
    let mut left = NOBODY;
    let mut chosen = None;
    if let Some(binding) = t.affinity(&key) {
        if has_ended(frontend, &binding, now) {
            left = binding.backend;
        } else {
            chosen = live(t, binding.backend);
        }
    }
    let chosen = match chosen {
        Some(found) => {
            run.step(Step::Affinity(found.0));
            found
        }
        None => by_hash(t, run, frontend, client.hash, left)?,
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

/// Whether a client's binding has timed out.
#[inline(always)]
fn has_ended(frontend: &Frontend, binding: &Affinity, now: u32) -> bool {
    let idle = u64::from(now.wrapping_sub(binding.last_use));
    idle << lb_common::conntrack::TICK_SHIFT > u64::from(frontend.affinity) * 1_000_000_000
}

/// The id of no backend.
const NOBODY: u32 = 0;
/// Slots that are looked at for another backend than one.
const OTHER_SLOTS: u32 = 16;

/// The backend that a hash names in the frontend's table. Where a binding to it has
/// timed out, the next one in the table: the client would otherwise be bound to it
/// for ever, and Kubernetes' conformance tests want it to be let go.
#[inline(always)]
fn by_hash<T: Maps, R: Run>(
    t: &T,
    run: &R,
    frontend: &Frontend,
    hash: u32,
    left: u32,
) -> Result<(u32, Backend), Reason> {
    let mut id = frontend.slots;
    if frontend.len > 1 {
        let mut slot = hash::slot(hash, frontend.len);
        for _ in 0..OTHER_SLOTS {
            id = t
                .slot(frontend.slots.wrapping_add(slot))
                .ok_or(Reason::BackendMissing)?;
            if left == NOBODY || id != left {
                break;
            }
            slot = if slot + 1 < frontend.len { slot + 1 } else { 0 };
        }
        run.step(Step::Slot(slot));
    }
    let found = live(t, id).ok_or(Reason::BackendMissing)?;
    run.step(Step::Backend(id));
    Ok(found)
}

#[inline(always)]
fn live<T: Maps>(t: &T, id: u32) -> Option<(u32, Backend)> {
    let backend = t.backend(id)?;
    (backend.flags & backend_flags::LIVE != 0).then_some((id, backend))
}
