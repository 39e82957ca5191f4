//! The kernel's datapath under the straight line.

use std::{collections::BTreeMap, io, net::IpAddr, path::Path, time::Instant};

use lb_common::{Addr, NodeConfig, ServiceCounter, schema::name};
use lb_plan::{Actual, Expectation, Limits, Planner, Usage, model::ServicePortKey, op::Batch};

use super::{
    dataplane::{Dataplane, NodeProblem},
    host::Here,
    state::{self, Device, Hook},
    takeover::Takeover,
};
use crate::{
    bpf::{
        self, ApplyReport, Datapath, Feature, HookState, SocketLb, devices::DeviceState,
        examine::Finding, views::Views,
    },
    config::MetricsDetail,
    metrics::{Reader, Readings},
};

/// The loaded datapath.
pub struct Kernel {
    datapath: Datapath,
    sizes: bpf::MapSizes,
    takeover: Takeover<Here>,
}

/// Loads the programs, attaches them, and reads what the maps hold.
///
/// # Errors
/// If something is missing that it cannot do without: a privilege, a mount, a
/// feature of the kernel.
pub fn load(settings: &bpf::Settings, limits: Limits) -> anyhow::Result<(Kernel, Planner)> {
    let (datapath, actual) = Datapath::load(settings)?;
    let planner = Planner::restore(limits, actual);
    let kernel = Kernel {
        datapath,
        sizes: settings.sizes,
        takeover: Takeover::new(Here { cgroup: None }, false, false),
    };
    Ok((kernel, planner))
}

impl Kernel {
    /// With a takeover; without, kube-proxy's rules are only told of.
    #[must_use]
    pub fn taking_over(mut self, takeover: Takeover<Here>) -> Self {
        self.takeover = takeover;
        self
    }
}

impl Kernel {
    /// Clears bits that stand for nothing any more. Flows that begin meanwhile find theirs: what
    /// is planned keeps its own, and no other frontend can begin one, nor lead to another backend.
    fn clear_filters(&mut self, planner: &mut Planner) -> io::Result<()> {
        let mut bits = self.datapath.filter_bits_in_use()?;
        let batch = planner.clear_filter(|bit| bits.requests.contains(bit));
        if !batch.ops.is_empty() {
            self.datapath.apply(&batch);
        }
        let Some(backends) = planner.reply_bits() else {
            return Ok(());
        };
        bits.replies.extend(backends);
        self.datapath.clear_replies(&bits.replies)
    }
}

impl Dataplane for Kernel {
    fn apply(&mut self, batch: &Batch) -> ApplyReport {
        self.datapath.apply(batch)
    }

    fn configure(&mut self, config: &NodeConfig) -> io::Result<()> {
        let own = [config.snat4, config.snat6].into_iter();
        let addresses = own.filter(|a| *a != Addr::UNSPECIFIED).map(IpAddr::from);
        self.datapath.set_node_addresses(addresses.collect());
        self.datapath.configure(config).map_err(io::Error::other)
    }

    fn pending(&self) -> usize {
        self.datapath.pending()
    }

    fn tidy(&mut self, planner: &mut Planner) {
        if let Err(error) = self.clear_filters(planner) {
            tracing::warn!(%error, "conntrack could not be read; unused filter bits stay, which only costs look-ups")
        }
    }

    fn begin(&mut self) {
        self.takeover.begin(&mut self.datapath);
    }

    fn programmed(&mut self, planner: &Planner) {
        if self.datapath.must_fill_first() {
            match self.datapath.activate() {
                Ok(()) => tracing::info!("the new maps are in place"),
                Err(error) => {
                    tracing::error!(%error, "the programs could not be switched to the new maps; the earlier ones serve on: end this, then restart the agent")
                }
            }
        }
        self.datapath.load_dry();
        self.takeover.programmed(&mut self.datapath, planner);
    }

    fn tick(&mut self, planner: &Planner) {
        let now = Instant::now();
        self.takeover.tick(&mut self.datapath, planner, now);
    }

    fn examine(&self, expected: &Expectation, port: u16) -> io::Result<Finding> {
        self.datapath.examine(expected, port)
    }

    fn reread(&mut self) -> io::Result<Actual> {
        self.datapath.reread()
    }

    fn set_proxies(&mut self, pods: Result<Vec<String>, String>) {
        self.takeover.set_pods(pods);
    }

    fn asks_for_proxies(&self) -> bool {
        self.takeover.asks()
    }

    fn problems(&self) -> Vec<NodeProblem> {
        self.takeover.problem().cloned().into_iter().collect()
    }

    fn fill(&self, usage: &Usage) -> Vec<(&'static str, u64, u64)> {
        let sizes = &self.sizes;
        let janitor = self.datapath.status().janitor;
        let planned = [
            (name::lb_frontends_v1, usage.frontends, sizes.frontends),
            (name::lb_backends_v1, usage.backends, sizes.backends),
            (name::lb_slots_v1, usage.slots, sizes.slots),
            (name::lb_ranges_v1, usage.ranges, sizes.ranges),
            (name::lb_svc_ctr_v1, usage.services, sizes.services),
        ];
        let planned = planned.map(|(map, used, most)| (map, u64::from(used), u64::from(most)));
        let most = u64::from(sizes.conntrack);
        let flows = [
            (name::lb_ct4_v1, janitor.flows4, most),
            (name::lb_ct6_v1, janitor.flows6, most),
        ];
        planned.into_iter().chain(flows).collect()
    }

    fn describe(&self) -> state::Datapath {
        let status = self.datapath.status();
        let (rules, left) = self.takeover.state();
        let hook = |hook: &HookState| Hook {
            program: hook.program.to_owned(),
            error: hook.error.clone(),
        };
        state::Datapath {
            kernel: status.features.kernel.clone(),
            features: status.features.list().into_iter().map(feature).collect(),
            socket_lb: match status.socket_lb {
                SocketLb::All => "all".to_owned(),
                SocketLb::Host => "host".to_owned(),
                SocketLb::Off => "off".to_owned(),
            },
            sockets: status.socket_hooks.iter().map(hook).collect(),
            devices: status.devices.iter().map(device).collect(),
            notes: status
                .messages
                .iter()
                .cloned()
                .chain(self.takeover.notes())
                .collect(),
            rules: rules.iter().map(|mode| mode.name().to_owned()).collect(),
            left: left as u64,
        }
    }
}

fn feature(f: &Feature) -> state::Feature {
    let from = if f.overridden {
        ", as a setting says"
    } else {
        ""
    };
    state::Feature {
        name: f.name.into(),
        present: f.present,
        note: match f.present {
            true => format!("Linux {} and newer{from}", f.since),
            false => format!("Linux {} and newer{from}; instead: {}", f.since, f.fallback),
        },
    }
}

fn device(d: &DeviceState) -> Device {
    let hooks = d.hooks.as_ref().map_or_else(String::new, |h| match h.xdp {
        Some(mode) => format!("{}, XDP {mode}", h.tc),
        None => h.tc.to_owned(),
    });
    let xdp = d.hooks.as_ref().map_or("", |h| h.xdp_reason.as_str());
    let parts = [
        d.reason.as_str(),
        xdp,
        d.error.as_deref().unwrap_or_default(),
    ];
    let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    Device {
        name: d.name.clone(),
        role: format!("{:?}", d.role).to_lowercase(),
        hooks,
        note: parts.join("; "),
        failed: d.error.is_some(),
    }
}

/// Settings with which the pins of a bpffs are looked at.
pub fn pins(bpffs: &Path) -> bpf::Settings {
    bpf::Settings {
        bpffs: bpffs.to_owned(),
        ..bpf::Settings::default()
    }
}

/// Reads the pinned maps of a bpffs for the metrics. What cannot be read is left
/// out: a scrape is no place for errors.
pub fn readings(bpffs: &Path, detail: MetricsDetail) -> Reader {
    let pins = pins(bpffs);
    Box::new(move |names| {
        read(&pins, names, detail).unwrap_or_else(|error| {
            tracing::debug!(%error, "a scrape found no maps");
            Readings::default()
        })
    })
}

fn read(
    pins: &bpf::Settings,
    names: &BTreeMap<u32, ServicePortKey>,
    detail: MetricsDetail,
) -> Result<Readings, bpf::Error> {
    let views = Views::open(pins)?;
    let backends = views.backends()?;
    Ok(Readings {
        reasons: views.reasons()?,
        backends: backends.len() as u64,
        services: match detail {
            MetricsDetail::Node => Vec::new(),
            _ => of_ids(names, |count| views.service_counters(count))?,
        },
        carried: match detail {
            MetricsDetail::Backends => of_ids(&backends, |count| views.backend_counters(count))?,
            _ => Vec::new(),
        },
    })
}

/// What has an id, with its counter; `counters` reads those of the first ids.
fn of_ids<T: Clone>(
    all: &BTreeMap<u32, T>,
    counters: impl FnOnce(u32) -> Result<Vec<ServiceCounter>, bpf::Error>,
) -> Result<Vec<(T, ServiceCounter)>, bpf::Error> {
    let counters = counters(all.keys().next_back().map_or(0, |last| last + 1))?;
    let found = all.iter().filter_map(|(id, what)| {
        let counter = counters.get(*id as usize)?;
        Some((what.clone(), *counter))
    });
    Ok(found.collect())
}
