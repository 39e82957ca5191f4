//! The result of a round as JSON, for scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::check::judge;
use super::rows::Expect;
use super::table::Line;

/// All rows.
#[derive(Serialize, Debug)]
pub(crate) struct Report<'a> {
    /// Whether every row is as it should be.
    ok: bool,
    /// Connections that were opened.
    connections: u64,
    /// Services without a frontend.
    skipped: &'a [String],
    /// One for each frontend and place.
    rows: Vec<JsonRow<'a>>,
}

#[derive(Serialize, Debug)]
struct JsonRow<'a> {
    service: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    target: SocketAddr,
    protocol: String,
    from: &'static str,
    expect: &'static str,
    expected_backends: Option<&'a BTreeSet<String>>,
    connections: u64,
    backends: &'a BTreeMap<String, u64>,
    errors: &'a BTreeMap<String, u64>,
    clients: &'a BTreeSet<IpAddr>,
    resent: u64,
    latency_p50_us: u64,
    latency_p99_us: u64,
    ns_per_packet: Option<u64>,
    ok: bool,
    why: Option<String>,
}

/// The report on a round.
pub(crate) fn report<'a>(lines: &[Line<'a>], skipped: &'a [String]) -> Report<'a> {
    let rows: Vec<JsonRow<'a>> = lines.iter().map(json_row).collect();
    let connections = rows.iter().map(|r| r.connections).sum();
    Report {
        ok: !rows.is_empty() && rows.iter().all(|r| r.ok),
        connections,
        skipped,
        rows,
    }
}

fn json_row<'a>((row, tally): &Line<'a>) -> JsonRow<'a> {
    let (expect, expected_backends) = match &row.expect {
        Expect::Spread(pods) => ("spread", Some(pods)),
        Expect::Sticky(pods) => ("sticky", Some(pods)),
        Expect::Refused => ("refused", None),
        Expect::Dropped => ("dropped", None),
        Expect::Redirected => ("redirected", None),
    };
    let why = judge(row, tally).err();
    JsonRow {
        service: &row.key.service,
        kind: row.key.kind.label(),
        url: row.key.ask.as_ref().map(|ask| ask.url.as_str()),
        target: row.key.target,
        protocol: row.key.proto.to_string(),
        from: row.key.place.label(),
        expect,
        expected_backends,
        connections: tally.answered() + tally.failed(),
        backends: &tally.backends,
        errors: &tally.errors,
        clients: &tally.clients,
        resent: tally.resent,
        latency_p50_us: tally.latency_us.0,
        latency_p99_us: tally.latency_us.1,
        ns_per_packet: tally.ns_per_packet(),
        ok: why.is_none(),
        why,
    }
}
