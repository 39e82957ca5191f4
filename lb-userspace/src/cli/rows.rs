//! What the lists show, from what the maps hold. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    Backend, Be16, Frontend, FrontendKey, ServiceCounter, backend_flags, frontend_flags, scope,
};
use lb_plan::model::ServicePortKey;
use serde::Serialize;

use super::text::{Side, Table, size};
use crate::bpf::{failure::protocol_name, views::Tables};

/// The frontends and names by which services are known.
pub struct Served {
    /// Frontends, those of vips included, in their natural order.
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// Names of service ids, as far as they are known.
    pub names: BTreeMap<u32, ServicePortKey>,
}

impl Served {
    /// The frontend at an address and port.
    pub(super) fn frontend(&self, at: SocketAddr, proto: u8, scope: u8) -> Option<&Frontend> {
        let key = FrontendKey {
            addr: at.ip().into(),
            port: Be16::new(at.port()),
            proto,
            scope,
        };
        let found = self.frontends.binary_search_by_key(&key, |(key, _)| *key);
        found.ok().map(|at| &self.frontends[at].1)
    }

    /// The name of a service, or `#id`.
    pub(super) fn name(&self, service: u32) -> String {
        service_name(&self.names, service)
    }
}

/// What the maps hold.
#[derive(Default)]
pub struct Held {
    /// Frontends, those of vips included.
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// Live backends by id.
    pub backends: BTreeMap<u32, Backend>,
    /// The tables.
    pub tables: Tables,
    /// What each service id carried.
    pub service_counters: BTreeMap<u32, ServiceCounter>,
    /// What each backend id carried.
    pub backend_counters: BTreeMap<u32, ServiceCounter>,
    /// Names of service ids, as far as they are known.
    pub names: BTreeMap<u32, ServicePortKey>,
}

/// What something carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Traffic {
    /// New flows.
    pub connections: u64,
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes, both directions.
    pub bytes: u64,
}

impl From<ServiceCounter> for Traffic {
    fn from(c: ServiceCounter) -> Self {
        Self {
            connections: c.connections,
            packets: c.packets,
            bytes: c.bytes,
        }
    }
}

/// A frontend.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FrontendRow {
    /// Namespace, name and port of the service, or `#id` where the names are not known.
    pub service: String,
    /// Its id in the maps.
    pub id: u32,
    /// The vip.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Whom it serves: `internal`, `external`, or `both` where both have the same.
    pub scope: &'static str,
    /// `NodePort`, `Local` (never SNAT), `ranges` (only the source ranges).
    pub kind: Vec<&'static str>,
    /// Seconds of session affinity; 0 for none.
    pub affinity: u32,
    /// Its backends.
    pub backends: Vec<String>,
    /// What happens to clients when there is no backend: `refused`, or `dropped`
    /// (policy `Local`).
    pub without_backend: &'static str,
    /// What its service carried, all frontends together.
    pub traffic: Traffic,
}

/// A backend.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BackendRow {
    /// Backend id.
    pub id: u32,
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: String,
    /// Whether it runs on this node.
    pub local: bool,
    /// The services that lead to it.
    pub services: Vec<String>,
    /// What it carried.
    pub traffic: Traffic,
}

/// Address, port and protocol of a frontend.
type Place = (IpAddr, u16, u8);

impl Held {
    /// The name of a service, or `#id`.
    pub(super) fn name(&self, service: u32) -> String {
        service_name(&self.names, service)
    }

    /// The backend ids of a frontend with these slots, each with its own.
    pub(super) fn members(&self, slots: u32, len: u32) -> BTreeMap<u32, u32> {
        match len {
            0 => BTreeMap::new(),
            1 => BTreeMap::from([(slots, 1)]),
            _ => self.tables.get(&(slots, len)).cloned().unwrap_or_default(),
        }
    }

    /// Address and port of a backend.
    pub(super) fn backend(&self, id: u32) -> String {
        match self.backends.get(&id) {
            Some(b) => SocketAddr::new(b.addr.into(), b.port.get()).to_string(),
            None => format!("#{id} (not live)"),
        }
    }

    /// The frontends, ordered by service, address and port.
    pub fn frontend_rows(&self) -> Vec<FrontendRow> {
        let mut by_place: BTreeMap<Place, Vec<(u8, &Frontend)>> = BTreeMap::new();
        for (key, value) in &self.frontends {
            if value.flags & frontend_flags::VIP == 0 {
                let place = (key.addr.into(), key.port.get(), key.proto);
                by_place.entry(place).or_default().push((key.scope, value));
            }
        }
        let mut rows = Vec::new();
        for ((address, port, protocol), mut scopes) in by_place {
            scopes.sort_by_key(|(scope, _)| *scope);
            let row = |scope, f| self.frontend_row((address, port, protocol), scope, f);
            match scopes[..] {
                [(_, a), (_, b)] if a == b => rows.push(row("both", a)),
                _ => rows.extend(scopes.iter().map(|(s, f)| row(scope_name(*s), f))),
            }
        }
        rows.sort_by(|a, b| {
            let key = |r: &FrontendRow| (r.service.clone(), r.address, r.port, r.protocol.clone());
            key(a).cmp(&key(b))
        });
        rows
    }

    fn frontend_row(
        &self,
        (address, port, protocol): Place,
        scope: &'static str,
        f: &Frontend,
    ) -> FrontendRow {
        let kinds = [
            (frontend_flags::NODE_PORT, "NodePort"),
            (frontend_flags::NO_SNAT, "Local"),
            (frontend_flags::SOURCE_RANGES, "ranges"),
        ];
        let mut backends: Vec<String> = self
            .members(f.slots, f.len)
            .into_keys()
            .map(|id| self.backend(id))
            .collect();
        backends.sort();
        let counter = self.service_counters.get(&f.service).copied();
        FrontendRow {
            service: self.name(f.service),
            id: f.service,
            address,
            port,
            protocol: protocol_name(protocol).into_owned(),
            scope,
            kind: kinds
                .iter()
                .filter(|(flag, _)| f.flags & flag != 0)
                .map(|(_, k)| *k)
                .collect(),
            affinity: f.affinity,
            backends,
            without_backend: match f.flags & frontend_flags::DROP_IF_EMPTY {
                0 => "refused",
                _ => "dropped",
            },
            traffic: counter.map_or_else(Traffic::default, Traffic::from),
        }
    }

    /// The backends, ordered by id.
    pub fn backend_rows(&self) -> Vec<BackendRow> {
        let mut services: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (_, f) in &self.frontends {
            for id in self.members(f.slots, f.len).into_keys() {
                let of = services.entry(id).or_default();
                if !of.contains(&f.service) {
                    of.push(f.service);
                }
            }
        }
        let row = |(id, b): (&u32, &Backend)| {
            let of = services.get(id).cloned().unwrap_or_default();
            let mut names: Vec<String> = of.into_iter().map(|s| self.name(s)).collect();
            names.sort();
            let counter = self.backend_counters.get(id).copied();
            BackendRow {
                id: *id,
                address: b.addr.into(),
                port: b.port.get(),
                protocol: protocol_name(b.proto).into_owned(),
                local: b.flags & backend_flags::LOCAL != 0,
                services: names,
                traffic: counter.map_or_else(Traffic::default, Traffic::from),
            }
        };
        self.backends.iter().map(row).collect()
    }
}

/// The name of a service, or `#id` where names are not known.
pub(super) fn service_name(names: &BTreeMap<u32, ServicePortKey>, service: u32) -> String {
    names
        .get(&service)
        .map_or_else(|| format!("#{service}"), ToString::to_string)
}

/// Whether a service goes by a name that a user gives: its namespace, name and port, of
/// which namespace and port can be left out; or `#id` where names are not known.
pub fn is_called(service: &str, wanted: &str) -> bool {
    let short = service.split_once('/').map_or(service, |(_, name)| name);
    let all_ports = |name: &str| name.split_once(':').is_some_and(|(name, _)| name == wanted);
    [service, short]
        .into_iter()
        .any(|name| name == wanted || all_ports(name))
}

pub(super) fn scope_name(of: u8) -> &'static str {
    match of {
        scope::EXTERNAL => "external",
        _ => "internal",
    }
}

const TRAFFIC: [(&str, Side); 3] = [
    ("CONNECTIONS", Side::Right),
    ("PACKETS", Side::Right),
    ("BYTES", Side::Right),
];

fn traffic_cells(t: &Traffic) -> [String; 3] {
    [
        t.connections.to_string(),
        t.packets.to_string(),
        size(t.bytes),
    ]
}

/// Names that a row has before it only counts.
const NAMED: usize = 3;

/// Names, all of them where there is room.
fn named(names: &[String], wide: bool) -> String {
    match names.len() {
        n if wide || n <= NAMED => names.join(" "),
        n => format!("{} … {n} in all", names[..NAMED - 1].join(" ")),
    }
}

/// Frontends as text; `wide` with all backends and the services' ids.
pub fn frontends_text(rows: &[FrontendRow], wide: bool) -> String {
    let words = ["SERVICE", "FRONTEND", "PROTO", "SCOPE", "KIND", "BACKENDS"];
    let id = wide.then_some(("ID", Side::Right));
    let words = words.into_iter().map(|w| (w, Side::Left));
    let columns: Vec<_> = id.into_iter().chain(words).chain(TRAFFIC).collect();
    let mut table = Table::new(&columns);
    for row in rows {
        let mut kind = row.kind.join(",");
        if row.affinity > 0 {
            let comma = if kind.is_empty() { "" } else { "," };
            kind = format!("{kind}{comma}sticky {}s", row.affinity);
        }
        let backends = match row.backends.is_empty() {
            true => format!("none: {}", row.without_backend),
            false => named(&row.backends, wide),
        };
        let frontend = SocketAddr::new(row.address, row.port).to_string();
        let kind = if kind.is_empty() {
            "-".to_owned()
        } else {
            kind
        };
        let id = wide.then(|| row.id.to_string());
        let mut cells: Vec<String> = id.into_iter().collect();
        cells.extend([
            row.service.clone(),
            frontend,
            row.protocol.clone(),
            row.scope.to_owned(),
            kind,
            backends,
        ]);
        cells.extend(traffic_cells(&row.traffic));
        table.row(cells);
    }
    table.render()
}

/// Backends as text; `wide` with all services.
pub fn backends_text(rows: &[BackendRow], wide: bool) -> String {
    let mut columns = vec![("ID", Side::Right)];
    columns.extend(["BACKEND", "PROTO", "WHERE", "SERVICES"].map(|w| (w, Side::Left)));
    columns.extend(TRAFFIC);
    let mut table = Table::new(&columns);
    for row in rows {
        let backend = SocketAddr::new(row.address, row.port).to_string();
        let place = if row.local { "here" } else { "other node" };
        let services = match row.services.is_empty() {
            true => "-".to_owned(),
            false => named(&row.services, wide),
        };
        let mut cells = vec![
            row.id.to_string(),
            backend,
            row.protocol.clone(),
            place.to_owned(),
            services,
        ];
        cells.extend(traffic_cells(&row.traffic));
        table.row(cells);
    }
    table.render()
}
