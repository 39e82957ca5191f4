//! What the planner promises, for every order of events.

mod common;

use common::{
    full,
    world::{Event, Shape, World, contested, events, plan, roomy, shape},
};
use lb_common::FrontendKey;
use lb_plan::Limits;
use proptest::prelude::*;

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

    /// Who holds a frontend that several claim holds it after a restart, too. (The
    /// tables of those who wait are in no frontend, and are made again.)
    #[test]
    fn a_restart_settles_no_conflict_anew(events in events(contested(), false)) {
        let mut world = World::new(roomy());
        events.into_iter().for_each(|event| world.happen(event));
        world.drain();
        let before = world.maps.clone();
        let dump = world.planner.dump();
        world.restart();
        world.drain();
        prop_assert_eq!(world.maps.targets(), before.targets());
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
        let replies = world.planner.reply_bits().map(Iterator::count);
        prop_assert_eq!(replies, Some(0));
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
        (0..=limits.grace).for_each(|_| world.tick());
        let usage = world.planner.usage();
        prop_assert_eq!((usage.backend_ids, usage.services, usage.slots), (0, 0, 0));
    }
}

/// A service whose change did not fit at first after a restart leaves no source range of
/// before behind.
#[test]
fn what_was_there_before_a_restart_goes_with_a_service_that_has_no_room() {
    let limits = Limits {
        frontends: 8,
        backends: 5,
        services: 3,
        slots: 502,
        ranges: 2,
        grace: 0,
        batch_slots: 400,
    };
    let alone = Shape {
        endpoints: Vec::new(),
        internal_local: false,
        external_local: false,
        node_port: false,
        load_balancer: None,
        shared: None,
        affinity: false,
        udp: false,
        dual_stack: false,
        weighted: false,
    };
    let mut world = World::new(limits);
    for event in [
        Event::Upsert(
            1,
            Shape {
                load_balancer: Some(1),
                ..alone.clone()
            },
        ),
        Event::Apply,
        Event::Upsert(
            1,
            Shape {
                endpoints: vec![(0, 1), (1, 1)],
                dual_stack: true,
                ..alone.clone()
            },
        ),
        Event::Crash(0),
        Event::Upsert(2, alone),
    ] {
        world.happen(event);
    }
    world.drain();
    world.happen(Event::Remove(1));
    world.happen(Event::Remove(2));
    world.drain();
    assert!(world.maps.is_empty(), "{:?}", world.maps.ranges);
}
