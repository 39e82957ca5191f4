//! Metrics that only this proxy has.

use std::{collections::BTreeMap, fmt, sync::atomic::Ordering::Relaxed};

use lb_proxy::peers::Together;
use lb_route::action::Endpoints;

use super::{Encoder, RESULTS, requests::LIMITS};
use crate::{metrics::epoch_seconds, proxy::state::State};

/// Writes them.
pub(super) fn write(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let ready = f64::from(u8::from(state.is_ready()));
    encoder.gauge("bascule_proxy_ready", "1 while requests are served", ready)?;
    write_connections(state, encoder)?;
    write_requests(state, encoder)?;
    write_limits(state, encoder)?;
    write_table(state, encoder)?;
    write_spans(state, encoder)?;
    write_troubles(state, encoder)
}

fn write_connections(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let view = state.view();
    let [http, https] = view.map_or_else(Default::default, |view| [view.http(), view.https()]);
    let both = [("http", http), ("https", https)];
    let name = "bascule_proxy_connections";
    let open = both.map(|(protocol, c)| ([("protocol", protocol)], c.open as f64));
    encoder.gauges((name, "Connections of clients"), open)?;
    let accepted = both.map(|(protocol, c)| ([("protocol", protocol)], c.accepted));
    encoder.counters((name, "Connections of clients so far"), accepted)?;
    let done = view.map_or(0, |view| view.handshakes());
    let name = "bascule_proxy_handshakes";
    encoder.counter(name, "Handshakes of TLS that were done", done as f64)?;
    let refused = view.into_iter().flat_map(|view| view.refused());
    let refused = refused.map(|(reason, count)| ([("reason", reason)], count));
    let help = "Connections that ended before their first request, by reason";
    encoder.counters(("bascule_proxy_refused_connections", help), refused)?;
    let waiting = view.map_or(0, |view| view.waiting());
    let help = "Connections to endpoints that wait for requests of HTTP/1";
    encoder.gauge(
        "bascule_proxy_idle_upstream_connections",
        help,
        waiting as f64,
    )
}

fn write_requests(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let counts = state.counts();
    let active = counts.active() as f64;
    encoder.gauge(
        "bascule_proxy_active_requests",
        "Requests that are not over",
        active,
    )?;
    let attempts = RESULTS.into_iter().zip(&counts.attempts);
    let attempts = attempts.map(|(result, count)| ([("result", result)], count.load(Relaxed)));
    let help = "Attempts to have an endpoint answer, by what came of them";
    encoder.counters(("bascule_proxy_attempts", help), attempts)?;
    let retries = counts.retries.load(Relaxed) as f64;
    let help = "Attempts after the first of a request";
    encoder.counter("bascule_proxy_retries", help, retries)?;
    let help = "Lines of the access log that were lost: nobody read them in time";
    let lost = state.log().lost() as f64;
    encoder.counter("bascule_proxy_access_log_lost_lines", help, lost)
}

fn write_limits(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let mut of_ingresses: BTreeMap<_, [u64; LIMITS.len()]> = BTreeMap::new();
    for series in state.counts().requests.all() {
        let limited = series.limited();
        if limited.iter().any(|count| *count > 0) {
            let labels = &series.labels;
            let key = (labels.namespace.clone(), labels.ingress.clone());
            let sums = of_ingresses.entry(key).or_default();
            sums.iter_mut()
                .zip(limited)
                .for_each(|(sum, more)| *sum += more);
        }
    }
    let all = of_ingresses
        .iter()
        .flat_map(|((namespace, ingress), sums)| {
            let all = LIMITS.into_iter().zip(*sums);
            all.map(move |(limit, count)| {
                let labels = [
                    ("namespace", &**namespace),
                    ("ingress", &**ingress),
                    ("limit", limit),
                ];
                (labels, count)
            })
        });
    let help = "Requests that limits refused";
    encoder.counters(("bascule_proxy_limited_requests", help), all)?;
    let clients = state.view().map_or(0, |view| view.limited_clients());
    let help = "Clients that limits remember, of each Ingress for itself";
    encoder.gauge("bascule_proxy_limited_clients", help, clients as f64)?;
    write_together(state, encoder)
}

/// Limits that count for all proxies together, and what passes between these.
fn write_together(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let together = state.view().map(|view| view.together());
    let of = |count: fn(&Together) -> usize| together.map_or(0, count) as f64;
    let help = "Keys that limits of all proxies remember, of each Ingress for itself";
    encoder.gauge("bascule_proxy_overall_keys", help, of(Together::keys))?;
    let forgotten = together.map_or(0, Together::forgotten) as f64;
    let help = "Counts of limits of all proxies that were forgotten while they were in force";
    encoder.counter("bascule_proxy_overall_forgotten", help, forgotten)?;
    let help = "Other proxies that are told what was counted";
    encoder.gauge("bascule_proxy_peers", help, of(Together::peers))?;
    let datagrams = together.into_iter().flat_map(Together::datagrams);
    let datagrams = datagrams.map(|(result, count)| ([("result", result)], count));
    let help = "Datagrams between proxies, by what became of them";
    encoder.counters(("bascule_proxy_peer_datagrams", help), datagrams)
}

fn write_table(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let shown = state.shown();
    let table = shown.as_ref().map(|shown| &shown.table);
    let hosts = || table.iter().flat_map(|table| table.hosts());
    let paths = hosts().map(|(_, host)| host.locations().len()).sum();
    let upstreams = || table.iter().flat_map(|table| table.upstreams());
    let endpoints = upstreams().map(|upstream| match &upstream.endpoints {
        Endpoints::At(addresses) => addresses.len(),
        // How many the name has, DNS knows.
        Endpoints::Named(..) => 1,
    });
    let sizes: [(&str, &str, usize); 4] = [
        (
            "hosts",
            "Hosts of the table, by all of their names",
            hosts().count(),
        ),
        ("paths", "Paths of the hosts of the table", paths),
        ("upstreams", "Upstreams of the table", upstreams().count()),
        (
            "endpoints",
            "Endpoints of the upstreams of the table",
            endpoints.sum(),
        ),
    ];
    for (what, help, count) in sizes {
        encoder.gauge(&format!("bascule_proxy_{what}"), help, count as f64)?;
    }
    let since = shown.as_ref().map(|shown| epoch_seconds(shown.since));
    let since = since.unwrap_or_default();
    let help = "When the table came that is in force, in seconds since 1970";
    encoder.gauge("bascule_proxy_table_timestamp_seconds", help, since)?;
    let number = shown.as_ref().map_or(0, |shown| shown.number) as f64;
    encoder.counter("bascule_proxy_tables", "Tables that came so far", number)?;
    let certificates = state.certificates();
    let broken = certificates.iter().filter(|row| row.facts.is_err());
    let help = "Hosts whose handshakes are refused, because their certificate does not do";
    let broken = broken.count() as f64;
    encoder.gauge("bascule_proxy_broken_certificates", help, broken)
}

fn write_spans(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let all = state.traces().counts();
    let all = all.map(|(result, count)| ([("result", result)], count));
    let help = "Spans of requests that were to be sent to a collector, by what came of them";
    encoder.counters(("bascule_proxy_spans", help), all)
}

fn write_troubles(state: &State, encoder: &mut Encoder<'_>) -> fmt::Result {
    let mut reasons: BTreeMap<&'static str, f64> = BTreeMap::new();
    let troubles = state.troubles();
    for (_, trouble) in troubles.iter() {
        *reasons.entry(trouble.reason).or_default() += 1.0;
    }
    let all = reasons.iter();
    let all = all.map(|(reason, count)| ([("reason", *reason)], *count));
    let help = "What is wrong with objects, by reason";
    encoder.gauges(("bascule_proxy_troubles", help), all)?;
    let help = "Places that objects come from and that cannot be read now";
    let sources = state.sources().len() as f64;
    encoder.gauge("bascule_proxy_source_troubles", help, sources)
}
