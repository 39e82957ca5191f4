//! What is not as it should be on a node, and what to do about it. Pure.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{
    maps::{AGENT, MapRow},
    status::Seen,
    text::duration,
};
use crate::{
    agent::state::{Datapath, Status},
    bpf::table::Table,
    health::View,
};

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What it is.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// Thousandths from which a map that the agent writes counts as full.
const FULL: u64 = 950;
/// The same of conntrack: some flows find their bucket full then.
const CONNTRACK_FULL: u64 = 600;

/// All of them, what matters most first.
pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    found.extend(presence(seen));
    if let Ok(Some(agent)) = &seen.agent {
        // What is not read by an agent that is gone is not waited for.
        if seen.running {
            found.extend(seen.health.and_then(|view| silence(&view, seen.now)));
            found.extend(waiting(agent));
        }
        found.extend(hooks(&agent.datapath));
    }
    found.extend(seen.unread.iter().map(|why| {
        Finding::new(
            why,
            "everything else is shown; the agent's pod has the binary of its version",
        )
    }));
    found.extend(seen.maps.iter().filter_map(fullness));
    if let Ok(Some(agent)) = &seen.agent {
        found.extend(objects(agent));
    }
    found
}

fn presence(seen: &Seen) -> Option<Finding> {
    match (&seen.agent, seen.running) {
        (Err(why), _) => Some(Finding::new(
            format!("what the agent says cannot be read: {why}"),
            "read it as the agent's user, of its version, and with its --state-dir",
        )),
        (_, false) => Some(Finding::new(
            "no agent runs: the programs and maps serve on, and changes are not followed",
            "start it (`bascule agent`), or see why its pod has ended (`kubectl logs --previous`)",
        )),
        (Ok(None), true) => Some(Finding::new(
            "the agent runs and has said nothing yet",
            "wait some seconds; if that stays so, see its log",
        )),
        (Ok(Some(_)), true) => None,
    }
}

/// A running agent that gives no sign of life, or does not get changes done.
fn silence(view: &View, now: SystemTime) -> Option<Finding> {
    if view.is_alive(now) {
        return None;
    }
    let age = |at| now.duration_since(at).unwrap_or_default();
    let seconds = |age: Duration| duration(age.as_secs());
    let silent = view.heard.map(|heard| age(heard.vouched));
    let restart = "restart it: the programs and maps serve on meanwhile";
    Some(
        match silent.filter(|silent| *silent >= view.facts.timeout) {
            Some(silent) => Finding::new(
                format!(
                    "the agent runs and has given no sign for {}",
                    seconds(silent)
                ),
                restart,
            ),
            None => {
                let queued = view.facts.queued.map(age).unwrap_or_default();
                Finding::new(
                    format!(
                        "a change has been waiting for {} to be in the maps",
                        seconds(queued)
                    ),
                    format!("see the last errors; if there are none, {restart}"),
                )
            }
        },
    )
}

fn waiting(agent: &Status) -> Vec<Finding> {
    let mut found = Vec::new();
    if !agent.synced {
        let kinds = agent.waiting_for.join(", ");
        found.push(Finding::new(
            format!("not every {kinds} has been read: the maps serve what they held"),
            "see that the API server answers, and that the agent may list and watch them",
        ));
    }
    if agent.pending_writes > 0 {
        found.push(Finding::new(
            format!(
                "{} writes to maps failed and are tried again",
                agent.pending_writes
            ),
            "see the last errors: they name the object and the flag of a map that is full",
        ));
    }
    let trouble = agent.troubles.iter().map(|t| {
        Finding::new(
            format!("{}: {}", t.place, t.message),
            "what is known stays in force; correct the place, and it is read again",
        )
    });
    found.extend(trouble);
    found
}

fn hooks(datapath: &Datapath) -> Vec<Finding> {
    let failed = datapath.devices.iter().filter(|d| d.failed);
    let devices = failed.map(|d| {
        Finding::new(
            format!("{} {} has not all of its hooks: {}", d.role, d.name, d.note),
            "correct what the kernel names: hooks are tried again when the device changes",
        )
    });
    let sockets = datapath.refused().map(|(program, why)| {
        Finding::new(
            format!("the socket hook {program} is not attached: {why}"),
            "correct that and restart the agent, or give --socket-lb off: packets are served then",
        )
    });
    devices.chain(sockets).collect()
}

fn fullness(map: &MapRow) -> Option<Finding> {
    // A map of one entry is full when it is as it should be.
    let fill = map.fill().filter(|_| map.capacity > 1)?;
    let conntrack = [Table::lb_ct4_v1, Table::lb_ct6_v1].map(Table::name);
    let (limit, meaning) = match map.owner {
        AGENT => (FULL, "what has no room is not served"),
        _ if conntrack.contains(&&*map.name) => (CONNTRACK_FULL, "some new flows are refused"),
        // Others give the room of what was used longest ago.
        _ => return None,
    };
    let MapRow { name, setting, .. } = map;
    (fill >= limit).then(|| {
        Finding::new(
            format!("{name} is {}.{} % full: {meaning}", fill / 10, fill % 10),
            format!("raise {setting} and restart the agent"),
        )
    })
}

fn objects(agent: &Status) -> Option<Finding> {
    let (count, first) = (agent.problem_count, agent.problems.first());
    let example = first.map(|p| format!(": {}: {}", p.object, p.message));
    (count > 0).then(|| {
        Finding::new(
            format!("{count} problems of objects{}", example.unwrap_or_default()),
            "correct the objects that are named below; everything else is served",
        )
    })
}
