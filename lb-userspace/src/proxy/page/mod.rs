//! The status page: what a proxy serves, and what is wrong with it. It is read only, and shows
//! nothing of Secrets but what their certificates say to every client.

mod html;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use lb_route::{
    Host, PathType, Table,
    action::{Endpoints, Location, Upstream},
    trouble::Severity,
};
use serde::Serialize;

use super::state::{self, State};
pub use html::answer;

/// Days before its end from which on a certificate is shown as one that ends soon.
pub const SOON: i64 = 21;
const DAY: i64 = 24 * 3600;

/// What a proxy serves.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// Whether requests are served.
    pub ready: bool,
    /// Number of the table, from 1; 0 if there is none yet.
    pub table: u64,
    /// When it came, in UTC.
    pub since: Option<String>,
    /// Connections of clients.
    pub connections: u64,
    /// Requests that are not over.
    pub requests: u64,
    /// What is wrong with objects: the worst comes first.
    pub troubles: Vec<TroubleRow>,
    /// Places that objects come from and that cannot be read now.
    pub sources: Vec<SourceRow>,
    /// Certificates: those that do not do come first, then those that end first.
    pub certificates: Vec<CertificateRow>,
    /// Hosts, by name.
    pub hosts: Vec<HostRow>,
    /// Upstreams, by name.
    pub upstreams: Vec<UpstreamRow>,
}

/// Something that is wrong with an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TroubleRow {
    /// The object.
    pub object: String,
    /// What it leads to: `denied`, `refused`, `warning` or `note`.
    pub severity: &'static str,
    /// Reason of the Event.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

/// A place that objects come from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SourceRow {
    /// The place.
    pub place: String,
    /// What is wrong with it.
    pub message: String,
}

/// What a host shows to clients.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CertificateRow {
    /// The host; `_` for those without one of their own.
    pub host: String,
    /// Namespace and name of the Secret.
    pub secret: Option<String>,
    /// `broken`, `expired`, `soon`, `other` (it is not for the host) or `good`.
    pub state: &'static str,
    /// Days until it ends; below 0 if it has.
    pub days: Option<i64>,
    /// When it ends, in UTC.
    pub not_after: Option<String>,
    /// Names that it is for.
    pub names: Vec<String>,
    /// Issuer.
    pub issuer: Option<String>,
    /// Why handshakes are refused.
    pub error: Option<String>,
}

/// A host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct HostRow {
    /// Its name; `_` for every host.
    pub name: String,
    /// What there is to know of it besides its paths.
    pub note: Option<String>,
    /// Its paths, the longest first.
    pub paths: Vec<PathRow>,
}

/// A path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PathRow {
    /// The path.
    pub path: String,
    /// `pathType`.
    pub kind: &'static str,
    /// Namespace and name of the Ingress; empty for the default backend.
    pub ingress: String,
    /// Namespace and name of the Service, and its port; empty where there is none.
    pub backend: String,
    /// Its endpoints; `None` where DNS knows them, or there is no backend.
    pub endpoints: Option<usize>,
    /// Upstream of the canary.
    pub canary: Option<String>,
    /// Why every request is refused.
    pub denied: Option<String>,
}

/// An upstream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct UpstreamRow {
    /// Its name.
    pub name: String,
    /// Namespace and name of the Service, and its port.
    pub backend: String,
    /// Addresses of its endpoints.
    pub endpoints: Vec<String>,
    /// The name whose addresses are its endpoints.
    pub dns: Option<String>,
}

impl Status {
    /// Of a proxy, at a time.
    pub fn of(state: &State, now: SystemTime) -> Self {
        let shown = state.shown();
        let table = shown.as_ref().map(|shown| &*shown.table);
        let connections = state
            .view()
            .map(|view| view.http().open + view.https().open);
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        let certificates = state.certificates();
        let mut certificates: Vec<_> = certificates
            .iter()
            .map(|row| CertificateRow::of(row, seconds))
            .collect();
        certificates.sort_by_key(|row| (row.error.is_none(), row.days));
        Self {
            version: env!("BASCULE_VERSION"),
            ready: state.is_ready(),
            table: shown.as_ref().map_or(0, |shown| shown.number),
            since: shown.as_ref().and_then(|shown| time(shown.since)),
            connections: connections.unwrap_or_default(),
            requests: state.counts().active(),
            troubles: troubles(state),
            sources: sources(state),
            certificates,
            hosts: table.map(hosts).unwrap_or_default(),
            upstreams: table.map(upstreams).unwrap_or_default(),
        }
    }

    /// It, as JSON.
    pub fn json(&self) -> String {
        // All keys are text.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn time(at: SystemTime) -> Option<String> {
    let at = Timestamp::try_from(at).ok()?;
    Timestamp::from_second(at.as_second())
        .ok()
        .map(|at| at.to_string())
}

fn troubles(state: &State) -> Vec<TroubleRow> {
    let troubles = state.troubles();
    let mut all: Vec<_> = troubles.iter().collect();
    all.sort_by(|(a, x), (b, y)| (y.severity, a, x.reason).cmp(&(x.severity, b, y.reason)));
    let row = |(key, trouble): &(_, lb_route::trouble::Trouble)| TroubleRow {
        object: ToString::to_string(key as &crate::change::ObjectKey),
        severity: match trouble.severity {
            Severity::Denied => "denied",
            Severity::Refused => "refused",
            Severity::Warning => "warning",
            Severity::Note => "note",
        },
        reason: trouble.reason,
        message: trouble.message.clone(),
    };
    all.into_iter().map(row).collect()
}

fn sources(state: &State) -> Vec<SourceRow> {
    let sources = state.sources().into_iter();
    sources
        .map(|(place, message)| SourceRow { place, message })
        .collect()
}

impl CertificateRow {
    fn of(row: &state::CertificateRow, now: i64) -> Self {
        let facts = row.facts.as_ref().ok();
        let left = facts.map(|facts| facts.not_after - now);
        let days = left.map(|left| left.div_euclid(DAY));
        let state = match left {
            None => "broken",
            Some(..0) => "expired",
            Some(left) if left < SOON * DAY => "soon",
            Some(_) if row.not_covered => "other",
            Some(_) => "good",
        };
        let end = facts.and_then(|facts| Timestamp::from_second(facts.not_after).ok());
        Self {
            host: row.host.clone(),
            secret: row.secret.as_ref().map(ToString::to_string),
            state,
            days,
            not_after: end.map(|end| end.to_string()),
            names: facts.map(|facts| facts.names.clone()).unwrap_or_default(),
            issuer: facts.map(|facts| facts.issuer.clone()),
            error: row.facts.as_ref().err().map(ToString::to_string),
        }
    }
}

fn hosts(table: &Table) -> Vec<HostRow> {
    let mut rows: Vec<_> = table
        .hosts()
        .map(|(name, host)| host_row(table, name, host))
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn host_row(table: &Table, name: String, host: &Host) -> HostRow {
    let own = *host.name == *name;
    let note = match (&host.denied, &host.passthrough) {
        _ if !own && host.locations().is_empty() => Some(format!("led to {}", host.name)),
        _ if !own => Some(format!("another name of {}", host.name)),
        (Some(denied), _) => Some(format!("every request is refused: {denied}")),
        (None, Some(_)) => Some("its TLS is the backend's".to_owned()),
        (None, None) => None,
    };
    let locations = host.locations().iter().filter(|_| own);
    let mut paths: Vec<_> = locations
        .map(|location| path_row(table, location))
        .collect();
    paths.sort_by(|a, b| (b.path.len(), &a.path).cmp(&(a.path.len(), &b.path)));
    HostRow { name, note, paths }
}

fn path_row(table: &Table, location: &Location) -> PathRow {
    let upstream = table.upstream(&location.upstream);
    let canary = location.canary.as_ref();
    let canary = canary.and_then(|canary| table.upstream(&canary.upstream));
    let ingress = &location.ingress;
    PathRow {
        path: location.path.to_string(),
        kind: match location.kind {
            PathType::Exact => "Exact",
            PathType::Prefix => "Prefix",
            PathType::ImplementationSpecific => "ImplementationSpecific",
        },
        ingress: match ingress.name.is_empty() {
            true => String::new(),
            false => ingress.to_string(),
        },
        backend: upstream
            .map(|upstream| backend(upstream))
            .unwrap_or_default(),
        endpoints: upstream.and_then(|upstream| match &upstream.endpoints {
            Endpoints::At(addresses) => Some(addresses.len()),
            Endpoints::Named(..) => None,
        }),
        canary: canary.map(|upstream| upstream.name.to_string()),
        denied: location.denied.clone(),
    }
}

fn backend(upstream: &Upstream) -> String {
    format!("{}:{}", upstream.service, upstream.port)
}

fn upstreams(table: &Table) -> Vec<UpstreamRow> {
    let row = |upstream: &Upstream| {
        let (endpoints, dns) = match &upstream.endpoints {
            Endpoints::At(addresses) => (&**addresses, None),
            Endpoints::Named(name, port) => (&[][..], Some(format!("{name}:{port}"))),
        };
        UpstreamRow {
            name: upstream.name.to_string(),
            backend: backend(upstream),
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            dns,
        }
    };
    let mut rows: Vec<_> = table.upstreams().map(|upstream| row(upstream)).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}
