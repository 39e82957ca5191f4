//! The interpreter against maps in memory, whole and failing.

use std::sync::Arc;

use lb_common::{
    Addr, Backend, Be16, Be32, Frontend, FrontendKey, RangeKey, backend_flags, proto, scope,
};
use lb_plan::op::{Batch, Op};

use super::{
    apply::Programmer,
    failure::{ApplyReport, Purge},
    fake::FakeStore,
    settings::MapSizes,
    store::{MapStore, MapStoreExt as _},
    table::{Table, typed},
};

pub(super) fn ip(last: u8) -> Addr {
    Addr::v4(Be32::new(0x0a00_0000 | u32::from(last)))
}

pub(super) fn backend(id: u32) -> Backend {
    Backend {
        addr: ip(id as u8),
        port: Be16::new(8080),
        proto: proto::TCP,
        reserved: 0,
        flags: backend_flags::LIVE,
    }
}

pub(super) fn key(port: u16) -> FrontendKey {
    FrontendKey {
        addr: ip(200),
        port: Be16::new(port),
        proto: proto::TCP,
        scope: scope::INTERNAL,
    }
}

pub(super) fn frontend(service: u32, slots: u32, len: u32) -> Frontend {
    Frontend {
        service,
        flags: 0,
        slots,
        len,
        affinity: 0,
    }
}

fn range(service: u32) -> RangeKey {
    RangeKey {
        prefix_len: 32 + 96 + 8,
        service: Be32::new(service),
        addr: ip(0),
    }
}

pub(super) fn put_backend(id: u32) -> Op {
    Op::PutBackend {
        id,
        backend: backend(id),
    }
}

pub(super) fn put_slots(start: u32, ids: &[u32]) -> Op {
    Op::PutSlots {
        start,
        slots: Arc::from(ids),
    }
}

pub(super) fn put_frontend(port: u16, value: Frontend) -> Op {
    Op::PutFrontend {
        key: key(port),
        value,
    }
}

/// Two services: one with a table over backends 1 to 3, one with backend 4 alone.
pub(super) fn two_services() -> Batch {
    Batch {
        ops: vec![
            put_backend(1),
            put_backend(2),
            put_backend(3),
            put_backend(4),
            put_slots(10, &[1, 2, 3, 1, 2]),
            Op::PutRange(range(1)),
            Op::SetFilterBit(70),
            put_frontend(80, frontend(1, 10, 5)),
            put_frontend(81, frontend(2, 4, 1)),
        ],
    }
}

pub(super) fn programmer(sizes: MapSizes) -> Programmer<FakeStore> {
    Programmer::new(FakeStore::new(sizes)).unwrap()
}

/// Frontends that name a backend which is not live.
pub(super) fn dangling<S: MapStore>(store: &S) -> Vec<FrontendKey> {
    let live = |id: u32| {
        let found = store.load_many::<typed::lb_backends_v1>(id, 1).unwrap();
        found[0].flags & backend_flags::LIVE != 0
    };
    let frontends = store.all::<typed::lb_frontends_v1>().unwrap();
    let broken = frontends.into_iter().filter(|(_, value)| match value.len {
        0 => false,
        1 => !live(value.slots),
        len => {
            let slots = store
                .load_many::<typed::lb_slots_v1>(value.slots, len)
                .unwrap();
            !slots.into_iter().all(live)
        }
    });
    broken.map(|(key, _)| key).collect()
}

#[test]
fn a_batch_writes_every_map_it_names() {
    let mut programmer = programmer(MapSizes::default());
    let report = programmer.apply(&two_services());
    assert_eq!((report.written, report.failed.len()), (9, 0));
    let store = programmer.store();
    assert_eq!(
        store.load_many::<typed::lb_backends_v1>(2, 1).unwrap(),
        [backend(2)]
    );
    assert_eq!(
        store.load_many::<typed::lb_slots_v1>(9, 7).unwrap(),
        [0, 1, 2, 3, 1, 2, 0]
    );
    assert_eq!(
        store.load_many::<typed::lb_filter_v1>(1, 1).unwrap(),
        [1 << 6]
    );
    assert_eq!(
        store.get_one::<typed::lb_frontends_v1>(&key(80)).unwrap(),
        Some(frontend(1, 10, 5))
    );
    assert_eq!(store.all::<typed::lb_ranges_v1>().unwrap(), [(range(1), 0)]);
}

#[test]
fn deleting_everything_leaves_nothing() {
    let mut programmer = programmer(MapSizes::default());
    programmer.apply(&two_services());
    let undo = Batch {
        ops: vec![
            Op::DeleteFrontend(key(80)),
            Op::DeleteFrontend(key(81)),
            Op::DeleteRange(range(1)),
            Op::DeleteBackend {
                id: 1,
                backend: backend(1),
            },
            Op::DeleteBackend {
                id: 2,
                backend: backend(2),
            },
            Op::DeleteBackend {
                id: 3,
                backend: backend(3),
            },
            Op::DeleteBackend {
                id: 4,
                backend: backend(4),
            },
            Op::ClearFilterBit(70),
        ],
    };
    assert!(programmer.apply(&undo).is_complete());
    let mut left = programmer.store().contents();
    // Slots are reused, never cleared: nothing leads to them.
    left.remove("lb_slots_v1");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn bits_of_one_filter_word_do_not_disturb_each_other() {
    let mut programmer = programmer(MapSizes::default());
    let ops = vec![
        Op::SetFilterBit(64),
        Op::SetFilterBit(65),
        Op::ClearFilterBit(64),
    ];
    programmer.apply(&Batch { ops });
    let words = programmer
        .store()
        .load_many::<typed::lb_filter_v1>(1, 1)
        .unwrap();
    assert_eq!(words, [0b10]);
    // A programmer that takes the maps over knows the bits that are set.
    let mut next = Programmer::new(programmer.store().clone()).unwrap();
    next.apply(&Batch {
        ops: vec![Op::SetFilterBit(127)],
    });
    assert_eq!(
        next.store().load_many::<typed::lb_filter_v1>(1, 1).unwrap(),
        [0b10 | 1 << 63]
    );
}

/// Positions in a batch of the ops that failed.
pub(super) fn failed(report: &ApplyReport, batch: &Batch) -> Vec<usize> {
    let at = |op: &Op| batch.ops.iter().position(|other| other == op).unwrap();
    report
        .failed
        .iter()
        .map(|failure| at(&failure.op))
        .collect()
}

#[test]
fn a_full_map_is_reported_with_its_setting_and_the_rest_is_written() {
    let mut programmer = programmer(MapSizes {
        frontends: 1,
        ..MapSizes::default()
    });
    let report = programmer.apply(&two_services());
    assert_eq!(report.written, 8);
    assert_eq!(failed(&report, &two_services()), [8]);
    assert_eq!(report.failed[0].map, Some(Table::lb_frontends_v1));
    assert_eq!(
        report.failed[0].message,
        "frontend 10.0.0.200:81/TCP (internal): lb_frontends_v1 is full (1 entries): \
         raise --max-frontends and restart the agent"
    );
}

#[test]
fn a_service_whose_source_range_has_no_room_is_not_opened_to_everybody() {
    let mut programmer = programmer(MapSizes {
        ranges: 0,
        ..MapSizes::default()
    });
    let report = programmer.apply(&two_services());
    assert_eq!(failed(&report, &two_services()), [5, 7]);
    assert!(!report.failed[0].is_consequence() && report.failed[1].is_consequence());
    let frontends = programmer.store().all::<typed::lb_frontends_v1>().unwrap();
    assert_eq!(frontends, [(key(81), frontend(2, 4, 1))]);
}

#[test]
fn an_id_beyond_the_map_fails_what_depends_on_it_and_nothing_else() {
    let mut programmer = programmer(MapSizes {
        backends: 3,
        ..MapSizes::default()
    });
    let report = programmer.apply(&two_services());
    // Backends 3 and 4, the table with 3, and both frontends.
    assert_eq!(failed(&report, &two_services()), [2, 3, 4, 7, 8]);
    assert!(report.failed[0].message.contains("--max-backends"));
    assert!(dangling(programmer.store()).is_empty());
}

#[test]
fn purges_are_handed_back() {
    let mut programmer = programmer(MapSizes::default());
    let ops = vec![
        Op::PurgeUdp {
            service: 1,
            id: 2,
            backend: backend(2),
        },
        Op::PurgeAffinity {
            service: 1,
            backend: 2,
        },
    ];
    let report = programmer.apply(&Batch { ops });
    assert_eq!(
        report.purges,
        [
            Purge::Udp {
                service: 1,
                id: 2,
                backend: backend(2)
            },
            Purge::Affinity {
                service: 1,
                backend: 2
            }
        ]
    );
}
