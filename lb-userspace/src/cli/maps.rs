//! `bascule maps`. Pure.

use lb_common::schema::Owner;
use serde::Serialize;

use super::text::{Side, Table, size};

/// A map.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MapRow {
    /// Its name, which is that of its pin.
    pub name: String,
    /// What it holds.
    pub holds: String,
    /// Who writes it.
    pub owner: &'static str,
    /// Entries in use.
    pub entries: Option<u64>,
    /// Most entries.
    pub capacity: u64,
    /// Memory in the kernel, in bytes.
    pub bytes: u64,
    /// The flag of the agent that sets how many entries there can be.
    pub setting: &'static str,
}

impl MapRow {
    /// Thousandths in use.
    pub(super) fn fill(&self) -> Option<u64> {
        Some(self.entries? * 1000 / self.capacity.max(1))
    }
}

/// Owner of maps that the agent writes: these refuse objects when they are full.
pub const AGENT: &str = Owner::Agent.name();
/// Owner of maps that the programs write.
pub const DATAPATH: &str = Owner::Datapath.name();

/// Maps as text.
pub fn maps_text(maps: &[MapRow]) -> String {
    let columns = [
        ("MAP", Side::Left),
        ("ENTRIES", Side::Right),
        ("OF", Side::Right),
        ("FILL", Side::Right),
        ("MEMORY", Side::Right),
        ("WRITTEN BY", Side::Left),
        ("HOLDS", Side::Left),
    ];
    let mut table = Table::new(&columns);
    for map in maps {
        let fill = map
            .fill()
            .map_or_else(|| "-".into(), |f| format!("{}.{} %", f / 10, f % 10));
        table.row(vec![
            map.name.clone(),
            map.entries.map_or_else(|| "-".into(), |n| n.to_string()),
            map.capacity.to_string(),
            fill,
            size(map.bytes),
            map.owner.into(),
            map.holds.clone(),
        ]);
    }
    table.render()
}
