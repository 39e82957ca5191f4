//! `bascule maglev show`: how a service's new flows fall to its backends. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{backend_flags, frontend_flags};
use serde::Serialize;

use super::{
    rows::{Held, is_called, scope_name},
    text::{Side, Table},
};
use crate::bpf::failure::protocol_name;

/// A backend in a table.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ShareRow {
    /// The backend.
    pub backend: String,
    /// Whether it runs on this node.
    pub local: bool,
    /// Its slots.
    pub slots: u32,
    /// Its part of new flows, from 0 to 1.
    pub share: f64,
    /// New flows that it got from all frontends.
    pub connections: u64,
}

/// A table, and what leads to it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TableRow {
    /// Namespace, name and port of the service, or `#id`.
    pub service: String,
    /// The frontends: address, port and protocol, and the scope where only one leads here.
    pub frontends: Vec<String>,
    /// Slots of the table; 1 for a single backend, which needs no table.
    pub slots: u32,
    /// Its backends, the largest share first.
    pub backends: Vec<ShareRow>,
}

/// Service id, first slot and length.
type Place = (u32, u32, u32);
/// Address, port and protocol of a frontend, and the scopes in which it leads to a table.
type Leads = BTreeMap<(IpAddr, u16, u8), Vec<u8>>;

/// The tables of a service, or of all.
pub fn table_rows(held: &Held, service: Option<&str>) -> Vec<TableRow> {
    let is = |name: &str| service.is_none_or(|service| is_called(name, service));
    let mut places: BTreeMap<Place, Leads> = BTreeMap::new();
    for (key, value) in &held.frontends {
        let vip = value.flags & frontend_flags::VIP != 0;
        if vip || !is(&held.name(value.service)) {
            continue;
        }
        let slots = if value.len == 0 { 0 } else { value.slots };
        let leads = places.entry((value.service, slots, value.len)).or_default();
        let frontend = (key.addr.into(), key.port.get(), key.proto);
        leads.entry(frontend).or_default().push(key.scope);
    }
    let row = |((id, slots, len), leads): (Place, Leads)| TableRow {
        service: held.name(id),
        frontends: leads.into_iter().map(lead).collect(),
        slots: len,
        backends: shares(held, (slots, len)),
    };
    places.into_iter().map(row).collect()
}

fn lead(((addr, port, protocol), scopes): ((IpAddr, u16, u8), Vec<u8>)) -> String {
    let frontend = SocketAddr::new(addr, port);
    let protocol = protocol_name(protocol);
    match scopes[..] {
        [scope] => format!("{frontend}/{protocol} {}", scope_name(scope)),
        _ => format!("{frontend}/{protocol}"),
    }
}

fn shares(held: &Held, (slots, len): (u32, u32)) -> Vec<ShareRow> {
    let members = held.members(slots, len);
    let share = |(id, slots): (u32, u32)| {
        let counter = held.backend_counters.get(&id);
        let backend = held.backends.get(&id);
        ShareRow {
            backend: held.backend(id),
            local: backend.is_some_and(|b| b.flags & backend_flags::LOCAL != 0),
            slots,
            share: f64::from(slots) / f64::from(len),
            connections: counter.map_or(0, |c| c.connections),
        }
    };
    let mut rows: Vec<ShareRow> = members.into_iter().map(share).collect();
    rows.sort_by(|a, b| (b.slots, &a.backend).cmp(&(a.slots, &b.backend)));
    rows
}

/// Cells of a whole bar.
const BAR: usize = 20;

/// A part of a whole, in eighths of a cell.
pub(super) fn bar(part: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (part * (BAR * 8) as f64).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// Tables as text, one after the other. Bars are as long as shares are to the largest one.
pub fn tables_text(rows: &[TableRow]) -> String {
    let table = |row: &TableRow| {
        let (slots, backends) = (row.slots, row.backends.len());
        let mut text = format!("{}: {}\n", row.service, row.frontends.join(", "));
        if row.backends.is_empty() {
            return text + "  no backend\n";
        }
        text.push_str(&format!("  {slots} slots, {backends} backends\n"));
        let mut table = Table::new(&[
            ("  BACKEND", Side::Left),
            ("WHERE", Side::Left),
            ("SLOTS", Side::Right),
            ("SHARE", Side::Right),
            ("", Side::Left),
            ("CONNECTIONS", Side::Right),
        ]);
        let most = row.backends.iter().map(|b| b.share).fold(0.0, f64::max);
        for b in &row.backends {
            table.row(vec![
                format!("  {}", b.backend),
                if b.local { "here" } else { "other node" }.to_owned(),
                b.slots.to_string(),
                format!("{:.1} %", b.share * 100.0),
                bar(b.share / most),
                b.connections.to_string(),
            ]);
        }
        text + &table.render()
    };
    rows.iter().map(table).collect::<Vec<_>>().join("\n")
}
