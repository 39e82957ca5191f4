//! The table: text of 80 columns from rows and tallies. Pure.

use std::collections::BTreeMap;

use super::check::{Tally, judge};
use super::rows::{Expect, Row};
use super::terminal::{Ink, Paint};

/// Cells of a bar.
const BAR: usize = 4;
/// Columns of a frontend.
const FRONTEND: usize = 27;
/// Shares that fit beside each other.
const SHARES: usize = 3;

/// A row with what happened in it.
pub(crate) type Line<'a> = (&'a Row, &'a Tally);

/// How much the table shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Detail {
    /// A line for each frontend and place.
    Places,
    /// A line for each frontend, its places as letters.
    Frontends,
}

/// The table's lines; the first two are its heading.
pub(crate) fn render(rows: &[Line<'_>], detail: Detail, paint: Paint) -> Vec<String> {
    let mut lines = heading(rows, detail, paint);
    let mut i = 0;
    while i < rows.len() {
        let key = &rows[i].0.key;
        let same = |r: &Row| (&r.key.service, r.key.kind) == (&key.service, key.kind);
        let service = rows[i..].iter().take_while(|(r, _)| same(r)).count();
        lines.extend(service_lines(&rows[i..i + service], detail, paint));
        i += service;
    }
    let failing: Vec<_> = failing(rows).collect();
    if !failing.is_empty() {
        lines.push(String::new());
    }
    for (row, why) in failing {
        lines.push(paint.ink(
            Ink::Bad,
            &format!("✗ {} from {}:", name(row), row.key.place.label()),
        ));
        lines.push(format!("    {why}"));
    }
    lines
}

/// Rows that did not do what they should, each with the reason; rows without traffic are not
/// among them.
pub(crate) fn failing<'a>(rows: &'a [Line<'a>]) -> impl Iterator<Item = (&'a Row, String)> {
    let sent = rows.iter().filter(|(_, t)| t.answered() + t.failed() > 0);
    sent.filter_map(|(row, tally)| judge(row, tally).err().map(|why| (*row, why)))
}

/// `default/web ClusterIP 10.96.0.10:80/tcp`, `default/shop Ingress http://shop.test/ by
/// 203.0.113.90:80`.
pub(crate) fn name(row: &Row) -> String {
    let key = &row.key;
    let kind = key.kind.label();
    match &key.ask {
        Some(ask) => format!("{} {kind} {} by {}", key.service, ask.url, key.target),
        None => format!("{} {kind} {}/{}", key.service, key.target, key.proto),
    }
}

/// A frontend below its service's name: `10.96.0.10:80/tcp`, `http://shop.test/ (v6)`. A URL that
/// does not fit is cut.
fn frontend(row: &Row) -> String {
    let key = &row.key;
    let Some(ask) = &key.ask else {
        return format!("{}/{}", key.target, key.proto);
    };
    let family = if key.target.is_ipv6() { " (v6)" } else { "" };
    let room = FRONTEND - family.len();
    if ask.url.chars().count() <= room {
        return format!("{}{family}", ask.url);
    }
    let start: String = ask.url.chars().take(room - 1).collect();
    format!("{start}…{family}")
}

fn heading(rows: &[Line<'_>], detail: Detail, paint: Paint) -> Vec<String> {
    let sent = rows
        .iter()
        .filter(|(_, t)| t.answered() + t.failed() > 0)
        .count();
    let bad = failing(rows).count();
    let connections: u64 = rows.iter().map(|(_, t)| t.answered() + t.failed()).sum();
    let state = format!(
        "{connections} connections in {sent} of {} rows; ",
        rows.len()
    );
    let verdict = match (sent, bad) {
        (0, _) => String::new(),
        (_, 0) => paint.ink(Ink::Good, "all as it should be"),
        _ => paint.ink(
            Ink::Bad,
            &format!("{bad} not as they should be (see the end)"),
        ),
    };
    let from = if detail == Detail::Places {
        "from"
    } else {
        "from *"
    };
    let columns = format!(
        "  {:<FRONTEND$} {from:<7} {:>6} {:>4} {:>4} share of each backend",
        "frontend", "conns", "err", "ns"
    );
    vec![state + &verdict, paint.ink(Ink::Faint, &columns)]
}

/// A service's name, kind and backends, and its frontends of that kind below.
fn service_lines(rows: &[Line<'_>], detail: Detail, paint: Paint) -> Vec<String> {
    let mut pods: Vec<&str> = rows.iter().flat_map(|(r, _)| expected(r)).collect();
    pods.sort_unstable();
    pods.dedup();
    let note = match (&rows[0].0.expect, pods.is_empty()) {
        (_, true) => "no backend".to_owned(),
        (Expect::Sticky(_), _) => format!("{} (one for each client)", pods.join(" ")),
        _ => pods.join(" "),
    };
    let key = &rows[0].0.key;
    let title = format!("{} {}", key.service, key.kind.label());
    let mut lines = vec![format!(
        "{}  {}",
        paint.ink(Ink::Strong, &title),
        paint.ink(Ink::Faint, &note)
    )];
    let mut i = 0;
    while i < rows.len() {
        let key = &rows[i].0.key;
        let same = |r: &Row| {
            (r.key.kind, &r.key.ask, r.key.proto, r.key.target)
                == (key.kind, &key.ask, key.proto, key.target)
        };
        let places = rows[i..].iter().take_while(|(r, _)| same(r)).count();
        lines.extend(frontend_lines(&rows[i..i + places], detail, paint));
        i += places;
    }
    lines
}

fn frontend_lines(places: &[Line<'_>], detail: Detail, paint: Paint) -> Vec<String> {
    let target = frontend(places[0].0);
    if detail == Detail::Frontends {
        // Places that expect something else (a stranger) are judged, not added up.
        let mut sum = Tally::default();
        places
            .iter()
            .filter(|(r, _)| r.expect == places[0].0.expect)
            .for_each(|(_, t)| sum.merge(t));
        let from = letters(places, paint);
        return columns(&target, &from, (places[0].0, &sum), paint);
    }
    let mut lines = Vec::new();
    for (i, (row, tally)) in places.iter().enumerate() {
        let ink = if judge(row, tally).is_ok() {
            Ink::Good
        } else {
            Ink::Bad
        };
        let from = paint.ink(
            if tally.answered() + tally.failed() == 0 {
                Ink::Faint
            } else {
                ink
            },
            row.key.place.label(),
        );
        let pad = " ".repeat(7 - row.key.place.label().len());
        lines.extend(columns(
            if i == 0 { &target } else { "" },
            &(from + &pad),
            (row, tally),
            paint,
        ));
    }
    lines
}

/// The places of a frontend as letters, each in the colour of its state.
fn letters(places: &[Line<'_>], paint: Paint) -> String {
    let mut text = String::new();
    for (row, tally) in places {
        let ink = match judge(row, tally) {
            _ if tally.answered() + tally.failed() == 0 => Ink::Faint,
            Ok(()) => Ink::Good,
            Err(_) => Ink::Bad,
        };
        text.push_str(&paint.ink(ink, &row.key.place.letter().to_string()));
    }
    text + &" ".repeat(7_usize.saturating_sub(places.len()))
}

fn columns(target: &str, from: &str, (row, tally): Line<'_>, paint: Paint) -> Vec<String> {
    let total = tally.answered() + tally.failed();
    let ns = tally
        .ns_per_packet()
        .map_or_else(|| "-".to_owned(), |ns| ns.to_string());
    let wanted = !matches!(row.expect, Expect::Spread(_) | Expect::Sticky(_));
    // Errors that are expected are no errors.
    let errors = if wanted { 0 } else { tally.failed() };
    let errors = format!("{errors:>4}");
    let errors = if errors.trim() == "0" {
        errors
    } else {
        paint.ink(Ink::Bad, &errors)
    };
    let start = format!("  {target:<FRONTEND$} {from} {total:>6} {errors} {ns:>4} ");
    let shares = shares(row, tally, paint);
    let blank = " ".repeat(55);
    let first = std::iter::once(start).chain(std::iter::repeat(blank));
    first
        .zip(shares)
        .map(|(left, right)| (left + &right).trim_end().to_owned())
        .collect()
}

/// Bars and percentages, in the order of the service's backends; more than three need more
/// lines.
fn shares(row: &Row, tally: &Tally, paint: Paint) -> Vec<String> {
    match row.expect {
        Expect::Refused if tally.answered() == 0 && tally.failed() > 0 => {
            return vec!["refused".to_owned()];
        }
        Expect::Dropped if tally.answered() == 0 && tally.failed() > 0 => {
            return vec!["no answer".to_owned()];
        }
        Expect::Redirected if tally.answered() == 0 && tally.failed() > 0 => {
            return vec!["redirected".to_owned()];
        }
        _ => {}
    }
    let mut counts: BTreeMap<&str, u64> = expected(row).map(|name| (name, 0)).collect();
    counts.extend(tally.backends.iter().map(|(name, n)| (name.as_str(), *n)));
    let total = tally.answered();
    let cells: Vec<String> = counts.values().map(|n| share(*n, total, paint)).collect();
    if cells.is_empty() {
        return vec![String::new()];
    }
    cells.chunks(SHARES).map(|c| c.join(" ")).collect()
}

fn share(n: u64, total: u64, paint: Paint) -> String {
    let percent = (n * 100 + total / 2).checked_div(total).unwrap_or_default();
    let label = format!("{percent}%");
    let width = BAR + 3 - label.len().max(3);
    paint.ink(Ink::Bar, &bar(n, total, width)) + &format!("{label:<3}")
}

/// A bar of `width` cells, in eighths of a cell.
fn bar(n: u64, total: u64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (n * 8 * width as u64 + total / 2)
        .checked_div(total)
        .unwrap_or_default();
    let eighths = usize::try_from(eighths).unwrap_or_default().min(8 * width);
    let mut text = "█".repeat(eighths / 8);
    text.push_str(EIGHTHS[eighths % 8]);
    let blank = width - text.chars().count();
    text + &" ".repeat(blank)
}

fn expected(row: &Row) -> impl Iterator<Item = &str> {
    let pods = match &row.expect {
        Expect::Spread(pods) | Expect::Sticky(pods) => Some(pods),
        Expect::Refused | Expect::Dropped | Expect::Redirected => None,
    };
    pods.into_iter().flatten().map(String::as_str)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
