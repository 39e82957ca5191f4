//! What must hold for the eBPF object before anybody tries to load it.

mod stack;

use std::fmt;

use anyhow::{Context as _, Result, bail};
use object::read::elf::{ElfFile64, ElfSection64, ElfSymbol64};
use object::{LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _};
use object::{Relocation, RelocationTarget, SectionIndex, SectionKind, SymbolKind, SymbolScope};

pub(crate) use stack::{STACK, stack};

type Elf<'a> = ElfFile64<'a, LittleEndian>;
type Section<'a, 'f> = ElfSection64<'a, 'f, LittleEndian>;
type Symbol<'a, 'f> = ElfSymbol64<'a, 'f, LittleEndian>;

/// Bytes of an instruction (struct bpf_insn).
const INSTRUCTION: u64 = 8;

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
/// the verifier refuses it with "last insn is not an exit or jmp", which names nothing. And that
/// none needs more stack than any kernel allows, which this machine's may not be the first to say.
///
/// # Errors
/// The bytes are no ELF file, or a panic is left, or the stack is too small; the error names the
/// functions.
pub(crate) fn check(bytes: &[u8]) -> Result<Summary> {
    let elf = Elf::parse(bytes).context("not an ELF file of 64 bits")?;
    let panics: Vec<_> = elf
        .symbols()
        .filter(|s| s.name().is_ok_and(is_panic))
        .collect();
    if panics.is_empty() {
        for program in programs(&elf) {
            let deepest = stack::of(&elf, &program)?;
            if deepest.bytes > STACK {
                bail!("kernels allow {STACK} bytes of stack, and these calls need {deepest}");
            }
        }
        return Ok(summary(&elf, bytes.len()));
    }
    let mut text = String::from("the programs can panic, and the kernel refuses them:");
    for symbol in panics {
        let name = demangle(symbol.name().unwrap_or_default());
        let callers = callers(&elf, &symbol);
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

/// Programs, and the functions that the verifier looks at by themselves.
fn programs<'a, 'f>(elf: &'f Elf<'a>) -> impl Iterator<Item = Symbol<'a, 'f>> {
    elf.symbols().filter(|s| {
        s.scope() == SymbolScope::Dynamic && s.kind() == SymbolKind::Text && s.is_definition()
    })
}

fn summary(elf: &Elf<'_>, bytes: usize) -> Summary {
    let code = elf.sections().filter(|s| s.kind() == SectionKind::Text);
    Summary {
        programs: programs(elf).count(),
        instructions: code.map(|s| s.size() / INSTRUCTION).sum(),
        bytes,
    }
}

/// The functions that call `callee` from another section, each once.
fn callers(elf: &Elf<'_>, callee: &Symbol<'_, '_>) -> Vec<String> {
    let mut found = Vec::new();
    for section in elf.sections().filter(|s| s.kind() == SectionKind::Text) {
        for (offset, relocation) in section.relocations() {
            if calls(elf, &section, offset, &relocation)
                == callee.section_index().map(|s| (s, callee.address()))
            {
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

/// Where a call goes: a section, and the offset in it.
///
/// Calls of local functions name the section; the instruction's immediate, counted in
/// instructions from the next one, says where in it (libbpf does the same, `bpf_object__relocate_calls`).
fn calls(
    elf: &Elf<'_>,
    section: &Section<'_, '_>,
    offset: u64,
    relocation: &Relocation,
) -> Option<(SectionIndex, u64)> {
    let RelocationTarget::Symbol(index) = relocation.target() else {
        return None;
    };
    let target = elf.symbol_by_index(index).ok()?;
    let at = usize::try_from(offset).ok()?;
    let bytes = section.data().ok()?.get(at + 4..at + 8)?;
    let immediate = i32::from_le_bytes(bytes.try_into().ok()?);
    let address = if target.kind() == SymbolKind::Section {
        u64::try_from(i64::from(immediate) + 1).ok()? * INSTRUCTION
    } else {
        target.address()
    };
    Some((target.section_index()?, address))
}

fn function_at(elf: &Elf<'_>, section: SectionIndex, offset: u64) -> Option<String> {
    let holds = |s: &Symbol<'_, '_>| {
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
    fn the_stack_of_a_program_is_that_of_its_calls_too() {
        let bytes = program_calling("_ZN4demo6helper17h0123456789abcdefE");
        // Neither uses any, and the kernel counts 32 bytes for each.
        let frames = ["lb_xdp", "demo::helper"].map(|name| (name.to_owned(), 32));
        let expected = stack::Stack {
            bytes: 64,
            frames: frames.to_vec(),
        };
        assert_eq!(stack(&bytes, "lb_xdp").unwrap(), expected);
        assert!(stack(&bytes, "lb_nothing").is_err());
    }

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

    /// A program in section `xdp` that calls the second function of section `.text`, as
    /// bpf-linker writes it: the relocation names the section, the immediate the instruction.
    fn program_calling(callee: &str) -> Vec<u8> {
        use object::write::{Object, Relocation, Symbol, SymbolSection};
        use object::{Architecture, BinaryFormat, Endianness, RelocationFlags, SymbolFlags};

        let mut elf = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        let exit = [0x95, 0, 0, 0, 0, 0, 0, 0];
        let text = elf.add_section(Vec::new(), b".text".to_vec(), SectionKind::Text);
        let xdp = elf.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
        let mut function = |name: &str, section, value, size, scope| {
            elf.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value,
                size,
                kind: SymbolKind::Text,
                scope,
                weak: false,
                section: SymbolSection::Section(section),
                flags: SymbolFlags::None,
            })
        };
        function("first", text, 0, 8, SymbolScope::Compilation);
        function(callee, text, 8, 8, SymbolScope::Compilation);
        function("lb_xdp", xdp, 0, 16, SymbolScope::Dynamic);
        elf.append_section_data(text, &[exit, exit].concat(), 8);
        let call = [0x85, 0x10, 0, 0, 0, 0, 0, 0];
        elf.append_section_data(xdp, &[call, exit].concat(), 8);
        let relocation = Relocation {
            offset: 0,
            symbol: elf.section_symbol(text),
            addend: 0,
            flags: RelocationFlags::Elf {
                r_type: object::elf::R_BPF_64_32,
            },
        };
        elf.add_relocation(xdp, relocation).unwrap();
        elf.write().unwrap()
    }

    #[test]
    fn the_program_that_can_panic_is_named() {
        let bytes = program_calling("_ZN4core9panicking18panic_bounds_check17h0123456789abcdefE");
        let error = check(&bytes).unwrap_err().to_string();
        let line = "core::panicking::panic_bounds_check, called by lb_xdp";
        assert!(error.contains(line), "{error}");
    }

    #[test]
    fn a_program_that_needs_too_much_stack_is_refused() {
        let mut bytes = program_calling("_ZN4demo6helper17h0123456789abcdefE");
        // The call is still there: *(u64 *)(r10 - 496) = r1 in the place of the exit.
        let store = [0x7b, 0x1a, 0x10, 0xfe, 0, 0, 0, 0];
        let call = [0x85, 0x10, 0, 0, 0, 0, 0, 0];
        let at = bytes.windows(8).position(|w| w == call).unwrap();
        bytes[at + 8..at + 16].copy_from_slice(&store);
        let error = check(&bytes).unwrap_err().to_string();
        assert!(
            error.ends_with("need 544 bytes: lb_xdp 512 > demo::helper 32"),
            "{error}"
        );
    }

    #[test]
    fn a_program_that_calls_something_else_is_good() {
        let bytes = program_calling("_ZN4demo6helper17h0123456789abcdefE");
        let expected = Summary {
            programs: 1,
            instructions: 4,
            bytes: bytes.len(),
        };
        assert_eq!(check(&bytes).unwrap(), expected);
    }
}
