//! What health follows from, and the rules: kube-proxy's, and those for another
//! process that answers in the agent's place.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::time;
use crate::http::Answer;

/// What is known about the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// Every source has been read completely, and is in the maps.
    pub synced: bool,
    /// The Node: whether it leaves the cluster; `None` if there is none.
    pub node: Option<bool>,
    /// A node without a Node takes no new connections.
    pub needs_node: bool,
    /// Whether the node has IPv4, and IPv6.
    pub families: [bool; 2],
    /// Whether the programs do not decide as planned, by the self-test.
    #[serde(default)]
    pub astray: bool,
    /// When the maps were last brought up to date.
    pub updated: Option<SystemTime>,
    /// Since when the oldest change that is not in the maps has been waiting.
    pub queued: Option<SystemTime>,
    /// How long a change may wait, and an agent may be silent.
    pub timeout: Duration,
}

/// Signs of life of an agent, as another process sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// When an agent last said that the facts hold.
    pub vouched: SystemTime,
    /// When one that runs now last gave a sign: also one that has just started, and
    /// knows nothing yet.
    pub alive: Option<SystemTime>,
}

/// Facts, and whose word for them there is: `None` for the agent's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// The facts.
    pub facts: Facts,
    /// What was heard of the agent.
    pub heard: Option<Heard>,
}

/// The body of an answer.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, Family>,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Family {
    last_updated: String,
    healthy: bool,
}

impl Facts {
    /// Nothing is known yet.
    pub fn new(timeout: Duration) -> Self {
        Self {
            synced: false,
            node: None,
            needs_node: false,
            families: [true; 2],
            astray: false,
            updated: None,
            queued: None,
            timeout,
        }
    }

    /// Whether the node stays in the cluster: kube-proxy's `NodeEligible`.
    fn is_eligible(&self) -> bool {
        match self.node {
            Some(leaving) => !leaving,
            None => !self.needs_node,
        }
    }

    /// What `/healthz` is 503 for, of an agent that speaks for itself, and whether it is so
    /// now. Of the Node nothing is known before everything has been read.
    pub fn faults(&self, now: SystemTime) -> [(&'static str, bool); 5] {
        let leaving = self.node == Some(true);
        let missing = self.node.is_none() && self.needs_node;
        let late = self.queued.is_some_and(|since| self.is_late(since, now));
        [
            ("not_synced", !self.synced),
            ("node_missing", self.synced && missing),
            ("node_leaving", leaving),
            ("late", late),
            ("astray", self.astray),
        ]
    }

    /// Whether something was too long ago. A clock that was set back is not late.
    fn is_late(&self, since: SystemTime, now: SystemTime) -> bool {
        now.duration_since(since).is_ok_and(|d| d >= self.timeout)
    }
}

impl View {
    /// Whether the facts hold: an agent says so, or said so a short while ago.
    fn holds(&self, now: SystemTime) -> bool {
        let late = |heard: Heard| self.facts.is_late(heard.vouched, now);
        !self.heard.is_some_and(late)
    }

    /// Whether no change has waited for too long: what `/livez` says. An agent that
    /// has nothing to vouch for yet is alive: it waits for the API server, and the
    /// maps serve.
    pub fn is_alive(&self, now: SystemTime) -> bool {
        let facts = &self.facts;
        if self.holds(now) {
            return !facts.queued.is_some_and(|since| facts.is_late(since, now));
        }
        let sign = self.heard.and_then(|heard| heard.alive);
        sign.is_some_and(|at| !facts.is_late(at, now))
    }

    /// Whether new connections should come to this node: what `/healthz` says.
    pub fn is_healthy(&self, now: SystemTime) -> bool {
        let known = self.facts.synced && self.holds(now);
        known && !self.facts.astray && self.facts.is_eligible() && self.is_alive(now)
    }

    /// The answer to `/healthz`: for load balancers in front of the node.
    pub fn healthz(&self, now: SystemTime) -> Answer {
        let eligible = self.facts.is_eligible();
        self.answer(now, self.is_healthy(now), Some(eligible))
    }

    /// The answer to `/livez`: for the kubelet, which restarts what is not alive.
    pub fn livez(&self, now: SystemTime) -> Answer {
        self.answer(now, self.is_alive(now), None)
    }

    fn answer(&self, now: SystemTime, healthy: bool, node_eligible: Option<bool>) -> Answer {
        let (alive, facts) = (self.is_alive(now), &self.facts);
        let known = facts.synced && self.holds(now);
        let updated = facts
            .updated
            .map_or_else(|| "0001-01-01T00:00:00Z".into(), time);
        let families = [("IPv4", facts.families[0]), ("IPv6", facts.families[1])];
        let has = families
            .into_iter()
            .filter(|(_, has)| *has && facts.updated.is_some());
        let family = |(name, _)| {
            let last_updated = updated.clone();
            let healthy = alive;
            (
                name,
                Family {
                    last_updated,
                    healthy,
                },
            )
        };
        // As kube-proxy: of a healthy proxy it is now, whether or not there was
        // anything to update; of one that is away, when it was last heard.
        let heard = self.heard.map_or(now, |heard| heard.vouched.min(now));
        let body = Body {
            last_updated: if healthy {
                time(heard)
            } else {
                updated.clone()
            },
            current_time: time(now),
            node_eligible,
            // Of `/livez`, the wait for the first objects is no fault.
            healthy: alive && (known || node_eligible.is_none()),
            status: has.map(family).collect(),
        };
        let status = if healthy { 200 } else { 503 };
        // The body is plain data, which always serialises.
        Answer::json(status, serde_json::to_string(&body).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> SystemTime {
        let day = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let far = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { day - far } else { day + far }
    }

    /// What is answered at the time 0 to `/healthz` and `/livez`.
    fn statuses(facts: Facts, vouched: i64, alive: Option<i64>) -> (u16, u16) {
        let heard = Some(Heard {
            vouched: at(vouched),
            alive: alive.map(at),
        });
        let view = View { facts, heard };
        (view.healthz(at(0)).status, view.livez(at(0)).status)
    }

    fn known() -> Facts {
        Facts {
            synced: true,
            node: Some(false),
            needs_node: true,
            updated: Some(at(-500)),
            ..Facts::new(Duration::from_secs(60))
        }
    }

    #[test]
    fn what_an_agent_said_holds_for_as_long_as_a_change_may_wait() {
        for (vouched, alive, expected) in [
            // It says so every second.
            (-1, Some(-1), (200, 200)),
            // It is away, or hangs.
            (-59, None, (200, 200)),
            (-59, Some(-59), (200, 200)),
            (-60, None, (503, 503)),
            (-60, Some(-60), (503, 503)),
            // Another one has started, and knows nothing yet: it is alive, as it would
            // say itself.
            (-30, Some(-1), (200, 200)),
            (-60, Some(-1), (503, 200)),
            (-9999, Some(-1), (503, 200)),
            // The clock was set back.
            (30, None, (200, 200)),
        ] {
            let found = statuses(known(), vouched, alive);
            assert_eq!(found, expected, "{vouched} {alive:?}");
        }
    }

    #[test]
    fn what_was_wrong_when_the_agent_went_is_wrong_while_it_is_away() {
        for (change, expected) in [
            ((|f| f.node = Some(true)) as fn(&mut Facts), (503, 200)),
            (|f| f.node = None, (503, 200)),
            // A change waited; nobody has put it into the maps since.
            (|f| f.queued = Some(at(-59)), (200, 200)),
            (|f| f.queued = Some(at(-60)), (503, 503)),
        ] {
            let mut facts = known();
            change(&mut facts);
            assert_eq!(statuses(facts, -30, None), expected, "{facts:?}");
        }
        // The next agent is not to blame.
        let mut facts = known();
        facts.queued = Some(at(-70));
        assert_eq!(statuses(facts, -60, Some(-1)), (503, 200));
    }

    #[test]
    fn an_agent_is_healthy_when_it_has_no_fault() {
        let faults = |facts: Facts| -> Vec<&str> {
            let all = facts.faults(at(0)).into_iter();
            all.filter(|(_, is)| *is).map(|(name, _)| name).collect()
        };
        type Change = fn(&mut Facts);
        let changes: [(Change, &[&str]); 8] = [
            (|_| (), &[]),
            (|f| f.synced = false, &["not_synced"]),
            (|f| (f.synced, f.node) = (false, None), &["not_synced"]),
            (|f| f.node = None, &["node_missing"]),
            (|f| (f.node, f.needs_node) = (None, false), &[]),
            (|f| f.node = Some(true), &["node_leaving"]),
            (|f| f.queued = Some(at(-60)), &["late"]),
            (|f| f.astray = true, &["astray"]),
        ];
        for (change, expected) in changes {
            let mut facts = known();
            change(&mut facts);
            assert_eq!(faults(facts), expected, "{facts:?}");
            let healthy = View { facts, heard: None }.is_healthy(at(0));
            assert_eq!(healthy, expected.is_empty(), "{facts:?}");
        }
    }

    #[test]
    fn a_body_tells_how_old_its_news_is() {
        let body = |vouched: i64| -> serde_json::Value {
            let heard = Some(Heard {
                vouched: at(vouched),
                alive: None,
            });
            let facts = known();
            let answer = View { facts, heard }.healthz(at(0));
            serde_json::from_str(&answer.body).unwrap()
        };
        let away = body(-42);
        assert_eq!(away["lastUpdated"], "2027-01-15T07:59:18Z");
        assert_eq!(away["currentTime"], "2027-01-15T08:00:00Z");
        assert_eq!(
            away["status"]["IPv4"]["lastUpdated"],
            "2027-01-15T07:51:40Z"
        );
        assert_eq!(away["healthy"], true);
        let gone = body(-60);
        assert_eq!(gone["lastUpdated"], "2027-01-15T07:51:40Z");
        assert_eq!(gone["healthy"], false);
        assert_eq!(gone["status"]["IPv6"]["healthy"], false);
        // What the file system says of a moment ago may be ahead.
        assert_eq!(body(1)["lastUpdated"], "2027-01-15T08:00:00Z");
    }
}
