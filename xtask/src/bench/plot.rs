//! The result as pictures: a bar for each row, up to its median, with its least and greatest
//! sample.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;

use super::report::number;
use super::stats::{Row, Spread};

/// Pixels of a bar's line.
const LINE: i32 = 22;
/// Pixels of the names.
const NAMES: i32 = 560;
/// Pixels of the longest bar.
const BARS: i32 = 420;
/// Pixels around, and of the figures behind the bars.
const MARGIN: i32 = 16;
const FIGURES: i32 = 180;
/// Pixels of a letter's height.
const LETTER: i32 = 13;

/// Rows that have one unit, and so one axis.
struct Plot<'a> {
    title: String,
    bars: Vec<(String, Spread, &'a str)>,
}

/// Draws all rows into a directory; returns the files.
///
/// # Errors
/// A file cannot be written.
pub(super) fn draw(rows: &[Row], dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut files = Vec::new();
    for plot in plots(rows) {
        let file = dir.join(file_name(&plot.title));
        one(&plot, &file).with_context(|| format!("cannot draw {}", file.display()))?;
        files.push(file);
    }
    Ok(files)
}

fn plots(rows: &[Row]) -> Vec<Plot<'_>> {
    let mut all: Vec<Plot<'_>> = Vec::new();
    for row in rows {
        let Some(spread) = row.spread() else { continue };
        let (title, name, colour) = match &row.spot {
            Some(spot) => (
                format!("{}: {}", row.suite, spot.table),
                format!("{}: {}", spot.line, spot.column),
                spot.column.as_str(),
            ),
            None => (
                format!("{}, {}", row.suite, row.unit),
                row.case.clone(),
                row.suite.as_str(),
            ),
        };
        let bar = (name, spread, colour);
        match all.iter_mut().find(|plot| plot.title == title) {
            Some(plot) => plot.bars.push(bar),
            None => all.push(Plot {
                title,
                bars: vec![bar],
            }),
        }
    }
    all
}

/// A title as a name of a file.
fn file_name(title: &str) -> String {
    let words: Vec<String> = title
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    words.join("-") + ".svg"
}

fn one(plot: &Plot<'_>, file: &Path) -> Result<()> {
    let width = NAMES + BARS + FIGURES + 2 * MARGIN;
    let height = LINE * (plot.bars.len() as i32 + 2) + 2 * MARGIN;
    let size = (width.cast_unsigned(), height.cast_unsigned());
    let area = SVGBackend::new(file, size).into_drawing_area();
    // The backend's errors borrow from it.
    let failed = |e: DrawingAreaErrorKind<std::io::Error>| anyhow!("{e}");
    area.fill(&WHITE).map_err(failed)?;
    let font = ("sans-serif", LETTER).into_font();
    let text = |text: String, at| Text::new(text, at, font.clone());
    area.draw(&text(plot.title.clone(), (MARGIN, MARGIN)))
        .map_err(failed)?;
    let most = plot.bars.iter().map(|(_, s, _)| s.max).fold(0.0, f64::max);
    let x = |value: f64| {
        MARGIN + NAMES + (value / most.max(f64::MIN_POSITIVE) * f64::from(BARS)) as i32
    };
    let mut colours: Vec<&str> = Vec::new();
    for (at, (name, spread, colour)) in plot.bars.iter().enumerate() {
        if !colours.contains(colour) {
            colours.push(colour);
        }
        let number_of = colours.iter().position(|c| c == colour).unwrap_or_default();
        let top = MARGIN + LINE * (at as i32 + 2);
        let (middle, bottom) = (top + LINE / 2 - 3, top + LINE - 6);
        area.draw(&text(name.clone(), (MARGIN, top)))
            .map_err(failed)?;
        let bar = [(x(0.0), top), (x(spread.median), bottom)];
        let fill = Palette99::pick(number_of).filled();
        area.draw(&Rectangle::new(bar, fill)).map_err(failed)?;
        let range = vec![(x(spread.min), middle), (x(spread.max), middle)];
        area.draw(&PathElement::new(range, BLACK)).map_err(failed)?;
        let figure = number(spread.median);
        area.draw(&text(figure, (x(spread.max) + 6, top)))
            .map_err(failed)?;
    }
    area.present().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_unit_are_one_picture() {
        let row = |case: &str, unit: &str, samples: &[f64]| {
            let mut row = Row::new("control", case, unit);
            row.samples = samples.to_vec();
            row
        };
        let rows = [
            row("start", "s", &[1.0, 2.0, 4.0]),
            row("memory", "MiB", &[65.0]),
            row("restart <warm>", "s", &[0.5]),
            row("nothing", "s", &[]),
        ];
        let dir = std::env::temp_dir().join(format!("xtask-plot-{}", std::process::id()));
        let files = draw(&rows, &dir).unwrap();
        let names: Vec<_> = files.iter().map(|f| f.file_name().unwrap()).collect();
        assert_eq!(names, ["control-s.svg", "control-mib.svg"]);
        let svg = fs::read_to_string(&files[0]).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        // The background and two bars; the longer one is four times the other.
        let widths: Vec<i32> = svg
            .split("<rect ")
            .skip(1)
            .filter_map(|rect| {
                rect.split("width=\"")
                    .nth(1)?
                    .split('"')
                    .next()?
                    .parse()
                    .ok()
            })
            .collect();
        assert_eq!(widths.len(), 3, "{svg}");
        assert_eq!(widths[1] / 4, widths[2], "{widths:?}");
        assert!(svg.contains("restart &lt;warm&gt;"), "{svg}");
    }
}
