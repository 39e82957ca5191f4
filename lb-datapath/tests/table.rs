//! The flow table in ordinary memory, by several threads too.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use lb_common::{
    Be16, Be32, CtEntry, CtKey,
    conntrack::{BUCKET_SLOTS, elements},
    ct_flags::{self, PEER_SHIFT, SEEN},
    proto,
};
use lb_datapath::{
    Family as _, Insert, InsertError, V4,
    conntrack::{GRACE, State, lifetime},
    host::Table,
    table::{entries, hit, insert, peek},
    tables::{Hit, Touch},
};

fn words(buckets: usize) -> Vec<AtomicU64> {
    let count = V4::BUCKET_WORDS * elements(buckets as u32) as usize;
    std::iter::repeat_with(AtomicU64::default)
        .take(count)
        .collect()
}

fn table(words: &[AtomicU64]) -> Table<'_> {
    Table { words, seed: 7 }
}

const NOW: u32 = 100_000;

/// The tuple of the n-th client to a vip, or of its backend's replies.
fn key(n: u32) -> CtKey<Be32> {
    CtKey {
        src: Be32::new(0x0a00_0000 | n >> 16),
        dst: Be32::new(0x0a60_0001),
        sport: Be16::new(n as u16),
        dport: Be16::new(80),
        proto: u32::from(proto::TCP),
    }
}

/// An entry that leads to a backend.
fn entry(key: &CtKey<Be32>, backend: u32, flags: u32) -> CtEntry<Be32> {
    CtEntry {
        packets: 1,
        bytes: 60,
        src: key.src,
        dst: Be32::new(0x0af4_0000 | backend),
        sport: key.sport,
        dport: Be16::new(8080),
        flags,
        backend,
        service: 1,
        created: NOW,
        last_seen: NOW,
    }
}

fn put(t: &Table<'_>, n: u32, backend: u32, how: Insert) -> Result<(), InsertError> {
    let key = key(n);
    insert::<V4, _>(t, &key, &entry(&key, backend, SEEN), how, NOW)
}

fn backend(t: &Table<'_>, n: u32, now: u32) -> Option<u32> {
    peek::<V4, _>(t, &key(n), now).map(|hit| hit.backend)
}

#[test]
fn what_was_inserted_is_found_and_nothing_else() {
    let words = words(40);
    let t = table(&words);
    for n in 0..1000 {
        put(&t, n, n + 1, Insert::New).unwrap();
    }
    for n in 0..1000 {
        assert_eq!(backend(&t, n, NOW), Some(n + 1));
    }
    assert!((1000..3000).all(|n| backend(&t, n, NOW).is_none()));
    let found: usize = words
        .chunks(V4::BUCKET_WORDS)
        .take(40)
        .map(|bucket| entries::<V4, _>(bucket, NOW).count())
        .sum();
    assert_eq!(found, 1000);
}

#[test]
fn a_key_belongs_to_its_flow_until_that_is_over() {
    let words = words(1);
    let t = table(&words);
    put(&t, 1, 1, Insert::New).unwrap();
    assert_eq!(put(&t, 1, 2, Insert::New), Err(InsertError::Exists));
    // The very same flow, again.
    put(&t, 1, 1, Insert::New).unwrap();
    put(&t, 1, 3, Insert::Any).unwrap();
    assert_eq!(backend(&t, 1, NOW), Some(3));
    let over = entry(&key(1), 3, SEEN | ct_flags::RST);
    insert::<V4, _>(&t, &key(1), &over, Insert::Any, NOW).unwrap();
    put(&t, 1, 4, Insert::New).unwrap();
    assert_eq!(backend(&t, 1, NOW), Some(4));
}

#[test]
fn an_entry_that_has_timed_out_is_room_after_a_grace_and_not_before() {
    let words = words(1);
    let t = table(&words);
    let slots = BUCKET_SLOTS;
    for n in 0..slots {
        put(&t, n, 1, Insert::New).unwrap();
    }
    let end = NOW + lifetime(u32::from(proto::TCP), SEEN);
    assert_eq!(backend(&t, 3, end), Some(1));
    assert_eq!(backend(&t, 3, end + 1), None);
    let other = key(1000);
    let at = |now| insert::<V4, _>(&t, &other, &entry(&other, 2, SEEN), Insert::New, now);
    assert_eq!(at(end + GRACE), Err(InsertError::Full));
    assert_eq!(at(end + GRACE + 1), Ok(()));
}

#[test]
fn a_full_bucket_gives_up_a_flow_that_nobody_answered() {
    let words = words(1);
    let t = table(&words);
    for n in 0..BUCKET_SLOTS {
        let key = key(n);
        let told = if n == 9 { 0 } else { SEEN << PEER_SHIFT };
        insert::<V4, _>(&t, &key, &entry(&key, 1, SEEN | told), Insert::New, NOW).unwrap();
    }
    let other = key(1000);
    let at = |now| insert::<V4, _>(&t, &other, &entry(&other, 2, SEEN), Insert::New, now);
    assert_eq!(at(NOW + GRACE), Err(InsertError::Full));
    assert_eq!(backend(&t, 9, NOW + GRACE), Some(1), "it is too young");
    assert_eq!(at(NOW + GRACE + 1), Err(InsertError::Full));
    let left = (0..BUCKET_SLOTS).filter(|n| backend(&t, *n, NOW + GRACE + 1).is_some());
    assert!(left.eq((0..BUCKET_SLOTS).filter(|n| *n != 9)));
    // The client tries again.
    assert_eq!(at(NOW + GRACE + 1), Ok(()));
}

#[test]
fn hardly_a_flow_is_refused_by_a_table_that_is_half_full() {
    let words = words(1000);
    let t = table(&words);
    let half = 1000 * BUCKET_SLOTS / 2;
    let refused = (0..half).filter(|n| put(&t, *n, 1, Insert::New).is_err());
    assert_eq!(refused.count(), 0);
    let more = (half..half * 6 / 5).filter(|n| put(&t, *n, 1, Insert::New).is_err());
    assert!(more.count() < 10);
}

#[test]
fn each_direction_hears_what_was_seen_in_the_other() {
    let words = words(4);
    let t = table(&words);
    let (client, udp) = (key(1), u32::from(proto::UDP));
    let forward = CtKey {
        proto: udp,
        ..client
    };
    let there = entry(&forward, 1, SEEN);
    let reply = CtKey {
        src: there.dst,
        dst: there.src,
        sport: there.dport,
        dport: there.sport,
        proto: udp,
    };
    let back = CtEntry {
        src: forward.dst,
        dst: forward.src,
        sport: forward.dport,
        dport: forward.sport,
        flags: ct_flags::REPLY | SEEN << PEER_SHIFT,
        ..there
    };
    insert::<V4, _>(&t, &reply, &back, Insert::New, NOW).unwrap();
    insert::<V4, _>(&t, &forward, &there, Insert::Any, NOW).unwrap();
    let state = |now| peek::<V4, _>(&t, &forward, now).map(|hit| State::of(udp, hit.flags));
    assert_eq!(state(NOW), Some(State::Udp));
    let packet = |key: &CtKey<Be32>, now| {
        let touch = Touch {
            now,
            bytes: 60,
            flags: SEEN,
        };
        let mut to = Hit::nothing(key);
        assert!(hit::<V4, _>(&t, key, &touch, &mut to));
    };
    packet(&reply, NOW + 1);
    assert_eq!(state(NOW + 1), Some(State::UdpReplied));
    // Only the client sends from now on, for longer than a flow may be idle.
    for now in (NOW..NOW + 1000).step_by(20) {
        packet(&forward, now);
    }
    assert!(peek::<V4, _>(&t, &reply, NOW + 1000).is_some());
    assert!(peek::<V4, _>(&t, &reply, NOW + 1200).is_none());
}

#[test]
fn of_many_cpus_one_gets_a_key() {
    const CPUS: u32 = 4;
    const KEYS: u32 = 20_000;
    let words = words(1000);
    let won: Vec<AtomicUsize> = std::iter::repeat_with(AtomicUsize::default)
        .take(KEYS as usize)
        .collect();
    thread::scope(|scope| {
        for cpu in 1..=CPUS {
            let (words, won) = (&words, &won);
            scope.spawn(move || {
                let t = table(words);
                for n in 0..KEYS {
                    match put(&t, n, cpu, Insert::New) {
                        Ok(()) => drop(won[n as usize].fetch_add(1, Ordering::Relaxed)),
                        Err(InsertError::Exists | InsertError::Busy) => {}
                        Err(InsertError::Full) => panic!("the table has room"),
                    }
                }
            });
        }
    });
    let t = table(&words);
    for n in 0..KEYS {
        let winners = won[n as usize].load(Ordering::Relaxed);
        assert!(winners <= 1, "{winners} CPUs have key {n}");
        assert_eq!(winners == 1, backend(&t, n, NOW).is_some());
    }
    let busy = won
        .iter()
        .filter(|n| n.load(Ordering::Relaxed) == 0)
        .count();
    assert!(busy < KEYS as usize / 100, "{busy} keys went to nobody");
}
