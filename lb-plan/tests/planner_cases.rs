//! The planner in single cases, each named after the behaviour.

mod common;

use common::{
    full, key,
    world::{World, roomy},
};
use lb_plan::{Limits, Planner, ServicePlan, op::Op};

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
    world.planner = Planner::restore(roomy(), world.maps.actual());
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

#[test]
fn udp_flows_to_endpoints_that_went_while_the_agent_was_away_end() {
    let dns = |hosts: &[u8]| {
        let mut svc = common::service("ns/dns", &["10.96.0.10"]);
        svc.ports = vec![common::port("dns:53/UDP")];
        let endpoints = hosts
            .iter()
            .map(|n| common::endpoint(&format!("10.1.0.{n}")))
            .collect();
        let slice = common::slice("ns/dns", "x", &["dns:53/UDP"], endpoints);
        lb_plan::plan_service(&svc, &[&slice], &common::node())
    };
    let mut world = World::new(roomy());
    world.planner.upsert(dns(&[1, 2]));
    world.drain();
    world.planner = Planner::restore(roomy(), world.maps.actual());
    world.planner.upsert(dns(&[2]));
    world.planner.finish_sync();
    let purged: Vec<_> = world
        .drain()
        .into_iter()
        .filter_map(|op| match op {
            Op::PurgeUdp {
                service, backend, ..
            } => Some((service, backend.addr.to_string())),
            _ => None,
        })
        .collect();
    assert_eq!(purged, [(1, "10.1.0.1".to_owned())]);
    assert_eq!(world.planner.is_backend_of(1, 2), Some(true));
    assert_eq!(world.planner.is_backend_of(1, 1), Some(false));
    assert_eq!(world.planner.is_backend_of(2, 2), None);
}

/// After a restart `b` still leads to the table that `a` took over: it stays
/// while `a` moves on, however often.
#[test]
fn a_table_that_unclaimed_frontends_lead_to_is_not_overwritten() {
    let limits = Limits {
        grace: 0,
        batch_slots: 1,
        ..roomy()
    };
    let mut world = World::new(limits);
    world.planner.upsert(small("ns/a", "10.96.0.1", &[1, 2]));
    world.planner.upsert(small("ns/c", "10.96.0.3", &[1, 2]));
    world.drain();
    world.planner = Planner::restore(limits, world.maps.actual());
    world.planner.upsert(small("ns/a", "10.96.0.1", &[1, 2]));
    world.planner.upsert(small("ns/b", "10.96.0.2", &[3, 4]));
    world.planner.upsert(small("ns/c", "10.96.0.3", &[1, 2]));
    world.planner.finish_sync();
    for hosts in [[1, 2], [1, 3], [1, 4], [2, 3]] {
        world.planner.upsert(small("ns/a", "10.96.0.1", &hosts));
        let batch = world.planner.take_batch();
        assert!(batch.ops.iter().any(|op| matches!(op, Op::PutSlots { .. })));
        world.maps.execute(&batch);
    }
    let ops = world.drain();
    assert!(
        !ops.iter().any(|op| matches!(op, Op::PutFrontend { .. })),
        "c is as it was: {ops:?}"
    );
}
