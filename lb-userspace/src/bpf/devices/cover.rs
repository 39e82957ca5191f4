//! Brings the hooks in line with what the rules want.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    DeviceState, FOREVER, LOOK_AGAIN, RETRY, Shared,
    attach::{Attach, CoverError},
    lock,
    netlink::Event,
    rules::{Inventory, Role, Rules},
};

/// Bridged devices are covered when no device has come, gone or changed for this
/// long: while pods start, the kernel has better to do.
const SETTLED: Duration = Duration::from_millis(200);
/// And at the latest this long after they were bridged.
const SETTLED_MAX: Duration = Duration::from_secs(5);

/// What is wanted, and what is done of it.
pub(super) struct Cover<A> {
    attach: A,
    pub(super) rules: Rules,
    pub(super) inventory: Inventory,
    shared: Arc<Shared>,
    done: BTreeMap<u32, Role>,
    /// Devices that are served by what takes no time, and since when.
    bridged: BTreeMap<u32, (Role, Instant)>,
}

impl<A: Attach> Cover<A> {
    pub(super) fn new(attach: A, rules: Rules, shared: Arc<Shared>) -> Self {
        Self {
            attach,
            rules,
            inventory: Inventory::default(),
            shared,
            done: BTreeMap::new(),
            bridged: BTreeMap::new(),
        }
    }

    /// The first time: what an earlier agent left and nobody wants goes.
    pub(super) fn adopt(&mut self) {
        let wanted = self.inventory.wanted(&self.rules);
        for index in self.attach.covered() {
            if !wanted.contains_key(&index) {
                let name = self
                    .inventory
                    .device(index)
                    .map(|device| device.name.clone());
                self.attach.uncover(index, name.as_deref());
            }
        }
        for (index, (role, reason)) in wanted {
            self.cover(index, role, reason);
        }
    }

    /// Whether a pair may yet turn out to be a pod's.
    fn is_undecided(&self) -> bool {
        !self.inventory.undecided(&self.rules).is_empty()
    }

    /// How long nothing need be looked at, if nothing happens.
    pub(super) fn patience(&self, looks: u32) -> Duration {
        if looks > 0 && self.is_undecided() {
            return LOOK_AGAIN;
        }
        let failed = lock(&self.shared.states)
            .values()
            .any(|state| state.error.is_some());
        if failed { RETRY } else { FOREVER }
    }

    /// Takes note of what is new. Returns whether only a look at everything can
    /// tell what it means.
    pub(super) fn note(&mut self, events: Vec<Event>) -> bool {
        let mut riddle = false;
        for event in events {
            riddle |= match event {
                Event::Lost => true,
                Event::Moved(index) => {
                    self.is_undecided() && self.inventory.partner(index).is_none()
                }
                _ => false,
            };
            self.inventory.note(event);
        }
        riddle
    }

    /// When a bridged device is due to be covered, if there is one. `stirred` is
    /// when a device last came, went or changed.
    pub(super) fn settles_at(&self, stirred: Instant) -> Option<Instant> {
        let oldest = self.bridged.values().map(|(_, since)| *since).min()?;
        Some((stirred + SETTLED).min(oldest + SETTLED_MAX))
    }

    /// Covers one bridged device, the oldest: others may come in between.
    pub(super) fn settle(&mut self) {
        let oldest = self.bridged.iter().min_by_key(|(_, (_, since))| *since);
        let Some((&index, &(role, _))) = oldest else {
            return;
        };
        let reason = self.known(index).map(|state| state.reason);
        let reason = reason.unwrap_or_default();
        self.cover(index, role, reason);
    }

    /// Ends what is not wanted any more, and serves what is not served yet.
    pub(super) fn reconcile(&mut self) {
        let wanted = self.inventory.wanted(&self.rules);
        let mut unwanted: Vec<u32> = self.done.keys().copied().collect();
        unwanted.extend(self.bridged.keys());
        unwanted.retain(|index| !wanted.contains_key(index));
        for index in unwanted {
            let name = self
                .inventory
                .device(index)
                .map(|device| device.name.clone());
            self.attach.uncover(index, name.as_deref());
            self.done.remove(&index);
            self.bridged.remove(&index);
        }
        lock(&self.shared.states).retain(|index, _| wanted.contains_key(index));
        for (index, (role, reason)) in wanted {
            let bridged = self.bridged.get(&index).map(|(role, _)| *role);
            if ![self.done.get(&index).copied(), bridged].contains(&Some(role)) {
                self.serve(index, role, reason);
            }
        }
    }

    /// Serves a device at once.
    fn serve(&mut self, index: u32, role: Role, reason: String) {
        let Some(device) = self.inventory.device(index) else {
            return;
        };
        let name = device.name.clone();
        match self.attach.bridge(device, role) {
            Ok(Some(hooks)) => {
                tracing::debug!("{name}: {} hooks for now ({role:?}: {reason})", hooks.tc);
                self.bridged.insert(index, (role, Instant::now()));
                self.done.remove(&index);
                // An error of the last try stands until the next one.
                let error = self.known(index).and_then(|state| state.error);
                let hooks = Some(hooks);
                self.tell(DeviceState {
                    index,
                    name,
                    role,
                    reason,
                    hooks,
                    error,
                });
            }
            Ok(None) => self.cover(index, role, reason),
            Err(CoverError::Gone) => self.vanished(index, &name),
            Err(CoverError::Failed(error)) => {
                tracing::debug!("{name}: no hooks for now: {error}");
                self.cover(index, role, reason);
            }
        }
    }

    fn cover(&mut self, index: u32, role: Role, reason: String) {
        let bridged = self.bridged.remove(&index).is_some();
        let Some(device) = self.inventory.device(index) else {
            return;
        };
        let name = device.name.clone();
        let (hooks, error) = match self.attach.cover(device, role) {
            Ok(hooks) => {
                self.done.insert(index, role);
                let also = hooks
                    .xdp
                    .map(|mode| format!(" and {mode} XDP"))
                    .unwrap_or_default();
                tracing::info!("{name}: {} hooks{also} ({role:?}: {reason})", hooks.tc);
                (Some(hooks), None)
            }
            Err(CoverError::Gone) => return self.vanished(index, &name),
            Err(CoverError::Failed(error)) => {
                let known = self.known(index);
                if known.as_ref().and_then(|s| s.error.as_ref()) != Some(&error) {
                    let so = match bridged {
                        true => "filters of a clsact qdisc serve it meanwhile",
                        false => "not covered, its traffic meets no frontend",
                    };
                    tracing::warn!("{name}: {so}: {error}");
                }
                let filters = known.and_then(|state| state.hooks);
                (filters.filter(|_| bridged), Some(error))
            }
        };
        self.tell(DeviceState {
            index,
            name,
            role,
            reason,
            hooks,
            error,
        });
    }

    fn known(&self, index: u32) -> Option<DeviceState> {
        lock(&self.shared.states).get(&index).cloned()
    }

    fn tell(&self, state: DeviceState) {
        lock(&self.shared.states).insert(state.index, state);
    }

    /// The kernel's word that a device is gone is on its way. One of its links may
    /// be pinned already, and would stay for ever.
    fn vanished(&mut self, index: u32, name: &str) {
        self.attach.uncover(index, None);
        tracing::debug!("{name} vanished while it was being covered");
    }
}

#[cfg(test)]
#[path = "cover_tests.rs"]
mod tests;
