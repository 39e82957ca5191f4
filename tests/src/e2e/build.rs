//! An agent of another build: the same sources, as another compiler might have put them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::beside;

// include/uapi/linux/elf.h, elf-em.h
const MAGIC: &[u8] = b"\x7fELF\x02\x01\x01";
const EM_BPF: u64 = 247;
const SHT_PROGBITS: u64 = 1;
const SHF_EXECINSTR: u64 = 4;
// Instructions, include/uapi/linux/bpf_common.h: `r = imm` of 64 and of 32 bits, and the first
// half of `r = imm` with an immediate of 64 bits.
const MOV64: u8 = 0xb7;
const MOV32: u8 = 0xb4;
const LOAD64: u8 = 0x18;

/// Writes a copy of the agent to `at`, whose programs are others: they set registers to small
/// constants by the instruction of 32 bits, which clears the upper half, instead of the one of
/// 64 bits. They do the same, and the kernel gives them other tags.
///
/// # Panics
/// The agent has no programs in it, or the copy cannot be written.
#[must_use]
pub fn other_build(at: &Path) -> PathBuf {
    let mut agent = fs::read(beside("bascule")).expect("the agent can be read");
    let is_object = |bytes: &[u8]| bytes.starts_with(MAGIC) && number(bytes, 18, 2) == EM_BPF;
    let found: Vec<usize> = (0..agent.len() - 64)
        .filter(|at| agent[*at] == MAGIC[0] && is_object(&agent[*at..]))
        .collect();
    let [start] = found[..] else {
        panic!("the agent has {} objects in it", found.len());
    };
    let changed = change(&mut agent[start..]);
    assert!(changed > 100, "{changed} instructions are others");
    fs::write(at, agent).expect("a program can be written");
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).expect("it is ours");
    at.to_owned()
}

/// Changes the instructions of an object; how many.
fn change(object: &mut [u8]) -> usize {
    let (sections, size) = (number(object, 40, 8), number(object, 58, 2));
    let mut changed = 0;
    for section in 0..number(object, 60, 2) {
        let header = usize::try_from(sections + section * size).expect("it is in memory");
        let code = number(object, header + 4, 4) == SHT_PROGBITS
            && number(object, header + 8, 8) & SHF_EXECINSTR != 0;
        if code {
            let offset = number(object, header + 24, 8) as usize;
            let len = number(object, header + 32, 8) as usize;
            changed += change_code(&mut object[offset..offset + len]);
        }
    }
    changed
}

fn change_code(code: &mut [u8]) -> usize {
    let (mut at, mut changed) = (0, 0);
    while at < code.len() {
        let negative = code[at + 7] & 0x80 != 0;
        if code[at] == MOV64 && !negative {
            code[at] = MOV32;
            changed += 1;
        }
        at += if code[at] == LOAD64 { 16 } else { 8 };
    }
    changed
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut word = [0; 8];
    word[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(word)
}
