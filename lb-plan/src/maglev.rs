//! Maglev hashing: Eisenbud et al., "Maglev: A Fast and Reliable Software
//! Network Load Balancer", NSDI '16, section 3.4.
//!
//! Every node and every version must build the same table from the same
//! backends, or a flow that moves to another node meets another backend. The
//! table is a pure function of the set of (address, port, protocol, weight):
//! sizes, hashes and the order of turns are pinned by `tests/golden/maglev.txt`.

use lb_common::{Addr, Be16};

/// Slots for each backend, at least. Shares differ by one slot at most, so this
/// is one percent: the paper's choice too (section 3.4, "larger than 100 x N").
pub const SLOTS_PER_BACKEND: u32 = 100;

/// Sizes of tables: the R5 series of preferred numbers (ISO 3: five steps a
/// decade) from 250, each raised to the next prime. A change of size moves most
/// flows that no conntrack entry holds, so steps are wide; slots are memory, so
/// they are not wider. The last is what a map of 2^24 slots can hold.
pub const TABLE_SIZES: [u32; 25] = [
    251, 401, 631, 1_009, 1_601, 2_503, 4_001, 6_301, 10_007, 16_001, 25_013, 40_009, 63_029,
    100_003, 160_001, 250_007, 400_009, 630_017, 1_000_003, 1_600_033, 2_500_009, 4_000_037,
    6_300_011, 10_000_019, 16_000_057,
];

/// Backends that the largest table takes.
pub const MAX_BACKENDS: u32 = TABLE_SIZES[TABLE_SIZES.len() - 1] / SLOTS_PER_BACKEND;

/// A backend as a table knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Address.
    pub addr: Addr,
    /// Port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Turns in comparison to other members. Members of weight 0 get no slot,
    /// unless all have weight 0: then all count the same.
    pub weight: u32,
    /// What is written into its slots. No part of its identity.
    pub id: u32,
}

impl Member {
    /// What the order of turns goes by.
    fn order(&self) -> ([u8; 16], u16, u8) {
        (self.addr.octets(), self.port.get(), self.proto)
    }

    /// MurmurHash3's 64-bit finaliser, chained over the identity.
    fn hash(&self, seed: u64) -> u64 {
        let addr = u128::from_be_bytes(self.addr.octets());
        let tail = u64::from(self.port.get()) | u64::from(self.proto) << 16;
        mix(mix(mix(seed ^ (addr >> 64) as u64) ^ addr as u64) ^ tail)
    }
}

const fn mix(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

// The paper's h1 and h2: one hash with two seeds, the first 128 bits of pi's
// fraction.
const SEED_OFFSET: u64 = 0x243f_6a88_85a3_08d3;
const SEED_SKIP: u64 = 0x1319_8a2e_0370_7344;

/// Slots of a table of this many backends (those that get slots): the smallest
/// of [`TABLE_SIZES`] with [`SLOTS_PER_BACKEND`] for each, 1 for a single
/// backend, which needs no table, 0 for none; `None` for more than 160,000.
pub fn table_size(backends: usize) -> Option<u32> {
    if backends < 2 {
        return Some(backends as u32);
    }
    let wanted = (backends as u64).checked_mul(u64::from(SLOTS_PER_BACKEND))?;
    TABLE_SIZES
        .into_iter()
        .find(|&size| u64::from(size) >= wanted)
}

/// The members that get slots, in the order of their turns.
pub fn eligible(members: &[Member]) -> Vec<Member> {
    let unweighted = members.iter().all(|m| m.weight == 0);
    let mut chosen: Vec<Member> = members
        .iter()
        .filter(|m| unweighted || m.weight > 0)
        .map(|&m| Member {
            weight: m.weight.max(1),
            ..m
        })
        .collect();
    chosen.sort_by_key(Member::order);
    chosen
}

/// Builds the table of [`eligible`] members, of [`table_size`] slots (prime, at
/// least 2): each slot holds a member's id.
///
/// Members take turns in canonical order, and each takes the next slot of its
/// permutation that is free, until none is. A round gives every member of the
/// largest weight one turn, and others one in as many rounds as their weight
/// demands ("altering the relative frequency of the backends' turns").
pub fn build(eligible: &[Member], size: u32) -> Vec<u32> {
    let heaviest = eligible.iter().map(|m| m.weight).max().unwrap_or(1);
    let mut table = Table::new(size);
    let mut turns: Vec<Turn> = eligible.iter().map(|m| Turn::new(m, size)).collect();
    if turns.is_empty() {
        return table.slots;
    }
    if eligible.iter().all(|m| m.weight == heaviest) {
        loop {
            for turn in &mut turns {
                if table.take(turn) {
                    return table.slots;
                }
            }
        }
    }
    let mut credits: Vec<u64> = vec![0; eligible.len()];
    loop {
        for ((turn, credit), member) in turns.iter_mut().zip(&mut credits).zip(eligible) {
            *credit += u64::from(member.weight);
            if *credit >= u64::from(heaviest) {
                *credit -= u64::from(heaviest);
                if table.take(turn) {
                    return table.slots;
                }
            }
        }
    }
}

/// A member's place in its permutation: slots (offset + j x skip) mod M.
struct Turn {
    next: u32,
    skip: u32,
    id: u32,
}

impl Turn {
    fn new(member: &Member, size: u32) -> Self {
        let size = u64::from(size);
        // Both are below `size`, so they fit.
        Self {
            next: (member.hash(SEED_OFFSET) % size) as u32,
            skip: (member.hash(SEED_SKIP) % (size - 1) + 1) as u32,
            id: member.id,
        }
    }
}

/// A table being filled. What is taken is a bitset of its own: it stays in the
/// first-level cache where the slots do not.
struct Table {
    slots: Vec<u32>,
    taken: Vec<u64>,
    free: u32,
    size: u32,
}

impl Table {
    fn new(size: u32) -> Self {
        Self {
            slots: vec![0; size as usize],
            taken: vec![0; size.div_ceil(64) as usize],
            free: size,
            size,
        }
    }

    /// Takes a turn; true when no slot is left.
    #[inline]
    fn take(&mut self, turn: &mut Turn) -> bool {
        let mut slot = turn.next;
        // The size is prime and the skip smaller, so the permutation visits
        // every slot, and one of them is free.
        while self.taken[(slot >> 6) as usize] >> (slot & 63) & 1 != 0 {
            slot = self.after(slot, turn.skip);
        }
        self.taken[(slot >> 6) as usize] |= 1 << (slot & 63);
        self.slots[slot as usize] = turn.id;
        turn.next = self.after(slot, turn.skip);
        self.free -= 1;
        self.free == 0
    }

    /// Both are below the size, and the size far below 2^31: a subtraction does
    /// what a modulo would.
    #[inline]
    fn after(&self, slot: u32, skip: u32) -> u32 {
        let next = slot + skip;
        if next >= self.size {
            next - self.size
        } else {
            next
        }
    }
}
