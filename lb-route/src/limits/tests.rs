use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

fn limits(rps: u32, rpm: u32, connections: u32, burst_multiplier: u32) -> Limits {
    Limits {
        rps: Some(rps),
        rpm: Some(rpm),
        connections: Some(connections),
        burst_multiplier,
        ..Limits::default()
    }
}

fn client(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn uid(name: &str) -> Arc<str> {
    name.into()
}

/// How many of `tries` requests at a time are let in.
fn admitted(limiter: &Limiter, limits: &Limits, millis: u64, tries: usize) -> usize {
    let at = Duration::from_millis(millis);
    let one = || limiter.admit(&uid("one"), limits, client(1), at).is_ok();
    (0..tries).filter(|_| one()).count()
}

#[test]
fn a_burst_is_let_in_and_then_the_rate() {
    // nginx: `rate=5r/s`, `burst=25 nodelay`: 26 at once, then one each 200 ms.
    let (limiter, rps) = (Limiter::default(), limits(5, 0, 0, 5));
    for (millis, expected) in [
        (1000, 26),
        (1000, 0),
        (1199, 0),
        (1200, 1),
        (1399, 0),
        (1400, 1),
        (2400, 5),
        (2400 + 5200, 26),
        (2400 + 5200 + 1_000_000, 26),
    ] {
        assert_eq!(admitted(&limiter, &rps, millis, 100), expected, "{millis}");
    }
}

#[test]
fn minutes_are_counted_in_whole_thousandths_of_requests_a_second() {
    // nginx: `rate=1r/m` is 16 thousandths a second: a request each 62.5 s.
    let (limiter, rpm) = (Limiter::default(), limits(0, 1, 0, 1));
    for (millis, expected) in [(0, 2), (62_499, 0), (62_500, 1), (125_000, 1)] {
        assert_eq!(admitted(&limiter, &rpm, millis, 9), expected, "{millis}");
    }
    // Without a burst there is one request, and then the rate.
    let (limiter, rps) = (Limiter::default(), limits(10, 0, 0, 0));
    for (millis, expected) in [(0, 1), (99, 0), (100, 1), (150, 0), (200, 1)] {
        assert_eq!(admitted(&limiter, &rps, millis, 9), expected, "{millis}");
    }
}

#[test]
fn who_is_refused_by_one_limit_uses_up_nothing_of_the_other() {
    let limiter = Limiter::default();
    let both = limits(1, 600, 0, 1);
    assert_eq!(admitted(&limiter, &both, 0, 1000), 2);
    // Of the 601 of a minute two are used up, and not a thousand.
    assert_eq!(admitted(&limiter, &limits(0, 600, 0, 1), 0, 1000), 599);
}

#[test]
fn requests_at_once_count_until_they_end() {
    let (limiter, most) = (Limiter::default(), limits(0, 0, 2, 5));
    let admit = |number| limiter.admit(&uid("one"), &most, client(number), Duration::ZERO);
    let first = admit(1).unwrap();
    let _second = admit(1).unwrap();
    assert_eq!(admit(1).unwrap_err(), Refused::Connections);
    let _other = admit(2).unwrap();
    drop(first);
    let _third = admit(1).unwrap();
    assert_eq!(admit(1).unwrap_err(), Refused::Connections);
    // Those of another Ingress are others.
    let _there = limiter
        .admit(&uid("two"), &most, client(1), Duration::ZERO)
        .unwrap();
}

#[test]
fn who_is_refused_counts_nowhere() {
    let limiter = Limiter::default();
    let admit = |limits: &Limits| limiter.admit(&uid("one"), limits, client(1), Duration::ZERO);
    // By the requests at once before those in time.
    let both = limits(1, 0, 1, 1);
    let held = admit(&both).unwrap();
    for _ in 0..9 {
        assert_eq!(admit(&both).unwrap_err(), Refused::Connections);
    }
    drop(held);
    drop(admit(&both).unwrap());
    for _ in 0..9 {
        assert_eq!(admit(&both).unwrap_err(), Refused::Requests);
    }
    // None of the refused is at once with this one.
    drop(admit(&limits(0, 0, 1, 1)).unwrap());
    let zone = limiter.zone(&uid("one"));
    assert!(
        zone.shards
            .iter()
            .all(|shard| locked(shard).connections.is_empty())
    );
}

#[test]
fn some_clients_and_some_paths_have_no_limits() {
    let limiter = Limiter::default();
    let exempt = Limits {
        allow: vec![
            "192.0.2.0/31".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ],
        ..limits(1, 1, 1, 1)
    };
    for (address, is_exempt) in [
        ("192.0.2.1", true),
        ("::ffff:192.0.2.1", true),
        ("2001:db8::7", true),
        ("192.0.2.2", false),
        ("2001:db9::7", false),
    ] {
        let admit = || {
            limiter.admit(
                &uid("one"),
                &exempt,
                address.parse().unwrap(),
                Duration::ZERO,
            )
        };
        let _held = admit().unwrap();
        assert_eq!(admit().is_ok(), is_exempt, "{address}");
    }
    let unlimited = Limits::default();
    assert_eq!(admitted(&limiter, &unlimited, 0, 1000), 1000);
    assert_eq!(admitted(&limiter, &limits(0, 0, 0, 5), 0, 1000), 1000);
    assert_eq!(limiter.clients(), 2);
}

#[test]
fn clients_are_whole_addresses() {
    let (limiter, rps) = (Limiter::default(), limits(1, 0, 0, 0));
    let admit = |address: &str| {
        let address = address.parse().unwrap();
        limiter
            .admit(&uid("one"), &rps, address, Duration::ZERO)
            .is_ok()
    };
    assert!(admit("2001:db8::1") && admit("2001:db8::2") && !admit("2001:db8::1"));
    assert!(admit("192.0.2.1") && !admit("::ffff:192.0.2.1"));
}

#[test]
fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
    let (limiter, rps) = (Limiter::new(80), limits(1, 0, 0, 0));
    let admit = |number: u32, millis| {
        let client = IpAddr::from(number.to_be_bytes());
        let now = Duration::from_millis(millis);
        limiter.admit(&uid("one"), &rps, client, now).is_ok()
    };
    for number in 0..1000 {
        assert!(admit(number, 0));
    }
    assert!(limiter.clients() <= 80);
    // The last one is known still, and the first ones are not.
    assert!(!admit(999, 0) && admit(0, 0));
    // After a minute each that comes makes two of them be forgotten, in its part of the zone.
    for number in 2000..2400 {
        assert!(admit(number, 60_000 + u64::from(number) * 120_000));
    }
    assert!(limiter.clients() <= 2 * SHARDS, "{}", limiter.clients());
    limiter.retain(|uid| uid != "one");
    assert_eq!(limiter.clients(), 0);
}

#[test]
fn where_nobody_else_can_be_counted_nobody_else_is_let_in() {
    let (limiter, most) = (Limiter::new(8), limits(0, 0, 100, 0));
    let mut held = Vec::new();
    for number in 0..=255 {
        held.extend(limiter.admit(&uid("one"), &most, client(number), Duration::ZERO));
    }
    assert_eq!(held.len(), 8);
}

#[test]
fn threads_get_together_what_one_would_get() {
    let (limiter, rps) = (Limiter::default(), limits(100, 0, 1000, 1));
    let got: usize = std::thread::scope(|scope| {
        let work = || {
            (0..100).filter(|_| {
                limiter
                    .admit(&uid("one"), &rps, client(1), Duration::ZERO)
                    .is_ok()
            })
        };
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(move || work().count()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(got, 101);
}

/// A bucket of tokens, which a leaky one is seen from the other side.
struct Tokens {
    thousandths: u64,
    at: u64,
}

/// What a client of the model has.
#[derive(Default)]
struct Model {
    rps: Option<Tokens>,
    rpm: Option<Tokens>,
    at_once: u32,
}

/// Tokens of a limit at a time: `burst` requests, and the one that finds the bucket full.
fn tokens(bucket: &mut Option<Tokens>, limit: u32, seconds: u64, multiplier: u32, now: u64) -> u64 {
    let full = u64::from(limit) * u64::from(multiplier) * 1000 + 1000;
    let bucket = bucket.get_or_insert(Tokens {
        thousandths: full,
        at: now,
    });
    let rate = u64::from(limit) * 1000 / seconds;
    full.min(bucket.thousandths + rate * (now - bucket.at) / 1000)
}

fn model_admits(model: &mut Model, limits: &Limits, now: u64) -> Result<(), Refused> {
    if limits
        .connections
        .is_some_and(|most| most > 0 && model.at_once >= most)
    {
        return Err(Refused::Connections);
    }
    let (rps, rpm) = (limits.rps.unwrap(), limits.rpm.unwrap());
    let multiplier = limits.burst_multiplier;
    let second = tokens(&mut model.rps, rps, 1, multiplier, now);
    let minute = tokens(&mut model.rpm, rpm, 60, multiplier, now);
    if (rps > 0 && second < 1000) || (rpm > 0 && minute < 1000) {
        return Err(Refused::Requests);
    }
    let take = |thousandths: u64| {
        let thousandths = thousandths.saturating_sub(1000);
        Some(Tokens {
            thousandths,
            at: now,
        })
    };
    (model.rps, model.rpm) = (take(second), take(minute));
    model.at_once += 1;
    Ok(())
}

proptest! {
    #[test]
    fn every_sequence_is_decided_as_by_buckets_of_tokens(
        rps in 0_u32..4, rpm in 0_u32..90, connections in 0_u32..4, multiplier in 0_u32..3,
        steps in proptest::collection::vec((0_u8..3, 0_u64..3000, any::<bool>()), 1..200),
    ) {
        let limits = limits(rps, rpm, connections, multiplier);
        let limiter = Limiter::default();
        let mut models: BTreeMap<u8, Model> = BTreeMap::new();
        let mut held: Vec<(u8, Admitted)> = Vec::new();
        let mut now = 0;
        for (number, pause, ends) in steps {
            now += pause;
            let model = models.entry(number).or_default();
            let held_at = held.iter().position(|(of, _)| *of == number);
            if let Some(at) = held_at.filter(|_| ends) {
                drop(held.swap_remove(at));
                model.at_once -= 1;
                continue;
            }
            let expected = model_admits(model, &limits, now);
            let at = Duration::from_millis(now);
            let got = limiter.admit(&uid("one"), &limits, client(number), at);
            prop_assert_eq!(got.as_ref().err(), expected.as_ref().err());
            held.extend(got.ok().map(|got| (number, got)));
        }
    }

    #[test]
    fn nothing_overflows(rps: u32, rpm: u32, burst_multiplier: u32, times in proptest::collection::vec(any::<u64>(), 1..20)) {
        let (limiter, limits) = (Limiter::new(1), limits(rps, rpm, 1, burst_multiplier));
        for millis in times {
            let _ = limiter.admit(&uid("one"), &limits, client(1), Duration::from_millis(millis));
        }
    }
}
