//! Writes that fail, one after the other: no frontend may dangle.

use bytemuck::Zeroable as _;
use lb_common::{Backend, Frontend, frontend_flags};
use lb_plan::op::{Batch, Op};
use proptest::prelude::*;

use super::{
    apply::Programmer,
    apply_tests::{
        backend, dangling, failed, frontend, key, programmer, put_backend, put_frontend, put_slots,
        two_services,
    },
    fake::{FakeStore, FaultyStore},
    settings::MapSizes,
    store::MapStoreExt as _,
    table::{Table, typed},
};

/// A programmer with the two services, whose next write of a frontend fails.
fn with_failing_frontend() -> Programmer<FaultyStore<FakeStore>> {
    let mut good = programmer(MapSizes::default());
    good.apply(&two_services());
    let mut faulty = FaultyStore::nth(good.store().clone(), 0, libc::ENOMEM);
    faulty.only = Some(Table::lb_frontends_v1);
    Programmer::new(faulty).unwrap()
}

#[test]
fn while_a_frontend_cannot_be_switched_its_backends_stay() {
    let mut programmer = with_failing_frontend();
    let switch = Batch {
        ops: vec![
            put_backend(5),
            put_frontend(81, frontend(2, 5, 1)),
            Op::DeleteBackend {
                id: 4,
                backend: backend(4),
            },
        ],
    };
    let report = programmer.apply(&switch);
    let errors: Vec<i32> = report.failed.iter().map(|f| f.errno).collect();
    assert_eq!(
        (failed(&report, &switch), errors),
        (vec![1, 2], vec![libc::ENOMEM, libc::ECANCELED])
    );
    assert!(dangling(programmer.store()).is_empty());
    // The failed ops, tried again, finish the work.
    assert!(programmer.apply(&Batch::default()).is_complete());
    let store = &programmer.store().inner;
    assert_eq!(
        store.load_many::<typed::lb_backends_v1>(4, 1).unwrap(),
        [Backend::zeroed()]
    );
}

#[test]
fn a_backend_id_that_a_stuck_frontend_names_is_not_given_away() {
    let mut programmer = with_failing_frontend();
    programmer.store_mut().forever = true;
    let delete = Batch {
        ops: vec![
            Op::DeleteFrontend(key(81)),
            Op::DeleteBackend {
                id: 4,
                backend: backend(4),
            },
        ],
    };
    assert_eq!(programmer.apply(&delete).failed.len(), 2);
    let reuse = Batch {
        ops: vec![Op::PutBackend {
            id: 4,
            backend: backend(9),
        }],
    };
    assert_eq!(
        failed(
            &programmer.apply(&reuse),
            &Batch {
                ops: [delete.ops, reuse.ops].concat()
            }
        ),
        [0, 2]
    );
    let found = programmer
        .store()
        .load_many::<typed::lb_backends_v1>(4, 1)
        .unwrap();
    assert_eq!(found, [backend(4)]);
}

#[test]
fn a_failed_op_does_not_undo_a_later_one() {
    let mut programmer = with_failing_frontend();
    let first = Batch {
        ops: vec![put_frontend(81, frontend(2, 1, 1))],
    };
    assert_eq!(programmer.apply(&first).failed.len(), 1);
    let second = Batch {
        ops: vec![put_frontend(81, frontend(2, 2, 1))],
    };
    assert!(programmer.apply(&second).is_complete());
    assert!(programmer.pending().is_empty());
    let found = programmer
        .store()
        .get_one::<typed::lb_frontends_v1>(&key(81))
        .unwrap();
    assert_eq!(found, Some(frontend(2, 2, 1)));
}

fn update() -> Batch {
    Batch {
        ops: vec![
            put_backend(5),
            put_slots(20, &[1, 5, 1, 5, 5]),
            put_frontend(
                80,
                Frontend {
                    flags: frontend_flags::NODE_PORT,
                    ..frontend(1, 20, 5)
                },
            ),
            put_frontend(81, frontend(2, 5, 1)),
            put_frontend(82, frontend(3, 1, 1)),
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
        ],
    }
}

proptest! {
    /// Whichever write fails, once or from then on, no frontend dangles; and the
    /// failed ops, tried again, bring the maps to where they were to be.
    #[test]
    fn no_failure_leaves_a_frontend_dangling(nth in 0usize..20, forever: bool) {
        let mut whole = programmer(MapSizes::default());
        let mut faulty = FaultyStore::nth(FakeStore::default(), nth, libc::ENOMEM);
        faulty.forever = forever;
        let mut programmer = Programmer::new(faulty).unwrap();
        for batch in [two_services(), update()] {
            whole.apply(&batch);
            programmer.apply(&batch);
            let broken = dangling(&programmer.store().inner);
            prop_assert!(broken.is_empty(), "{broken:?}");
        }
        programmer.store_mut().fail_after = None;
        let again = programmer.apply(&Batch::default());
        prop_assert!(again.is_complete(), "{again:?}");
        prop_assert_eq!(programmer.store().inner.contents(), whole.store().contents());
    }
}
