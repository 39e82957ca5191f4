//! Linters that are programs of their own, at pinned versions.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::sh::Sh;
use crate::tool::Tool;
use crate::{paths, ui};

const TYPOS: Tool = Tool::new("typos-cli", "typos", "1.52.0");
const MACHETE: Tool = Tool::new("cargo-machete", "cargo-machete", "0.9.2");
const DENY: Tool = Tool::new("cargo-deny", "cargo-deny", "0.20.2");

/// Spelling of names, comments and documents; exceptions are in `typos.toml`.
pub(super) fn spelling() -> Result<()> {
    Sh::new(ensure(&TYPOS)?).dir(&paths::root()).run()
}

/// Dependencies in a Cargo.toml that no source uses.
pub(super) fn unused_dependencies() -> Result<()> {
    Sh::new(ensure(&MACHETE)?)
        .arg(paths::root())
        .dir(&paths::root())
        .run()
}

/// Licences, sources and bans of `deny.toml`; known vulnerabilities where their database can
/// be had.
pub(super) fn dependency_rules() -> Result<()> {
    let deny = ensure(&DENY)?;
    let check = || {
        Sh::new(&deny)
            .arg("--locked")
            .arg("check")
            .arg("--hide-inclusion-graph")
            .dir(&paths::root())
    };
    check().args(["bans", "licenses", "sources"]).run()?;
    let fetched = Sh::new(&deny)
        .args(["fetch", "db"])
        .dir(&paths::root())
        .read();
    if let Err(e) = fetched {
        let text = e.to_string();
        // git's own line says it best.
        let why = text.lines().rfind(|l| l.contains("fatal:"));
        ui::warn(format!(
            "known vulnerabilities were not checked, their database cannot be had ({})",
            why.unwrap_or(&text)
                .trim_start_matches([' ', '|'])
                .trim_end()
        ));
        return Ok(());
    }
    check().arg("--disable-fetch").arg("advisories").run()
}

/// The tool's program, built first if it is not there.
fn ensure(tool: &Tool) -> Result<PathBuf> {
    tool.ensure_soon()
        .with_context(|| format!("cannot lint without {}", tool.package))
}
