//! Draws the state. Pure but for the terminal that it draws on.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Text},
    widgets::{Cell, Paragraph, Row as Cells, Table},
};

use super::{
    node,
    rates::{Rates, Row},
    state::{By, Shown, State, View},
};
use crate::cli::text::size;

/// How it looks, besides the state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Seconds between two readings.
    pub(super) interval: f64,
    /// Whether there are colours.
    pub(super) colour: bool,
}

impl Look {
    /// A colour where there are any.
    pub(super) fn colour(self, colour: Color) -> Style {
        match self.colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    /// Of the head of a table.
    pub(super) fn head(self) -> Style {
        self.colour(Color::Cyan).add_modifier(Modifier::BOLD)
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, look: Look) {
    let [title, sums, body, note, help] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let every = format!("every {} s", look.interval);
    frame.render_widget(Line::styled(headline(state), bold), title);
    frame.render_widget(Line::raw(every).right_aligned(), title);
    match &state.shown {
        Shown::Rows(_) => rows(frame, (sums, body), state, look),
        Shown::Node(facts, drops) => node::draw(frame, body, (facts, drops, state), look),
    }
    if let Some(text) = &state.note {
        let warning = look.colour(Color::Yellow);
        frame.render_widget(Line::styled(text.as_str(), warning), note);
    }
    let keys = Paragraph::new(help_line(state)).style(look.colour(Color::DarkGray));
    frame.render_widget(keys, help);
}

/// What is looked at.
fn headline(state: &State) -> String {
    let shown = match &state.screen.view {
        View::Services => "Services".to_owned(),
        View::Backends { name, .. } => format!("Backends of {}", shorten(name, 46)),
        View::Node => "Node".to_owned(),
    };
    match state.screen.filter.as_str() {
        "" => shown,
        filter => format!("{shown} with \"{filter}\""),
    }
}

fn help_line(state: &State) -> String {
    if state.typing {
        let filter = &state.screen.filter;
        return format!("Filter: {filter}_   enter keep   esc clear");
    }
    let own = match state.screen.view {
        View::Services => {
            "q quit  enter backends  tab node  / filter  c p b n sort  r reverse  ↑↓ move"
        }
        View::Backends { .. } => {
            "q quit  esc services  tab node  / filter  c p b n sort  r reverse  ↑↓ move"
        }
        View::Node => "q quit  tab services  / filter clients",
    };
    own.to_owned()
}

/// A column of numbers: its name, what orders by it, and its width.
type Column = (&'static str, Option<By>, u16);

const CARRIED: [Column; 3] = [
    ("CONN/S", Some(By::Connections), 8),
    ("PACKETS/S", Some(By::Packets), 10),
    ("BYTES/S", Some(By::Bytes), 10),
];
const PARTS: [Column; 3] = [("WHERE", None, 5), ("SHARE", None, 6), ("GETS", None, 6)];

fn rows(frame: &mut Frame<'_>, (sums, body): (Rect, Rect), state: &State, look: Look) {
    let rows = state.rows();
    let total = total(&rows);
    frame.render_widget(sum_line(rows.len(), total), sums);
    let services = state.screen.view == View::Services;
    let parts: &[Column] = if services { &[] } else { &PARTS };
    let columns: Vec<Column> = parts.iter().chain(&CARRIED).copied().collect();
    let numbers: u16 = columns.iter().map(|(_, _, width)| width + 1).sum();
    let first = if services { "SERVICE" } else { "BACKEND" };
    // The mark of the chosen row takes two.
    let width = usize::from(body.width.saturating_sub(numbers + 2));

    let page = usize::from(body.height.saturating_sub(1)).max(1);
    let chosen = state.place(&rows);
    let begin = chosen / page * page;
    let shown = rows.iter().enumerate().skip(begin).take(page);
    let line = |(place, row): (usize, &&Row)| {
        let mark = if place == chosen { "> " } else { "  " };
        let name = format!("{mark}{}", shorten(&row.name, width));
        let cells = cells(row, total).into_iter().map(right);
        let line = Cells::new(std::iter::once(Cell::from(name)).chain(cells));
        match place == chosen {
            true => line.style(Modifier::REVERSED),
            false => line,
        }
    };
    let head = std::iter::once(Cell::from(format!(
        "  {}",
        named(first, Some(By::Name), state)
    )))
    .chain(
        columns
            .iter()
            .map(|(name, by, _)| right(named(name, *by, state))),
    );
    let widths = std::iter::once(Constraint::Fill(1)).chain(
        columns
            .iter()
            .map(|(_, _, width)| Constraint::Length(*width)),
    );
    let table = Table::new(shown.map(line), widths).header(Cells::new(head).style(look.head()));
    frame.render_widget(table, body);
}

fn sum_line(count: usize, total: Option<Rates>) -> String {
    match total {
        Some(total) => format!(
            "{count} in all: {} connections/s, {} packets/s, {}/s",
            number(total.connections),
            number(total.packets),
            size(total.bytes as u64)
        ),
        None => format!("{count} in all"),
    }
}

/// The sum of those that have rates, if any has.
fn total(rows: &[&Row]) -> Option<Rates> {
    let rates = rows.iter().filter_map(|row| row.rates);
    rates.reduce(|a, b| Rates {
        connections: a.connections + b.connections,
        packets: a.packets + b.packets,
        bytes: a.bytes + b.bytes,
    })
}

/// A row without its name.
fn cells(row: &Row, total: Option<Rates>) -> Vec<String> {
    let unknown = || "-".to_owned();
    let mut cells = Vec::new();
    if let Some(part) = row.part {
        cells.push(if part.local { "here" } else { "other" }.to_owned());
        cells.push(percent(part.share));
        let of = total.map_or(0.0, |t| t.connections);
        let gets = row.rates.filter(|_| of > 0.0);
        cells.push(gets.map_or_else(unknown, |r| percent(r.connections / of)));
    }
    cells.extend(match row.rates {
        Some(r) => [
            number(r.connections),
            number(r.packets),
            size(r.bytes as u64),
        ],
        None => [unknown(), unknown(), unknown()],
    });
    cells
}

/// A column's name, with an arrow where rows are ordered by it.
fn named(name: &str, by: Option<By>, state: &State) -> String {
    if by != Some(state.by) {
        return name.to_owned();
    }
    // Names rise by themselves, numbers fall.
    match (state.by == By::Name) == state.reversed {
        true => format!("{name}▼"),
        false => format!("{name}▲"),
    }
}

/// A cell of a number.
pub(super) fn right(text: String) -> Cell<'static> {
    Cell::from(Text::from(text).right_aligned())
}

/// A number of things a second in six characters at most.
pub(super) fn number(rate: f64) -> String {
    match rate {
        r if r < 9.95 => format!("{r:.1}"),
        r if r < 9999.5 => format!("{r:.0}"),
        r if r < 999.95e3 => format!("{:.1}k", r / 1e3),
        r if r < 999.95e6 => format!("{:.1}M", r / 1e6),
        r => format!("{:.1}G", r / 1e9),
    }
}

/// A part of a whole.
pub(super) fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}

/// A name in so many characters: what is left out is in its middle, since both its namespace
/// and its port say something.
fn shorten(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        return name.to_owned();
    }
    let kept = width.saturating_sub(1);
    let (left, right) = (kept - kept / 2, kept / 2);
    let begin = name.chars().take(left);
    let end = name.chars().skip(length - right);
    begin.chain(['…']).chain(end).take(width).collect()
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
