//! Devices: found by netlink, covered with hooks, and watched, by a thread of
//! their own. A new pod's device is covered as soon as the kernel tells of it.

mod attach;
mod netlink;
mod rules;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::IpAddr,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::Serialize;

pub use attach::Hooks;
pub use rules::Role;

use self::{
    attach::{Attach, CoverError, KernelAttach},
    netlink::{Event, Netlink},
    rules::{Inventory, Rules},
};
use super::{error::Error, pins::Pins, programs::Programs, settings::Settings};

/// How often a pair of devices with both ends here is looked at again: its peer
/// may move to a pod without a word from the kernel.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How many times, after something has changed.
const LOOKS: u32 = 40;
/// When a device that could not be covered is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// A wait without end, as far as poll(2) is concerned.
const FOREVER: Duration = Duration::from_secs(3600);

/// A covered device, or one that could not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceState {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is to the datapath.
    pub role: Role,
    /// Why it is that.
    pub reason: String,
    /// What serves it.
    pub hooks: Option<Hooks>,
    /// Why nothing does.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    states: Mutex<BTreeMap<u32, DeviceState>>,
    addresses: Mutex<Option<Vec<IpAddr>>>,
    stop: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that watches devices. It ends when this is dropped; the hooks stay.
#[derive(Debug)]
pub(super) struct Watcher {
    shared: Arc<Shared>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Covers the devices that are there, then watches for others.
    pub(super) fn start(
        settings: &Settings,
        programs: Arc<Programs>,
        pins: Pins,
        tcx: bool,
    ) -> Result<Self, Error> {
        let fail = |source| Error::Netlink {
            call: "start",
            source,
        };
        let (wake, woken) = UnixStream::pair().map_err(fail)?;
        woken.set_nonblocking(true).map_err(fail)?;
        let shared = Arc::new(Shared::default());
        let attach = KernelAttach {
            programs,
            pins,
            tcx,
            xdp: settings.xdp,
        };
        let rules = Rules {
            pod_patterns: settings.pod_devices.clone(),
            uplink_patterns: settings.uplinks.clone(),
            node_addresses: settings.node_addresses.clone(),
        };
        let netlink = Netlink::subscribe()?;
        let mut cover = Cover::new(attach, rules, shared.clone());
        cover.inventory.replace(netlink.dump()?);
        cover.adopt();
        let state = shared.clone();
        let thread = std::thread::Builder::new()
            .name("devices".to_owned())
            .spawn(move || watch(cover, &netlink, woken, &state))
            .map_err(fail)?;
        Ok(Self {
            shared,
            wake,
            thread: Some(thread),
        })
    }

    /// The addresses of the node: a device that carries one is an uplink.
    pub(super) fn set_addresses(&self, addresses: Vec<IpAddr>) {
        *lock(&self.shared.addresses) = Some(addresses);
        self.wake();
    }

    /// Every device that has, or should have, hooks.
    pub(super) fn states(&self) -> Vec<DeviceState> {
        lock(&self.shared.states).values().cloned().collect()
    }

    fn wake(&self) {
        // A full buffer means that the thread will wake up anyway.
        let _woken = (&self.wake).write(&[0]);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn watch(
    mut cover: Cover<KernelAttach>,
    netlink: &Netlink,
    mut woken: UnixStream,
    shared: &Shared,
) {
    let (mut looks, mut looked) = (LOOKS, Instant::now());
    loop {
        let patience = cover.patience(looks);
        let told = netlink.wait(&woken, patience);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let mut sink = [0; 64];
        while woken.read(&mut sink).is_ok_and(|read| read > 0) {}
        let told = told.unwrap_or_else(|error| {
            tracing::warn!("{error}; devices are looked for again");
            std::thread::sleep(RETRY);
            Some(vec![Event::Lost])
        });
        // Where routes come and go all the time the kernel is never quiet.
        let quiet = told.is_none() || looked.elapsed() >= patience;
        let events = told.unwrap_or_default();
        if !events.is_empty() {
            looks = LOOKS;
        } else if quiet {
            looks = looks.saturating_sub(1);
        }
        let addresses = lock(&shared.addresses).take();
        if !quiet && events.is_empty() && addresses.is_none() {
            continue;
        }
        // The end of a pair that moves to a pod is gone from here: all that the
        // kernel tells of it.
        let moved = events.iter().any(|e| matches!(e, Event::Gone(_))) && cover.is_undecided();
        if quiet || moved || events.contains(&Event::Lost) {
            looked = Instant::now();
            match netlink.dump() {
                Ok(all) => cover.inventory.replace(all),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        events
            .into_iter()
            .for_each(|event| cover.inventory.note(event));
        if let Some(addresses) = addresses {
            cover.rules.node_addresses = addresses;
        }
        cover.reconcile();
    }
}

/// Brings the hooks in line with what the rules want.
struct Cover<A> {
    attach: A,
    rules: Rules,
    inventory: Inventory,
    shared: Arc<Shared>,
    done: BTreeMap<u32, Role>,
}

impl<A: Attach> Cover<A> {
    fn new(attach: A, rules: Rules, shared: Arc<Shared>) -> Self {
        let (inventory, done) = (Inventory::default(), BTreeMap::new());
        Self {
            attach,
            rules,
            inventory,
            shared,
            done,
        }
    }

    /// The first time: what an earlier agent left and nobody wants goes.
    fn adopt(&mut self) {
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
        self.reconcile();
    }

    /// Whether a pair may yet turn out to be a pod's.
    fn is_undecided(&self) -> bool {
        !self.inventory.undecided(&self.rules).is_empty()
    }

    /// How long nothing need be looked at, if nothing happens.
    fn patience(&self, looks: u32) -> Duration {
        if looks > 0 && self.is_undecided() {
            return LOOK_AGAIN;
        }
        let failed = lock(&self.shared.states)
            .values()
            .any(|state| state.error.is_some());
        if failed { RETRY } else { FOREVER }
    }

    fn reconcile(&mut self) {
        let wanted = self.inventory.wanted(&self.rules);
        let unwanted: Vec<u32> = self
            .done
            .keys()
            .copied()
            .filter(|index| !wanted.contains_key(index))
            .collect();
        for index in unwanted {
            let name = self
                .inventory
                .device(index)
                .map(|device| device.name.clone());
            self.attach.uncover(index, name.as_deref());
            self.done.remove(&index);
        }
        lock(&self.shared.states).retain(|index, _| wanted.contains_key(index));
        for (index, (role, reason)) in wanted {
            if self.done.get(&index) != Some(&role) {
                self.cover(index, role, reason);
            }
        }
    }

    fn cover(&mut self, index: u32, role: Role, reason: String) {
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
            Err(CoverError::Gone) => {
                // The kernel's word that it is gone is on its way. One of its
                // links may be pinned already, and would stay for ever.
                self.attach.uncover(index, None);
                tracing::debug!("{name} vanished while it was being covered");
                return;
            }
            Err(CoverError::Failed(error)) => {
                let known = lock(&self.shared.states)
                    .get(&index)
                    .and_then(|s| s.error.clone());
                if known.as_ref() != Some(&error) {
                    tracing::warn!("{name}: not covered, its traffic meets no frontend: {error}");
                }
                (None, Some(error))
            }
        };
        let state = DeviceState {
            index,
            name,
            role,
            reason,
            hooks,
            error,
        };
        lock(&self.shared.states).insert(index, state);
    }
}

/// Removes our clsact filters from every device: links end with their pins.
pub(super) fn remove_filters() -> Result<(), Error> {
    for event in Netlink::subscribe()?.dump()? {
        if let Event::Device(device) = event {
            attach::remove_filters(&device.name);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "cover_tests.rs"]
mod tests;
