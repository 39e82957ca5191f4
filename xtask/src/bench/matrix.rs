//! Rows that are alike as tables of lines and columns: one figure a cell.

use std::fmt::Write as _;

use super::report::{factor, number};
use super::stats::{Row, Spot};
use crate::ui::{Colour, paint};

/// Rows of one heading.
pub(super) struct Matrix<'a> {
    title: &'a str,
    lines: Vec<&'a str>,
    columns: Vec<&'a str>,
    cells: Vec<(&'a Spot, &'a Row)>,
}

/// The rows that have a place in a table, by its heading, in the order of the rows.
pub(super) fn of(rows: &[Row]) -> Vec<Matrix<'_>> {
    let mut all: Vec<Matrix<'_>> = Vec::new();
    for row in rows {
        let Some(spot) = &row.spot else { continue };
        let at = match all.iter().position(|m| m.title == spot.table) {
            Some(at) => at,
            None => {
                all.push(Matrix::new(&spot.table));
                all.len() - 1
            }
        };
        all[at].add(spot, row);
    }
    all
}

impl<'a> Matrix<'a> {
    fn new(title: &'a str) -> Self {
        Self {
            title,
            lines: Vec::new(),
            columns: Vec::new(),
            cells: Vec::new(),
        }
    }

    fn add(&mut self, spot: &'a Spot, row: &'a Row) {
        if !self.lines.contains(&spot.line.as_str()) {
            self.lines.push(&spot.line);
        }
        if !self.columns.contains(&spot.column.as_str()) {
            self.columns.push(&spot.column);
        }
        self.cells.push((spot, row));
    }

    fn cell(&self, line: &str, column: &str) -> Option<&Row> {
        let found = |(spot, _): &&(&Spot, &Row)| spot.line == line && spot.column == column;
        self.cells.iter().find(found).map(|(_, row)| *row)
    }

    /// What the ratios are to, if they all are to the same.
    fn reference(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (_, row) in &self.cells {
            let name = row.reference.as_ref().map(|(name, _)| name.as_str());
            names.extend(name.filter(|name| !names.contains(name)));
        }
        match names.is_empty() {
            true => String::new(),
            false => format!("; × {}", names.join(", or × ")),
        }
    }

    /// For a terminal: medians and ratios.
    pub(super) fn text(&self) -> String {
        let head = std::iter::once("").chain(self.columns.iter().copied());
        let mut table: Vec<Vec<String>> = vec![head.map(str::to_owned).collect()];
        for line in &self.lines {
            let cells = self.columns.iter().map(|column| {
                let row = self.cell(line, column);
                row.and_then(short).unwrap_or_default()
            });
            table.push(std::iter::once((*line).to_owned()).chain(cells).collect());
        }
        let width = |column: usize| {
            let cells = table.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..=self.columns.len()).map(width).collect();
        let mut out = format!("{}{}\n", self.title, self.reference());
        for line in &table {
            for (cell, width) in line.iter().zip(&widths) {
                let text = format!("  {cell:<width$}");
                let colour = match cell {
                    cell if cell.ends_with(" NO") => Some(Colour::Red),
                    cell if cell.ends_with(" yes") => Some(Colour::Green),
                    _ => None,
                };
                out.push_str(&colour.map_or(text.clone(), |c| paint(c, &text)));
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
        out
    }

    /// For a page: least, median and greatest, and ratios.
    pub(super) fn markdown(&self) -> String {
        let mut out = format!("### {}{}\n\n", self.title, self.reference());
        let _ = writeln!(out, "| | {} |", self.columns.join(" | "));
        let _ = writeln!(out, "|---|{}", "--:|".repeat(self.columns.len()));
        for line in &self.lines {
            let cells = self.columns.iter().map(|column| {
                let row = self.cell(line, column);
                row.and_then(long).unwrap_or_default()
            });
            let cells: Vec<String> = cells.collect();
            let _ = writeln!(out, "| {line} | {} |", cells.join(" | "));
        }
        out
    }
}

fn short(row: &Row) -> Option<String> {
    let median = number(row.spread()?.median);
    Some(format!("{median}{}", judged(row)))
}

fn long(row: &Row) -> Option<String> {
    let spread = row.spread()?;
    let [min, median, max] = [spread.min, spread.median, spread.max].map(number);
    Some(format!("{median} ({min} to {max}){}", judged(row)))
}

/// The ratio, the target, and whether it is met.
fn judged(row: &Row) -> String {
    let within = row.interval().map_or(String::new(), |[low, high]| {
        format!("±{}", factor((high - low) / 2.0))
    });
    let ratio = row
        .ratio()
        .map_or(String::new(), |r| format!(" ×{}{within}", factor(r)));
    let target = row
        .target
        .map_or(String::new(), |t| format!(" {}{}", t.sign(), t.limit()));
    let met = row.met().map_or("", |met| if met { " yes" } else { " NO" });
    format!("{ratio}{target}{met}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::Target;

    fn row(line: &str, column: &str, samples: &[f64]) -> Row {
        let mut row = Row::new("traffic", format!("{line} {column}"), "1/s");
        row.samples = samples.to_vec();
        row.spot = Some(Spot {
            table: "16 at a time, 1/s".to_owned(),
            line: line.to_owned(),
            column: column.to_owned(),
        });
        row
    }

    #[test]
    fn figures_that_are_alike_are_one_table() {
        let mut ours = row("ClusterIP", "ours", &[900.0, 970.0, 980.0]);
        ours.reference = Some(("direct".to_owned(), vec![1000.0; 3]));
        ours.target = Some(Target::AtLeast(0.96));
        let rows = [
            row("direct", "none", &[1000.0]),
            ours,
            Row::new("control", "other", "ms"),
        ];
        let all = of(&rows);
        assert_eq!(all.len(), 1);
        let text = all[0].text();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0].join(" "), "16 at a time, 1/s; × direct");
        assert_eq!(lines[1], ["none", "ours"]);
        assert_eq!(lines[3], ["ClusterIP", "970", "×0.97", "≥0.96", "yes"]);
        let page = all[0].markdown();
        assert!(
            page.contains("| ClusterIP |  | 970 (900 to 980) ×0.97 ≥0.96 yes |"),
            "{page}"
        );
    }
}
