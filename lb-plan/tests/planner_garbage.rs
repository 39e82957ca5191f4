//! Maps that somebody else wrote: another version, or a crash of the machine.
//! The planner starts from them all the same, and ends where it would have ended
//! with empty ones.

mod common;

use std::collections::BTreeMap;

use common::world::{SERVICES, Shape, World, shape};
use lb_common::{Addr, Backend, Be16, Be32, Frontend, FrontendKey, RangeKey};
use lb_plan::Limits;
use proptest::prelude::*;

fn limits() -> Limits {
    Limits {
        slots: 30_000,
        backends: 64,
        services: 64,
        grace: 0,
        ..Limits::default()
    }
}

/// Addresses of services, of endpoints, and of nobody.
fn addr() -> impl Strategy<Value = Addr> {
    let v4 = |text: String| {
        text.parse::<std::net::IpAddr>()
            .map(Addr::from)
            .expect("an address")
    };
    prop_oneof![
        (0..SERVICES).prop_map(move |n| v4(format!("10.96.0.{}", n + 1))),
        (1..8u8).prop_map(move |n| v4(format!("10.1.0.{n}"))),
        any::<[u32; 4]>().prop_map(|w| Addr(w.map(Be32::new))),
    ]
}

fn port() -> impl Strategy<Value = Be16> {
    prop::sample::select(vec![0, 53, 80, 8080, 30_001, 65_535]).prop_map(Be16::new)
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..70u32, 240..1700u32, any::<u32>()]
}

fn frontend() -> impl Strategy<Value = (FrontendKey, Frontend)> {
    let key = (
        addr(),
        port(),
        prop::sample::select(vec![0, 6, 17, 99]),
        0..3u8,
    );
    let value = (number(), any::<u32>(), number(), number(), any::<u32>());
    (key, value).prop_map(
        |((addr, port, proto, scope), (service, flags, slots, len, affinity))| {
            let value = Frontend {
                service,
                flags,
                slots,
                len,
                affinity,
            };
            (
                FrontendKey {
                    addr,
                    port,
                    proto,
                    scope,
                },
                value,
            )
        },
    )
}

fn backend() -> impl Strategy<Value = (u32, Backend)> {
    let proto = prop::sample::select(vec![6, 17, 0]);
    (0..64u32, addr(), port(), proto, 0..8u32).prop_map(|(id, addr, port, proto, flags)| {
        (
            id,
            Backend {
                addr,
                port,
                proto,
                reserved: 0,
                flags,
            },
        )
    })
}

fn range() -> impl Strategy<Value = RangeKey> {
    (0..200u32, number(), addr()).prop_map(|(prefix_len, service, addr)| RangeKey {
        prefix_len,
        service: Be32::new(service),
        addr,
    })
}

fn services() -> impl Strategy<Value = BTreeMap<u8, Shape>> {
    prop::collection::btree_map(0..SERVICES, shape(), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_maps_hold_they_end_as_the_services_demand(
        services in services(),
        frontends in prop::collection::vec(frontend(), 0..12),
        backends in prop::collection::vec(backend(), 0..12),
        ranges in prop::collection::vec(range(), 0..4),
        slots in prop::collection::vec(0..70u32, 2000),
        word in any::<u64>(),
    ) {
        let fresh = World::of(limits(), &services);
        let mut world = World::new(limits());
        world.maps.lenient = true;
        world.maps.frontends.extend(frontends);
        // The kernel's array has no element 0 that we wrote, and dead ones are zeros.
        world.maps.backends.extend(backends.into_iter().filter(|(id, b)| *id > 0 && b.flags & 1 != 0));
        world.maps.ranges.extend(ranges);
        world.maps.slots[..slots.len()].copy_from_slice(&slots);
        world.maps.filter[7] = word;
        world.services = services;
        world.restart();
        world.drain();
        prop_assert!(!world.planner.has_pending());
        world.maps.lenient = false;
        world.maps.check();
        prop_assert_eq!(world.planner.dump(), fresh.planner.dump());
        prop_assert_eq!(world.maps.targets(), fresh.maps.targets());
        prop_assert_eq!(world.maps.ranges.len(), fresh.maps.ranges.len());
        prop_assert_eq!(world.maps.backends.len(), fresh.maps.backends.len());
        let cleared = world.planner.clear_filter(|_| false);
        world.maps.execute(&cleared);
        prop_assert_eq!(&world.maps.filter, &fresh.maps.filter);
    }
}
