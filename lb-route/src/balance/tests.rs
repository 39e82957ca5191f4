use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::subsequence};

use super::*;

fn endpoints(count: u8) -> Vec<SocketAddr> {
    let one = |number| SocketAddr::from(([10, 0, 0, number], 8080));
    (1..=count).map(one).collect()
}

fn key(number: usize) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

#[test]
fn turns_go_round() {
    let all = endpoints(3);
    for (turn, tried, expected) in [
        (0, &[][..], Some(0)),
        (1, &[], Some(1)),
        (2, &[], Some(2)),
        (3, &[], Some(0)),
        (usize::MAX, &[], Some(0)),
        (0, &[0], Some(1)),
        (2, &[2], Some(0)),
        (2, &[0, 2], Some(1)),
        (1, &[0, 1, 2], None),
    ] {
        let tried: Vec<_> = tried.iter().map(|at: &usize| all[*at]).collect();
        let expected = expected.map(|at: usize| all[at]);
        assert_eq!(
            round_robin(&all, turn, &tried),
            expected,
            "{turn} {tried:?}"
        );
    }
    assert_eq!(round_robin(&[], 7, &[]), None);
}

#[test]
fn every_version_finds_the_same_endpoint_for_a_key() {
    // By a program of its own, from MD5 and the published SplitMix64, whose first number is known.
    assert_eq!(mixed(0), 0xe220_a839_7b1d_cdaf);
    let mut all = endpoints(5);
    all.push("[2001:db8::1]:80".parse().unwrap());
    for (key, expected) in [
        ("", [6, 3, 4, 1, 2, 5]),
        ("a", [3, 6, 4, 5, 1, 2]),
        ("/shop?id=1", [4, 6, 1, 5, 2, 3]),
        ("192.0.2.7", [1, 3, 4, 2, 6, 5]),
        ("é", [3, 4, 2, 5, 6, 1]),
        ("key-17", [6, 1, 3, 4, 5, 2]),
    ] {
        let mut tried = Vec::new();
        for number in expected {
            let found = hashed(&all, key.as_bytes(), &tried).unwrap();
            assert_eq!(found, all[number - 1], "{key} {tried:?}");
            tried.push(found);
        }
        assert_eq!(hashed(&all, key.as_bytes(), &tried), None);
    }
}

#[test]
fn keys_are_spread_evenly() {
    // 20,000 keys on 20 endpoints: 1000 each, with a standard deviation of 31.
    let all = endpoints(20);
    let mut found: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for number in 0..20_000 {
        *found
            .entry(hashed(&all, &key(number), &[]).unwrap())
            .or_default() += 1;
    }
    assert_eq!(found.len(), 20);
    assert!(
        found.values().all(|count| (850..=1150).contains(count)),
        "{found:?}"
    );
}

#[test]
fn a_subset_has_its_size_and_is_used_evenly() {
    let all = endpoints(10);
    let mut found: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for number in 0..1000 {
        let choose = |random| hashed_subset(&all, &key(number), 3, &[], random).unwrap();
        let evenly = (0..30).map(|n| u64::MAX / 60 * (2 * n + 1));
        let subset = evenly
            .map(choose)
            .fold(BTreeMap::new(), |mut counts, endpoint| {
                *counts.entry(endpoint).or_insert(0) += 1;
                counts
            });
        assert!(subset.values().eq(&[10, 10, 10]), "{subset:?}");
        assert!(subset.contains_key(&hashed(&all, &key(number), &[]).unwrap()));
        for endpoint in subset.keys() {
            *found.entry(*endpoint).or_default() += 1;
        }
    }
    // 300 each, with a standard deviation of 14.
    assert!(
        found.values().all(|count| (240..=360).contains(count)),
        "{found:?}"
    );
}

#[test]
fn averages_decay_in_ten_seconds() {
    let all = endpoints(2);
    let ewma = Ewma::default();
    let second = Duration::from_secs;
    ewma.record(all[0], Duration::from_millis(100), second(100));
    ewma.record(all[0], Duration::from_millis(300), second(105));
    // 0.1 · e^-0.5 + 0.3 · (1 - e^-0.5)
    let seconds = ewma.averages()[&all[0]].seconds;
    assert!((seconds - 0.178_693_868).abs() < 1e-9, "{seconds}");
    // A clock that goes back a little does no harm.
    ewma.record(all[0], Duration::from_millis(900), second(104));
    assert!((ewma.averages()[&all[0]].seconds - seconds).abs() < 1e-9);
}

#[test]
fn the_quicker_of_two_is_chosen_until_it_is_slow_or_the_other_rested() {
    let all = endpoints(2);
    let ewma = Ewma::default();
    let chosen = |at| {
        let all_random = (0..64).map(mixed);
        let found = all_random.map(|random| ewma.choose(&all, &[], random, at).unwrap());
        found.collect::<BTreeSet<_>>()
    };
    let now = Duration::from_secs(1000);
    // Of those that nothing is known of, either.
    assert_eq!(chosen(now).len(), 2);
    ewma.record(all[0], Duration::from_millis(10), now);
    assert_eq!(chosen(now), [all[1]].into());
    ewma.record(all[1], Duration::from_millis(50), now);
    assert_eq!(chosen(now), [all[0]].into());
    // After 20 seconds 50 ms count 6.8 ms, which is less than the other's 10.
    let later = now + Duration::from_secs(20);
    ewma.record(all[0], Duration::from_millis(10), later);
    assert_eq!(chosen(later), [all[1]].into());
}

#[test]
fn new_endpoints_begin_with_the_mean_and_old_ones_are_forgotten() {
    let all = endpoints(4);
    let ewma = Ewma::default();
    let now = Duration::from_secs(5);
    ewma.keep(&all, now);
    assert!(ewma.averages().is_empty());
    for (endpoint, millis) in [(0, 100), (1, 300), (2, 999)] {
        ewma.record(all[endpoint], Duration::from_millis(millis), now);
    }
    let left = [all[0], all[1], all[3]];
    ewma.keep(&left, now);
    let averages = ewma.averages();
    assert_eq!(
        averages.keys().collect::<BTreeSet<_>>(),
        left.iter().collect()
    );
    assert!((averages[&all[3]].seconds - 0.2).abs() < 1e-9);
}

/// Endpoints, some of them tried.
fn some() -> impl Strategy<Value = (Vec<SocketAddr>, Vec<SocketAddr>)> {
    (0_u8..20).prop_flat_map(|count| {
        let all = endpoints(count);
        let tried = subsequence(all.clone(), 0..=all.len());
        (Just(all), tried)
    })
}

proptest! {
    #[test]
    fn what_was_tried_is_never_chosen_and_anything_else_may_be(
        (all, tried) in some(), random: u64, turn: usize, size in 0_usize..30,
    ) {
        let key = random.to_le_bytes();
        let ewma = Ewma::default();
        for (endpoint, millis) in all.iter().zip(0..) {
            ewma.record(*endpoint, Duration::from_millis(millis), Duration::ZERO);
        }
        let anywhere = [
            round_robin(&all, turn, &tried),
            hashed(&all, &key, &tried),
            ewma.choose(&all, &tried, random, Duration::ZERO),
            hashed_subset(&all, &key, all.len(), &tried, random),
        ];
        for chosen in anywhere {
            prop_assert_eq!(chosen.is_some(), tried.len() < all.len());
            prop_assert!(chosen.is_none_or(|chosen| all.contains(&chosen) && !tried.contains(&chosen)));
        }
        let of_subset = hashed_subset(&all, &key, size, &tried, random);
        prop_assert!(of_subset.is_none_or(|chosen| all.contains(&chosen) && !tried.contains(&chosen)));
    }

    #[test]
    fn as_many_turns_as_endpoints_reach_each_once(count in 1_u8..20, first in 0_usize..1000) {
        let all = endpoints(count);
        let turns = first..first + all.len();
        let reached: BTreeSet<_> = turns.map(|turn| round_robin(&all, turn, &[])).collect();
        prop_assert_eq!(reached.len(), all.len());
    }

    #[test]
    fn keys_stay_with_endpoints_that_stay((all, gone) in some(), numbers in 0_usize..1000) {
        let left: Vec<_> = all.iter().filter(|e| !gone.contains(e)).copied().collect();
        for number in numbers..numbers + 20 {
            let before = hashed(&all, &key(number), &[]);
            let after = hashed(&left, &key(number), &[]);
            // To have been tried is to be gone.
            prop_assert_eq!(hashed(&all, &key(number), &gone), after);
            if before.is_some_and(|before| left.contains(&before)) {
                prop_assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn the_order_of_endpoints_does_not_matter(all in Just(endpoints(9)).prop_shuffle(), random: u64) {
        let sorted = endpoints(9);
        let key = random.to_be_bytes();
        prop_assert_eq!(hashed(&all, &key, &[]), hashed(&sorted, &key, &[]));
        let subset = |all: &[SocketAddr]| hashed_subset(all, &key, 4, &[], random);
        prop_assert_eq!(subset(&all), subset(&sorted));
    }

    #[test]
    fn a_subset_loses_those_that_go_and_no_other(gone in 0_usize..9, number in 0_usize..1000) {
        let subset = |all: &[SocketAddr]| -> BTreeSet<SocketAddr> {
            let randoms = (0..64).map(|n| n << 58 | 1);
            randoms.filter_map(|random| hashed_subset(all, &key(number), 3, &[], random)).collect()
        };
        let all = endpoints(9);
        let left: Vec<_> = all.iter().filter(|e| **e != all[gone]).copied().collect();
        let (mut before, after) = (subset(&all), subset(&left));
        prop_assert_eq!((before.len(), after.len()), (3, 3));
        before.remove(&all[gone]);
        prop_assert!(before.is_subset(&after));
    }

    #[test]
    fn of_three_endpoints_the_slowest_is_never_chosen(random: u64, slowest in 0_usize..3) {
        let all = endpoints(3);
        let ewma = Ewma::default();
        for (number, endpoint) in all.iter().enumerate() {
            let millis = if number == slowest { 500 } else { 50 };
            ewma.record(*endpoint, Duration::from_millis(millis), Duration::ZERO);
        }
        let chosen = ewma.choose(&all, &[], random, Duration::ZERO);
        prop_assert_ne!(chosen, Some(all[slowest]));
    }
}
