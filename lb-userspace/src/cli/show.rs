//! The views of the pinned maps: they work whether or not an agent runs.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::IpAddr,
    time::SystemTime,
};

use lb_common::{Frontend, FrontendKey, reason::Class, schema::name};
use lb_plan::model::ServicePortKey;
use serde::Serialize;

use super::{
    affinity::{AffinityRow, affinities_text, affinity_rows},
    args::{Paths, View},
    flows::{FlowRow, flows_text},
    list_args::{Scope, Which},
    maglev::{table_rows, tables_text},
    maps::{MapRow, maps_text},
    rows::{Held, backends_text, frontends_text, is_called, service_name},
    status::{DropRow, Report, Seen, Verdict},
    text::wants_colour,
};
use crate::{
    agent::{
        kernel::pins,
        state::{ServiceNames, StateDir},
    },
    bpf::{
        Error,
        views::{FlowView, Views},
    },
    health,
};

/// Prints rows as JSON, or as text.
pub(super) fn print(
    view: &View,
    rows: &impl Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if view.json {
        serde_json::to_writer_pretty(&mut out, rows)?;
        out.write_all(b"\n")?;
    } else {
        out.write_all(text().as_bytes())?;
    }
    Ok(out.flush()?)
}

pub(super) fn open(paths: &Paths) -> anyhow::Result<Views> {
    Views::open(&pins(&paths.bpffs)).map_err(|error| match error {
        Error::Denied { .. } => error.into(),
        other => anyhow::Error::new(other).context(format!(
            "no maps of Bascule under {}: start the agent (`bascule agent`), or name its bpffs with --bpffs",
            paths.bpffs.display()
        )),
    })
}

/// The names of services; without them ids are shown.
pub(super) fn names(paths: &Paths) -> Names {
    or_none(StateDir::new(&paths.state_dir).read_names())
}

/// The same, with where each service is dialled.
pub(super) fn vips(paths: &Paths) -> ServiceNames {
    or_none(StateDir::new(&paths.state_dir).read_vips())
}

fn or_none<T: Default>(names: io::Result<T>) -> T {
    names.unwrap_or_else(|error| {
        eprintln!("bascule: the names of services are not known: {error}");
        T::default()
    })
}

pub(super) fn held(paths: &Paths) -> anyhow::Result<Held> {
    let views = open(paths)?;
    let frontends = views.frontends()?;
    let backends = views.backends()?;
    let services = frontends
        .iter()
        .map(|(_, f)| f.service + 1)
        .max()
        .unwrap_or(0);
    let last = backends.keys().next_back().map_or(0, |id| id + 1);
    let numbered = |counters: Vec<_>| (0..).zip(counters).collect();
    Ok(Held {
        service_counters: numbered(views.service_counters(services)?),
        backend_counters: numbered(views.backend_counters(last)?),
        names: names(paths),
        tables: views.tables(&frontends)?,
        frontends,
        backends,
    })
}

/// Names of service ids.
pub(super) type Names = BTreeMap<u32, ServicePortKey>;

/// Whether a service has a name that the user gives.
pub(super) fn called(names: &Names, service: u32, name: &str) -> bool {
    // Most need not be written out to be told from the one that is wanted.
    let may_be = |key: &ServicePortKey| name.contains(&*key.service.name);
    names.get(&service).is_none_or(may_be) && is_called(&service_name(names, service), name)
}

/// Fails where a name that the user gives is nobody's.
pub(super) fn known(
    frontends: &[(FrontendKey, Frontend)],
    names: &Names,
    service: &str,
) -> anyhow::Result<()> {
    let mut ids = frontends.iter().map(|(_, f)| f.service);
    anyhow::ensure!(
        ids.any(|id| id != 0 && called(names, id, service)),
        "no service is called {service}: `bascule service list` shows what this node serves"
    );
    Ok(())
}

/// What the maps hold, where they hold the service that is asked for.
fn held_with(which: &Which, paths: &Paths) -> anyhow::Result<Held> {
    let held = held(paths)?;
    if let Some(service) = &which.service {
        known(&held.frontends, &held.names, service)?;
    }
    Ok(held)
}

/// `bascule service list`.
///
/// # Errors
/// If the maps are not there or cannot be read, or no service has the name that is asked for;
/// the same holds for the others.
pub fn services(
    scope: Option<Scope>,
    which: &Which,
    wide: bool,
    view: &View,
) -> anyhow::Result<()> {
    let mut rows = held_with(which, &view.paths)?.frontend_rows();
    let wanted = scope.map(|s| match s {
        Scope::Internal => "internal",
        Scope::External => "external",
    });
    rows.retain(|row| {
        wanted.is_none_or(|w| row.scope == w || row.scope == "both") && which.is(&row.service)
    });
    print(view, &rows, || frontends_text(&rows, wide))
}

/// `bascule backend list`.
///
/// # Errors
/// As [`services`].
pub fn backends(which: &Which, wide: bool, view: &View) -> anyhow::Result<()> {
    let mut rows = held_with(which, &view.paths)?.backend_rows();
    rows.retain(|row| which.service.is_none() || row.services.iter().any(|s| which.is(s)));
    print(view, &rows, || backends_text(&rows, wide))
}

/// `bascule maglev show`.
///
/// # Errors
/// As [`services`].
pub fn maglev(service: &str, view: &View) -> anyhow::Result<()> {
    let held = held(&view.paths)?;
    known(&held.frontends, &held.names, service)?;
    let rows = table_rows(&held, Some(service));
    print(view, &rows, || tables_text(&rows))
}

/// `bascule affinity list`.
///
/// # Errors
/// As [`services`].
pub fn affinity(client: Option<IpAddr>, which: &Which, view: &View) -> anyhow::Result<()> {
    let held = held_with(which, &view.paths)?;
    let mut rows = affinity_rows(&held, &open(&view.paths)?.affinities()?);
    rows.retain(|row| client.is_none_or(|c| row.client == Some(c)) && which.is(&row.service));
    rows.sort_by_cached_key(AffinityRow::order);
    print(view, &rows, || affinities_text(&rows))
}

/// `bascule conntrack list`.
///
/// # Errors
/// As [`services`].
pub fn conntrack(address: Option<IpAddr>, which: &Which, view: &View) -> anyhow::Result<()> {
    let views = open(&view.paths)?;
    let names = names(&view.paths);
    if let Some(service) = &which.service {
        known(&views.frontends()?, &names, service)?;
    }
    let flows = views.flows()?;
    let mut rows: Vec<FlowRow> = flows
        .iter()
        .map(|flow| FlowRow::new(flow, &names))
        .collect();
    rows.retain(|row| address.is_none_or(|a| row.touches(a)) && which.is(&row.service));
    rows.sort_by_cached_key(FlowRow::order);
    print(view, &rows, || flows_text(&rows))
}

/// `bascule conntrack flush`.
///
/// # Errors
/// As [`services`].
pub fn flush(address: Option<IpAddr>, view: &View) -> anyhow::Result<()> {
    let names = BTreeMap::new();
    let touches =
        |flow: &FlowView| address.is_none_or(|address| FlowRow::new(flow, &names).touches(address));
    let flows = open(&view.paths)?.flush(touches)?;
    let done = serde_json::json!({"deleted_flows": flows});
    print(view, &done, || format!("{flows} flows are forgotten\n"))
}

/// The maps, and what is wrong with those that cannot be read.
pub(super) fn map_rows(views: &Views) -> (Vec<MapRow>, Vec<String>) {
    let row = |map: crate::bpf::views::MapView| MapRow {
        name: map.name.into(),
        holds: map.holds.into(),
        owner: map.owner,
        entries: map.used,
        // Of the filter bits count, and an element is a word of them.
        capacity: match [name::lb_filter_v1, name::lb_replies_v1].contains(&map.name) {
            true => u64::from(map.entries) * 64,
            false => u64::from(map.entries),
        },
        bytes: map.bytes,
        setting: map.setting,
    };
    let (mut rows, mut unread) = (Vec::new(), Vec::new());
    for map in views.maps() {
        match map {
            Ok(map) => rows.push(row(map)),
            Err(error) => miss(&mut unread, &error),
        }
    }
    (rows, unread)
}

/// Notes what is wrong with a map, once: more than one view may need it.
fn miss(unread: &mut Vec<String>, error: &Error) {
    let why = error.to_string();
    if !unread.contains(&why) {
        unread.push(why);
    }
}

/// `bascule maps`.
///
/// # Errors
/// As [`services`]; a map that cannot be read is told of after the others are shown.
pub fn maps(view: &View) -> anyhow::Result<()> {
    let (rows, unread) = map_rows(&open(&view.paths)?);
    print(view, &rows, || maps_text(&rows))?;
    anyhow::ensure!(unread.is_empty(), "{}", unread.join("\nbascule: "));
    Ok(())
}

/// How the node is.
///
/// # Errors
/// As [`services`].
pub(super) fn report(paths: &Paths) -> anyhow::Result<Report> {
    let views = open(paths)?;
    let state = StateDir::new(&paths.state_dir);
    let (maps, mut unread) = map_rows(&views);
    let reasons = views.reasons();
    if let Err(error) = &reasons {
        miss(&mut unread, error);
    }
    let reasons = reasons.into_iter().flatten();
    let bad = reasons.filter(|(reason, c)| reason.class() != Class::Pass && c.packets > 0);
    let drops = bad.map(|(reason, c)| DropRow {
        reason: reason.label(),
        meaning: reason.describe(),
        packets: c.packets,
    });
    // What is not to be had of these two leaves a line less.
    let record = state.record().ok().flatten();
    let log = state.read_log().unwrap_or_default();
    Ok(Report::new(Seen {
        running: state.is_claimed(),
        stood_in: state.is_stood_in(),
        agent: state.read_status().map_err(|error| error.to_string()),
        health: record.map(|(record, heard)| health::View {
            facts: record.facts,
            heard: Some(heard),
        }),
        maps,
        unread,
        drops: drops.collect(),
        log,
        now: SystemTime::now(),
    }))
}

/// `bascule status`; returns how the node is.
///
/// # Errors
/// As [`services`].
pub fn status(view: &View) -> anyhow::Result<Verdict> {
    let report = report(&view.paths)?;
    print(view, &report, || report.text(wants_colour()))?;
    Ok(report.verdict)
}
