//! Puts the object with the eBPF programs where the crate embeds it:
//! `$OUT_DIR/bascule.o`. `cargo xtask build` makes it; the environment variable
//! `BASCULE_BPF_OBJECT` names another one.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

const OVERRIDE: &str = "BASCULE_BPF_OBJECT";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), String> {
    let object = object()?;
    println!("cargo::rerun-if-changed={}", object.display());
    let hint = match env::var_os(OVERRIDE) {
        Some(_) => format!("correct {OVERRIDE}, or unset it"),
        None => "run `cargo xtask build`, which makes it".into(),
    };
    let bytes = fs::read(&object).map_err(|e| {
        format!(
            "the eBPF object {} cannot be read: {e}; {hint}",
            object.display()
        )
    })?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(format!("{} is no ELF object; {hint}", object.display()));
    }
    let out = PathBuf::from(variable("OUT_DIR")?).join("bascule.o");
    fs::write(&out, bytes).map_err(|e| format!("{}: {e}", out.display()))
}

fn object() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os(OVERRIDE) {
        return Ok(path.into());
    }
    let manifest = variable("CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&manifest)
        .parent()
        .ok_or("the crate has no workspace")?;
    Ok(workspace.join("target/bpf/bascule.o"))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}
