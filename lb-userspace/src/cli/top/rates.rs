//! What happened between two readings, a second. Pure.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use lb_common::{Reason, ServiceCounter};

use crate::bpf::census::Fill;

/// What was read at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The moment, since the first one.
    pub at: Duration,
    /// What was seen.
    pub seen: Seen,
    /// What the user should know of it.
    pub note: Option<String>,
}

/// What was seen, of what is shown.
#[derive(Clone, Debug)]
pub enum Seen {
    /// Services, or the backends of one.
    Counted(Vec<Counted>),
    /// The node.
    Node(Box<Node>),
}

/// A service or a backend, with what it has carried since the maps were made.
#[derive(Clone, PartialEq, Debug)]
pub struct Counted {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Of a backend.
    pub part: Option<Part>,
    /// What it carried.
    pub counter: ServiceCounter,
}

/// What a backend is to its service.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Part {
    /// Whether it runs on this node.
    pub local: bool,
    /// Its part of the slots of the service's tables, from 0 to 1.
    pub share: f64,
}

/// What a node is busy with.
#[derive(Clone, Default, Debug)]
pub struct Node {
    /// Conntrack of IPv4 and IPv6.
    pub conntrack: [Fill; 2],
    /// Ports of SNAT.
    pub snat: Snat,
    /// Refused and dropped packets by reason.
    pub drops: Vec<(Reason, u64)>,
    /// Clients and their flows.
    pub clients: Vec<(IpAddr, u64)>,
}

/// How the ports of SNAT are used. Two flows may have the same port unless they lead to the
/// same backend, so that the backend with the most flows is the first to run out.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Snat {
    /// Flows with SNAT.
    pub flows: u64,
    /// The backend with the most of them.
    pub most: Option<(String, u64)>,
    /// Ports that there are.
    pub ports: u64,
}

/// What something carries a second.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Rates {
    /// New flows.
    pub connections: f64,
    /// Packets, both directions.
    pub packets: f64,
    /// Bytes, both directions.
    pub bytes: f64,
}

impl Rates {
    fn between(before: &ServiceCounter, now: &ServiceCounter, seconds: f64) -> Self {
        Self {
            connections: rate(before.connections, now.connections, seconds),
            packets: rate(before.packets, now.packets, seconds),
            bytes: rate(before.bytes, now.bytes, seconds),
        }
    }
}

/// A counter that is lower than it was began anew: the maps were made again.
fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    now.checked_sub(before).unwrap_or(now) as f64 / seconds
}

/// A service or a backend.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Of a backend.
    pub part: Option<Part>,
    /// What it carries; `None` until it has been read twice.
    pub rates: Option<Rates>,
}

/// A reason for refusing or dropping.
#[derive(Clone, PartialEq, Debug)]
pub struct Dropped {
    /// The reason.
    pub reason: Reason,
    /// Packets a second; `None` until they have been read twice.
    pub rate: Option<f64>,
    /// Packets since the maps were made.
    pub packets: u64,
}

/// What is remembered of a reading for the next one.
#[derive(Clone, Default, Debug)]
pub struct Before {
    at: Duration,
    counters: BTreeMap<u32, ServiceCounter>,
    drops: BTreeMap<Reason, u64>,
}

impl Before {
    /// Of a reading.
    pub fn of(reading: &Reading) -> Self {
        let mut before = Self {
            at: reading.at,
            ..Self::default()
        };
        match &reading.seen {
            Seen::Counted(all) => {
                before.counters = all.iter().map(|c| (c.id, c.counter)).collect();
            }
            Seen::Node(node) => before.drops = node.drops.iter().copied().collect(),
        }
        before
    }

    fn seconds(&self, now: Duration) -> Option<f64> {
        let seconds = now.checked_sub(self.at)?.as_secs_f64();
        (seconds > 0.0).then_some(seconds)
    }

    /// Services or backends of the next reading.
    pub fn rows(&self, at: Duration, counted: &[Counted]) -> Vec<Row> {
        let seconds = self.seconds(at);
        let row = |c: &Counted| Row {
            id: c.id,
            name: c.name.clone(),
            part: c.part,
            rates: self
                .counters
                .get(&c.id)
                .zip(seconds)
                .map(|(before, seconds)| Rates::between(before, &c.counter, seconds)),
        };
        counted.iter().map(row).collect()
    }

    /// Reasons of the next reading, the busiest first.
    pub fn drops(&self, at: Duration, counted: &[(Reason, u64)]) -> Vec<Dropped> {
        let seconds = self.seconds(at);
        let drop = |(reason, packets): &(Reason, u64)| Dropped {
            reason: *reason,
            rate: self
                .drops
                .get(reason)
                .zip(seconds)
                .map(|(before, seconds)| rate(*before, *packets, seconds)),
            packets: *packets,
        };
        let mut drops: Vec<Dropped> = counted.iter().map(drop).collect();
        let order = |d: &Dropped| (d.rate.unwrap_or(0.0), d.packets as f64);
        drops.sort_by(|a, b| {
            let ((a, of_a), (b, of_b)) = (order(a), order(b));
            b.total_cmp(&a).then(of_b.total_cmp(&of_a))
        });
        drops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Duration = Duration::from_millis;

    fn counter(connections: u64, packets: u64, bytes: u64) -> ServiceCounter {
        ServiceCounter {
            packets,
            bytes,
            connections,
        }
    }

    fn counted(id: u32, counter: ServiceCounter) -> Counted {
        Counted {
            id,
            name: format!("s{id}"),
            part: None,
            counter,
        }
    }

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let before = vec![
            counted(1, counter(10, 100, 1000)),
            counted(2, counter(5, 50, 500)),
        ];
        let before = Before::of(&Reading {
            at: AT(1000),
            seen: Seen::Counted(before),
            note: None,
        });
        let rates = |connections, packets, bytes| Rates {
            connections,
            packets,
            bytes,
        };
        for (id, now, at, expected) in [
            (
                1,
                counter(30, 140, 4000),
                3000,
                Some(rates(10.0, 20.0, 1500.0)),
            ),
            (1, counter(10, 100, 1000), 1500, Some(rates(0.0, 0.0, 0.0))),
            (1, counter(11, 102, 1003), 1500, Some(rates(2.0, 4.0, 6.0))),
            // The maps were made again: what they count began at 0.
            (2, counter(1, 4, 600), 3000, Some(rates(0.5, 2.0, 50.0))),
            // It was not there.
            (3, counter(9, 9, 9), 3000, None),
            // No time has gone by.
            (1, counter(30, 140, 4000), 1000, None),
        ] {
            let rows = before.rows(AT(at), &[counted(id, now)]);
            assert_eq!(rows[0].rates, expected, "{id} at {at}");
        }
        let first = Before::default().rows(AT(0), &[counted(1, counter(1, 1, 1))]);
        assert_eq!(first[0].rates, None, "nothing was read before");
    }

    #[test]
    fn the_busiest_reason_comes_first() {
        let node = |drops: &[(Reason, u64)]| Reading {
            at: AT(0),
            seen: Seen::Node(Box::new(Node {
                drops: drops.to_vec(),
                ..Node::default()
            })),
            note: None,
        };
        let before = Before::of(&node(&[
            (Reason::NoEndpoints, 1000),
            (Reason::SourceRange, 10),
            (Reason::Malformed, 20),
        ]));
        let drops = before.drops(
            AT(2000),
            &[
                (Reason::NoEndpoints, 1000),
                (Reason::SourceRange, 16),
                (Reason::Malformed, 20),
                (Reason::NoRoute, 7),
            ],
        );
        let seen: Vec<_> = drops.iter().map(|d| (d.reason, d.rate)).collect();
        let expected = [
            (Reason::SourceRange, Some(3.0)),
            (Reason::NoEndpoints, Some(0.0)),
            (Reason::Malformed, Some(0.0)),
            (Reason::NoRoute, None),
        ];
        assert_eq!(seen, expected);
    }
}
