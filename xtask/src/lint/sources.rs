//! Rules about the source that no other tool knows: who may import what, and how long a file is.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::paths;
use crate::sh::Sh;

/// Longest file, in lines; a longer one has two subjects.
const MAX_LINES: usize = 400;

/// A crate (or module of std) that only some files may name.
struct Door {
    /// Path as the source writes it.
    path: &'static str,
    /// Files that the rule is about.
    within: &'static str,
    /// Files that may.
    open: &'static [&'static str],
}

const DOORS: [Door; 8] = [
    Door {
        path: "aya",
        within: "lb-userspace/src/",
        open: &["lb-userspace/src/bpf/", "lb-userspace/src/bpf.rs"],
    },
    Door {
        path: "aya_obj",
        within: "lb-userspace/src/",
        open: &["lb-userspace/src/bpf/", "lb-userspace/src/bpf.rs"],
    },
    Door {
        path: "kube",
        within: "lb-userspace/src/",
        open: &["lb-userspace/src/watch/", "lb-userspace/src/watch.rs"],
    },
    Door {
        path: "aya_ebpf",
        within: "lb-datapath/",
        open: &[],
    },
    // Planning has no clock, no files and no sockets; addresses are data.
    Door {
        path: "std::time",
        within: "lb-plan/src/",
        open: &[],
    },
    Door {
        path: "std::fs",
        within: "lb-plan/src/",
        open: &[],
    },
    Door {
        path: "std::thread",
        within: "lb-plan/src/",
        open: &[],
    },
    Door {
        path: "std::env",
        within: "lb-plan/src/",
        open: &[],
    },
];

/// Checks every Rust file of the project.
///
/// # Errors
/// A rule is broken; the error has all the places.
pub(super) fn check() -> Result<()> {
    let root = paths::root();
    let list = Sh::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "--deduplicate",
            "*.rs",
        ])
        .dir(&root)
        .read()?;
    let mut wrong = Vec::new();
    for name in list.lines().filter(|n| root.join(n).is_file()) {
        let text =
            fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"))?;
        wrong.extend(length(name, &text));
        wrong.extend(DOORS.iter().flat_map(|door| imports(door, name, &text)));
        wrong.extend(safety(name, &text));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("rules of the source are broken:\n  {}", wrong.join("\n  "))
    }
}

fn length(name: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > MAX_LINES)
        .then(|| format!("{name}: {lines} lines, {MAX_LINES} are allowed: split it by subject"))
}

fn imports(door: &Door, name: &str, text: &str) -> Vec<String> {
    if !name.starts_with(door.within) || door.open.iter().any(|o| name.starts_with(o)) {
        return Vec::new();
    }
    let who = match door.open.first() {
        Some(open) => format!("only {open} may"),
        None => format!("nothing in {} may", door.within),
    };
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, l)| names(l, door.path));
    lines
        .map(|(n, _)| format!("{name}:{}: names {}: {who}", n + 1, door.path))
        .collect()
}

/// Whether a line of code names a path: `use aya;`, `aya::Ebpf`, `use {aya::…}`.
fn names(line: &str, path: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + path.len()..];
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && !"_:.\"".contains(c));
        let used = code.trim_start().starts_with("use ") && after.starts_with([';', ',', ' ', '}']);
        // `crate::kube` and `self::kube` are others, and so is `aya_obj` where `aya` is asked for.
        starts && (after.starts_with("::") || used)
    })
}

/// The datapath's decisions have no unsafe code.
fn safety(name: &str, text: &str) -> Option<String> {
    let lax = name == "lb-datapath/src/lib.rs"
        && !text.contains("#![deny(unsafe_code)]")
        && !text.contains("#![forbid(unsafe_code)]");
    lax.then(|| format!("{name}: `#![deny(unsafe_code)]` is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_seen_where_code_names_it() {
        for line in [
            "use aya::Ebpf;",
            "    let e = aya::Ebpf::load(b)?;",
            "use aya;",
            "pub use {aya::maps};",
            "use aya as a;",
        ] {
            assert!(names(line, "aya"), "{line}");
        }
        for line in [
            "// aya::Ebpf",
            "use aya_obj::Object;",
            "use crate::aya::X;",
            "let s = \"aya::\";",
            "let aya = 1;",
            "my_aya::x()",
        ] {
            assert!(!names(line, "aya"), "{line}");
        }
        assert!(names("use std::time::Instant;", "std::time"));
        assert!(!names("use std::timeout;", "std::time"));
    }

    #[test]
    fn a_door_is_open_to_its_own_files_only() {
        let door = &DOORS[0];
        assert!(imports(door, "lb-userspace/src/bpf/load.rs", "use aya::Ebpf;").is_empty());
        assert!(imports(door, "tests/src/lib.rs", "use aya::Ebpf;").is_empty());
        let wrong = imports(door, "lb-userspace/src/agent.rs", "\nuse aya::Ebpf;\n");
        assert_eq!(
            wrong,
            ["lb-userspace/src/agent.rs:2: names aya: only lb-userspace/src/bpf/ may"]
        );
    }

    #[test]
    fn files_have_a_longest_length() {
        assert_eq!(length("a.rs", &"x\n".repeat(400)), None);
        assert!(
            length("a.rs", &"x\n".repeat(401)).is_some_and(|m| m.starts_with("a.rs: 401 lines"))
        );
    }

    #[test]
    fn the_datapath_denies_unsafe_code() {
        assert_eq!(
            safety(
                "lb-datapath/src/lib.rs",
                "#![no_std]\n#![deny(unsafe_code)]\n"
            ),
            None
        );
        assert!(safety("lb-datapath/src/lib.rs", "#![no_std]\n").is_some());
        assert_eq!(safety("lb-ebpf/src/main.rs", ""), None);
    }
}
