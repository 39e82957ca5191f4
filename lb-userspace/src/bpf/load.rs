//! Loading: pinned maps that fit are taken over, others are made anew beside
//! them, and the programs are loaded with these. Nothing is attached here.

use std::path::PathBuf;

use super::{
    error::Error,
    layout::{Fate, Layout, agent_owned, carry_over, fate, fits},
    map::BpfMap,
    pins::{Foreign, Pins, open_map, remove},
    probe::{Features, check_privileges, lift_memlock},
    programs::Programs,
    recipe::{Maps, Recipe, Source},
    required,
    settings::{MapSizes, Settings},
    table::Table,
};

/// Everything that a start finds and makes.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) pins: Pins,
    pub(super) features: Features,
    pub(super) programs: Programs,
    /// Open maps in the order of [`Table::ALL`], and whether they are new.
    pub(super) maps: Maps,
    /// Maps that take another one's place.
    pub(super) staged: Vec<Staged>,
    /// The maps start empty although pinned ones are in use: they are to be
    /// filled before the programs are switched to them.
    pub(super) fill_first: bool,
    /// What a user ought to know.
    pub(super) messages: Vec<String>,
}

/// A map that takes another one's place.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) table: Table,
    /// The map that is in use until then, if its entries are carried over.
    pub(super) old: Option<BpfMap>,
}

/// What is done about one table.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) table: Table,
    /// Of the kernel's map.
    elements: u32,
    pub(super) found: Option<BpfMap>,
    pub(super) fate: Fate,
}

impl Plan {
    fn new(pins: &Pins, table: Table, sizes: &MapSizes) -> Result<Self, Error> {
        let elements = table.def().elements(sizes.of(table));
        let expected = Layout::expected(table.def(), elements);
        let found = pins.open(table, 0)?;
        let fate = found
            .as_ref()
            .map_or(Fate::Reuse, |map| fate(&expected, &Layout::of(map.info())));
        Ok(Self {
            table,
            elements,
            found,
            fate,
        })
    }

    /// Whether the table is made beside one that is pinned.
    fn is_staged(&self) -> bool {
        self.found.is_some() && self.fate != Fate::Reuse
    }

    pub(super) fn path(&self, pins: &Pins) -> PathBuf {
        match self.is_staged() {
            true => pins.staged_map(self.table),
            false => pins.map(self.table),
        }
    }
}

/// Loads an object's programs with the maps of the settings.
pub(super) fn load(object: &'static [u8], settings: &Settings) -> Result<Loaded, Error> {
    check_privileges()?;
    lift_memlock();
    let features = Features::probe(settings.probes)?;
    required::check()?;
    let pins = Pins::prepare(&settings.bpffs, settings.pin_dir())?;
    let mut messages = Vec::new();
    let (plans, fill_first) = plan(&pins, &settings.sizes, &mut messages)?;
    let recipe = Recipe {
        object,
        pins: pins.clone(),
        maps: plans
            .iter()
            .map(|plan| (plan.table, plan.elements))
            .collect(),
        source: Source::new(&features, &settings.sizes)?,
    };
    let (maps, programs) = match recipe.take_over(&plans)? {
        Some(taken) => taken,
        None => recipe.start(&plans)?,
    };
    let mut staged = Vec::new();
    for (plan, (new, _)) in plans.into_iter().zip(&maps) {
        if plan.is_staged() {
            let old = plan.found.filter(|_| plan.fate == Fate::Resize);
            if let Some(old) = &old {
                carry(plan.table, old, new, &mut messages)?;
            }
            staged.push(Staged {
                table: plan.table,
                old,
            });
        }
    }
    for message in &messages {
        tracing::warn!("{message}");
    }
    Ok(Loaded {
        pins,
        features,
        programs,
        maps,
        staged,
        fill_first,
        messages,
    })
}

/// Decides over every table, and whether they must be filled first.
fn plan(
    pins: &Pins,
    sizes: &MapSizes,
    messages: &mut Vec<String>,
) -> Result<(Vec<Plan>, bool), Error> {
    let mut plans = Vec::new();
    let mut fill_first = false;
    for table in Table::ALL {
        let mut plan = Plan::new(pins, *table, sizes)?;
        if let Some(found) = &plan.found {
            let expected = Layout::expected(table.def(), plan.elements);
            let layout = Layout::of(found.info());
            let room = plan.fate != Fate::Resize
                || !agent_owned(*table)
                || fits(*table, found, plan.elements).map_err(|e| map_error(*table, "read", e))?;
            if !room {
                plan.fate = Fate::Replace;
            }
            if let Some(text) = describe(*table, plan.fate, &layout, &expected) {
                messages.push(text);
            }
            fill_first |= plan.fate == Fate::Replace && agent_owned(*table);
        }
        plans.push(plan);
    }
    if fill_first {
        // The programs in place read the old maps together: none of these may
        // change before the switch. Backends are carried over for their ids.
        for plan in plans.iter_mut().filter(|plan| agent_owned(plan.table)) {
            let keep = plan.table == Table::lb_backends_v1 && plan.fate != Fate::Replace;
            plan.fate = if keep { Fate::Resize } else { Fate::Replace };
        }
        messages.push(
            "the agent's maps are made anew; what is in place goes on until they are filled"
                .to_owned(),
        );
    }
    Ok((plans, fill_first))
}

fn describe(table: Table, fate: Fate, found: &Layout, expected: &Layout) -> Option<String> {
    let values = |layout: &Layout| table.def().values(layout.max_entries);
    let (from, to) = (values(found), values(expected));
    match fate {
        Fate::Reuse => None,
        Fate::Resize => Some(format!(
            "{table} is resized from {from} to {to} entries ({}), with what it holds",
            MapSizes::setting(table)
        )),
        Fate::Replace if found.same_elements(expected) && agent_owned(table) => Some(format!(
            "{table} holds more than {to} entries and is to be smaller ({}): it is made anew",
            MapSizes::setting(table)
        )),
        Fate::Replace => Some(format!(
            "the pinned {table} is of another build ({found}; expected {expected}): it is made anew{}",
            if agent_owned(table) {
                ""
            } else {
                ", and what the datapath kept in it is lost"
            }
        )),
    }
}

/// Opens the maps that the programs were loaded with, and checks them: aya takes
/// a pinned map as it is.
pub(super) fn open_maps(pins: &Pins, plans: &[Plan]) -> Result<Maps, Error> {
    let mut maps = Vec::new();
    for plan in plans {
        let map = open_map(&plan.path(pins), 0)?;
        let expected = Layout::expected(plan.table.def(), plan.elements);
        let mismatch = |found: String| Error::Schema {
            map: plan.table.name(),
            found,
            expected: expected.to_string(),
        };
        let map = map.ok_or_else(|| mismatch("missing".to_owned()))?;
        let layout = Layout::of(map.info());
        if layout != expected {
            let made = plan.found.is_none() || plan.is_staged();
            if made {
                // Or the next start would take the wrong map for ours.
                remove(&plan.path(pins))?;
            }
            return Err(mismatch(layout.to_string()));
        }
        let fresh = plan.found.is_none() || plan.is_staged();
        maps.push((map, fresh));
    }
    Ok(maps)
}

fn carry(
    table: Table,
    old: &BpfMap,
    new: &BpfMap,
    messages: &mut Vec<String>,
) -> Result<(), Error> {
    let lost = carry_over(table, old, new, false).map_err(|e| map_error(table, "copy", e))?;
    if lost > 0 {
        messages.push(format!(
            "{table} is smaller now ({}): {lost} of its entries had no room and are lost",
            MapSizes::setting(table)
        ));
    }
    Ok(())
}

/// Removes maps of other versions that only the agent wrote: nothing uses them
/// once the programs are switched. Others are left, and named.
pub(super) fn clean_foreign(pins: &Pins, messages: &mut Vec<String>) -> Result<(), Error> {
    for (path, kind) in pins.foreign()? {
        let path_text = path.display();
        let message = match kind {
            Foreign::Monitor => {
                // It has nothing that lasts.
                remove(&path)?;
                continue;
            }
            Foreign::Version(table) if agent_owned(table) => {
                remove(&path)?;
                format!("{path_text}: a map of another version of Bascule, no longer used: removed")
            }
            Foreign::Version(_) => format!(
                "{path_text}: a map of another version of Bascule is left, for a way back to it; \
                 free its memory with: rm {path_text}"
            ),
            Foreign::Unknown => format!("{path_text}: no pin of Bascule's; left alone"),
        };
        tracing::warn!("{message}");
        messages.push(message);
    }
    Ok(())
}

pub(super) fn map_error(table: Table, call: &'static str, source: std::io::Error) -> Error {
    let map = table.name();
    Error::Map { map, call, source }
}
