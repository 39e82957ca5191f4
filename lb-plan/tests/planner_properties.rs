//! What the planner promises, for every order of events.

mod common;

use common::{
    key,
    world::{Event, World, contested, events, plan, shape},
};
use lb_common::FrontendKey;
use lb_plan::{
    Limits, ServicePlan,
    op::{Op, Problem},
};
use proptest::prelude::*;

fn roomy() -> Limits {
    Limits {
        slots: 30_000,
        grace: 1,
        batch_slots: 600,
        ..Limits::default()
    }
}

/// Little of everything, so that something is always full.
fn tight() -> impl Strategy<Value = Limits> {
    (8..40u32, 3..12u32, 3..8u32, 400..2000u32, 1..5u32, 0..3u64).prop_map(
        |(frontends, backends, services, slots, ranges, grace)| Limits {
            frontends,
            backends,
            services,
            slots,
            ranges,
            grace,
            batch_slots: 400,
        },
    )
}

fn full(problems: &[Problem]) -> Vec<String> {
    let full = problems.iter().filter(|p| p.reason == "MapFull");
    full.map(|p| p.object.service.to_string()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened on the way, crashes included, and whatever was written
    /// after any prefix of a batch: the maps end as if the services that are left
    /// had been there from the start. (`World` checks the maps after every write.)
    #[test]
    fn every_order_of_events_ends_as_a_resync_does(events in events(shape(), true)) {
        let mut world = World::new(roomy());
        events.into_iter().for_each(|event| world.happen(event));
        world.drain();
        let fresh = World::of(roomy(), &world.services);
        prop_assert_eq!(world.planner.dump(), fresh.planner.dump());
        prop_assert_eq!(world.maps.targets(), fresh.maps.targets());
        prop_assert_eq!(&world.maps.ranges.len(), &fresh.maps.ranges.len());
        let values = |w: &World| w.maps.backends.values().map(|b| (b.addr, b.port, b.proto, b.flags)).collect::<std::collections::BTreeSet<_>>();
        prop_assert_eq!(values(&world), values(&fresh));
    }

    #[test]
    fn a_restart_with_unchanged_services_writes_nothing(events in events(shape(), false)) {
        let mut world = World::new(roomy());
        events.into_iter().for_each(|event| world.happen(event));
        world.drain();
        let before = world.maps.clone();
        let dump = world.planner.dump();
        world.restart();
        prop_assert_eq!(world.drain(), []);
        prop_assert_eq!(&world.maps, &before);
        prop_assert_eq!(world.planner.dump(), dump);
    }

    #[test]
    fn deleting_all_leaves_filter_bits_and_clearing_leaves_nothing(events in events(contested(), true)) {
        let mut world = World::new(roomy());
        events.into_iter().for_each(|event| world.happen(event));
        world.drain();
        let early = world.planner.clear_filter(|_| false);
        world.maps.execute(&early);
        let services: Vec<u8> = world.services.keys().copied().collect();
        services.into_iter().for_each(|n| world.happen(Event::Remove(n)));
        world.drain();
        prop_assert!(world.maps.is_empty());
        prop_assert_eq!(world.planner.dump(), "");
        let kept = world.maps.filter.iter().position(|w| *w != 0).map(|i| i as u32);
        let bits = world.planner.clear_filter(|bit| Some(bit >> 6) == kept);
        world.maps.execute(&bits);
        prop_assert!(world.maps.filter.iter().enumerate().all(|(i, w)| (*w != 0) == (Some(i as u32) == kept)));
        let bits = world.planner.clear_filter(|_| false);
        world.maps.execute(&bits);
        prop_assert!(world.maps.filter.iter().all(|w| *w == 0));
        world.tick();
        world.tick();
        let usage = world.planner.usage();
        prop_assert_eq!((usage.backend_ids, usage.services, usage.slots), (0, 0, 0));
    }

    /// Of several services that claim a frontend one has it, the others have a
    /// problem; and it is left to them when it is free.
    #[test]
    fn a_contested_frontend_has_one_holder(events in events(contested(), true)) {
        let mut world = World::new(roomy());
        events.into_iter().for_each(|event| world.happen(event));
        world.drain();
        for ip in 0..2 {
            let at = format!("frontend 192.0.2.{ip}:80/TCP external");
            let dump = world.planner.dump();
            let claimants: Vec<u8> = world.services.iter().filter(|(n, s)| {
                let plan = plan(**n, s);
                plan.ports[0].frontends.iter().any(|f| f.addr.to_string() == format!("192.0.2.{ip}"))
            }).map(|(n, _)| *n).collect();
            let held = dump.lines().filter(|l| l.starts_with(&at)).count();
            prop_assert_eq!(held, usize::from(!claimants.is_empty()));
            let waiting = world.planner.problems().into_iter().filter(|p| {
                p.reason == "FrontendConflict" && p.message.starts_with(&format!("192.0.2.{ip}:80/TCP"))
            }).count();
            prop_assert_eq!(waiting, claimants.len().saturating_sub(1));
        }
        // Without conflict there is only one way to be.
        while world.services.len() > 1 {
            let first = *world.services.keys().next().unwrap();
            world.happen(Event::Remove(first));
        }
        world.drain();
        let fresh = World::of(roomy(), &world.services);
        prop_assert_eq!(world.planner.dump(), fresh.planner.dump());
        prop_assert_eq!(world.maps.targets(), fresh.maps.targets());
    }

    /// A service that there is no room for stays as it was or is left out, and
    /// never is half there: what the maps hold of it is all of one plan.
    #[test]
    fn full_maps_leave_no_service_half_written(limits in tight(), events in events(shape(), true)) {
        let mut world = World::new(limits);
        for event in events {
            world.happen(event);
        }
        world.drain();
        for _ in 0..4 {
            world.tick();
            world.drain();
        }
        let blocked = full(&world.planner.problems());
        for (n, shape) in &world.services {
            let (plan, name) = (plan(*n, shape), format!("ns/s{n}"));
            let alone = World::of(roomy(), &[(*n, shape.clone())].into());
            let own = |key: &&FrontendKey| plan.ports.iter().any(|p| {
                p.frontends.iter().any(|f| f.key(p.key.protocol.number()) == **key)
            });
            let wanted = alone.maps.targets();
            let targets = world.maps.targets();
            if blocked.contains(&name) {
                continue;
            }
            for key in wanted.keys().filter(own) {
                prop_assert_eq!(targets.get(key), wanted.get(key), "{} of {}", key.addr, name);
            }
        }
        // All of it fits again once there is room.
        let services = std::mem::take(&mut world.services);
        for n in services.keys() {
            world.happen(Event::Remove(*n));
        }
        world.drain();
        prop_assert!(world.maps.is_empty());
    }
}

/// A service at an address, with an endpoint for each host.
fn small(name: &str, vip: &str, hosts: &[u8]) -> ServicePlan {
    let mut svc = common::service(name, &[vip]);
    svc.ports = vec![common::port("a:80/TCP")];
    let endpoints = hosts
        .iter()
        .map(|n| common::endpoint(&format!("10.1.0.{n}")))
        .collect();
    let slice = common::slice(name, "x", &["a:8080/TCP"], endpoints);
    lb_plan::plan_service(&svc, &[&slice], &common::node())
}

#[test]
fn a_blocked_service_is_served_as_soon_as_there_is_room() {
    let mut world = World::new(Limits {
        backends: 3,
        grace: 1,
        ..roomy()
    });
    world.planner.upsert(small("ns/s1", "10.96.0.1", &[1, 2]));
    world.planner.upsert(small("ns/s2", "10.96.0.2", &[5, 6]));
    world.drain();
    let problems = world.planner.problems();
    assert_eq!(full(&problems), ["ns/s2"]);
    assert!(
        problems[0].message.contains("backends (limit 3)"),
        "{}",
        problems[0].message
    );
    let served = |world: &World, vip: &str| {
        common::lines(&world.planner.dump(), &format!("frontend {vip}:80"), "").len()
    };
    assert_eq!(served(&world, "10.96.0.1"), 2);
    world.planner.remove(&key("ns/s1"));
    world.drain();
    assert_eq!(
        full(&world.planner.problems()),
        ["ns/s2"],
        "the ids' grace has not passed"
    );
    world.tick();
    assert!(world.planner.has_pending());
    world.drain();
    assert_eq!(world.planner.problems(), []);
    assert_eq!(served(&world, "10.96.0.2"), 2);
}

#[test]
fn one_write_switches_a_frontend_between_services() {
    let mut world = World::new(roomy());
    world.planner.upsert(small("ns/old", "10.96.0.1", &[1]));
    world.drain();
    world.planner.remove(&key("ns/old"));
    world.planner.upsert(small("ns/new", "10.96.0.1", &[1]));
    let ops = world.drain();
    assert!(
        !ops.iter().any(|op| matches!(op, Op::DeleteFrontend(_))),
        "{ops:?}"
    );
    assert_eq!(
        ops.iter()
            .filter(|op| matches!(op, Op::PutFrontend { .. }))
            .count(),
        2
    );
    assert_eq!(
        common::lines(&world.planner.dump(), "frontend", "ns/new:a").len(),
        2
    );
}

#[test]
fn the_older_holder_of_a_frontend_keeps_it() {
    let mut world = World::new(roomy());
    world.planner.upsert(small("ns/z", "10.96.0.1", &[1]));
    world.drain();
    world.planner.upsert(small("ns/a", "10.96.0.1", &[2]));
    world.planner.upsert(small("ns/b", "10.96.0.1", &[3]));
    world.drain();
    let holder = |world: &World| common::lines(&world.planner.dump(), "frontend", "")[0].clone();
    assert!(holder(&world).contains("ns/z:a to 10.1.0.1:8080"));
    let waiting: Vec<_> = world
        .planner
        .problems()
        .iter()
        .map(|p| p.object.to_string())
        .collect();
    assert_eq!(waiting, ["ns/a:a", "ns/b:a"]);
    world.planner.remove(&key("ns/z"));
    world.drain();
    assert!(
        holder(&world).contains("ns/a:a to 10.1.0.2:8080"),
        "the first in order of names"
    );
    assert_eq!(world.planner.problems().len(), 1);
}

#[test]
fn a_service_that_changes_only_elsewhere_costs_no_write() {
    let mut world = World::new(roomy());
    world.planner.upsert(small("ns/a", "10.96.0.1", &[1, 2]));
    world.drain();
    world.planner.upsert(small("ns/a", "10.96.0.1", &[2, 1]));
    assert_eq!(world.drain(), []);
}

#[test]
fn a_backend_that_comes_back_has_its_id_again_and_freed_slots_wait() {
    let mut world = World::new(Limits {
        grace: 2,
        ..roomy()
    });
    let put = |ops: &[Op]| -> Vec<(u32, u32)> {
        let slots = ops.iter().filter_map(|op| match op {
            Op::PutSlots { start, slots } => Some((*start, slots.len() as u32)),
            _ => None,
        });
        slots.collect()
    };
    world.planner.upsert(small("ns/a", "10.96.0.1", &[1, 2]));
    assert_eq!(put(&world.drain()), [(0, 251)]);
    world.planner.upsert(small("ns/a", "10.96.0.1", &[1]));
    world.drain();
    world.planner.upsert(small("ns/a", "10.96.0.1", &[1, 2]));
    let ops = world.drain();
    assert_eq!(put(&ops), [(251, 251)], "the old table may still be read");
    assert!(
        !ops.iter()
            .any(|op| matches!(op, Op::ResetBackendCounter(_))),
        "it is the same backend"
    );
    world.planner.upsert(small("ns/a", "10.96.0.1", &[1]));
    world.drain();
    world.tick();
    world.tick();
    world.planner.upsert(small("ns/a", "10.96.0.1", &[1, 3]));
    let ops = world.drain();
    assert_eq!(put(&ops), [(0, 251)]);
    assert!(
        ops.contains(&Op::ResetBackendCounter(2)),
        "another backend has the id now: {ops:?}"
    );
}

#[test]
fn bindings_to_a_backend_that_left_are_purged_in_either_life() {
    let bound = |hosts: &[u8]| {
        let mut plan = small("ns/a", "10.96.0.1", hosts);
        plan.ports[0].affinity = 60;
        plan
    };
    let purges = |ops: Vec<Op>| -> Vec<(u32, u32)> {
        let purge = |op| match op {
            Op::PurgeAffinity { service, backend } => Some((service, backend)),
            _ => None,
        };
        ops.into_iter().filter_map(purge).collect()
    };
    let mut world = World::new(roomy());
    world.planner.upsert(bound(&[1, 2, 3]));
    assert_eq!(purges(world.drain()), []);
    world.planner.upsert(bound(&[1, 3]));
    assert_eq!(purges(world.drain()), [(1, 2)]);
    // The agent was away while another endpoint went.
    world.planner = lb_plan::Planner::restore(roomy(), world.maps.actual());
    world.planner.upsert(bound(&[3]));
    world.planner.finish_sync();
    assert_eq!(purges(world.drain()), [(1, 1)]);
    world.planner.upsert(small("ns/a", "10.96.0.1", &[3]));
    assert_eq!(
        purges(world.drain()),
        [(1, 3)],
        "without affinity nobody is bound"
    );
}
