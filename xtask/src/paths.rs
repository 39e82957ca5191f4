//! Where things are in the checkout.

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run`; the other is for a binary that is called by hand.
    let here =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = PathBuf::from(here);
    here.parent()
        .map_or_else(|| here.clone(), Path::to_path_buf)
}

/// Cargo's own directory for the eBPF programs: `target/bpf`.
pub(crate) fn bpf_target() -> PathBuf {
    root().join("target/bpf")
}

/// The object file with the eBPF programs, which the agent embeds.
pub(crate) fn bpf_object() -> PathBuf {
    bpf_target().join("bascule.o")
}

/// The object file with the programs that benchmarks compare with.
pub(crate) fn bench_object() -> PathBuf {
    bpf_target().join("bench.o")
}

/// Where cargo keeps the sources of dependencies.
pub(crate) fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}
