//! What is measured of a proxy, and what the agent must reach.

use std::collections::HashMap;

use super::super::report::thousands;
use super::super::stats::{Row, Target};
use super::SUITE;
use super::proxy::Kind;
use super::session::Figures;

/// A figure of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Figure {
    Cold,
    ColdCpu,
    ColdMemory,
    Listed,
    Maps,
    Change,
    Change99,
    ChangeCpu,
    Watched,
    Beside,
    Beside99,
    Latency,
    BesideFailed,
    ChurnCpu,
    Explain,
    Status,
    List,
    Restart,
    RestartCpu,
    RestartMemory,
    RestartFailed,
}

/// A figure's name, unit, and most with 10,000 and with 44,000 services.
type About = (Figure, &'static str, &'static str, Option<f64>, Option<f64>);

#[rustfmt::skip]
const ALL: [About; 21] = [
    (Figure::Cold, "cold start to the first right answer", "s", Some(1.5), Some(6.0)),
    (Figure::ColdCpu, "CPU of a cold start", "s", Some(2.0), Some(9.0)),
    (Figure::ColdMemory, "resident memory after a cold start", "MiB", Some(90.0), Some(250.0)),
    (Figure::Listed, "received from the API server at a cold start", "MiB", None, None),
    (Figure::Maps, "memory of the maps", "MiB", None, None),
    (Figure::Change, "one endpoint's change to the first connection, median", "ms", Some(10.0), Some(10.0)),
    (Figure::Change99, "one endpoint's change to the first connection, 99th percentile", "ms", Some(25.0), Some(30.0)),
    (Figure::ChangeCpu, "CPU of one endpoint's change", "ms", Some(2.0), Some(3.0)),
    (Figure::Watched, "received from the API server for one change", "KiB", None, None),
    (Figure::Beside, "the same change beside 2,000 new connections a second, median", "ms", Some(12.0), None),
    (Figure::Beside99, "the same change beside 2,000 new connections a second, 99th percentile", "ms", Some(40.0), None),
    (Figure::Latency, "latency of those connections, 99.9th percentile", "ms", Some(3.0), None),
    (Figure::BesideFailed, "those connections that failed", "", Some(0.0), Some(0.0)),
    (Figure::ChurnCpu, "CPU of a minute with 100 changes a second", "s", None, None),
    (Figure::Explain, "`bascule explain`, from a pod to a service by its name", "ms", Some(50.0), None),
    (Figure::Status, "`bascule status`", "ms", Some(300.0), None),
    (Figure::List, "`bascule service list`", "ms", Some(300.0), None),
    (Figure::Restart, "restart until a change made meanwhile is served", "s", Some(1.5), Some(6.0)),
    (Figure::RestartCpu, "CPU of a restart", "s", None, None),
    (Figure::RestartMemory, "resident memory after a restart", "MiB", Some(90.0), Some(250.0)),
    (Figure::RestartFailed, "connections that failed during a restart", "", Some(0.0), Some(0.0)),
];

/// What all proxies came to with so many services, by repetition.
pub(super) type Samples = HashMap<Kind, Vec<Figures>>;

/// The rows of a size, those of the agent first.
pub(super) fn rows(services: u32, samples: &Samples) -> Vec<Row> {
    let kinds = [Kind::Bascule, Kind::Nftables, Kind::Iptables];
    let of = |kind| {
        ALL.iter()
            .filter_map(move |about| row(services, kind, about, samples))
    };
    kinds.into_iter().flat_map(of).collect()
}

/// The names of a size's rows of the agent.
pub(super) fn names(services: u32) -> impl Iterator<Item = String> {
    ALL.iter().map(move |(_, name, ..)| case(services, name))
}

fn case(services: u32, name: &str) -> String {
    format!("{} services: {name}", thousands(services))
}

fn row(services: u32, kind: Kind, about: &About, samples: &Samples) -> Option<Row> {
    let (figure, name, unit, ..) = about;
    let all = |kind: Kind| -> Vec<f64> {
        let sessions = samples.get(&kind).into_iter().flatten();
        sessions.filter_map(|s| s.get(figure).copied()).collect()
    };
    let own = case(services, name);
    let case = match kind {
        Kind::Bascule => own,
        peer => format!("{own}, {}", peer.name()),
    };
    let mut row = Row::new(SUITE, case, unit);
    row.samples = all(kind);
    row.by_max = matches!(figure, Figure::BesideFailed | Figure::RestartFailed);
    if kind == Kind::Bascule {
        let peer = all(Kind::Nftables);
        // Failures are to be none, whoever has how many.
        if !peer.is_empty() && !row.by_max {
            row.reference = Some((Kind::Nftables.name().to_owned(), peer));
        }
        row.target = limit(services, about).map(Target::AtMost);
        row.of_value = true;
    }
    (!row.samples.is_empty()).then_some(row)
}

/// What is to be reached; smaller clusters than those that are named have no limit of their
/// own.
fn limit(services: u32, &(.., small, large): &About) -> Option<f64> {
    match services {
        10_000 => small,
        44_000 => large,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(cold: f64, failed: f64) -> Figures {
        [(Figure::Cold, cold), (Figure::RestartFailed, failed)].into()
    }

    #[test]
    fn the_agent_is_compared_with_kube_proxy_and_judged_by_itself() {
        let samples: Samples = [
            (
                Kind::Bascule,
                vec![figures(1.0, 0.0), figures(1.2, 1.0), figures(1.1, 0.0)],
            ),
            (Kind::Nftables, vec![figures(11.0, 0.0), figures(12.0, 0.0)]),
        ]
        .into();
        let rows = rows(10_000, &samples);
        let names: Vec<&str> = rows.iter().map(|r| r.case.as_str()).collect();
        assert_eq!(
            names[0],
            "10,000 services: cold start to the first right answer"
        );
        assert!(
            names[2].ends_with("right answer, kube-proxy nftables"),
            "{names:?}"
        );
        assert_eq!((rows[0].met(), rows[1].met()), (Some(true), Some(false)));
        assert!(rows[0].ratio().unwrap() < 0.11 && rows[1].ratio().is_none());
        assert_eq!((rows.len(), rows[2].met()), (4, None));
    }
}
