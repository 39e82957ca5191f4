//! `bascule status`. Pure.

use std::time::SystemTime;

use serde::Serialize;

use super::{
    findings::{Finding, findings},
    maps::{MapRow, maps_text},
    text::{Mood, Side, Table, duration, paint},
};
use crate::{
    agent::state::{Datapath, Status},
    health::{self, View},
    log::recent::Line,
};

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

/// What was seen of a node.
#[derive(Debug)]
pub struct Seen {
    /// Whether an agent runs.
    pub running: bool,
    /// Whether another process answers health checks in its place (`bascule health`).
    pub stood_in: bool,
    /// What the agent said last, if it ever did; or why that cannot be read.
    pub agent: Result<Option<Status>, String>,
    /// What health checks follow from, if an agent has said that.
    pub health: Option<View>,
    /// The maps that can be read.
    pub maps: Vec<MapRow>,
    /// What is wrong with the others.
    pub unread: Vec<String>,
    /// Refused and dropped packets; reasons without any are left out.
    pub drops: Vec<DropRow>,
    /// The last lines of the agent's log.
    pub log: Vec<Line>,
    /// The time.
    pub now: SystemTime,
}

/// How a node is, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Well,
    /// Something is not as it should be.
    Degraded,
    /// It cannot be told.
    Unknown,
}

/// What health checks say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Health {
    /// Whether `/healthz` is 200: new connections should come to this node.
    pub healthy: bool,
    /// Whether `/livez` is.
    pub alive: bool,
}

/// How the node is.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this command; the agent's is in its status.
    pub version: &'static str,
    /// In a word.
    pub verdict: Verdict,
    /// Whether anything is not as it should be.
    pub degraded: bool,
    /// What is not, and what to do about it.
    pub findings: Vec<Finding>,
    /// Whether an agent runs.
    pub running: bool,
    /// Whether another process answers health checks in its place (`bascule health`).
    pub stood_in: bool,
    /// What health checks say, if an agent has said what they follow from.
    pub health: Option<Health>,
    /// What it said last.
    pub agent: Option<Status>,
    /// Seconds since the maps were last brought up to date.
    pub update_age: Option<u64>,
    /// The last lines of the agent's log that tell of something wrong, the oldest first.
    pub errors: Vec<Line>,
    /// The maps.
    pub maps: Vec<MapRow>,
    /// Refused and dropped packets; reasons without any are left out.
    pub drops: Vec<DropRow>,
}

/// Lines of the log that are shown.
const ERRORS: usize = 5;

impl Report {
    /// Judges.
    pub fn new(seen: Seen) -> Self {
        let findings = findings(&seen);
        let agent = seen.agent.as_ref().ok().and_then(Option::as_ref);
        let updated = agent.and_then(|a| health::parse_time(a.last_update.as_deref()?));
        let age = updated.map(|at| seen.now.duration_since(at).unwrap_or_default().as_secs());
        let bad = seen.log.iter().filter(|line| line.is_bad());
        let mut errors: Vec<Line> = bad.rev().take(ERRORS).cloned().collect();
        errors.reverse();
        Self {
            version: env!("BASCULE_VERSION"),
            verdict: match (&seen.agent, findings.is_empty()) {
                (Err(_), _) => Verdict::Unknown,
                (Ok(_), true) => Verdict::Well,
                (Ok(_), false) => Verdict::Degraded,
            },
            degraded: !findings.is_empty(),
            findings,
            running: seen.running,
            stood_in: seen.stood_in,
            health: seen.health.map(|view| Health {
                healthy: view.is_healthy(seen.now),
                alive: view.is_alive(seen.now),
            }),
            update_age: age,
            agent: seen.agent.unwrap_or_default(),
            errors,
            maps: seen.maps,
            drops: seen.drops,
        }
    }

    /// For people.
    pub fn text(&self, colour: bool) -> String {
        let mut text = format!(
            "Bascule   {}: {}\n",
            self.version,
            self.verdict_text(colour)
        );
        for finding in &self.findings {
            text.push_str(&format!(
                "          {}\n          → {}\n",
                finding.what, finding.remedy
            ));
        }
        self.agent_text(&mut text, colour);
        text.push_str(&format!("Health    {}\n", self.health_text()));
        if let Some(agent) = &self.agent {
            problems_text(agent, &mut text, colour);
            sockets_text(&agent.datapath, &mut text, colour);
            datapath_text(&agent.datapath, &mut text, colour);
        }
        if !self.errors.is_empty() {
            text.push_str("\nLAST ERRORS\n");
            let line = |l: &Line| format!("{}  {}  {}\n", l.at, l.level, l.message);
            text.extend(self.errors.iter().map(line));
        }
        if !self.drops.is_empty() {
            text.push('\n');
            text += &drops_text(&self.drops);
        }
        text.push('\n');
        text += &maps_text(&self.maps);
        text
    }

    fn verdict_text(&self, colour: bool) -> String {
        match self.verdict {
            Verdict::Well => paint("well", Mood::Good, colour),
            Verdict::Degraded => paint("degraded", Mood::Bad, colour),
            Verdict::Unknown => paint("cannot tell how it is", Mood::Bad, colour),
        }
    }

    fn health_text(&self) -> String {
        let who = match (self.stood_in, self.running) {
            (true, _) => "answered by `bascule health`, also while no agent runs",
            (false, true) => "answered by the agent, and not while it restarts",
            (false, false) => "answered by nobody",
        };
        let status = |well| if well { 200 } else { 503 };
        match self.health.filter(|_| self.stood_in || self.running) {
            Some(h) => format!(
                "/healthz {}, /livez {}, {who}",
                status(h.healthy),
                status(h.alive)
            ),
            None => who.to_owned(),
        }
    }

    fn agent_text(&self, text: &mut String, colour: bool) {
        let state = match self.running {
            true => paint("running", Mood::Good, colour),
            false => paint("not running", Mood::Bad, colour),
        };
        let Some(agent) = &self.agent else {
            text.push_str(&format!(
                "Agent     {state}; there is no status of it here (--state-dir)\n"
            ));
            return;
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
                "{}, {} services, last update {at}{}",
                paint("synced", Mood::Good, colour),
                agent.services,
                self.update_age
                    .map_or_else(String::new, |age| format!(", {} ago", duration(age)))
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

fn sockets_text(datapath: &Datapath, text: &mut String, colour: bool) {
    let served = match datapath.socket_lb.as_str() {
        "all" => "all connect straight to backends",
        "host" => "the node's own connect straight to backends; pods are served packet by packet",
        "off" => "none connects straight to a backend (--socket-lb off)",
        // An agent of a version that did not say it.
        _ => return,
    };
    let well = datapath.sockets.iter().filter(|hook| hook.error.is_none());
    let names: Vec<&str> = well.map(|hook| hook.program.as_str()).collect();
    text.push_str(&format!("Sockets   {served}\n"));
    if !names.is_empty() {
        text.push_str(&format!("          {}\n", names.join(" ")));
    }
    for (program, why) in datapath.refused() {
        let word = paint("not attached", Mood::Bad, colour);
        text.push_str(&format!("          {program} {word}: {why}\n"));
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

fn drops_text(drops: &[DropRow]) -> String {
    let columns = [
        ("REFUSED OR DROPPED", Side::Left),
        ("PACKETS", Side::Right),
        ("MEANING", Side::Left),
    ];
    let mut table = Table::new(&columns);
    for d in drops {
        table.row(vec![
            d.reason.into(),
            d.packets.to_string(),
            d.meaning.into(),
        ]);
    }
    table.render()
}
