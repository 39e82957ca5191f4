//! The snapshot: any order of changes gives the same one.

use lb_userspace::{
    change::{Change, Content, Kind, Object, ObjectKey},
    intern::Interner,
    store::Store,
    watch::manifest,
};
use proptest::prelude::*;

fn object(text: &str) -> Object {
    let mut parsed = manifest::parse(text, &Kind::AGENT, &Interner::default());
    assert_eq!(parsed.bad, []);
    parsed.objects.remove(0)
}

fn service(name: usize, version: usize) -> Object {
    object(&format!(
        "kind: Service\nmetadata: {{name: s{name}}}\nspec: {{clusterIP: 10.0.0.{version}}}"
    ))
}

/// A slice of service `owner`; version 9 is one that has lost its label.
fn slice(name: usize, owner: usize, version: usize) -> Object {
    let label = match version {
        9 => String::new(),
        _ => format!("kubernetes.io/service-name: s{owner}"),
    };
    object(&format!(
        "kind: EndpointSlice
metadata: {{name: e{name}, labels: {{{label}}}}}
addressType: IPv4
endpoints: [{{addresses: [10.1.0.{version}]}}]"
    ))
}

/// The whole snapshot as text.
fn dump(store: &Store) -> Vec<String> {
    let mut lines: Vec<String> = store
        .services()
        .map(|key| {
            let (service, slices) = store.service(key).unwrap();
            let slices: Vec<_> = slices
                .iter()
                .map(|s| format!("{}={}", s.name, s.endpoints[0].addresses[0]))
                .collect();
            format!("{key} {:?} {slices:?}", service.cluster_ips)
        })
        .collect();
    lines.extend(
        store
            .problems()
            .map(|(key, p)| format!("{key}: {}", p.reason)),
    );
    lines.sort();
    lines
}

#[derive(Clone, Debug)]
enum Step {
    Put(Object),
    Delete(ObjectKey),
}

fn step() -> impl Strategy<Value = Step> {
    let object = prop_oneof![
        (0..4usize, 1..3usize).prop_map(|(n, v)| service(n, v)),
        (
            0..5usize,
            0..4usize,
            prop_oneof![Just(1usize), Just(2), Just(9)]
        )
            .prop_map(|(n, o, v)| slice(n, o, v)),
    ];
    (object, any::<bool>()).prop_map(|(object, put)| match put {
        true => Step::Put(object),
        false => Step::Delete(object.key),
    })
}

/// The objects that are there after some steps, in the order of their keys.
fn surviving(steps: &[Step]) -> Vec<Object> {
    let mut all = std::collections::BTreeMap::new();
    for step in steps {
        match step {
            Step::Put(object) => all.insert(object.key.clone(), object.clone()),
            Step::Delete(key) => all.remove(key),
        };
    }
    all.into_values().collect()
}

fn built(objects: impl IntoIterator<Item = Object>) -> Store {
    let mut store = Store::new();
    for object in objects {
        store.apply(Change::Put(object));
    }
    store
}

proptest! {
    /// What counts is which objects there are, not how they came to be.
    #[test]
    fn steps_and_their_outcome_give_the_same_snapshot(steps in prop::collection::vec(step(), 0..40)) {
        let mut store = Store::new();
        for step in &steps {
            store.apply(match step.clone() {
                Step::Put(object) => Change::Put(object),
                Step::Delete(key) => Change::Delete(key),
            });
        }
        prop_assert_eq!(dump(&store), dump(&built(surviving(&steps))));
    }

    /// The order in which objects arrive does not matter.
    #[test]
    fn any_order_gives_the_same_snapshot(
        (steps, shuffled) in prop::collection::vec(step(), 0..40).prop_flat_map(|steps| {
            let objects = surviving(&steps);
            (Just(objects.clone()), Just(objects).prop_shuffle())
        })
    ) {
        prop_assert_eq!(dump(&built(steps)), dump(&built(shuffled)));
    }

    /// A new list, complete or begun and broken off before, replaces what it does not name.
    #[test]
    fn a_relist_gives_what_it_lists(
        before in prop::collection::vec(step(), 0..30),
        broken_off in prop::collection::vec(step(), 0..10),
        after in prop::collection::vec(step(), 0..30),
    ) {
        let mut store = built(surviving(&before));
        let listed = surviving(&after);
        let both = [Kind::Service, Kind::EndpointSlice];
        for kind in both { store.apply(Change::Begin(kind)); }
        for object in surviving(&broken_off) { store.apply(Change::Put(object)); }
        for kind in both { store.apply(Change::Begin(kind)); }
        for object in listed.clone() { store.apply(Change::Put(object)); }
        for kind in both { store.apply(Change::Done(kind)); }
        prop_assert_eq!(dump(&store), dump(&built(listed)));
    }

    /// Every service whose lines of the dump change is named as touched.
    #[test]
    fn every_changed_service_is_touched(
        before in prop::collection::vec(step(), 0..30),
        change in step(),
    ) {
        let mut store = built(surviving(&before));
        store.take_touched();
        let old = dump(&store);
        store.apply(match change {
            Step::Put(object) => Change::Put(object),
            Step::Delete(key) => Change::Delete(key),
        });
        let touched = store.take_touched();
        let new = dump(&store);
        for line in old.iter().filter(|l| !new.contains(l)).chain(new.iter().filter(|l| !old.contains(l))) {
            let name = line.split(' ').next().unwrap();
            prop_assert!(
                touched.services.iter().any(|k| k.to_string() == name) || line.contains(": "),
                "{} is not in {:?}", line, touched
            );
        }
    }
}

#[test]
fn an_unchanged_object_touches_nothing() {
    let mut store = built([service(1, 1), slice(1, 1, 1)]);
    let first = store.take_touched();
    assert_eq!(
        (
            first.services.len(),
            first.service_changes,
            first.slice_changes
        ),
        (1, 1, 1)
    );
    for kind in Kind::AGENT {
        store.apply(Change::Begin(kind));
    }
    store.apply(Change::Put(service(1, 1)));
    store.apply(Change::Put(slice(1, 1, 1)));
    for kind in Kind::AGENT {
        store.apply(Change::Done(kind));
    }
    assert!(!store.is_touched());
    assert_eq!(dump(&store).len(), 1);
}

#[test]
fn a_slice_that_changes_hands_touches_both_services() {
    let mut store = built([service(1, 1), service(2, 1), slice(1, 1, 1)]);
    store.take_touched();
    store.apply(Change::Put(slice(1, 2, 1)));
    let mut names: Vec<String> = store
        .take_touched()
        .services
        .iter()
        .map(ToString::to_string)
        .collect();
    names.sort();
    assert_eq!(names, ["default/s1", "default/s2"]);
}

#[test]
fn synced_needs_every_kind() {
    let mut store = Store::new();
    for (i, kind) in Kind::AGENT.into_iter().enumerate() {
        assert!(!store.synced());
        assert_eq!(store.unsynced().count(), 3 - i);
        store.apply(Change::Begin(kind));
        store.apply(Change::Done(kind));
    }
    assert!(store.synced());
    // A list that begins again does not take it back: what is known is in force.
    store.apply(Change::Begin(Kind::Service));
    assert!(store.synced());
}

#[test]
fn unusable_content_ends_what_was_there_and_is_a_problem() {
    let mut store = built([service(1, 1), slice(1, 1, 1)]);
    let lost = slice(1, 1, 9);
    assert_eq!(lost.content, Content::Unusable);
    store.apply(Change::Put(lost.clone()));
    assert_eq!(
        dump(&store),
        [
            "EndpointSlice default/e1: NoServiceLabel",
            "default/s1 [10.0.0.1] []"
        ]
    );
    store.apply(Change::Delete(lost.key));
    assert_eq!(dump(&store), ["default/s1 [10.0.0.1] []"]);
}
