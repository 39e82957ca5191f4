//! `cargo xtask fuzz`: libFuzzer looks for bytes that the proxy of Ingresses does not stand.
//!
//! What it looks at is in the package `bascule-fuzz`; what it keeps is in `fuzz/corpus`, and every
//! `cargo xtask test` goes through that.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::setup::{self, Need, Unfit};
use crate::sh::{Sh, which};
use crate::tool::{self, Tool};
use crate::{paths, ui};

const CARGO_FUZZ: Tool = Tool::new("cargo-fuzz", "cargo-fuzz", "0.13.2");
/// Seconds that one input may take.
const PATIENCE: u32 = 10;
/// Bytes of an input: what is longer finds nothing more, slower.
const LONGEST: u32 = 4096;

/// What to fuzz, and how long.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fuzz                          # ten minutes each\n  \
                        cargo xtask fuzz connection --minutes 60\n\nInputs that find something new are kept in fuzz/corpus: \
                        commit them. One that fails is written to fuzz/artifacts, and the exit status is 1."
)]
pub(crate) struct Args {
    /// Names of directories in fuzz/corpus; all if none is named
    targets: Vec<String>,
    /// How long each is fuzzed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
}

/// Fuzzes one target after the other.
///
/// # Errors
/// An input fails, or something is missing.
pub(crate) fn run(args: &Args) -> Result<()> {
    let known = targets()?;
    let unknown = args.targets.iter().find(|name| !known.contains(name));
    if let Some(name) = unknown {
        let known = known.join(", ");
        anyhow::bail!("there is no target {name}: there are {known}");
    }
    if which("c++").is_none() {
        let why = "there is no C++ compiler for libFuzzer: on Debian, install g++";
        return Err(Unfit::new(why).into());
    }
    let nightly = setup::ensure(Need::Build)?;
    let program = CARGO_FUZZ.ensure(tool::cargo())?;
    let wanted = match args.targets.is_empty() {
        true => &known,
        false => &args.targets,
    };
    let fuzz = |arguments: &[&str]| {
        let sh = nightly.alone(Sh::new(&program)).dir(&paths::root());
        // What ships takes longer to compile.
        sh.args(arguments)
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
    };
    for name in wanted {
        let seconds = u64::from(args.minutes) * 60;
        ui::say(format!(
            "{name}: {} to find an input that fails",
            ui::duration(Duration::from_secs(seconds))
        ));
        fuzz(&["run", "--features", "libfuzzer", name, "--"])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={LONGEST}"))
            .arg(format!("-timeout={PATIENCE}"))
            .args(["-print_final_stats=1", "-verbosity=0"])
            .run()
            .with_context(|| {
                format!("{name} fails for an input: it is in fuzz/artifacts/{name}")
            })?;
        // Of inputs that reach the same, the shortest is kept.
        fuzz(&["cmin", "--features", "libfuzzer", name])
            .run_quietly(&format!("keeping the shortest inputs of {name}"))?;
    }
    Ok(())
}

/// All targets.
fn targets() -> Result<Vec<String>> {
    let corpus: PathBuf = paths::root().join("fuzz/corpus");
    let entries = fs::read_dir(&corpus);
    let entries = entries.with_context(|| format!("cannot read {}", corpus.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    ensure!(!names.is_empty(), "{} is empty", corpus.display());
    Ok(names)
}
