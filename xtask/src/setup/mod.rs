//! `cargo xtask setup`: everything a build or a test needs, checked quickly and installed when
//! it is missing. All other subcommands call [`ensure`] first.
//!
//! There are no stamp files: each thing is looked at where it is used, so that nothing can
//! claim to be there when it is not.

mod kernel;
mod netprobe;
pub(crate) mod packages;
mod probe;
mod rust_src;
pub(crate) mod toolchain;

use std::fmt;
use std::time::Instant;

use anyhow::Result;

use crate::ui::{self, Colour, paint};
use kernel::{Feature, State};
pub(crate) use toolchain::Nightly;

/// What the caller is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Compile: neither privilege nor a kernel is asked for.
    Build,
    /// Load programs, make network namespaces, send packets.
    Kernel,
}

/// This machine cannot do what was asked, or may not: exit code 3.
#[derive(Debug)]
pub(crate) struct Unfit(String);

impl Unfit {
    /// What is missing, and what to do about it.
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// The same, with what can be done without it.
    pub(crate) fn or(self, instead: &str) -> Self {
        Self(format!("{}; {instead}", self.0))
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// Makes sure that everything for `need` is there, and says only what it had to do.
///
/// # Errors
/// [`Unfit`] where the kernel or the privilege is missing; else what could not be installed.
pub(crate) fn ensure(need: Need) -> Result<Nightly> {
    if need == Need::Kernel {
        packages::ensure(&packages::TOOLS)?;
        require(&kernel::features())?;
    }
    toolchain::ensure()
}

/// The subcommand: the same for everything, with a line about each thing.
///
/// # Errors
/// What could not be installed. A kernel or a privilege that is missing is only reported,
/// because a build does without.
pub(crate) fn report() -> Result<()> {
    let start = Instant::now();
    heading("kernel");
    let features = kernel::features();
    for feature in &features {
        print_feature(feature);
    }
    heading("system packages");
    if kernel::is_privileged() {
        packages::ensure(&packages::TOOLS)?;
    }
    for (command, place) in packages::found() {
        let (state, detail) = match place {
            Some(path) => (State::Present, path.display().to_string()),
            None => (State::Missing, packages::remedy(&packages::TOOLS)),
        };
        print_feature(&Feature {
            name: command,
            state,
            detail,
        });
    }
    heading("toolchain of the eBPF programs");
    let nightly = toolchain::ensure()?;
    for (name, detail) in toolchain::describe(&nightly) {
        print_feature(&Feature {
            name,
            state: State::Present,
            detail,
        });
    }
    match require(&features) {
        Ok(()) => println!(
            "\nready: build, lint, test, run, bench ({})",
            ui::duration(start.elapsed())
        ),
        Err(e) => println!("\nready to build and lint, not to test, run or bench: {e}"),
    }
    Ok(())
}

/// The first missing feature is the error: the report has them all.
fn require(features: &[Feature]) -> Result<()> {
    let missing: Vec<_> = features
        .iter()
        .filter(|f| f.state == State::Missing)
        .collect();
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let more = match missing.len() - 1 {
        0 => String::new(),
        n => format!(" (and {n} more: `cargo xtask setup` lists them)"),
    };
    Err(Unfit::new(format!("{}: {}{more}", first.name, first.detail)).into())
}

fn heading(text: &str) {
    println!("{text}");
}

fn print_feature(feature: &Feature) {
    let (colour, mark) = match feature.state {
        State::Present => (Colour::Green, "ok"),
        State::Fallback => (Colour::Yellow, "older"),
        State::Unknown => (Colour::Yellow, "?"),
        State::Missing => (Colour::Red, "MISSING"),
    };
    // Padding counts characters, so it comes before the colour.
    println!(
        "  {} {:<18} {}",
        paint(colour, &format!("{mark:<7}")),
        feature.name,
        feature.detail
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(name: &'static str, state: State) -> Feature {
        Feature {
            name,
            state,
            detail: "do this".to_owned(),
        }
    }

    #[test]
    fn only_missing_features_stop_a_run() {
        let old = [
            feature("TCX", State::Fallback),
            feature("JIT", State::Present),
            feature("TUN", State::Unknown),
        ];
        assert!(require(&old).is_ok());
        let bad = [
            feature("veth", State::Missing),
            feature("TUN", State::Missing),
        ];
        let error = require(&bad).unwrap_err();
        assert!(error.is::<Unfit>());
        assert_eq!(
            error.to_string(),
            "veth: do this (and 1 more: `cargo xtask setup` lists them)"
        );
    }
}
