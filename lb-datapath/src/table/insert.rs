//! Writing to the flow table: see the module above for who may write what, and when.

use lb_common::{
    CtEntry, CtKey,
    conntrack::{BUCKET_SLOTS, HEAD_LOCK},
    ct_flags::LIVE,
};

use super::{
    At, Buckets, NONE, Words, bucket_of, flags_of, forget, hash_of, head_of, holds, home, judge,
    searched, slot_of, tag_of,
};
use crate::{
    conntrack::{GRACE, State, age, is_live, is_over, is_vacant},
    family::Family,
};

/// Whether an insertion may replace what is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insert {
    /// Where there is nothing, or a flow that is over, or the very same flow, whose
    /// other half is gone.
    New,
    /// In any case.
    Any,
}

/// Why an insertion failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// There is an entry already.
    Exists,
    /// The bucket is full.
    Full,
    /// Others kept the bucket locked.
    Busy,
}

/// How often the lock of a bucket is asked for. Its holder needs some 50 ns; with an interrupt
/// meanwhile, some microseconds. Who gives up loses the first packet of a flow.
const SPINS: u32 = 1024;
/// In [`lb_common::conntrack::CtHead::lock`]: locked. Below it is when that was.
const LOCKED: u64 = 1 << 32;

/// Writes a flow's direction. The entry is live from then on, whether its flags
/// say so or not; `now` in ticks.
///
/// # Errors
/// [`InsertError`]; with [`Insert::Any`] never [`InsertError::Exists`].
#[inline(always)]
pub fn insert<F: Family, T: Buckets<F>>(
    t: &T,
    key: &CtKey<F::Addr>,
    entry: &CtEntry<F::Addr>,
    how: Insert,
    now: u32,
) -> Result<(), InsertError> {
    let hash = hash_of(t.seed(), F::key_words(key));
    let index = bucket_of(hash, t.buckets());
    let (Some(bucket), Some(head)) = (t.element(index), head_of::<F, T>(t, index)) else {
        return Err(InsertError::Full);
    };
    if !lock(head, now) {
        return Err(InsertError::Busy);
    }
    let mut at = searched(t.search(key, hash));
    if at >= NONE {
        at = searched(t.vacancy(index, home(hash), now));
    }
    let result = if at >= NONE {
        evict::<F, _>(bucket, now);
        Err(InsertError::Full)
    } else {
        put::<F, _>((bucket, at), (key, entry), how, now).map(|()| set_tag(head, at, tag_of(hash)))
    };
    head.publish(HEAD_LOCK, 0);
    result
}

/// Takes the lock of a bucket, or breaks one whose holder has died: the agent,
/// which may be killed at any time.
#[inline(always)]
fn lock<W: Words>(head: W, now: u32) -> bool {
    let mine = LOCKED | u64::from(now);
    let mut found = 0;
    for _ in 0..SPINS {
        found = head.compare_exchange(HEAD_LOCK, 0, mine);
        if found == 0 {
            return true;
        }
    }
    age(now, found as u32) > GRACE && head.compare_exchange(HEAD_LOCK, found, mine) == found
}

/// The slot of a bucket that may be used next, its home slot if possible; or
/// [`BUCKET_SLOTS`].
#[inline(always)]
pub fn vacancy<F: Family, T: Buckets<F>>(t: &T, bucket: u32, home: u32, now: u32) -> u32 {
    let (Some(slots), Some(head)) = (t.element(bucket), head_of::<F, T>(t, bucket)) else {
        return NONE;
    };
    for step in 0..BUCKET_SLOTS {
        let mut at = searched(home + step);
        if at >= BUCKET_SLOTS {
            at -= BUCKET_SLOTS;
        }
        if at >= BUCKET_SLOTS {
            continue;
        }
        let tags = head.load((at / 8) as usize);
        if tags >> (8 * (at % 8)) & 0xff == 0 || judge::<F, _>(slots, at, now, is_vacant) {
            return at;
        }
    }
    NONE
}

/// Makes room for later: forgets a flow of a full bucket that nobody answered yet
/// or that is over. Its slot is free when the client tries again.
#[inline(never)]
fn evict<F: Family, W: Words>(bucket: W, now: u32) {
    let expendable = |proto, flags, seen, now| {
        flags & LIVE != 0 && age(now, seen) > GRACE && State::of(proto, flags).is_expendable()
    };
    for at in 0..BUCKET_SLOTS {
        if judge::<F, _>(bucket, at, now, expendable) {
            forget::<F, _>(bucket, at);
            return;
        }
    }
}

/// Writes to a slot of a bucket, as far as `how` allows it.
#[inline(always)]
fn put<F: Family, W: Words>(
    (bucket, at): (W, u32),
    (key, entry): (&CtKey<F::Addr>, &CtEntry<F::Addr>),
    how: Insert,
    now: u32,
) -> Result<(), InsertError> {
    let key = F::key_words(key);
    let slot = slot_of::<F, _>(bucket, at);
    let new = F::entry_words(entry);
    let old = flags_of(slot.load(At::<F>::FLAGS));
    if old & LIVE != 0 {
        if how == Insert::New
            && holds(slot, key)
            && judge::<F, _>(bucket, at, now, is_live)
            && !is_over(old)
            && !is_same::<F, _>(slot, new)
        {
            return Err(InsertError::Exists);
        }
        forget::<F, _>(bucket, at);
    }
    for (at, word) in key.iter().enumerate() {
        slot.store(at, *word);
    }
    for (at, word) in new.iter().enumerate() {
        if At::<F>::KEY + at != At::<F>::FLAGS {
            slot.store(At::<F>::KEY + at, *word);
        }
    }
    let flags = new.get(At::<F>::FLAGS - At::<F>::KEY).copied().unwrap_or(0);
    slot.publish(At::<F>::FLAGS, flags | u64::from(LIVE) << 32);
    Ok(())
}

/// Writes a slot's tag, under the lock.
#[inline(always)]
fn set_tag<W: Words>(head: W, at: u32, tag: u32) {
    let at = searched(at) % 64;
    let (word, shift) = ((at / 8) as usize, 8 * (at % 8));
    let tags = head.load(word);
    head.store(word, tags & !(0xff << shift) | u64::from(tag) << shift);
}

/// Whether an entry says to write what a new one says.
#[inline(always)]
fn is_same<F: Family, W: Words>(slot: W, new: &[u64]) -> bool {
    let new = new.iter().enumerate();
    let mut pairs = new.map(|(at, word)| (At::<F>::KEY + at, word));
    // Addresses, and below the flags the ports.
    pairs.all(|(at, word)| match at {
        at if at < At::<F>::ADDRS || at > At::<F>::FLAGS => true,
        at if at == At::<F>::FLAGS => slot.load(at) as u32 == *word as u32,
        at => slot.load(at) == *word,
    })
}
