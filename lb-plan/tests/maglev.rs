//! Maglev tables: the contract between nodes, against an independent reference,
//! and the properties that the paper promises.

#[path = "common/golden.rs"]
mod golden;

use std::{collections::HashMap, net::IpAddr};

use lb_common::Be16;
use lb_plan::maglev::{self, MAX_BACKENDS, Member, SLOTS_PER_BACKEND, TABLE_SIZES};
use proptest::prelude::*;

#[test]
fn tables_are_those_of_the_golden_file() {
    let golden = include_str!("golden/maglev.txt");
    for (now, then) in golden::text().lines().zip(golden.lines()) {
        assert_eq!(
            now, then,
            "tables are a contract between nodes and versions"
        );
    }
    assert_eq!(golden::text().len(), golden.len());
}

/// Straight from the paper, pseudocode 1, with whole permutations, moduli, and
/// turns counted in fractions; the hash as its documentation describes it.
mod reference {
    use super::*;

    fn mixed(h: u64) -> u64 {
        let h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ (h >> 33)
    }

    fn hash(m: &Member, seed: u64) -> u64 {
        let octets = m.addr.octets();
        let word =
            |r: std::ops::Range<usize>| octets[r].iter().fold(0u64, |n, &b| n << 8 | u64::from(b));
        let tail = u64::from(m.port.get()) + (u64::from(m.proto) << 16);
        mixed(mixed(mixed(word(0..8) ^ seed) ^ word(8..16)) ^ tail)
    }

    pub(super) fn populate(members: &[Member]) -> Vec<u32> {
        let mut chosen: Vec<Member> = members.iter().filter(|m| m.weight > 0).copied().collect();
        if chosen.is_empty() {
            chosen = members.iter().map(|m| Member { weight: 1, ..*m }).collect();
        }
        chosen.sort_by_key(|m| (m.addr.octets(), m.port.get(), m.proto));
        let n = chosen.len();
        let m = *TABLE_SIZES
            .iter()
            .find(|&&s| s as usize >= 100 * n)
            .unwrap() as u64;
        let permutation: Vec<Vec<usize>> = chosen
            .iter()
            .map(|member| {
                let offset = hash(member, 0x243f_6a88_85a3_08d3) % m;
                let skip = hash(member, 0x1319_8a2e_0370_7344) % (m - 1) + 1;
                (0..m).map(|j| ((offset + j * skip) % m) as usize).collect()
            })
            .collect();
        let heaviest = u64::from(chosen.iter().map(|c| c.weight).max().unwrap());
        let mut next = vec![0usize; n];
        let mut entry: Vec<i64> = vec![-1; m as usize];
        let mut filled = 0;
        for round in 1.. {
            for i in 0..n {
                // A member has had its share of turns when these are equal.
                let weight = u64::from(chosen[i].weight);
                if round * weight / heaviest == (round - 1) * weight / heaviest {
                    continue;
                }
                let mut c = permutation[i][next[i]];
                while entry[c] >= 0 {
                    next[i] += 1;
                    c = permutation[i][next[i]];
                }
                entry[c] = i64::from(chosen[i].id);
                next[i] += 1;
                filled += 1;
                if filled == m {
                    return entry.into_iter().map(|e| e as u32).collect();
                }
            }
        }
        unreachable!("rounds do not end")
    }
}

fn table(members: &[Member]) -> Vec<u32> {
    let eligible = maglev::eligible(members);
    maglev::build(&eligible, maglev::table_size(eligible.len()).unwrap())
}

fn shares(slots: &[u32]) -> HashMap<u32, u32> {
    slots.iter().fold(HashMap::new(), |mut count, &id| {
        *count.entry(id).or_default() += 1;
        count
    })
}

fn numbered(mut members: Vec<Member>) -> Vec<Member> {
    for (id, m) in (1..).zip(&mut members) {
        m.id = id;
    }
    members
}

#[test]
fn the_golden_sets_agree_with_the_papers_pseudocode() {
    for (name, members) in golden::cases() {
        // The reference's permutations of the largest set would need 800 MB.
        let members: Vec<_> = numbered(members).into_iter().take(160).collect();
        assert_eq!(table(&members), reference::populate(&members), "{name}");
    }
}

#[test]
fn table_sizes_are_primes_and_the_smallest_with_a_hundred_slots_a_backend() {
    for size in TABLE_SIZES {
        assert!(
            (2..).take_while(|d| d * d <= size).all(|d| size % d != 0),
            "{size} is prime"
        );
    }
    assert!(TABLE_SIZES.is_sorted());
    for (backends, size) in [
        (0, Some(0)),
        (1, Some(1)),
        (2, Some(251)),
        (3, Some(401)),
        (4, Some(401)),
        (10, Some(1009)),
        (11, Some(1601)),
        (100, Some(10_007)),
        (1000, Some(100_003)),
        (160_000, Some(16_000_057)),
        (160_001, None),
        (usize::MAX, None),
    ] {
        assert_eq!(maglev::table_size(backends), size, "{backends} backends");
    }
    assert_eq!(MAX_BACKENDS, 160_000);
}

#[test]
fn members_of_weight_zero_get_no_slot_unless_all_have_it() {
    let set = numbered(vec![
        golden::member("10.0.0.1", 80, 6, 0),
        golden::member("10.0.0.2", 80, 6, 3),
        golden::member("10.0.0.3", 80, 6, 3),
    ]);
    assert_eq!(shares(&table(&set)).get(&1), None);
    let zero: Vec<_> = set.iter().map(|m| Member { weight: 0, ..*m }).collect();
    let ones: Vec<_> = set.iter().map(|m| Member { weight: 1, ..*m }).collect();
    assert_eq!(table(&zero), table(&ones));
}

/// Distinct members of both families, up to `max`, ids by identity.
fn any_members(max: usize, weights: std::ops::Range<u32>) -> impl Strategy<Value = Vec<Member>> {
    let one = (any::<bool>(), 0..5000u32, 1..4u16, prop::bool::ANY, weights);
    prop::collection::vec(one, 2..max).prop_map(|raw| {
        let mut seen = std::collections::BTreeMap::new();
        for (v6, host, port, udp, weight) in raw {
            let addr: IpAddr = if v6 {
                std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(host)).into()
            } else {
                std::net::Ipv4Addr::from_bits(0x0a00_0000 + host).into()
            };
            let id = 1 + host * 16 + u32::from(port) * 4 + u32::from(v6) * 2 + u32::from(udp);
            let proto = if udp { 17 } else { 6 };
            seen.insert(
                id,
                Member {
                    addr: addr.into(),
                    port: Be16::new(port),
                    proto,
                    weight,
                    id,
                },
            );
        }
        seen.into_values().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equal_members_share_to_within_one_slot(set in any_members(120, 1..2)) {
        prop_assume!(set.len() > 1);
        let slots = table(&set);
        let shares = shares(&slots);
        prop_assert_eq!(shares.len(), set.len());
        let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
        prop_assert!(most - least <= 1, "{} to {} slots", least, most);
        prop_assert!(*least >= SLOTS_PER_BACKEND);
    }

    #[test]
    fn weighted_members_share_by_weight(set in any_members(60, 1..10)) {
        prop_assume!(set.len() > 1);
        let slots = table(&set);
        let shares = shares(&slots);
        let total: u32 = set.iter().map(|m| m.weight).sum();
        let heaviest = set.iter().map(|m| m.weight).max().unwrap();
        for m in &set {
            let ideal = slots.len() as f64 * f64::from(m.weight) / f64::from(total);
            let got = f64::from(shares[&m.id]);
            // The last round may be cut short: one turn, or what it is worth.
            let slack = 1.0 + f64::from(m.weight) / f64::from(heaviest);
            prop_assert!((got - ideal).abs() <= slack, "weight {}: {} of {}", m.weight, got, ideal);
        }
    }

    #[test]
    fn the_order_of_members_does_not_matter(set in any_members(60, 0..4), seed in any::<u64>()) {
        prop_assume!(set.len() > 1);
        let mut shuffled = set.clone();
        shuffled.sort_by_key(|m| (u64::from(m.id) ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        prop_assert_eq!(maglev::eligible(&set), maglev::eligible(&shuffled));
    }

    #[test]
    fn agrees_with_the_papers_pseudocode(set in any_members(16, 0..5)) {
        let eligible = maglev::eligible(&set);
        prop_assume!(eligible.len() > 1);
        prop_assert_eq!(table(&set), reference::populate(&set));
    }

    /// Hashing modulo the number of members would move nearly all.
    #[test]
    fn a_member_less_disturbs_few_of_the_others_slots(
        set in any_members(120, 1..2),
        which in any::<prop::sample::Index>(),
    ) {
        prop_assume!(set.len() > 4);
        let share = disturbed(&set, which.index(set.len()));
        prop_assert!(share < 0.15, "{} of {} members' slots moved", share, set.len());
    }
}

/// The share of all slots that move between members that stay when one goes. The
/// table keeps its size: a change of size is a different matter.
fn disturbed(set: &[Member], gone: usize) -> f64 {
    let gone = set[gone];
    let rest: Vec<_> = set.iter().filter(|m| m.id != gone.id).copied().collect();
    let size = maglev::table_size(set.len()).unwrap();
    let before = maglev::build(&maglev::eligible(set), size);
    let after = maglev::build(&maglev::eligible(&rest), size);
    let moved = |(b, a): &(&u32, &u32)| **b != gone.id && b != a;
    before.iter().zip(&after).filter(moved).count() as f64 / f64::from(size)
}

/// The bound is measured, not the paper's: section 3.4 promises minimal
/// disruption without a number.
#[test]
fn on_average_a_member_less_moves_two_percent_of_the_others_slots() {
    let (_, members) = golden::cases().pop().unwrap();
    let set: Vec<_> = numbered(members).into_iter().take(60).collect();
    let total: f64 = (0..set.len()).map(|gone| disturbed(&set, gone)).sum();
    let mean = total / set.len() as f64;
    assert!(mean < 0.025, "{mean}");
}
