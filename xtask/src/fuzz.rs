//! `cargo xtask fuzz`: libFuzzer looks for bytes that the proxy of Ingresses does not stand.
//!
//! What it looks at is in the package `bascule-fuzz`, and what it begins with in `fuzz/seeds`; what
//! it finds is kept in `fuzz/corpus`, and every `cargo xtask test` goes through both.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::setup::{self, Need, Unfit};
use crate::sh::{Sh, which};
use crate::tool::Tool;
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
    /// Names of directories in fuzz/seeds; all if none is named
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
    let program = CARGO_FUZZ.ensure_soon()?;
    let wanted = match args.targets.is_empty() {
        true => &known,
        false => &args.targets,
    };
    for name in wanted {
        let fuzz = || nightly.alone(Sh::new(&program)).dir(&paths::root());
        one(name, args.minutes, fuzz)?;
    }
    Ok(())
}

/// Fuzzes a target by cargo-fuzz.
fn one(name: &str, minutes: u32, cargo_fuzz: impl Fn() -> Sh) -> Result<()> {
    let seconds = u64::from(minutes) * 60;
    let time = ui::duration(Duration::from_secs(seconds));
    ui::say(format!("{name}: {time} to find an input that fails"));
    let [corpus, seeds] = ["corpus", "seeds"].map(|dir| format!("fuzz/{dir}/{name}"));
    let found = paths::root().join(&corpus);
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let fuzz = |command: &str| {
        cargo_fuzz()
            .args([command, "--features", "libfuzzer", name, &corpus])
            // What ships takes longer to compile.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
    };
    fuzz("run")
        .args([&seeds, "--"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-timeout={PATIENCE}"))
        .args(["-print_final_stats=1", "-verbosity=0"])
        .run()
        .with_context(|| {
            format!("{name} was not fuzzed to the end: an input that fails is in fuzz/artifacts")
        })?;
    // Of inputs that reach the same, the shortest is kept.
    fuzz("cmin")
        .args(["--", "-set_cover_merge=1"])
        .run_quietly(&format!("keeping the shortest inputs of {name}"))
}

/// All targets.
fn targets() -> Result<Vec<String>> {
    let seeds: PathBuf = paths::root().join("fuzz/seeds");
    let entries = fs::read_dir(&seeds);
    let entries = entries.with_context(|| format!("cannot read {}", seeds.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    ensure!(!names.is_empty(), "{} is empty", seeds.display());
    Ok(names)
}
