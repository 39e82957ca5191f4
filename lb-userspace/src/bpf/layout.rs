//! Which pinned maps are taken over, and what becomes of the others.

use lb_common::schema::{Kind, MapDef, Owner};
use serde::Serialize;

use super::{
    conntrack,
    map::{BpfMap, WriteError},
    mmap::Mapped,
    sys::{F_RDONLY, MapInfo, NOEXIST},
    table::Table,
    views::Views,
};

/// What makes two maps the same to a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// `enum bpf_map_type`.
    kind: u32,
    key_size: u32,
    value_size: u32,
    flags: u32,
    pub(super) max_entries: u32,
}

impl Layout {
    /// As the schema has it, with elements for a size of the settings.
    pub(super) fn expected(def: &MapDef, max_entries: u32) -> Self {
        Self {
            kind: kind_number(def.kind),
            key_size: def.key_size,
            value_size: def.element_size(),
            flags: def.flags,
            max_entries,
        }
    }

    /// As the kernel has it.
    pub(super) fn of(info: &MapInfo) -> Self {
        Self {
            kind: info.kind,
            key_size: info.key_size,
            value_size: info.value_size,
            flags: info.flags,
            max_entries: info.max_entries,
        }
    }

    /// Whether both have the same elements, however many.
    pub(super) fn same_elements(&self, other: &Self) -> bool {
        let elements = |l: &Self| (l.kind, l.key_size, l.value_size, l.flags);
        elements(self) == elements(other)
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "type {}, key {} bytes, value {} bytes, flags {:#x}, {} entries",
            self.kind, self.key_size, self.value_size, self.flags, self.max_entries
        )
    }
}

/// A pinned map's layout, beside that of this build.
#[derive(Clone, Debug, Serialize)]
pub struct LayoutView {
    /// The map.
    name: &'static str,
    /// As the kernel has it, or why that is not known.
    found: String,
    /// As this build expects it, but for the number of entries.
    expected: String,
    /// Whether both have the same elements.
    same: bool,
}

impl Views {
    /// The layouts of all maps, also of those that another build has made.
    pub fn layouts(&self) -> Vec<LayoutView> {
        let view = |table: &Table| {
            let of_build = Layout::expected(table.def(), table.def().max_entries);
            let (found, same) = match self.pins().open(*table, F_RDONLY) {
                Ok(Some(map)) => {
                    let found = Layout::of(map.info());
                    (found.to_string(), found.same_elements(&of_build))
                }
                Ok(None) => ("it is not pinned".to_owned(), false),
                Err(error) => (error.to_string(), false),
            };
            LayoutView {
                name: table.name(),
                found,
                expected: of_build.to_string(),
                same,
            }
        };
        Table::ALL.iter().map(view).collect()
    }
}

/// The number of a kind in `enum bpf_map_type` (include/uapi/linux/bpf.h).
fn kind_number(kind: Kind) -> u32 {
    match kind {
        Kind::Hash => 1,
        Kind::Array | Kind::Packed => 2,
        Kind::PerCpuArray => 6,
        Kind::LruHash => 9,
        Kind::LpmTrie => 11,
    }
}

/// What becomes of a pinned map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It is used as it is.
    Reuse,
    /// A map of another size takes its place, with its entries.
    Resize,
    /// A new map takes its place: its layout is another one.
    Replace,
}

/// Decides over a pinned map.
pub(super) fn fate(expected: &Layout, found: &Layout) -> Fate {
    if expected == found {
        Fate::Reuse
    } else if expected.same_elements(found) {
        Fate::Resize
    } else {
        Fate::Replace
    }
}

/// Whether everything that a map holds has room in one of so many elements.
pub(super) fn fits(table: Table, old: &BpfMap, elements: u32) -> std::io::Result<bool> {
    if elements >= old.info().max_entries {
        return Ok(true);
    }
    match table.def().kind {
        Kind::Array | Kind::Packed => {
            let (keep, mut beyond) = (table.def().values(elements), Vec::new());
            let mut mapped = Mapped::of(table, old, false);
            let rest = (keep, mapped.values() - keep);
            mapped.read(old.fd(), rest, &mut beyond)?;
            Ok(beyond.iter().all(|byte| *byte == 0))
        }
        // Counters: what is lost of them is a number on a chart.
        Kind::PerCpuArray => Ok(true),
        Kind::Hash | Kind::LruHash | Kind::LpmTrie => {
            let found = old.read_all()?.keys.len() / old.info().key_size as usize;
            Ok(found <= elements as usize)
        }
    }
}

/// Copies a map's entries to one of another size, as many as it has room for.
/// Returns how many had none. With `late`, only those that it does not have.
pub(super) fn carry_over(
    table: Table,
    old: &BpfMap,
    new: &BpfMap,
    late: bool,
) -> std::io::Result<usize> {
    let def = table.def();
    if conntrack::TABLES.contains(&table) {
        return conntrack::carry_over(table, old, new, late);
    }
    match def.kind {
        Kind::Array | Kind::Packed => return carry_array(table, old, new).map(|()| 0),
        // Both count meanwhile, and neither is the whole: they start from zero.
        Kind::PerCpuArray => return Ok(0),
        Kind::Hash | Kind::LruHash | Kind::LpmTrie => {}
    }
    let (key, value) = (old.info().key_size as usize, old.value_bytes());
    let entries = old.read_all()?;
    let total = entries.keys.len() / key;
    let (mut at, mut lost) = (0, 0);
    while at < total {
        let (keys, values) = (&entries.keys[at * key..], &entries.values[at * value..]);
        let written = match late {
            true => insert_each(new, keys, values),
            false => new.update_batch(keys, values),
        };
        let Err(WriteError { done, error }) = written else {
            break;
        };
        match error.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => lost += 1,
            _ => return Err(error),
        }
        at += done + 1;
    }
    Ok(lost)
}

/// Writes entries that the map does not have. One by one: batches take no flags
/// (`generic_map_update_batch`).
fn insert_each(map: &BpfMap, keys: &[u8], values: &[u8]) -> Result<(), WriteError> {
    let keys = keys.chunks_exact(map.info().key_size as usize);
    let pairs = keys.zip(values.chunks_exact(map.value_bytes()));
    for (done, (key, value)) in pairs.enumerate() {
        match map.write(key, value, NOEXIST) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
                return Err(WriteError { done, error });
            }
            _ => {}
        }
    }
    Ok(())
}

fn carry_array(table: Table, old: &BpfMap, new: &BpfMap) -> std::io::Result<()> {
    const CHUNK: u32 = 65_536;
    let mut from = Mapped::of(table, old, false);
    let mut to = Mapped::of(table, new, true);
    let total = from.values().min(to.values());
    let mut values = Vec::new();
    let mut done = 0;
    while done < total {
        let (window, at, left) = to.at(new.fd(), done)?;
        let here = (left as u32).min(total - done).min(CHUNK);
        values.clear();
        from.read(old.fd(), (done, here), &mut values)?;
        window.write(at, &values);
        done += here;
    }
    Ok(())
}

/// Whether a table is written by the agent alone.
pub(super) fn agent_owned(table: Table) -> bool {
    table.def().owner == Owner::Agent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(max_entries: u32) -> Layout {
        Layout::expected(Table::lb_frontends_v1.def(), max_entries)
    }

    #[test]
    fn only_an_equal_map_is_used_as_it_is() {
        assert_eq!(fate(&layout(10), &layout(10)), Fate::Reuse);
        assert_eq!(fate(&layout(10), &layout(20)), Fate::Resize);
        let other_key = Layout {
            key_size: 12,
            ..layout(10)
        };
        assert_eq!(fate(&layout(10), &other_key), Fate::Replace);
        let other_kind = Layout {
            kind: kind_number(Kind::LruHash),
            ..layout(10)
        };
        assert_eq!(fate(&layout(10), &other_kind), Fate::Replace);
        let other_flags = Layout {
            flags: 0,
            ..layout(10)
        };
        assert_eq!(fate(&layout(10), &other_flags), Fate::Replace);
    }
}
