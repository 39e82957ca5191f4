//! Whether a row did what it should: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::client::Report;
use super::rows::{Expect, Row};

/// Standard deviations that a backend's count may be off. A count of independent choices is
/// beyond five of them about once in a million.
const SIGMAS: f64 = 5.0;
/// How far a backend's part of the maglev table may be from its fair part (Eisenbud et al.,
/// NSDI'16, section 5.3: below 2 % at a hundred slots a backend).
const TABLE_ERROR: f64 = 0.02;
/// The fair number of connections from which on none at all is wrong, whatever the bound:
/// exp(-14), too, is one in a million.
const NEVER_NONE: f64 = 14.0;

/// Datagrams of a row that may be lost. A host that is not given its CPUs loses one at times,
/// as it does a SYN, of which only its slowness tells.
const MOST_RESENT: u64 = 1;
/// In a row that goes on, one of so many.
const RESENT_ONE_OF: u64 = 240;

/// What happened in a row so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// Answers by pod.
    pub backends: BTreeMap<String, u64>,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
    /// Addresses that the pods saw.
    pub clients: BTreeSet<IpAddr>,
    /// Datagrams that were answered when they were sent once more.
    pub resent: u64,
    /// Microseconds of the last report: median and slowest of a hundred.
    pub latency_us: (u64, u64),
    /// Nanoseconds that the packet programs ran, and how often.
    pub programs: (u64, u64),
}

impl Tally {
    /// Adds a report.
    pub(crate) fn add(&mut self, report: &Report, programs: (u64, u64)) {
        for (pod, n) in &report.backends {
            *self.backends.entry(pod.clone()).or_default() += n;
        }
        for (kind, n) in &report.errors {
            *self.errors.entry(kind.clone()).or_default() += n;
        }
        self.clients.extend(&report.clients);
        self.resent += report.resent;
        self.latency_us = (report.p50_us, report.p99_us);
        self.programs.0 += programs.0;
        self.programs.1 += programs.1;
    }

    /// Adds another place's tally of the same frontend.
    pub(crate) fn merge(&mut self, other: &Self) {
        let report = Report {
            backends: other.backends.clone(),
            errors: other.errors.clone(),
            clients: other.clients.clone(),
            resent: other.resent,
            p50_us: self.latency_us.0.max(other.latency_us.0),
            p99_us: self.latency_us.1.max(other.latency_us.1),
        };
        self.add(&report, other.programs);
    }

    /// Connections that were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.backends.values().sum()
    }

    /// Connections that were not.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Nanoseconds that a packet cost in the programs it met; `None` before any was counted.
    pub(crate) fn ns_per_packet(&self) -> Option<u64> {
        self.programs.0.checked_div(self.programs.1)
    }
}

/// How far from its fair share of `total` connections one of `backends` may be, in
/// connections.
pub(crate) fn tolerance(total: u64, backends: usize) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of connections are far below 2^52"
    )]
    let (n, k) = (total as f64, backends.max(1) as f64);
    let p = 1.0 / k;
    SIGMAS * (n * p * (1.0 - p)).sqrt() + TABLE_ERROR * n * p
}

/// Judges a row.
///
/// # Errors
/// One sentence that says what was expected and what came.
pub(crate) fn judge(row: &Row, tally: &Tally) -> Result<(), String> {
    let (answered, failed) = (tally.answered(), tally.failed());
    match &row.expect {
        Expect::Refused => only_error(tally, "refused"),
        Expect::Dropped => only_error(tally, "timeout"),
        Expect::Redirected => only_error(tally, "redirected"),
        _ if failed > 0 => Err(format!(
            "{failed} of {} connections failed: {}",
            answered + failed,
            list(&tally.errors)
        )),
        _ if answered == 0 => Err("nothing was sent".to_owned()),
        _ if tally.resent > MOST_RESENT.max(answered / RESENT_ONE_OF) => Err(format!(
            "{} of {answered} datagrams had to be sent twice",
            tally.resent
        )),
        Expect::Sticky(pods) => {
            strangers(pods, tally)?;
            if tally.backends.len() == 1 {
                return client_seen(row, tally);
            }
            Err(format!(
                "one client was sent to several backends: {}",
                list(&tally.backends)
            ))
        }
        Expect::Spread(pods) => {
            strangers(pods, tally)?;
            shares(pods, tally)?;
            client_seen(row, tally)
        }
    }
}

fn only_error(tally: &Tally, kind: &str) -> Result<(), String> {
    let wanted = tally.errors.get(kind).copied().unwrap_or_default();
    let all = tally.answered() + tally.failed();
    if all == 0 {
        return Err("nothing was sent".to_owned());
    }
    if wanted == all {
        return Ok(());
    }
    let what = match kind {
        "refused" => "to be refused",
        "redirected" => "to be redirected",
        _ => "no answer",
    };
    let mut got = tally.backends.clone();
    got.extend(tally.errors.clone());
    Err(format!("expected {what}, got {}", list(&got)))
}

fn strangers(pods: &BTreeSet<String>, tally: &Tally) -> Result<(), String> {
    match tally.backends.keys().find(|name| !pods.contains(*name)) {
        Some(name) => Err(format!("{name} answered and is no backend here")),
        None => Ok(()),
    }
}

fn shares(pods: &BTreeSet<String>, tally: &Tally) -> Result<(), String> {
    let total = tally.answered();
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of connections are far below 2^52"
    )]
    let fair = total as f64 / pods.len() as f64;
    let tolerance = tolerance(total, pods.len());
    for pod in pods {
        let got = tally.backends.get(pod).copied().unwrap_or_default();
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of connections are far below 2^52"
        )]
        let off = (got as f64 - fair).abs();
        if off > tolerance || (got == 0 && fair >= NEVER_NONE) {
            return Err(format!(
                "{pod} got {got} of {total} connections; fair is {fair:.0} ± {tolerance:.0}"
            ));
        }
    }
    Ok(())
}

fn client_seen(row: &Row, tally: &Tally) -> Result<(), String> {
    let Some(client) = row.client else {
        return Ok(());
    };
    match tally.clients.iter().find(|c| **c != client) {
        Some(other) => Err(format!(
            "the backend saw the client as {other}, not as {client}"
        )),
        None => Ok(()),
    }
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "nothing".to_owned();
    }
    counts
        .iter()
        .map(|(name, n)| format!("{n} {name}"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Kind, Proto, RowKey};
    use super::super::topology::Place;
    use super::*;

    fn row(expect: Expect) -> Row {
        let key = RowKey {
            service: "default/web".to_owned(),
            kind: Kind::ClusterIp,
            ask: None,
            proto: Proto::Tcp,
            target: "10.96.0.10:80".parse().unwrap(),
            place: Place::Pod,
        };
        Row {
            key,
            expect,
            client: None,
        }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn tally(backends: &[(&str, u64)], errors: &[(&str, u64)]) -> Tally {
        let own = |list: &[(&str, u64)]| list.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect();
        Tally {
            backends: own(backends),
            errors: own(errors),
            ..Tally::default()
        }
    }

    #[test]
    fn the_bound_is_five_deviations_and_the_tables_error() {
        // 240 connections over 3: deviation sqrt(240/3 * 2/3) = 7.303, 2 % of 80 is 1.6.
        assert!(
            (tolerance(240, 3) - 38.11).abs() < 0.01,
            "{}",
            tolerance(240, 3)
        );
        assert!((tolerance(240, 1) - 4.8).abs() < 0.01);
    }

    #[test]
    fn fair_shares_pass_and_skewed_ones_do_not() {
        let row = row(Expect::Spread(names(&["a", "b", "c"])));
        assert_eq!(
            judge(&row, &tally(&[("a", 90), ("b", 70), ("c", 80)], &[])),
            Ok(())
        );
        let error = judge(&row, &tally(&[("a", 140), ("b", 50), ("c", 50)], &[])).unwrap_err();
        assert_eq!(error, "a got 140 of 240 connections; fair is 80 ± 38");
        let error = judge(&row, &tally(&[("a", 120), ("b", 120)], &[])).unwrap_err();
        assert!(
            error.contains("a got 120 of 240") || error.contains("c got 0"),
            "{error}"
        );
    }

    #[test]
    fn few_connections_may_miss_a_backend_and_many_may_not() {
        let pods: BTreeSet<String> = (0..10).map(|n| n.to_string()).collect();
        let nine = |n: u64| Tally {
            backends: pods.iter().skip(1).map(|p| (p.clone(), n)).collect(),
            ..Tally::default()
        };
        let row = row(Expect::Spread(pods.clone()));
        assert_eq!(judge(&row, &nine(2)), Ok(()));
        assert!(
            judge(&row, &nine(16))
                .unwrap_err()
                .starts_with("0 got 0 of 144")
        );
    }

    #[test]
    fn an_answer_of_a_stranger_and_any_failure_are_errors() {
        let row = row(Expect::Spread(names(&["a"])));
        assert_eq!(
            judge(&row, &tally(&[("z", 10)], &[])).unwrap_err(),
            "z answered and is no backend here"
        );
        let error = judge(&row, &tally(&[("a", 9)], &[("timeout", 1)])).unwrap_err();
        assert_eq!(error, "1 of 10 connections failed: 1 timeout");
        assert!(judge(&row, &tally(&[], &[])).is_err());
    }

    #[test]
    fn one_datagram_may_be_lost_and_no_more() {
        let row = row(Expect::Spread(names(&["a"])));
        let lost = |answered, resent| Tally {
            resent,
            ..tally(&[("a", answered)], &[])
        };
        assert_eq!(judge(&row, &lost(48, 1)), Ok(()));
        let error = judge(&row, &lost(240, 2)).unwrap_err();
        assert_eq!(error, "2 of 240 datagrams had to be sent twice");
        assert_eq!(judge(&row, &lost(720, 3)), Ok(()));
        assert!(judge(&row, &lost(720, 4)).is_err());
    }

    #[test]
    fn affinity_needs_one_backend_for_all() {
        let row = row(Expect::Sticky(names(&["a", "b"])));
        assert_eq!(judge(&row, &tally(&[("b", 10)], &[])), Ok(()));
        assert!(judge(&row, &tally(&[("a", 1), ("b", 9)], &[])).is_err());
    }

    #[test]
    fn refusal_and_silence_are_not_the_same() {
        let refused = tally(&[], &[("refused", 4)]);
        assert_eq!(judge(&row(Expect::Refused), &refused), Ok(()));
        assert_eq!(
            judge(&row(Expect::Dropped), &refused).unwrap_err(),
            "expected no answer, got 4 refused"
        );
        assert_eq!(
            judge(&row(Expect::Dropped), &tally(&[], &[("timeout", 4)])),
            Ok(())
        );
        assert!(
            judge(
                &row(Expect::Refused),
                &tally(&[("a", 1)], &[("refused", 3)])
            )
            .is_err()
        );
        assert!(judge(&row(Expect::Refused), &tally(&[], &[])).is_err());
        let led = tally(&[], &[("redirected", 4)]);
        assert_eq!(judge(&row(Expect::Redirected), &led), Ok(()));
        assert_eq!(
            judge(&row(Expect::Redirected), &refused).unwrap_err(),
            "expected to be redirected, got 4 refused"
        );
    }

    #[test]
    fn a_client_address_that_was_promised_must_be_seen() {
        let mut row = row(Expect::Spread(names(&["a"])));
        row.client = Some("172.31.0.100".parse().unwrap());
        let mut seen = tally(&[("a", 4)], &[]);
        seen.clients = BTreeSet::from(["172.31.0.100".parse().unwrap()]);
        assert_eq!(judge(&row, &seen), Ok(()));
        seen.clients.insert("172.31.0.12".parse().unwrap());
        let error = judge(&row, &seen).unwrap_err();
        assert_eq!(
            error,
            "the backend saw the client as 172.31.0.12, not as 172.31.0.100"
        );
    }

    #[test]
    fn places_of_one_frontend_add_up() {
        let mut all = tally(&[("a", 1)], &[("reset", 1)]);
        all.programs = (100, 2);
        let mut other = tally(&[("a", 2), ("b", 3)], &[]);
        other.programs = (200, 1);
        all.merge(&other);
        assert_eq!(
            (all.answered(), all.failed(), all.ns_per_packet()),
            (6, 1, Some(100))
        );
        assert_eq!(Tally::default().ns_per_packet(), None);
    }
}
