//! Conntrack's flow table: buckets of 56 slots in an array.
//!
//! A key lies in its home slot, or, where that was taken, in the next one of its
//! bucket that was free. So an established packet mostly reads one slot, and a key
//! that is not there costs the tags of the bucket's head, one cache line. Nothing is
//! collected: an entry that has timed out is room for the next one
//! (`docs/adr/0002-conntrack.md`).
//!
//! # Who writes what, and when
//! Readers take no lock. What a reader relies on:
//! - A slot gets another key only when its entry ended [`crate::conntrack::GRACE`]
//!   ticks before: no program runs that long.
//! - A slot is written while its entry is not live; the word with [`LIVE`] comes last.
//! - An insertion holds its bucket's lock: of two CPUs one finds what the other
//!   has inserted.
//! - Flags of a live entry are changed by atomic instructions only.

mod insert;

use lb_common::{
    CtEntry, CtKey, CtSlot,
    conntrack::{BUCKET_SLOTS, ELEMENT_HEADS, HEAD_WORDS, NEWS_TICKS},
    ct_flags::{FIN, LIVE, PEER_SHIFT, RST, SEEN, SIGHTS},
    hash,
};

use crate::{
    conntrack::is_live,
    family::Family,
    tables::{Hit, Touch},
};

pub use insert::{Insert, InsertError, insert, vacancy};

/// Memory that several CPUs read and write, in words.
pub trait Words: Copy {
    /// The memory from a word on.
    #[must_use]
    fn from(self, word: usize) -> Self;
    /// Reads a word whole.
    fn load(self, word: usize) -> u64;
    /// Writes a word whole.
    fn store(self, word: usize, value: u64);
    /// Writes a word after all that was written before.
    fn publish(self, word: usize, value: u64);
    /// Sets bits, atomically.
    fn set(self, word: usize, bits: u64);
    /// Keeps these bits only, atomically.
    fn keep(self, word: usize, bits: u64);
    /// Writes `new` where there is `old`, atomically; returns what there was.
    fn compare_exchange(self, word: usize, old: u64, new: u64) -> u64;
}

/// The table of a family.
pub trait Buckets<F: Family> {
    /// A bucket.
    type Bucket: Words;
    /// How many buckets there are.
    fn buckets(&self) -> u32;
    /// What makes the hash of keys this node's own: clients cannot choose tuples
    /// that fall into one bucket.
    fn seed(&self) -> u64;
    /// An element of the table: a bucket, or heads; `None` beyond the last.
    fn element(&self, index: u32) -> Option<Self::Bucket>;
    /// Runs [`search`].
    fn search(&self, key: &CtKey<F::Addr>, hash: u64) -> u32;
    /// Runs [`vacancy`].
    fn vacancy(&self, bucket: u32, home: u32, now: u32) -> u32;
    /// Runs [`tell`].
    fn tell(&self, hit: &Hit<F::Addr>, proto: u32, news: u64);
    /// Runs [`insert`].
    ///
    /// # Errors
    /// [`InsertError`]; with [`Insert::Any`] never [`InsertError::Exists`].
    fn insert(
        &self,
        key: &CtKey<F::Addr>,
        entry: &CtEntry<F::Addr>,
        how: Insert,
        now: u32,
    ) -> Result<(), InsertError>;
}

/// No slot: any number from here on.
const NONE: u32 = BUCKET_SLOTS;
/// Words of a slot, and where its parts lie.
struct At<F>(core::marker::PhantomData<F>);

impl<F: Family> At<F> {
    const KEY: usize = size_of::<CtKey<F::Addr>>() / 8;
    const PACKETS: usize = Self::KEY;
    const BYTES: usize = Self::KEY + 1;
    const ADDRS: usize = Self::KEY + 2;
    /// Ports, and above them the flags.
    const FLAGS: usize = Self::SIZE - 3;
    /// Backend, and above it the service.
    const IDS: usize = Self::SIZE - 2;
    /// When the entry was made, and above that when it was last seen.
    const TIMES: usize = Self::SIZE - 1;
    const SIZE: usize = Self::KEY + size_of::<CtEntry<F::Addr>>() / 8;
}

#[inline(always)]
fn flags_of(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Odd constants of the words of a key: digits of the golden ratio, and of MurmurHash3.
const FACTORS: [u64; 5] = [
    hash::K1,
    hash::K2,
    0x9e37_79b9_7f4a_7c15,
    0xd6e8_feb8_6659_fd93,
    0xbf58_476d_1ce4_e5b9,
];

/// Hash of a key: a sum of products, all of which a CPU computes at once. Its upper
/// half is well mixed; the lower one is so by the exclusive or.
#[inline(always)]
fn hash_of(seed: u64, key: &[u64]) -> u64 {
    let mut h = 0u64;
    for (word, factor) in key.iter().zip(FACTORS) {
        h = h.wrapping_add((seed ^ word).wrapping_mul(factor));
    }
    h ^ (h >> 32)
}

/// Index of a key's bucket.
#[inline(always)]
fn bucket_of(hash: u64, count: u32) -> u32 {
    hash::slot((hash >> 32) as u32, count)
}

/// Its home slot.
#[inline(always)]
fn home(hash: u64) -> u32 {
    let slot = (hash >> 8) as u32 % 64;
    // Not evenly, but in a way that the verifier can follow.
    if slot < BUCKET_SLOTS { slot } else { slot - 32 }
}

/// Its tag, never 0.
#[inline(always)]
fn tag_of(hash: u64) -> u32 {
    (hash as u32 & 0xff).max(1)
}

/// A slot of a bucket.
#[inline(always)]
pub fn slot_of<F: Family, W: Words>(bucket: W, slot: u32) -> W {
    bucket.from(slot as usize * At::<F>::SIZE)
}

/// The head of a bucket.
#[inline(always)]
fn head_of<F: Family, T: Buckets<F>>(t: &T, bucket: u32) -> Option<T::Bucket> {
    let heads = t.element(t.buckets() + bucket / ELEMENT_HEADS)?;
    Some(heads.from((bucket % ELEMENT_HEADS) as usize * HEAD_WORDS))
}

/// Whether a slot has a key.
#[inline(always)]
fn holds<W: Words>(slot: W, key: &[u64]) -> bool {
    // Not `all`: the comparison ends at the first word that differs, in order.
    for (at, word) in key.iter().enumerate() {
        if slot.load(at) != *word {
            return false;
        }
    }
    true
}

/// The slot that has a key, whether its entry is live or not.
#[inline(always)]
fn find<F: Family, T: Buckets<F>>(t: &T, key: &CtKey<F::Addr>) -> Option<T::Bucket> {
    let words = F::key_words(key);
    let hash = hash_of(t.seed(), words);
    let bucket = t.element(bucket_of(hash, t.buckets()))?;
    let slot = slot_of::<F, _>(bucket, home(hash));
    if holds(slot, words) {
        return Some(slot);
    }
    let found = searched(t.search(key, hash));
    (found < NONE).then(|| slot_of::<F, _>(bucket, found))
}

/// The slot of the key's bucket that has a key with this hash, or [`BUCKET_SLOTS`].
#[inline(always)]
pub fn search<F: Family, T: Buckets<F>>(t: &T, key: &CtKey<F::Addr>, hash: u64) -> u32 {
    let index = bucket_of(hash, t.buckets());
    let (Some(bucket), Some(head)) = (t.element(index), head_of::<F, T>(t, index)) else {
        return NONE;
    };
    let tag = tag_of(hash);
    for word in 0..BUCKET_SLOTS / 8 {
        let tags = head.load(word as usize);
        if !has_byte(tags, tag) {
            continue;
        }
        for slot in 0..8 {
            let at = word * 8 + slot;
            if (tags >> (8 * slot)) as u32 & 0xff == tag
                && holds(slot_of::<F, _>(bucket, at), F::key_words(key))
            {
                return at;
            }
        }
    }
    NONE
}

/// A slot that a function found, or that a loop comes to. The compiler knows that it
/// is in the bucket; the verifier does not, and wants to see the check.
#[inline(always)]
fn searched(slot: u32) -> u32 {
    core::hint::black_box(slot)
}

/// Whether one of eight bytes has a value (or, hardly ever, a byte above such a
/// one is larger by one): those that are equal become zero, and a zero byte is the
/// only one that borrows and has its high bit clear.
#[inline(always)]
fn has_byte(bytes: u64, value: u32) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let equal = bytes ^ u64::from(value).wrapping_mul(ONES);
    equal.wrapping_sub(ONES) & !equal & (ONES << 7) != 0
}

/// What an entry says to write.
#[inline(always)]
fn read<F: Family, W: Words>(slot: W, flags: u64) -> Hit<F::Addr> {
    let (src, dst) = F::load_addrs(slot.from(At::<F>::ADDRS));
    let ids = slot.load(At::<F>::IDS);
    Hit {
        src,
        dst,
        sport: lb_common::Be16::from_raw(flags as u16),
        dport: lb_common::Be16::from_raw((flags >> 16) as u16),
        flags: flags_of(flags),
        backend: ids as u32,
        service: (ids >> 32) as u32,
    }
}

/// Finds a flow's direction and leaves it as it is; `now` in ticks.
#[inline(always)]
pub fn peek<F: Family, T: Buckets<F>>(
    t: &T,
    key: &CtKey<F::Addr>,
    now: u32,
) -> Option<Hit<F::Addr>> {
    let slot = find::<F, T>(t, key)?;
    let flags = slot.load(At::<F>::FLAGS);
    let seen = (slot.load(At::<F>::TIMES) >> 32) as u32;
    is_live(key.proto, flags_of(flags), seen, now).then(|| read::<F, _>(slot, flags))
}

/// Finds a flow's direction, says in `to` what to write, and leaves the packet's
/// traces in it. What the other direction must know of it is told to that: what
/// was seen, and from time to time that the flow is alive.
#[inline(always)]
pub fn hit<F: Family, T: Buckets<F>>(
    t: &T,
    key: &CtKey<F::Addr>,
    touch: &Touch,
    to: &mut Hit<F::Addr>,
) -> bool {
    let Some(slot) = find::<F, T>(t, key) else {
        return false;
    };
    let word = slot.load(At::<F>::FLAGS);
    let times = slot.load(At::<F>::TIMES);
    let (flags, seen) = (flags_of(word), (times >> 32) as u32);
    if !is_live(key.proto, flags, seen, touch.now) {
        return false;
    }
    *to = read::<F, _>(slot, word);
    // Without atomics: see `CtEntry::packets`.
    slot.store(
        At::<F>::PACKETS,
        slot.load(At::<F>::PACKETS).wrapping_add(1),
    );
    let bytes = slot.load(At::<F>::BYTES);
    slot.store(At::<F>::BYTES, bytes.wrapping_add(u64::from(touch.bytes)));
    slot.store(At::<F>::TIMES, with_seen(times, touch.now));
    let new = touch.flags & !flags;
    if new != 0 {
        slot.set(At::<F>::FLAGS, u64::from(new) << 32);
    }
    if new & (SEEN | FIN | RST) != 0 || (touch.now ^ seen) & !(NEWS_TICKS - 1) != 0 {
        t.tell(to, key.proto, u64::from(new) << 32 | u64::from(touch.now));
    }
    true
}

/// [`hit`] with a stack frame of its own, which the wide addresses need: a program
/// and what it calls share 512 bytes.
#[inline(never)]
pub fn hit_apart<F: Family, T: Buckets<F>>(
    t: &T,
    key: &CtKey<F::Addr>,
    touch: &Touch,
    to: &mut Hit<F::Addr>,
) -> bool {
    hit(t, key, touch, to)
}

/// Sets flags of a live entry.
#[inline(always)]
pub fn mark<F: Family, T: Buckets<F>>(t: &T, key: &CtKey<F::Addr>, flags: u32) {
    if let Some(slot) = find::<F, T>(t, key)
        && flags_of(slot.load(At::<F>::FLAGS)) & LIVE != 0
    {
        slot.set(At::<F>::FLAGS, u64::from(flags) << 32);
    }
}

/// The word of times of an entry that a packet has just hit.
#[inline(always)]
fn with_seen(times: u64, now: u32) -> u64 {
    times & 0xffff_ffff | u64::from(now) << 32
}

/// The key of the other direction of a flow.
#[inline(always)]
fn peer_key<A: Copy>(hit: &Hit<A>, proto: u32) -> CtKey<A> {
    CtKey {
        src: hit.dst,
        dst: hit.src,
        sport: hit.dport,
        dport: hit.sport,
        proto,
    }
}

/// Tells the other direction of a flow what was seen, in the high half of `news`,
/// and when, in the low half.
#[inline(always)]
pub fn tell<F: Family, T: Buckets<F>>(t: &T, hit: &Hit<F::Addr>, proto: u32, news: u64) {
    let Some(slot) = find::<F, T>(t, &peer_key(hit, proto)) else {
        return;
    };
    if flags_of(slot.load(At::<F>::FLAGS)) & LIVE == 0 {
        return;
    }
    let seen = (news >> 32) as u32 & SIGHTS;
    if seen != 0 {
        slot.set(At::<F>::FLAGS, u64::from(seen << PEER_SHIFT) << 32);
    }
    let times = slot.load(At::<F>::TIMES);
    slot.store(At::<F>::TIMES, with_seen(times, news as u32));
}

/// The live entries of a bucket, and in which slots they are; `now` in ticks. Not
/// for programs.
pub fn entries<F: Family, W: Words>(
    bucket: W,
    now: u32,
) -> impl Iterator<Item = (u32, CtSlot<F::Addr>)> {
    (0..BUCKET_SLOTS)
        .filter(move |at| judge::<F, _>(bucket, *at, now, is_live))
        .map(move |at| (at, F::load_slot(slot_of::<F, _>(bucket, at))))
}

/// Forgets the entry in a slot.
#[inline(always)]
pub fn forget<F: Family, W: Words>(bucket: W, slot: u32) {
    slot_of::<F, _>(bucket, slot).keep(At::<F>::FLAGS, !(u64::from(LIVE) << 32));
}

/// Asks something about the entry in a slot: of its protocol, flags, and times.
#[inline(always)]
fn judge<F: Family, W: Words>(
    bucket: W,
    slot: u32,
    now: u32,
    ask: impl Fn(u32, u32, u32, u32) -> bool,
) -> bool {
    let slot = slot_of::<F, W>(bucket, slot);
    // The protocol is the last word of the key, above the ports.
    let proto = (slot.load(At::<F>::KEY - 1) >> 32) as u32;
    let flags = flags_of(slot.load(At::<F>::FLAGS));
    ask(proto, flags, (slot.load(At::<F>::TIMES) >> 32) as u32, now)
}
