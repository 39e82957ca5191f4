//! The datapath as a whole: loaded, attached, programmed, watched.

use std::{
    io,
    net::IpAddr,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    sync::{Arc, OnceLock},
};

use lb_common::{NodeConfig, PacketCounter, Reason, ServiceCounter, node_flags};
use lb_plan::{Actual, op::Batch};
use serde::Serialize;

use super::{
    apply::Programmer,
    counters,
    devices::{self, DeviceState, Watcher},
    dry::{self, Dry},
    error::Error,
    failure::ApplyReport,
    janitor::{Janitor, JanitorStats},
    kernel::KernelStore,
    layout::{agent_owned, carry_over},
    links::{Attached, Place, attach, end, pinned},
    load::{Loaded, Staged, clean_foreign, load, map_error},
    pins::{Pins, open_cgroup},
    probe::Features,
    programs::{Programs, SOCKET},
    settings::{Settings, SocketLb},
    sys::LinkTarget,
    table::Table,
};

/// The programs that the agent was built with.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bascule.o"));

/// What a user may ask of a running agent.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// What the kernel can do.
    pub features: Features,
    /// Which sockets are served.
    pub socket_lb: SocketLb,
    /// How the hooks came there.
    pub socket_hooks: Vec<HookState>,
    /// Devices with hooks, and those that should have them.
    pub devices: Vec<DeviceState>,
    /// What was worth telling at the start.
    pub messages: Vec<String>,
    /// What was done in the background.
    pub janitor: JanitorStats,
}

/// A socket hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HookState {
    /// Its program.
    pub program: &'static str,
    /// Why it is not attached, if it is not.
    pub error: Option<String>,
}

/// The loaded datapath. It goes on without the agent: dropping this ends the
/// threads, and leaves maps, programs and links in place.
#[derive(Debug)]
pub struct Datapath {
    settings: Settings,
    features: Features,
    pins: Pins,
    programs: Arc<Programs>,
    programmer: Programmer<KernelStore>,
    janitor: Janitor,
    watcher: Option<Watcher>,
    staged: Vec<Staged>,
    fill_first: bool,
    socket_hooks: Vec<HookState>,
    messages: Vec<String>,
    beside_rules: bool,
    config: Option<NodeConfig>,
    dry: Option<Arc<OnceLock<Dry>>>,
}

impl Datapath {
    /// Loads the agent's own programs with the pinned maps, attaches them (but
    /// see [`Self::must_fill_first`]), and reads what the maps hold.
    ///
    /// # Errors
    /// A privilege, a mount or a kernel feature is missing, or the kernel refuses
    /// the programs. Whatever served before goes on.
    pub fn load(settings: &Settings) -> Result<(Self, Actual), Error> {
        Self::load_object(OBJECT, settings)
    }

    /// The same with other programs.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_object(
        object: &'static [u8],
        settings: &Settings,
    ) -> Result<(Self, Actual), Error> {
        let loaded = load(object, settings)?;
        let Loaded {
            pins,
            features,
            programs,
            maps,
            staged,
            fill_first,
            messages,
        } = loaded;
        let store = KernelStore::new(maps);
        let janitor = Janitor::start(&store, settings.cgroup.clone())?;
        let read = |source| map_error(Table::lb_frontends_v1, "read the maps", source);
        let programmer = Programmer::new(store).map_err(read)?;
        let actual = programmer.actual().map_err(read)?;
        let mut datapath = Self {
            settings: settings.clone(),
            features,
            pins,
            programs: Arc::new(programs),
            programmer,
            janitor,
            watcher: None,
            staged,
            fill_first,
            socket_hooks: Vec::new(),
            messages,
            beside_rules: false,
            config: None,
            dry: None,
        };
        if !fill_first {
            datapath.activate()?;
        }
        Ok((datapath, actual))
    }

    /// Whether the maps were made anew beside ones that are in use: they must be
    /// filled, then [`Self::activate`] switches to them.
    pub fn must_fill_first(&self) -> bool {
        self.fill_first
    }

    /// Switches to the new maps, puts the programs behind the links, and covers
    /// the devices. Does nothing if that was done already.
    ///
    /// # Errors
    /// A cgroup or a pin cannot be used. What cannot be attached to one hook or
    /// device is no error, but shown in the status.
    pub fn activate(&mut self) -> Result<(), Error> {
        if self.watcher.is_some() {
            return Ok(());
        }
        // The pins first: a start that is cut short after this finds the new maps.
        for staged in &self.staged {
            self.pins.promote(staged.table)?;
        }
        self.attach_sockets()?;
        let (programs, pins) = (self.programs.clone(), self.pins.clone());
        let tcx = self.features.tcx.present;
        self.watcher = Some(Watcher::start(&self.settings, programs, pins, tcx)?);
        // What the old programs wrote while they were being replaced.
        for staged in self.staged.drain(..) {
            let Some(old) = staged.old.filter(|_| !agent_owned(staged.table)) else {
                continue;
            };
            let new = self.programmer.store().map(staged.table);
            carry_over(staged.table, &old, new, true)
                .map_err(|source| map_error(staged.table, "copy", source))?;
        }
        self.fill_first = false;
        clean_foreign(&self.pins, &mut self.messages)
    }

    /// Loads the dry program on a thread of its own: nothing that serves waits for it.
    /// Does nothing after the first time.
    pub fn load_dry(&mut self) {
        if self.dry.is_some() {
            return;
        }
        let loading = dry::in_background(self.programs.recipe().clone());
        self.dry = Some(loading);
    }

    /// The dry program, once it is loaded.
    pub fn dry(&self) -> Option<&Dry> {
        self.dry.as_ref()?.get()
    }

    fn attach_sockets(&mut self) -> Result<(), Error> {
        if self.settings.socket_lb == SocketLb::Off {
            for (program, _) in SOCKET {
                end(&self.pins.links().join(program))?;
            }
            return Ok(());
        }
        let path = &self.settings.cgroup;
        let cgroup = open_cgroup(path)?;
        let inode = cgroup.metadata().map_err(|error| Error::Cgroup {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        for (program, attach_type) in SOCKET {
            let pin = self.pins.links().join(program);
            let place = Place {
                // A cgroup's id is its directory's inode number (kernfs).
                target: LinkTarget::Cgroup(inode.ino()),
                handle: cgroup.as_raw_fd() as u32,
                attach_type,
                flags: 0,
                pin: &pin,
            };
            let error = match attach(&place, self.programs.fd(program)?) {
                Ok(Attached::Replaced) => None,
                Ok(Attached::Anew) => {
                    tracing::debug!("{program}: attached to {}", path.display());
                    None
                }
                Err(error) => {
                    let problem = socket_problem(&error);
                    let target = path.display().to_string();
                    tracing::warn!(
                        "{}",
                        Error::Attach {
                            program,
                            target,
                            problem: problem.clone()
                        }
                    );
                    Some(problem)
                }
            };
            self.socket_hooks.push(HookState { program, error });
        }
        Ok(())
    }

    /// Writes a batch to the maps, after what failed before. What it wants
    /// forgotten is forgotten in the background.
    pub fn apply(&mut self, batch: &Batch) -> ApplyReport {
        let report = self.programmer.apply(batch);
        self.janitor.purge(report.purges.clone());
        report
    }

    /// What the maps hold now, whatever was written: for planning anew. Writes that wait to
    /// be tried again are forgotten.
    ///
    /// # Errors
    /// The kernel refuses the read.
    pub fn reread(&mut self) -> io::Result<Actual> {
        self.programmer.reread()?;
        self.programmer.actual()
    }

    /// How many writes failed and wait for the next [`Self::apply`].
    pub fn pending(&self) -> usize {
        self.programmer.pending().len()
    }

    /// Writes what the datapath must know of its node. Which sockets are served
    /// is taken from the settings.
    ///
    /// # Errors
    /// The kernel refuses the write.
    pub fn configure(&mut self, config: &NodeConfig) -> Result<(), Error> {
        let mut config = *config;
        match self.settings.socket_lb {
            SocketLb::Host => config.flags |= node_flags::SOCKET_LB_HOST_ONLY,
            _ => config.flags &= !node_flags::SOCKET_LB_HOST_ONLY,
        }
        if self.beside_rules {
            config.flags |= node_flags::BESIDE_RULES;
        }
        self.config = Some(config);
        self.programmer
            .configure(&config)
            .map_err(|source| map_error(Table::lb_node_v1, "write", source))
    }

    /// Whether another proxy's rules are in place: [`node_flags::BESIDE_RULES`].
    ///
    /// # Errors
    /// The kernel refuses the write.
    pub fn set_beside_rules(&mut self, beside: bool) -> Result<(), Error> {
        self.beside_rules = beside;
        let Some(mut config) = self.config else {
            return Ok(());
        };
        config.flags &= !node_flags::BESIDE_RULES;
        self.configure(&config)
    }

    /// The addresses of the node: a device that carries one is an uplink.
    pub fn set_node_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.settings.node_addresses.clone_from(&addresses);
        if let Some(watcher) = &self.watcher {
            watcher.set_addresses(addresses);
        }
    }

    /// What a user may want to know.
    pub fn status(&self) -> Status {
        Status {
            features: self.features.clone(),
            socket_lb: self.settings.socket_lb,
            socket_hooks: self.socket_hooks.clone(),
            devices: self
                .watcher
                .as_ref()
                .map(Watcher::states)
                .unwrap_or_default(),
            messages: self.messages.clone(),
            janitor: self.janitor.stats(),
        }
    }

    /// Packets and bytes by reason.
    ///
    /// # Errors
    /// The kernel refuses the read; the same holds for the other counters.
    pub fn reasons(&self) -> io::Result<Vec<(Reason, PacketCounter)>> {
        counters::reasons(self.map(Table::lb_reasons_v1))
    }

    /// What services carried, by service id, for ids below `count`.
    ///
    /// # Errors
    /// As [`Self::reasons`].
    pub fn services(&self, count: u32) -> io::Result<Vec<ServiceCounter>> {
        counters::carried(self.map(Table::lb_svc_ctr_v1), count)
    }

    /// What backends carried, by backend id, for ids below `count`.
    ///
    /// # Errors
    /// As [`Self::reasons`].
    pub fn backends(&self, count: u32) -> io::Result<Vec<ServiceCounter>> {
        counters::carried(self.map(Table::lb_be_ctr_v1), count)
    }

    pub(super) fn store(&self) -> &KernelStore {
        self.programmer.store()
    }

    pub(super) fn map(&self, table: Table) -> &super::map::BpfMap {
        self.programmer.store().map(table)
    }

    /// Takes everything off the node that any agent with these settings put
    /// there: links, programs, maps, filters. Services are no longer served.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn uninstall(settings: &Settings) -> Result<(), Error> {
        let pins = Pins::existing(settings.pin_dir());
        let links = pinned(&pins.links())?;
        for link in &links {
            end(&link.path)?;
        }
        let names: Vec<String> = links.into_iter().map(|link| link.name).collect();
        devices::remove_filters(&names)?;
        pins.remove_all()
    }

    /// Names of the pinned links, for tests and `uninstall`.
    ///
    /// # Errors
    /// The directory of pins cannot be read.
    pub fn links(&self) -> Result<Vec<String>, Error> {
        Ok(pinned(&self.pins.links())?
            .into_iter()
            .map(|link| link.name)
            .collect())
    }
}

fn socket_problem(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "not permitted: another program is attached to the cgroup, or one \
                              above it, and admits no others; list them with: bpftool cgroup tree"
            .to_owned(),
        Some(libc::E2BIG) => "the cgroup has 64 programs of this kind already".to_owned(),
        _ => error.to_string(),
    }
}
