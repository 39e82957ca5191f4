//! `bascule status`, and `bascule maps`.

use serde::Serialize;

use super::text::{Mood, Side, Table, paint, size};
use crate::agent::state::{Datapath, Status};

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
}

impl MapRow {
    /// Thousandths in use.
    fn fill(&self) -> Option<u64> {
        Some(self.entries? * 1000 / self.capacity.max(1))
    }

    /// Whether there will soon be no room.
    fn is_full(&self) -> bool {
        // A map of one entry is full when it is as it should be.
        self.capacity > 1 && self.owner == AGENT && self.fill().is_some_and(|f| f >= FULL)
    }
}

/// Owner of maps that the agent writes: these refuse objects when they are full.
pub const AGENT: &str = "agent";
/// Owner of maps that the programs write.
pub const DATAPATH: &str = "datapath";
/// Thousandths from which a map counts as full.
const FULL: u64 = 950;

/// Packets that were refused or dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DropRow {
    /// The reason's label.
    pub reason: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// How many packets, since the maps were made.
    pub packets: u64,
}

/// How the node is.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether an agent runs.
    pub running: bool,
    /// Whether another process answers health checks in its place (`bascule health`).
    pub stood_in: bool,
    /// What it said last.
    pub agent: Option<Status>,
    /// Whether anything is not as it should be.
    pub degraded: bool,
    /// The maps.
    pub maps: Vec<MapRow>,
    /// Refused and dropped packets; reasons without any are left out.
    pub drops: Vec<DropRow>,
}

impl Report {
    /// Judges.
    pub fn new(
        running: bool,
        agent: Option<Status>,
        maps: Vec<MapRow>,
        drops: Vec<DropRow>,
    ) -> Self {
        let well = agent.as_ref().is_some_and(|a| {
            let devices = !a.datapath.devices.iter().any(|d| d.failed);
            let nothing_waits = a.synced && a.pending_writes == 0;
            let quiet = a.troubles.is_empty() && a.problem_count == 0;
            devices && nothing_waits && quiet
        });
        let full = maps.iter().any(MapRow::is_full);
        Self {
            running,
            stood_in: false,
            degraded: !running || !well || full,
            agent,
            maps,
            drops,
        }
    }

    /// Says whether another process answers health checks.
    #[must_use]
    pub fn stood_in(self, stood_in: bool) -> Self {
        Self { stood_in, ..self }
    }

    /// For people.
    pub fn text(&self, colour: bool) -> String {
        let mut text = String::new();
        self.agent_text(&mut text, colour);
        let health = match (self.stood_in, self.running) {
            (true, _) => "answered by `bascule health`, also while no agent runs",
            (false, true) => "answered by the agent, and not while it restarts",
            (false, false) => "answered by nobody",
        };
        text.push_str(&format!("Health    {health}\n"));
        if let Some(agent) = &self.agent {
            problems_text(agent, &mut text, colour);
            datapath_text(&agent.datapath, &mut text, colour);
        }
        if !self.drops.is_empty() {
            let columns = [
                ("REFUSED OR DROPPED", Side::Left),
                ("PACKETS", Side::Right),
                ("MEANING", Side::Left),
            ];
            let mut table = Table::new(&columns);
            for d in &self.drops {
                table.row(vec![
                    d.reason.into(),
                    d.packets.to_string(),
                    d.meaning.into(),
                ]);
            }
            text.push('\n');
            text += &table.render();
        }
        text.push('\n');
        text += &maps_text(&self.maps);
        text
    }

    fn agent_text(&self, text: &mut String, colour: bool) {
        let Some(agent) = &self.agent else {
            let never = paint("not running", Mood::Bad, colour);
            text.push_str(&format!("Agent     {never}; it has left no status here (--state-dir). What the maps hold is served.\n"));
            return;
        };
        let state = match self.running {
            true => paint("running", Mood::Good, colour),
            false => paint("not running", Mood::Bad, colour),
        };
        let serves = if self.running {
            ""
        } else {
            "; the programs and maps serve on"
        };
        let (version, node) = (&agent.version, &agent.node);
        text.push_str(&format!(
            "Agent     {state}, version {version}, node {node}, started {}{serves}\n",
            agent.started
        ));
        let sync = match (agent.synced, &agent.last_update) {
            (true, Some(at)) => format!(
                "{}, {} services, last update {at}",
                paint("synced", Mood::Good, colour),
                agent.services
            ),
            _ => format!(
                "{}: waiting for every {}; the maps serve what they held",
                paint("not synced", Mood::Warn, colour),
                agent.waiting_for.join(", ")
            ),
        };
        text.push_str(&format!("Objects   {sync}\n"));
        if agent.pending_writes > 0 {
            let failed = paint("failed", Mood::Bad, colour);
            text.push_str(&format!(
                "Writes    {} {failed} and are tried again\n",
                agent.pending_writes
            ));
        }
    }
}

fn problems_text(agent: &Status, text: &mut String, colour: bool) {
    for trouble in &agent.troubles {
        let word = paint("Trouble", Mood::Bad, colour);
        text.push_str(&format!(
            "{word}   {}: {}\n",
            trouble.place, trouble.message
        ));
    }
    for problem in &agent.problems {
        let word = paint("Problem", Mood::Warn, colour);
        text.push_str(&format!(
            "{word}   {}: {}: {}\n",
            problem.object, problem.reason, problem.message
        ));
    }
    let more = agent.problem_count.saturating_sub(agent.problems.len());
    if more > 0 {
        text.push_str(&format!("          and {more} more problems\n"));
    }
}

fn datapath_text(datapath: &Datapath, text: &mut String, colour: bool) {
    if !datapath.kernel.is_empty() {
        text.push_str(&format!("Kernel    {}\n", datapath.kernel));
    }
    for feature in &datapath.features {
        let word = match feature.present {
            true => paint("yes", Mood::Good, colour),
            false => paint("no", Mood::Warn, colour),
        };
        text.push_str(&format!(
            "          {}: {word} ({})\n",
            feature.name, feature.note
        ));
    }
    for note in &datapath.notes {
        text.push_str(&format!("Note      {note}\n"));
    }
    if datapath.devices.is_empty() {
        return;
    }
    let mut table = Table::new(&["DEVICE", "ROLE", "HOOKS", "WHY"].map(|w| (w, Side::Left)));
    for d in &datapath.devices {
        let hooks = match d.hooks.as_str() {
            "" => "none",
            hooks => hooks,
        };
        table.row(vec![
            d.name.clone(),
            d.role.clone(),
            hooks.into(),
            d.note.clone(),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render());
}

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
