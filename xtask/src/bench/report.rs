//! The result as a table, as JSON and as a page.

use std::fmt::Write as _;

use serde::Serialize;

use super::matrix;
use super::stats::{Row, Target};
use crate::ui::{Colour, paint};

/// A row as JSON.
#[derive(Debug, Serialize)]
struct Json<'a> {
    suite: &'a str,
    case: &'a str,
    unit: &'a str,
    min: f64,
    median: f64,
    max: f64,
    repetitions: usize,
    ratio_to: Option<&'a str>,
    ratio: Option<f64>,
    ratio_interval: Option<[f64; 2]>,
    target: Option<f64>,
    target_is: Option<&'static str>,
    met: Option<bool>,
}

/// All rows as an array of JSON.
///
/// # Errors
/// A number is none.
pub(super) fn json(rows: &[Row]) -> serde_json::Result<String> {
    let rows: Vec<Json<'_>> = rows.iter().filter_map(to_json).collect();
    serde_json::to_string_pretty(&rows)
}

fn to_json(row: &Row) -> Option<Json<'_>> {
    let spread = row.spread()?;
    Some(Json {
        suite: &row.suite,
        case: &row.case,
        unit: &row.unit,
        min: round(spread.min),
        median: round(spread.median),
        max: round(spread.max),
        repetitions: row.samples.len(),
        ratio_to: row.reference.as_ref().map(|(name, _)| name.as_str()),
        ratio: row.ratio().map(round),
        ratio_interval: row.interval().map(|ends| ends.map(round)),
        target: row.target.map(Target::limit),
        target_is: row.target.map(|t| match t {
            Target::AtMost(_) => "at most",
            Target::AtLeast(_) => "at least",
        }),
        met: row.met(),
    })
}

/// To a thousandth, or to three digits of what is smaller: no clock here is better.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = (2 - value.abs().log10().floor() as i32).max(3);
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// With two decimals, or two digits of what is smaller.
pub(super) fn factor(value: f64) -> String {
    if value <= 0.0 || value >= 0.095 || !value.is_finite() {
        return format!("{value:.2}");
    }
    let decimals = (1.0 - value.log10().floor()) as usize;
    format!("{value:.decimals$}")
}

/// One row as words: case, min, median, max, unit, ratio, target, met.
fn words(row: &Row) -> Option<[String; 8]> {
    let spread = row.spread()?;
    let ratio = row.reference.as_ref().zip(row.ratio());
    Some([
        row.case.clone(),
        number(spread.min),
        number(spread.median),
        number(spread.max),
        row.unit.clone(),
        ratio.map_or(String::new(), |((name, _), r)| {
            format!("{} × {name}", factor(r))
        }),
        row.target
            .map_or(String::new(), |t| format!("{} {}", t.sign(), t.limit())),
        row.met()
            .map_or(String::new(), |met| if met { "yes" } else { "NO" }.into()),
    ])
}

const HEAD: [&str; 8] = [
    "case", "min", "median", "max", "unit", "ratio", "target", "met",
];

/// With three digits or more.
pub(super) fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// `44,000`.
pub(super) fn thousands(n: u32) -> String {
    match n {
        0..1000 => n.to_string(),
        _ => format!("{},{:03}", n / 1000, n % 1000),
    }
}

/// The rows as a table for a terminal.
pub(super) fn table(rows: &[Row]) -> String {
    let lines: Vec<(&str, [String; 8])> = rows
        .iter()
        .filter(|row| row.spot.is_none())
        .filter_map(|row| Some((row.suite.as_str(), words(row)?)))
        .collect();
    let mut widths = HEAD.map(|h| h.chars().count());
    for (_, line) in &lines {
        for (width, word) in widths.iter_mut().zip(line) {
            *width = (*width).max(word.chars().count());
        }
    }
    let mut out = String::new();
    let mut suite = "";
    for (of, line) in &lines {
        if *of != suite {
            suite = of;
            let _ = writeln!(out, "\n{suite}");
            let _ = writeln!(out, "{}", pad(&HEAD.map(str::to_owned), &widths));
        }
        let text = pad(line, &widths);
        let colour = match line[7].as_str() {
            "yes" => Some(Colour::Green),
            "NO" => Some(Colour::Red),
            _ => None,
        };
        let _ = writeln!(out, "{}", colour.map_or(text.clone(), |c| paint(c, &text)));
    }
    for matrix in matrix::of(rows) {
        let _ = write!(out, "\n{}", matrix.text());
    }
    out
}

/// Words in columns; numbers are set to the right.
fn pad(line: &[String; 8], widths: &[usize; 8]) -> String {
    let cells = line.iter().zip(widths).enumerate().map(|(i, (word, &w))| {
        if (1..=3).contains(&i) {
            format!("{word:>w$}")
        } else {
            format!("{word:<w$}")
        }
    });
    let text: Vec<String> = cells.collect();
    format!("  {}", text.join("  ")).trim_end().to_owned()
}

/// The rows as a page.
pub(super) fn markdown(rows: &[Row], notes: &[String]) -> String {
    let mut out = String::from(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench --markdown docs/benchmarks.md`; not by hand.\n\n\
         A ratio is the median of ratios of two samples that were taken one after the other, so\n\
         that what the machine does besides changes both. In the suites `xdp` and `tc` a sample is\n\
         the mean of many runs by `BPF_PROG_TEST_RUN`. A front program restores the packet before\n\
         each of them and calls the program; `floor` is the same front program with one that swaps\n\
         the link addresses and transmits, `empty` with one that returns at once. `established` is the\n\
         same packet while nobody looks.\n\n\
         In the suite `control` an API server (kube-apiserver and etcd) has the services, and a client in\n\
         a pod tells when the right server answers; with 44,000 services the agent is told to have room\n\
         for them (`--max-slots`, `--max-backends`). In `traffic` a cluster has two nodes for each proxy:\n\
         one with a server (a CPU of its own), and clients there, on the other node and outside (on\n\
         another CPU). In a round every proxy has a turn, of a fortieth of a second, and so have two pairs\n\
         of nodes without a proxy, whose clients dial the pod; a repetition has 24 rounds. Speeds of one\n\
         round are pairs, and `×` is the median of the pairs' ratios, `±` half the width of its 95 %\n\
         confidence interval. How far the ratio of `no proxy, other nodes` is from 1 is what this machine\n\
         cannot tell. CPU time is the whole machine's, of all turns of a repetition. At a fixed rate,\n\
         latency counts from when a transaction was due.\n\n\
         In `l7` the proxies have one CPU, with one thread each, and wrk has another one, with the\n\
         upstream. They have turns of three seconds; who begins a round ends the next. nginx is told\n\
         what ingress-nginx tells it by its defaults, and all set the same headers. CPU time and memory\n\
         are those of the proxy's processes alone. Latency at a rate, handshakes and connections that\n\
         wait are the load generator's.\n\n",
    );
    for note in notes {
        let _ = writeln!(out, "- {note}");
    }
    let mut suite = "";
    for row in rows.iter().filter(|row| row.spot.is_none()) {
        let Some(words) = words(row) else { continue };
        if row.suite != suite {
            suite = &row.suite;
            let _ = writeln!(out, "\n## {suite}\n");
            let _ = writeln!(out, "| {} |", HEAD.join(" | "));
            let _ = writeln!(out, "|---|--:|--:|--:|---|---|---|---|");
        }
        let _ = writeln!(out, "| {} |", words.join(" | "));
    }
    let matrices = matrix::of(rows);
    if !matrices.is_empty() {
        out.push_str("\n## traffic\n");
    }
    for matrix in matrices {
        let _ = write!(out, "\n{}", matrix.markdown());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let mut row = Row::new("xdp", "established", "ns");
        row.reference = Some(("floor".to_owned(), Vec::new()));
        row.target = Some(Target::AtMost(2.4));
        row.add(80.0, 40.0);
        row.add(90.0, 40.0);
        row.add(100.0, 40.0);
        row
    }

    #[test]
    fn what_is_small_keeps_its_digits() {
        for (value, text) in [
            (2.394, "2.39"),
            (0.5, "0.50"),
            (0.094, "0.094"),
            (0.000_831, "0.00083"),
            (0.0, "0.00"),
        ] {
            assert_eq!(factor(value), text);
        }
        for (value, rounded) in [
            (234.567_89, 234.568),
            (0.123_45, 0.123),
            (0.000_831_44, 0.000_831),
            (0.0, 0.0),
        ] {
            assert!((round(value) - rounded).abs() < 1e-12, "{value}");
        }
    }

    #[test]
    fn the_table_says_whether_a_target_is_met() {
        let text = table(&[row()]);
        assert!(text.starts_with("\nxdp\n"), "{text}");
        let line = text.lines().last().unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected = "established 80.0 90.0 100 ns 2.25 × floor ≤ 2.4 yes";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn json_has_the_promised_keys() {
        let value: serde_json::Value = serde_json::from_str(&json(&[row()]).unwrap()).unwrap();
        let row = &value[0];
        assert_eq!(row["suite"], "xdp");
        assert_eq!(row["median"], 90.0);
        assert_eq!(row["ratio_to"], "floor");
        assert_eq!(row["ratio"], 2.25);
        assert_eq!((&row["target"], &row["met"]), (&2.4.into(), &true.into()));
    }

    #[test]
    fn the_page_is_a_table_of_each_suite() {
        let text = markdown(&[row()], &["Linux".to_owned()]);
        assert!(text.contains("\n- Linux\n\n## xdp\n\n| case |"), "{text}");
        assert!(
            text.ends_with(
                "| established | 80.0 | 90.0 | 100 | ns | 2.25 × floor | ≤ 2.4 | yes |\n"
            )
        );
    }
}
