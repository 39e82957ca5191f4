//! Puts the object with the eBPF programs where the crate embeds it:
//! `$OUT_DIR/bascule.o`. `cargo xtask build` makes it; the environment variable
//! `BASCULE_BPF_OBJECT` names another one.
//!
//! Besides, it makes the version that the program tells, `BASCULE_VERSION`: with the commit
//! where `BASCULE_COMMIT` names it, as `cargo xtask image` does. Git is not asked: then each
//! commit would compile the crate again.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

const OVERRIDE: &str = "BASCULE_BPF_OBJECT";
const COMMIT: &str = "BASCULE_COMMIT";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    match embed().and_then(|()| version()) {
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

fn version() -> Result<(), String> {
    let version = variable("CARGO_PKG_VERSION")?;
    match env::var(COMMIT) {
        Ok(commit) => println!("cargo::rustc-env=BASCULE_VERSION={version} ({commit})"),
        Err(_) => println!("cargo::rustc-env=BASCULE_VERSION={version}"),
    }
    Ok(())
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
