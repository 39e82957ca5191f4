//! Draws the node's own view.

use std::net::IpAddr;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Color,
    text::Line,
    widgets::{Cell, Row as Cells, Table},
};

use super::{
    draw::{Look, number, percent, right},
    rates::{Dropped, Node, Snat},
    state::State,
};
use crate::{bpf::census::Fill, cli::maglev::bar};

/// Reasons that are shown at most: clients need room too.
const REASONS: usize = 7;

/// Draws it.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    (facts, drops, state): (&Node, &[Dropped], &State),
    look: Look,
) {
    let shown = drops.len().clamp(1, REASONS) as u16;
    let [conntrack, snat, _, reasons, _, clients] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(shown + 1),
        Constraint::Length(1),
        Constraint::Fill(1),
    ])
    .areas(area);
    let names = ["Conntrack  IPv4", "           IPv6"];
    let lines = names.iter().zip(facts.conntrack);
    for ((name, fill), row) in lines.zip(conntrack.rows()) {
        frame.render_widget(fill_line(name, fill, look), row);
    }
    frame.render_widget(snat_line(&facts.snat), snat);
    frame.render_widget(reasons_table(drops, look), reasons);
    frame.render_widget(
        clients_table(&state.clients(), clients.height, look),
        clients,
    );
}

fn fill_line(name: &str, fill: Fill, look: Look) -> Line<'static> {
    let part = fill.used as f64 / fill.room.max(1) as f64;
    let text = format!(
        "{name}  {:<20}  {:>6}  {} of {} entries",
        bar(part),
        percent(part),
        fill.used,
        fill.room
    );
    // With more than six tenths in use the first flows find no room.
    match part {
        part if part >= 0.9 => Line::styled(text, look.colour(Color::Red)),
        part if part >= 0.6 => Line::styled(text, look.colour(Color::Yellow)),
        _ => Line::raw(text),
    }
}

fn snat_line(snat: &Snat) -> String {
    let Some((backend, flows)) = &snat.most else {
        return format!("SNAT       no flow, {} ports for each backend", snat.ports);
    };
    let (all, ports) = (snat.flows, snat.ports);
    let part = percent(*flows as f64 / ports.max(1) as f64);
    format!("SNAT       {all} flows; most to {backend}: {flows} of {ports} ports, {part}")
}

fn reasons_table(drops: &[Dropped], look: Look) -> Table<'static> {
    let row = |d: &Dropped| {
        let rate = d.rate.map_or_else(|| "-".into(), number);
        let cells = [Cell::from(d.reason.label()), right(rate)];
        Cells::new(cells.into_iter().chain([right(d.packets.to_string())]))
    };
    let none = drops.is_empty().then(|| Cells::new(["none"]));
    let rows = drops.iter().take(REASONS).map(row).chain(none);
    let head = [
        Cell::from("REFUSED OR DROPPED"),
        right("PACKETS/S".into()),
        right("IN ALL".into()),
    ];
    let widths = [20, 10, 14].map(Constraint::Length);
    Table::new(rows, widths).header(Cells::new(head).style(look.head()))
}

fn clients_table(clients: &[(IpAddr, u64)], height: u16, look: Look) -> Table<'static> {
    let all: u64 = clients.iter().map(|(_, flows)| flows).sum();
    let row = |(client, flows): &(IpAddr, u64)| {
        let part = percent(*flows as f64 / all.max(1) as f64);
        Cells::new([
            Cell::from(client.to_string()),
            right(flows.to_string()),
            right(part),
        ])
    };
    let shown = clients.iter().take(usize::from(height.saturating_sub(1)));
    let head = [
        Cell::from(format!("CLIENT ({} in all)", clients.len())),
        right("FLOWS".into()),
        right("SHARE".into()),
    ];
    let widths = [39, 10, 7].map(Constraint::Length);
    Table::new(shown.map(row), widths).header(Cells::new(head).style(look.head()))
}
