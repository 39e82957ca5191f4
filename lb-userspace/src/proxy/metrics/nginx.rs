//! Metrics of ingress-nginx.

use std::{collections::BTreeMap, fmt, sync::Arc};

use lb_route::{action::Location, input::Name};
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, gauge::ConstGauge},
};

use super::{
    Encoder,
    requests::{Cell, Labels, Series},
};
use crate::{
    change::Kind,
    metrics::{epoch_seconds, process::Process},
    proxy::state::State,
};

const PREFIX: &str = "nginx_ingress_controller";

fn named(name: &str) -> String {
    format!("{PREFIX}_{name}")
}

/// Writes what has the labels of the controller.
pub(super) fn write(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    write_requests(state, encoder)?;
    write_table(state, encoder)?;
    write_connections(state, encoder)?;
    write_orphans(state, encoder)?;
    write_process(encoder)
}

/// A kind of requests for a path.
struct Row<'r> {
    labels: &'r Labels,
    status: String,
    cell: &'r Cell,
}

impl Row<'_> {
    fn labels(&self) -> [(&'static str, &str); 8] {
        let Labels {
            namespace,
            ingress,
            service,
            host,
            path,
        } = self.labels;
        let kind = &self.cell.kind;
        [
            ("status", &self.status),
            ("method", kind.method()),
            ("path", path),
            ("namespace", namespace),
            ("ingress", ingress),
            ("service", service),
            ("canary", kind.canary.as_deref().unwrap_or_default()),
            ("host", host),
        ]
    }
}

type Encode = fn(&Cell, MetricEncoder<'_>) -> fmt::Result;

const HISTOGRAMS: [(&str, &str, Encode); 6] = [
    (
        "connect_duration_seconds",
        "Time until there was a connection to the endpoint",
        |cell, encoder| cell.connect.encode(encoder),
    ),
    (
        "header_duration_seconds",
        "Time until the head of the endpoint's answer",
        |cell, encoder| cell.header.encode(encoder),
    ),
    (
        "response_duration_seconds",
        "Time until the end of the endpoint's answer",
        |cell, encoder| cell.response.encode(encoder),
    ),
    (
        "request_duration_seconds",
        "Time from the head of the request to the end of the answer",
        |cell, encoder| cell.request.encode(encoder),
    ),
    (
        "request_size",
        "Bytes of the request with its head",
        |cell, encoder| cell.request_size.encode(encoder),
    ),
    (
        "response_size",
        "Bytes of the answer with its head",
        |cell, encoder| cell.response_size.encode(encoder),
    ),
];

fn write_requests(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let all = state.counts().requests.all();
    let cells: Vec<(&Arc<Series>, _)> = all.iter().map(|series| (series, series.cells())).collect();
    let rows = cells.iter().flat_map(|(series, cells)| {
        cells.iter().map(|cell| Row {
            labels: &series.labels,
            status: cell.kind.status(),
            cell,
        })
    });
    let rows: Vec<_> = rows.collect();
    let (name, help) = (named("requests"), "Requests");
    let kind = MetricType::Unknown;
    let mut family = encoder.0.encode_descriptor(&name, help, None, kind)?;
    for row in &rows {
        let requests = row.cell.requests.load(std::sync::atomic::Ordering::Relaxed);
        ConstGauge::new(requests).encode(family.encode_family(&row.labels())?)?;
    }
    for (name, help, encode) in HISTOGRAMS {
        let (name, kind) = (named(name), MetricType::Histogram);
        let mut family = encoder.0.encode_descriptor(&name, help, None, kind)?;
        for row in &rows {
            encode(row.cell, family.encode_family(&row.labels())?)?;
        }
    }
    Ok(())
}

fn write_table(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let shown = state.shown();
    let number = shown.as_ref().map_or(0, |shown| shown.number);
    let since = shown.as_ref().map(|shown| epoch_seconds(shown.since));
    let help = "Number of the table that is in force";
    encoder.gauge(&named("config_hash"), help, number as f64)?;
    let help = "Whether there is a table";
    let is_there = f64::from(u8::from(shown.is_some()));
    encoder.gauge(&named("config_last_reload_successful"), help, is_there)?;
    let help = "When the table came that is in force";
    let name = named("config_last_reload_successful_timestamp_seconds");
    encoder.gauge(&name, help, since.unwrap_or_default())?;
    let help = "Tables that came so far";
    encoder.plain_counter(&named("success"), help, number)
}

fn write_connections(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let connections = state.view().map(|view| [view.http(), view.https()]);
    let connections = connections.unwrap_or_default();
    let accepted: u64 = connections.iter().map(|c| c.accepted).sum();
    let open: u64 = connections.iter().map(|c| c.open).sum();
    let active = state.counts().active();
    // Of HTTP/2 there may be more requests than connections.
    let states = [
        ("active", open),
        ("reading", 0),
        ("writing", active),
        ("waiting", open.saturating_sub(active)),
    ];
    let name = named("nginx_process_connections");
    let states = states.map(|(state, count)| ([("state", state)], count as f64));
    encoder.gauges((&name, "Connections of clients, by state"), states)?;
    let totals = ["accepted", "handled"].map(|state| ([("state", state)], accepted));
    encoder.counters((&name, "Connections of clients so far"), totals)?;
    let name = named("nginx_process_requests");
    let total = state.counts().total();
    encoder.counter(&name, "Requests so far", total as f64)
}

/// Ingresses that have a path without an endpoint.
fn write_orphans(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let shown = state.shown();
    let table = shown.as_ref().map(|shown| &shown.table);
    let hosts = table.iter().flat_map(|table| table.hosts());
    let locations = hosts.flat_map(|(_, host)| host.locations());
    let is_orphan = |location: &&Arc<Location>| {
        let upstream = table.and_then(|table| table.upstream(&location.upstream));
        upstream.is_some_and(|upstream| !upstream.has_endpoints())
            && !location.ingress.name.is_empty()
    };
    let troubles = state.troubles();
    let has_no_service = |ingress: &Name| {
        troubles.iter().any(|(key, trouble)| {
            key.kind == Kind::Ingress
                && key.namespace == ingress.namespace
                && key.name == ingress.name
                && trouble.reason == "MissingService"
        })
    };
    let orphans = locations.filter(is_orphan).map(|location| {
        let kind = match has_no_service(&location.ingress) {
            true => "no-service",
            false => "no-endpoint",
        };
        (location.ingress.clone(), kind)
    });
    let orphans: BTreeMap<Name, &str> = orphans.collect();
    let all = orphans.iter().map(|(ingress, kind)| {
        let labels = [
            ("namespace", &*ingress.namespace),
            ("ingress", &*ingress.name),
            ("type", *kind),
        ];
        (labels, 1.0)
    });
    let help = "1 for an Ingress with a path that no endpoint answers";
    encoder.gauges((&named("orphan_ingress"), help), all)
}

fn write_process(encoder: &mut Encoder<'_>) -> fmt::Result {
    let Some(process) = Process::read() else {
        return Ok(());
    };
    let name = named("nginx_process_cpu_seconds");
    encoder.counter(&name, "Time on a CPU, in seconds", process.cpu)?;
    let name = named("nginx_process_resident_memory_bytes");
    encoder.gauge(&name, "Memory in use", process.resident as f64)?;
    let name = named("nginx_process_virtual_memory_bytes");
    encoder.gauge(&name, "Addresses in use", process.virtual_memory as f64)?;
    encoder.gauge(&named("nginx_process_num_procs"), "Processes", 1.0)
}

/// When certificates expire. Their namespace is the Secret's.
pub(super) fn write_certificates(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let class = &state.identity().class;
    let rows = state.certificates();
    let of_secret = rows.iter().filter_map(|row| {
        let facts = row.facts.as_ref().ok()?;
        let secret = row.secret.as_ref().filter(|_| !row.not_covered)?;
        Some((row, facts, secret))
    });
    let all = of_secret.map(|(row, facts, secret)| {
        let labels = [
            ("namespace", secret.namespace.to_string()),
            ("class", class.clone()),
            ("host", row.host.clone()),
            ("secret_name", secret.name.to_string()),
            // The issuer's own number, which none has, comes before it.
            ("identifier", format!("-{}", facts.serial)),
        ];
        (labels, facts.not_after as f64)
    });
    let help = "When the certificate of a host expires, in seconds since 1970";
    encoder.gauges((&named("ssl_expire_time_seconds"), help), all)
}
