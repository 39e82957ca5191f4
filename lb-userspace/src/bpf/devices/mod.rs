//! Devices: found by netlink, covered with hooks, and watched, by a thread of
//! their own. A new pod's device is covered as soon as the kernel tells of it.

mod attach;
mod cover;
mod filters;
mod netlink;
mod qdisc;
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
pub(super) use attach::is_xdp;
pub use rules::Role;

use self::{
    attach::KernelAttach,
    cover::Cover,
    netlink::{Event, Netlink},
    rules::Rules,
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
    let (mut looks, mut looked, mut stirred) = (LOOKS, Instant::now(), Instant::now());
    loop {
        let patience = cover.patience(looks);
        let settles = cover.settles_at(stirred);
        let until = settles.map(|at| at.saturating_duration_since(Instant::now()));
        let told = netlink.wait(&woken, patience.min(until.unwrap_or(FOREVER)));
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let mut sink = [0; 64];
        while woken.read(&mut sink).is_ok_and(|read| read > 0) {}
        let events = told.unwrap_or_else(|error| {
            tracing::warn!("{error}; devices are looked for again");
            std::thread::sleep(RETRY);
            vec![Event::Lost]
        });
        let quiet = looked.elapsed() >= patience;
        let news = !events.is_empty();
        if news {
            (looks, stirred) = (LOOKS, Instant::now());
        } else if quiet {
            looks = looks.saturating_sub(1);
        }
        if cover.note(events) || quiet {
            looked = Instant::now();
            match netlink.dump() {
                Ok(all) => cover.inventory.replace(all),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        let addresses = lock(&shared.addresses).take();
        if news || quiet || addresses.is_some() {
            if let Some(addresses) = addresses {
                cover.rules.node_addresses = addresses;
            }
            cover.reconcile();
        }
        let settles = cover.settles_at(stirred);
        if settles.is_some_and(|at| at <= Instant::now()) {
            cover.settle();
        }
    }
}

/// Removes our clsact filters from every device, and where there were such, or
/// links (of which these are the names), the qdisc too, unless others use it.
/// Links themselves end with their pins.
pub(super) fn remove_filters(links: &[String]) -> Result<(), Error> {
    for event in Netlink::subscribe()?.dump()? {
        let Event::Device(device) = event else {
            continue;
        };
        let filtered = filters::remove(&device.name);
        let mut pins = links.iter().map(|pin| attach::index_of(pin));
        if filtered || pins.any(|index| index == Some(device.index)) {
            let call = "remove the clsact qdisc of a device";
            qdisc::remove_if_empty(device.index)
                .map_err(|source| Error::Netlink { call, source })?;
        }
    }
    Ok(())
}
