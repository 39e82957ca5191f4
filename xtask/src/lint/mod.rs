//! `cargo xtask lint`: everything that a machine can say about the source.

mod edges;
mod sources;
mod tools;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::build::{bpf, bpf_cargo, cargo};
use crate::setup::{self, Need, Nightly};
use crate::ui::{self, Colour, paint};
use crate::{chart, paths, tool};

/// The subcommand: all steps, even after one has failed.
///
/// # Errors
/// One of the steps failed.
pub(crate) fn run() -> Result<()> {
    let nightly = setup::ensure(Need::Build)?;
    let steps: [(&str, &dyn Fn() -> Result<()>); 10] = [
        ("format", &format),
        ("forbidden edges", &edges::check),
        ("source rules", &sources::check),
        ("spelling", &tools::spelling),
        ("unused dependencies", &tools::unused_dependencies),
        ("dependency rules", &tools::dependency_rules),
        ("chart", &chart::check),
        ("eBPF object", &|| bpf(&nightly)),
        ("clippy, eBPF", &|| clippy_bpf(&nightly)),
        ("clippy, host", &clippy_host),
    ];
    let results: Vec<_> = steps
        .iter()
        .map(|(name, step)| (*name, timed(name, step)))
        .collect();
    summary(&results)
}

/// Outcome and time of a step.
type Timed = (Result<()>, Duration);

fn timed(name: &str, step: &dyn Fn() -> Result<()>) -> Timed {
    ui::say(paint(Colour::Dim, &format!("── {name}")));
    let start = Instant::now();
    let result = step();
    if let Err(e) = &result {
        ui::error(format!("{e:#}"));
    }
    (result, start.elapsed())
}

fn summary(results: &[(&str, Timed)]) -> Result<()> {
    for (name, (result, time)) in results {
        let mark = if result.is_ok() {
            paint(Colour::Green, "ok    ")
        } else {
            paint(Colour::Red, "FAILED")
        };
        ui::say(format!("{mark} {name:<20} {}", ui::duration(*time)));
    }
    verdict(results)
}

fn verdict(results: &[(&str, Timed)]) -> Result<()> {
    let failed: Vec<_> = results
        .iter()
        .filter(|(_, (r, _))| r.is_err())
        .map(|(name, _)| *name)
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("lint failed: {}", failed.join(", "))
    }
}

fn format() -> Result<()> {
    tool::cargo()
        .args(["fmt", "--all", "--check"])
        .dir(&paths::root())
        .run()
        .context("the source is not formatted: `cargo fmt --all` does it")
}

fn clippy_host() -> Result<()> {
    cargo("clippy")
        .args([
            "--workspace",
            "--exclude",
            "lb-ebpf",
            "--all-targets",
            "--",
            "-Dwarnings",
        ])
        .run()
}

fn clippy_bpf(nightly: &Nightly) -> Result<()> {
    if !nightly.has_clippy() {
        ui::warn(format!(
            "the pinned nightly has no clippy, so that the eBPF programs are not linted: `rustup component add clippy \
             --toolchain {}`",
            nightly.sysroot.file_name().unwrap_or_default().display()
        ));
        return Ok(());
    }
    bpf_cargo(nightly, "clippy")
        .args(["--package", "lb-ebpf", "--", "-Dwarnings"])
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_what_failed() {
        let time = Duration::from_secs(1);
        assert!(verdict(&[("format", (Ok(()), time))]).is_ok());
        let results = [
            ("format", (Ok(()), time)),
            ("spelling", (Err(anyhow::anyhow!("x")), time)),
            ("edges", (Err(anyhow::anyhow!("y")), time)),
        ];
        assert_eq!(
            verdict(&results).unwrap_err().to_string(),
            "lint failed: spelling, edges"
        );
    }
}
