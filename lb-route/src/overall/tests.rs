use std::collections::HashMap;

use super::{zone::LIVES, *};
use proptest::prelude::*;

const SECOND: u64 = 1000;

fn limit(requests: u32, seconds: u64) -> OverallLimit {
    OverallLimit {
        requests,
        window: Duration::from_secs(seconds),
        key: None,
        ignored: Vec::new(),
    }
}

fn name() -> Name {
    Name::new("default", "web")
}

/// One that knows the Ingress.
fn overall(limit: &OverallLimit, capacity: usize) -> Overall {
    let overall = Overall::new(capacity);
    let id = zone_id(&name(), "uid", limit.window);
    let zone = Arc::new(Zone::new(id, limit.window));
    let mut zones = overall.zones.write().unwrap();
    zones.of.insert(name(), zone.clone());
    zones.by_id.insert(id, zone);
    drop(zones);
    overall.tell();
    overall
}

fn at(millis: u64) -> Duration {
    // The beginning of a window of any length that is tested here.
    Duration::from_millis(1_000_000 * SECOND + millis)
}

/// How many of `tries` requests at a time are let in.
fn admitted(overall: &Overall, limit: &OverallLimit, millis: u64, tries: usize) -> usize {
    let one = |_: &usize| overall.admit(&name(), limit, b"key", at(millis)) != Admitted::No;
    (0..tries).filter(one).count()
}

/// What one has told is heard by another.
fn pass(from: &Overall, life: u64, to: &Overall, millis: u64) -> usize {
    let told = from.take_untold();
    to.hear(Life(life), told.iter().copied(), at(millis));
    told.len()
}

/// Windows of 10 s. By hand: in the second there is room for what of the first has gone by.
#[test]
fn the_window_before_goes_by() {
    let limit = limit(10, 10);
    let overall = overall(&limit, 100);
    for (seconds, expected) in [
        (0, 10),
        (9, 0),
        (10, 0),
        // 9 of 10 s: 10 × 9/10 = 9.
        (11, 1),
        // 10 × 5/10 = 5, and the one.
        (15, 4),
        (19, 4),
        // 9 were let in: 9 × 9/10 = 8.1.
        (21, 2),
        // All are long gone.
        (60, 10),
    ] {
        assert_eq!(
            admitted(&overall, &limit, seconds * SECOND, 100),
            expected,
            "{seconds}"
        );
    }
}

#[test]
fn each_key_has_its_own_and_each_ingress() {
    let limit = limit(1, 10);
    let overall = overall(&limit, 100);
    let admit = |name: &Name, key: &[u8]| overall.admit(name, &limit, key, at(0));
    assert_eq!(admit(&name(), b"a"), Admitted::First);
    assert_eq!(admit(&name(), b"b"), Admitted::Yes);
    assert_eq!(admit(&name(), b"a"), Admitted::No);
    // One that has none.
    let other = Name::new("default", "other");
    assert_eq!(admit(&other, b"a"), Admitted::Yes);
    assert_eq!(admit(&other, b"a"), Admitted::Yes);
}

#[test]
fn what_others_let_in_counts() {
    let limit = limit(10, 10);
    let (one, other) = (overall(&limit, 100), overall(&limit, 100));
    assert_eq!(admitted(&one, &limit, 0, 4), 4);
    assert_eq!(pass(&one, 1, &other, 0), 1);
    assert_eq!(admitted(&other, &limit, 0, 100), 6);
    assert_eq!(pass(&other, 2, &one, 0), 1);
    assert_eq!(admitted(&one, &limit, 0, 100), 0);
    // Nothing has changed: nothing is told but once more.
    assert_eq!(one.take_untold(), []);
    assert_eq!(one.take_again().len(), 1);
    assert_eq!(one.take_again(), []);
    // Of another life the same counts are others.
    other.hear(Life(3), one.all(at(0), |_| false)[&None].clone(), at(0));
    assert_eq!(admitted(&other, &limit, 15 * SECOND, 100), 5);
}

/// Who is new is told what is in force, and by whom it was let in: once, whoever tells it.
#[test]
fn counts_of_those_that_have_ended_are_passed_on() {
    let limit = limit(10, 10);
    let (ended, one, other, new) = (
        overall(&limit, 100),
        overall(&limit, 100),
        overall(&limit, 100),
        overall(&limit, 100),
    );
    assert_eq!(admitted(&ended, &limit, 0, 4), 4);
    let told = ended.take_untold();
    one.hear(Life(1), told.iter().copied(), at(0));
    other.hear(Life(1), told, at(0));
    assert_eq!(admitted(&one, &limit, 0, 2), 2);
    let all = one.all(at(0), |life| life == Life(1));
    assert_eq!(
        all.keys().copied().collect::<Vec<_>>(),
        [None, Some(Life(1))]
    );
    assert_eq!(one.all(at(0), |life| life != Life(1)).len(), 1);
    for (from, own) in [(&one, 2), (&other, 3), (&one, 2)] {
        for (life, told) in from.all(at(0), |_| true) {
            new.hear(life.unwrap_or(Life(own)), told, at(0));
        }
    }
    assert_eq!(admitted(&new, &limit, 0, 100), 4);
    assert!(one.all(at(30 * SECOND), |_| true).is_empty());
}

/// What is lost is in what is told next, and what comes twice or late changes nothing.
#[test]
fn counts_are_told_whole() {
    let limit = limit(100, 10);
    let (one, other) = (overall(&limit, 100), overall(&limit, 100));
    let mut told = Vec::new();
    for _ in 0..3 {
        admitted(&one, &limit, 0, 20);
        told.push(one.take_untold());
    }
    for number in [2, 0, 1, 2] {
        other.hear(Life(1), told[number].iter().copied(), at(0));
    }
    assert_eq!(admitted(&other, &limit, 0, 100), 40);
}

#[test]
fn what_is_out_of_place_is_left_out() {
    let limit = limit(10, 10);
    let (one, other) = (overall(&limit, 100), overall(&limit, 100));
    admitted(&one, &limit, 0, 10);
    let told = one.take_untold()[0];
    let shifted = |zone: u64, window: i64| Told {
        zone: ZoneId(told.zone.0 ^ zone),
        window: told.window.wrapping_add_signed(window),
        ..told
    };
    for (zone, window) in [(1, 0), (0, 2), (0, -2), (0, i64::MAX), (0, i64::MIN)] {
        other.hear(Life(1), [shifted(zone, window)], at(0));
    }
    assert_eq!((other.keys(), other.forgotten()), (0, 0));
    // Of a clock that is ahead: it counts when it is time.
    other.hear(Life(1), [shifted(0, 1)], at(0));
    assert_eq!(admitted(&other, &limit, 0, 3), 3);
    assert_eq!(admitted(&other, &limit, 10 * SECOND, 100), 0);
}

#[test]
fn memory_is_bounded() {
    let limit = limit(10, 10);
    let overall = overall(&limit, 80);
    let admit = |key: u32, millis| overall.admit(&name(), &limit, &key.to_be_bytes(), at(millis));
    for key in 0..1000 {
        admit(key, 0);
    }
    let keys = overall.keys();
    assert!((60..=80).contains(&keys), "{keys}");
    assert_eq!(overall.forgotten(), 1000 - keys as u64);
    // What is over is forgotten without a word; there are enough keys for each part to have some.
    for key in 1000..1400 {
        admit(key, 30 * SECOND);
    }
    assert_eq!(
        overall.forgotten(),
        1000 - keys as u64 + (1400 - 1000 - overall.keys() as u64)
    );

    // Others than so many proxies are not counted, until some have ended.
    let told = overall.take_untold()[0];
    let tell = |lives: std::ops::Range<u64>, window: u64| {
        let before = overall.forgotten();
        let told = Told {
            window: told.window + window,
            now: 1,
            before: 0,
            ..told
        };
        lives.for_each(|life| overall.hear(Life(life), [told], at((30 + 10 * window) * SECOND)));
        overall.forgotten() - before
    };
    assert_eq!(tell(0..LIVES as u64 + 5, 0), 5);
    assert_eq!(tell(1000..1001, 1), 1);
    assert_eq!(tell(1001..1002, 2), 0);
}

#[test]
fn an_ingress_without_a_limit_is_forgotten() {
    let limit = limit(1, 10);
    let overall = overall(&limit, 100);
    assert_eq!(admitted(&overall, &limit, 0, 5), 1);
    assert!(overall.is_used());
    assert!(!overall.set(std::iter::empty()));
    assert_eq!((overall.keys(), overall.is_used()), (0, false));
    assert_eq!(overall.take_untold(), []);
}

#[test]
fn a_clock_that_is_set_back_begins_anew_at_worst() {
    let limit = limit(10, 10);
    let overall = overall(&limit, 100);
    assert_eq!(admitted(&overall, &limit, 30 * SECOND, 100), 10);
    assert_eq!(admitted(&overall, &limit, 29 * SECOND, 3), 3);
    // They are of the window before this one.
    assert_eq!(admitted(&overall, &limit, 30 * SECOND, 100), 0);
    assert_eq!(admitted(&overall, &limit, 0, 100), 10);
}

/// lua-resty-global-throttle 0.2, for one store: what it lets in of requests at times in seconds.
fn reference(limit: f64, window: f64, times: &[f64]) -> Vec<bool> {
    let mut store: HashMap<u64, f64> = HashMap::new();
    let mut get = |now: f64, add: f64| {
        let count = store.entry((now / window).floor() as u64).or_default();
        *count += add;
        *count
    };
    let mut process = |now: f64| {
        let remaining = window - now % window;
        let count = get(now, 0.0);
        let last = get(now - window, 0.0).min(limit);
        let is_within = count < limit && last / window * remaining + count < limit;
        get(now, if is_within { 1.0 } else { 0.0 });
        is_within
    };
    times.iter().map(|now| process(*now)).collect()
}

fn any_counts() -> impl Strategy<Value = Counts> {
    (5_u64..9, 0_u32..4, 0_u32..4).prop_map(|(window, now, before)| Counts {
        window,
        now,
        before,
    })
}

proptest! {
    /// As long as everybody knows everything at once, it is as with one store.
    #[test]
    fn proxies_that_hear_at_once_do_as_one_store(
        requests in 1_u32..20,
        // What a floating point number has exactly, as have eighths of seconds.
        seconds in proptest::sample::select(vec![1_u64, 2, 4]),
        gaps in proptest::collection::vec((0_u64..4, 0_usize..3), 1..300),
    ) {
        let limit = limit(requests, seconds);
        let all = [(); 3].map(|()| overall(&limit, 100));
        let mut millis = 0;
        let (mut times, mut found) = (Vec::new(), Vec::new());
        for (gap, proxy) in gaps {
            millis += gap * 125;
            times.push(at(millis).as_millis() as f64 / 1000.0);
            found.push(admitted(&all[proxy], &limit, millis, 1) == 1);
            let told = all[proxy].take_untold();
            for other in (0..3).filter(|other| *other != proxy) {
                all[other].hear(Life(proxy as u64), told.iter().copied(), at(millis));
            }
        }
        prop_assert_eq!(found, reference(requests.into(), seconds as f64, &times));
    }

    /// However late they hear of each other: none is refused before the limit is reached, and
    /// beyond it they get by what the others let in untold.
    #[test]
    fn beyond_the_limit_they_get_by_what_is_untold(
        requests in 1_u32..50,
        every in 1_u64..40,
        wishes in proptest::collection::vec((0_u64..10, 0_usize..3), 1..400),
        lost in proptest::collection::vec(any::<bool>(), 400),
    ) {
        let limit = limit(requests, 100);
        let all = [(); 3].map(|()| overall(&limit, 100));
        let (mut millis, mut told_at, mut total) = (0, 0, 0);
        // What each has let in that others have not heard.
        let mut untold = [0_usize; 3];
        let mut most = 0;
        for ((gap, proxy), is_lost) in wishes.into_iter().zip(lost) {
            millis += gap;
            if millis >= told_at + every {
                told_at = millis;
                let told = [0, 1, 2].map(|proxy: usize| all[proxy].take_untold());
                if !is_lost {
                    let whole = [0, 1, 2].map(|proxy: usize| {
                        let all = all[proxy].all(at(millis), |_| false);
                        all.into_values().flatten().collect::<Vec<_>>()
                    });
                    for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
                        let told = told[from].iter().chain(&whole[from]).copied();
                        all[to].hear(Life(from as u64), told, at(millis));
                    }
                    untold = [0; 3];
                }
            }
            let is_admitted = admitted(&all[proxy], &limit, millis, 1) == 1;
            untold[proxy] += usize::from(is_admitted);
            total += usize::from(is_admitted);
            most = most.max(untold.iter().sum::<usize>() - untold[proxy]);
            prop_assert!(is_admitted || total >= requests as usize);
        }
        prop_assert!(total <= requests as usize + most, "{total} {most}");
    }

    /// What was told last follows from all that was told, in whichever order.
    #[test]
    fn counts_merge(a in any_counts(), b in any_counts(), c in any_counts(), window in 5_u64..9) {
        let merged = |all: &[Counts]| {
            let mut sum = all[0];
            all[1..].iter().for_each(|counts| sum.merge(*counts));
            sum
        };
        prop_assert_eq!(merged(&[a, b]), merged(&[b, a]));
        prop_assert_eq!(merged(&[a, a]), a);
        prop_assert_eq!(merged(&[merged(&[a, b]), c]), merged(&[a, merged(&[b, c])]));
        // Nothing that is in force is lost by it.
        let merged = merged(&[a, b]);
        if merged.window <= window {
            let (one, other) = (a.seen_from(window), b.seen_from(window));
            let expected = (one.0.max(other.0), one.1.max(other.1));
            prop_assert_eq!(merged.seen_from(window), expected);
        }
    }
}
