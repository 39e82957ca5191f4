//! What must hold for the eBPF object before anybody tries to load it.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind,
    read::elf::ElfFile64,
};

type Elf<'a> = ElfFile64<'a, object::LittleEndian>;

/// What is in a good object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    programs: usize,
    instructions: u64,
    bytes: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            programs,
            instructions,
            bytes,
        } = self;
        write!(
            f,
            "{programs} programs, {instructions} instructions, {} KiB",
            bytes / 1024
        )
    }
}

/// Checks that no path of the programs leads to a panic: a program has nowhere to panic to, and
/// the verifier refuses it with "last insn is not an exit or jmp", which names nothing.
///
/// # Errors
/// The bytes are no ELF file, or a panic is left; the error names the functions that have one.
pub(crate) fn check(bytes: &[u8]) -> Result<Summary> {
    let elf = Elf::parse(bytes).context("not an ELF file of 64 bits")?;
    let panics: Vec<_> = elf
        .symbols()
        .filter(|s| s.name().is_ok_and(is_panic))
        .collect();
    if panics.is_empty() {
        return Ok(summary(&elf, bytes.len()));
    }
    let mut text = String::from("the programs can panic, and the kernel refuses them:");
    for symbol in panics {
        let name = demangle(symbol.name().unwrap_or_default());
        let callers = callers(&elf, symbol.index());
        let by = if callers.is_empty() {
            String::new()
        } else {
            format!(", called by {}", callers.join(", "))
        };
        text.push_str(&format!("\n  {name}{by}"));
    }
    text.push_str("\nUse get(), checked_*() or a mask in place of indexing, division and slicing.");
    bail!("{text}")
}

fn is_panic(name: &str) -> bool {
    // Both manglings write the module with its length before it.
    name.contains("9panicking") || matches!(name, "rust_begin_unwind" | "rust_panic")
}

fn demangle(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

fn summary(elf: &Elf<'_>, bytes: usize) -> Summary {
    let code = elf.sections().filter(|s| s.kind() == SectionKind::Text);
    let programs = elf
        .symbols()
        .filter(|s| s.is_global() && s.kind() == SymbolKind::Text && s.is_definition());
    Summary {
        programs: programs.count(),
        instructions: code.map(|s| s.size() / 8).sum(),
        bytes,
    }
}

/// The functions with a relocation to `callee`, each once.
fn callers(elf: &Elf<'_>, callee: object::SymbolIndex) -> Vec<String> {
    let mut found = Vec::new();
    for section in elf.sections().filter(|s| s.kind() == SectionKind::Text) {
        for (offset, relocation) in section.relocations() {
            if relocation.target() == RelocationTarget::Symbol(callee) {
                let name =
                    function_at(elf, section.index(), offset).unwrap_or_else(|| "?".to_owned());
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        }
    }
    found
}

fn function_at(elf: &Elf<'_>, section: object::SectionIndex, offset: u64) -> Option<String> {
    let holds = |s: &object::read::elf::ElfSymbol64<'_, '_, object::LittleEndian>| {
        s.section_index() == Some(section)
            && s.kind() == SymbolKind::Text
            && (s.address()..s.address() + s.size()).contains(&offset)
    };
    elf.symbols()
        .find(holds)
        .and_then(|s| Some(demangle(s.name().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_known_by_either_mangling() {
        assert!(is_panic(
            "_ZN4core9panicking18panic_bounds_check17h0123456789abcdefE"
        ));
        assert!(is_panic("_RNvNtCs4fqI2P2rA04_4core9panicking9panic_fmt"));
        assert!(!is_panic("lb_xdp"));
        assert!(!is_panic("_ZN4core3num9wrapping4add17h0123456789abcdefE"));
    }

    #[test]
    fn names_are_shown_readable() {
        assert_eq!(
            demangle("_ZN4core9panicking5panic17h0123456789abcdefE"),
            "core::panicking::panic"
        );
        assert_eq!(demangle("lb_xdp"), "lb_xdp");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let error = check(b"#!/bin/sh\n").unwrap_err().to_string();
        assert_eq!(error, "not an ELF file of 64 bits");
    }
}
