//! The stack of programs.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionIndex, SymbolKind};

use super::{Elf, Symbol, calls, demangle, programs};

/// The calls of a program that take the most stack together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stack {
    /// Bytes of all of them, as kernels without a JIT count them, and older ones with it: each
    /// frame is rounded up to 32 (kernel/bpf/verifier.c, `check_max_stack_depth`).
    pub(crate) bytes: u64,
    /// Each function with its own bytes.
    pub(crate) frames: Vec<(String, u64)>,
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = |(name, bytes): &(String, u64)| format!("{name} {bytes}");
        let frames: Vec<String> = self.frames.iter().map(frame).collect();
        write!(f, "{} bytes: {}", self.bytes, frames.join(" > "))
    }
}

/// The stack that a program and what it calls take at most.
///
/// # Errors
/// The bytes are no ELF file, or have no such program.
pub(crate) fn stack(bytes: &[u8], program: &str) -> Result<Stack> {
    let elf = Elf::parse(bytes).context("not an ELF file of 64 bits")?;
    let symbol = programs(&elf)
        .find(|s| s.name() == Ok(program))
        .with_context(|| format!("the object has no program {program}"))?;
    of(&elf, &symbol)
}

pub(super) fn of(elf: &Elf<'_>, program: &Symbol<'_, '_>) -> Result<Stack> {
    let section = program.section_index().context("it is not defined")?;
    depth(elf, section, program.address(), CALLS)
}

/// Bytes of stack that a program and what it calls may take together (MAX_BPF_STACK).
pub(crate) const STACK: u64 = 512;
/// Frames on the stack at most (MAX_CALL_FRAMES).
const CALLS: u32 = 8;

/// The stack of a function and of what it calls.
fn depth(elf: &Elf<'_>, section: SectionIndex, address: u64, frames: u32) -> Result<Stack> {
    let function = elf
        .symbols()
        .find(|s| {
            s.kind() == SymbolKind::Text
                && s.section_index() == Some(section)
                && s.address() == address
        })
        .context("a call leads to no function")?;
    if frames == 0 {
        bail!("more than {CALLS} functions call each other");
    }
    let section = elf.section_by_index(section)?;
    let code = section
        .data_range(address, function.size())?
        .context("a function lies outside its section")?;
    let mut deepest = Stack::default();
    for (at, instruction) in (address..).step_by(8).zip(code.chunks_exact(8)) {
        if instruction[..2] != [CALL, PSEUDO_CALL] {
            continue;
        }
        let relocation = section.relocations().find(|(offset, _)| *offset == at);
        let (to, address) = match relocation {
            Some((_, r)) => calls(elf, &section, at, &r).context("a call leads nowhere")?,
            None => {
                let ahead = i64::from(immediate(instruction)) + 1;
                (section.index(), at.wrapping_add_signed(ahead * 8))
            }
        };
        let callee = depth(elf, to, address, frames - 1)?;
        if callee.bytes > deepest.bytes {
            deepest = callee;
        }
    }
    let own = frame(code).max(1).next_multiple_of(32);
    let name = demangle(function.name().unwrap_or_default());
    deepest.bytes += own;
    deepest.frames.insert(0, (name, own));
    Ok(deepest)
}

/// Opcodes (include/uapi/linux/bpf.h).
const CALL: u8 = 0x85;
/// In the place of a call's source register, where the destination register's is 0.
const PSEUDO_CALL: u8 = 0x10;
const MOVE: u8 = 0xbf;
const ADD_IMMEDIATE: u8 = 0x07;

fn immediate(instruction: &[u8]) -> i32 {
    let bytes = instruction.get(4..8).and_then(|b| b.try_into().ok());
    bytes.map_or(0, i32::from_le_bytes)
}

/// The frame of one function: how far below the frame pointer it reaches.
fn frame(code: &[u8]) -> u64 {
    const FRAME: u8 = 10;
    let mut copies = [false; 16];
    let mut lowest = 0;
    for i in code.chunks_exact(8) {
        let (to, from) = (i[1] & 15, i[1] >> 4);
        let offset = i16::from_le_bytes([i[2], i[3]]);
        // The class: 1 loads, 2 and 3 store, 4 to 7 compute or jump.
        let (base, writes) = match i[0] & 7 {
            1 => (from, true),
            2 | 3 => (to, false),
            class => (0, class == 4 || class == 7),
        };
        if base == FRAME {
            lowest = lowest.min(i64::from(offset));
        }
        let copy = &mut copies[usize::from(to)];
        match i[0] {
            MOVE => *copy = from == FRAME,
            ADD_IMMEDIATE if *copy => {
                lowest = lowest.min(i64::from(immediate(i)));
                *copy = false;
            }
            _ if writes => *copy = false,
            _ => {}
        }
    }
    lowest.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reaches_as_far_as_its_accesses_and_addresses() {
        // r1 = *(u64 *)(r10 - 16); *(u32 *)(r10 - 24) = r2
        let load = [0x79, 0xa1, 0xf0, 0xff, 0, 0, 0, 0];
        let store = [0x63, 0x2a, 0xe8, 0xff, 0, 0, 0, 0];
        // r3 = r10; r4 = 7; r3 += -72
        let copy = [0xbf, 0xa3, 0, 0, 0, 0, 0, 0];
        let other = [0xb7, 0x04, 0, 0, 7, 0, 0, 0];
        let below = [0x07, 0x03, 0, 0, 0xb8, 0xff, 0xff, 0xff];
        let of = |code: &[[u8; 8]]| frame(&code.concat());
        assert_eq!(of(&[load]), 16);
        assert_eq!(of(&[load, store]), 24);
        assert_eq!(of(&[load, copy, other, below, store]), 72);
        // A register that is no copy of the frame pointer any more.
        let gone = [0xb7, 0x03, 0, 0, 7, 0, 0, 0];
        assert_eq!(of(&[copy, gone, below]), 0);
    }
}
