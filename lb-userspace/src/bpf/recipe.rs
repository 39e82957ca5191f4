//! What programs are loaded from: the object, what it is told, and the maps.

use std::path::PathBuf;

use aya::{Ebpf, EbpfLoader};
use lb_common::conntrack::buckets;

use super::{
    clock, conntrack,
    devices::is_xdp,
    dry,
    error::{Error, chain},
    filter,
    kept::Kept,
    layout::Fate,
    links::pinned,
    load::{Plan, map_error, open_maps},
    map::BpfMap,
    monitor,
    pins::{Pins, open_map},
    probe::Features,
    programs::Programs,
    settings::MapSizes,
    table::Table,
};

/// What the programs are told of the kernel and of the sizes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Source {
    set_retval: u32,
    ns_per_jiffy: u64,
    seed: u64,
    buckets: u32,
}

impl Source {
    pub(super) fn new(features: &Features, sizes: &MapSizes) -> Result<Self, Error> {
        let unknown = |problem: String| Error::Object { problem };
        let ns_per_jiffy = clock::ns_per_jiffy()
            .map_err(|error| unknown(format!("the kernel's jiffies cannot be read: {error}")))?;
        let seed = conntrack::seed()
            .map_err(|error| unknown(format!("the id of the boot cannot be read: {error}")))?;
        Ok(Self {
            set_retval: u32::from(features.set_retval.present),
            ns_per_jiffy,
            seed,
            buckets: buckets(sizes.conntrack),
        })
    }
}

/// Open maps in the order of [`Table::ALL`], and whether they are new.
pub(super) type Maps = Vec<(BpfMap, bool)>;

/// All that programs are loaded from.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) object: &'static [u8],
    pub(super) pins: Pins,
    /// Each with its elements.
    pub(super) maps: Vec<(Table, u32)>,
    pub(super) source: Source,
}

impl std::fmt::Debug for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pins, source, .. } = self;
        write!(f, "{source:?} and the maps of {}", pins.dir().display())
    }
}

impl Recipe {
    /// Opens the object with the pinned maps; those of the monitor are among them if it `tells`.
    /// No program is loaded yet.
    pub(super) fn load(&self, tells: bool) -> Result<Ebpf, Error> {
        let paths = self.maps.iter().map(|(table, _)| self.pins.map(*table));
        self.open(paths, tells)
    }

    /// Opens the object with maps that are pinned elsewhere, or made there. aya writes zeros to
    /// the monitor's `.bss`, pinned or not: a monitor asks again within 50 ms.
    fn open(&self, paths: impl Iterator<Item = PathBuf>, tells: bool) -> Result<Ebpf, Error> {
        let mut loader = EbpfLoader::new();
        let source = &self.source;
        loader.override_global("HAVE_SET_RETVAL", &source.set_retval, false);
        loader.override_global("NS_PER_JIFFY", &source.ns_per_jiffy, false);
        loader.override_global("CT_SEED", &source.seed, true);
        loader.override_global("CT_BUCKETS", &source.buckets, true);
        for ((table, elements), path) in self.maps.iter().zip(paths) {
            loader.map_max_entries(table.name(), *elements);
            loader.map_pin_path(table.name(), path);
        }
        if tells {
            for map in lb_common::monitor::MAPS {
                loader.map_pin_path(map.name, self.pins.monitor(map));
            }
        }
        loader.load(self.object).map_err(|error| Error::Object {
            problem: chain(&error),
        })
    }

    /// The programs that an earlier start has loaded from the same, if all is in place.
    pub(super) fn take_over(&self, plans: &[Plan]) -> Result<Option<(Maps, Programs)>, Error> {
        let is_there = |plan: &Plan| plan.found.is_some() && plan.fate == Fate::Reuse;
        if !plans.iter().all(is_there) {
            return Ok(None);
        }
        let maps = open_maps(&self.pins, plans)?;
        let kept = self.kept(&maps)?;
        let programs = kept.and_then(|kept| Programs::take_over(&kept, self));
        Ok(programs.map(|programs| (maps, programs)))
    }

    /// Makes the maps that are missing, and loads the programs.
    pub(super) fn start(&self, plans: &[Plan]) -> Result<(Maps, Programs), Error> {
        dry::forget(&self.pins)?;
        monitor::clear_way(&self.pins)?;
        let paths = plans.iter().map(|plan| plan.path(&self.pins));
        let ebpf = self.open(paths, true)?;
        let maps = open_maps(&self.pins, plans)?;
        look_replies_up(plans, &maps)?;
        let kept = self.kept(&maps)?.ok_or_else(|| Error::Object {
            problem: "it lacks maps of the monitor".to_owned(),
        })?;
        let had = pinned(&self.pins.links())?;
        let has_xdp = had.iter().any(|link| is_xdp(&link.name));
        let programs = Programs::load(ebpf, has_xdp, (kept, self.clone()))?;
        Ok((maps, programs))
    }

    /// The pins of programs with these maps; `None` if a map of the monitor is missing.
    fn kept(&self, maps: &Maps) -> Result<Option<Kept>, Error> {
        let mut ids: Vec<u32> = maps.iter().map(|(map, _)| map.info().id).collect();
        for map in lb_common::monitor::MAPS {
            let Some(map) = open_map(&self.pins.monitor(map), 0)? else {
                return Ok(None);
            };
            ids.push(map.info().id);
        }
        Ok(Some(Kept::new(self, &ids)))
    }
}

/// Where flows are pinned and their replies' filter is not, they are of a version without it: of
/// these all packets are looked up, until the agent knows which are needed.
fn look_replies_up(plans: &[Plan], maps: &Maps) -> Result<(), Error> {
    let table = Table::lb_replies_v1;
    let has_flows = |plan: &Plan| conntrack::TABLES.contains(&plan.table) && plan.found.is_some();
    match &maps[table as usize] {
        (replies, true) if plans.iter().any(has_flows) => {
            filter::expect_all_replies(replies).map_err(|e| map_error(table, "write", e))
        }
        _ => Ok(()),
    }
}
