//! The snapshot: every Service, EndpointSlice and Node as last seen, joined by service. Pure.
//!
//! Whatever the order of the changes, the same objects give the same snapshot.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use lb_plan::model::{EndpointSlice, Service, ServiceKey};

use crate::change::{Change, Content, Kind, Node, Object, ObjectKey, ObjectProblem, Trigger};

/// The kinds that are kept here: the first ones.
const KINDS: usize = Kind::AGENT.len();

/// Something with the number of the list in which it was last seen.
#[derive(Debug)]
struct Seen<T> {
    list: u32,
    value: T,
}

/// The snapshot.
#[derive(Default, Debug)]
pub struct Store {
    services: HashMap<ServiceKey, Seen<Arc<Service>>>,
    slices: HashMap<ServiceKey, BTreeMap<Arc<str>, Seen<Arc<EndpointSlice>>>>,
    /// The service of each slice, by namespace and name of the slice.
    owners: HashMap<(Arc<str>, Arc<str>), ServiceKey>,
    nodes: BTreeMap<Arc<str>, Seen<Node>>,
    problems: BTreeMap<ObjectKey, Seen<Vec<ObjectProblem>>>,
    lists: [u32; KINDS],
    synced: [bool; KINDS],
    generation: u64,
    touched: Touched,
}

/// What changed since the last [`Store::take_touched`].
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Services to plan again.
    pub services: HashSet<ServiceKey>,
    /// Whether a Node changed.
    pub nodes: bool,
    /// Whether the list of problems changed.
    pub problems: bool,
    /// The changes of endpoints, as far as the slices say when they happened.
    pub triggers: Vec<Trigger>,
    /// Changes of Services, for the metrics.
    pub service_changes: u64,
    /// Changes of EndpointSlices, for the metrics.
    pub slice_changes: u64,
}

impl Store {
    /// An empty snapshot.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Begin(kind) => self.lists[kind as usize] += 1,
            Change::Put(object) => self.put(object),
            Change::Delete(key) => {
                self.forget_problems(&key);
                self.delete(&key);
            }
            Change::Done(kind) => self.done(kind),
            Change::Trouble { .. } => {}
        }
    }

    fn put(&mut self, object: Object) {
        let Object {
            key,
            content,
            problems,
        } = object;
        self.put_problems(&key, problems);
        match content {
            Content::Service(service) => self.put_service(service),
            Content::Slice(slice, trigger) => self.put_slice(key, slice, trigger),
            Content::Node(node) => {
                let list = self.lists[Kind::Node as usize];
                self.touched.nodes |= put_changed(&mut self.nodes, key.name, list, *node);
            }
            Content::Unusable => self.delete(&key),
            Content::Ingress(_) | Content::IngressClass(_) | Content::Data(_) => {}
        }
        self.generation += 1;
    }

    fn put_service(&mut self, service: Arc<Service>) {
        let list = self.lists[Kind::Service as usize];
        let key = service.key.clone();
        match self.services.get_mut(&key) {
            Some(known) if known.value == service => known.list = list,
            _ => {
                let value = service;
                self.services.insert(key.clone(), Seen { list, value });
                self.touched.services.insert(key);
                self.touched.service_changes += 1;
            }
        }
    }

    fn put_slice(&mut self, key: ObjectKey, slice: Arc<EndpointSlice>, trigger: Option<Trigger>) {
        let owner = slice.service.clone();
        let id = (key.namespace.clone(), key.name.clone());
        match self.owners.get(&id) {
            Some(old) if *old == owner => {}
            Some(_) => {
                self.delete(&key);
                self.owners.insert(id, owner.clone());
            }
            None => {
                self.owners.insert(id, owner.clone());
            }
        }
        let list = self.lists[Kind::EndpointSlice as usize];
        let of_service = self.slices.entry(owner.clone()).or_default();
        if put_changed(of_service, key.name, list, slice) {
            self.touched.services.insert(owner);
            self.touched.slice_changes += 1;
            self.touched.triggers.extend(trigger);
        }
    }

    fn delete(&mut self, key: &ObjectKey) {
        match key.kind {
            Kind::Service => {
                let key = ServiceKey {
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                };
                if self.services.remove(&key).is_some() {
                    self.touched.services.insert(key);
                    self.touched.service_changes += 1;
                }
            }
            Kind::EndpointSlice => {
                let id = (key.namespace.clone(), key.name.clone());
                if let Some(owner) = self.owners.remove(&id) {
                    self.remove_slice(&owner, &key.name);
                }
            }
            Kind::Node => self.touched.nodes |= self.nodes.remove(&key.name).is_some(),
            Kind::Ingress | Kind::IngressClass | Kind::Secret | Kind::ConfigMap => {}
        }
        self.generation += 1;
    }

    fn remove_slice(&mut self, owner: &ServiceKey, name: &str) {
        if let Some(of_service) = self.slices.get_mut(owner) {
            of_service.remove(name);
            if of_service.is_empty() {
                self.slices.remove(owner);
            }
            self.touched.services.insert(owner.clone());
            self.touched.slice_changes += 1;
        }
    }

    /// Ends a list: what it did not name is gone.
    fn done(&mut self, kind: Kind) {
        let list = self.lists[kind as usize];
        for key in self.older_than(kind, list) {
            self.delete(&key);
        }
        let stale: Vec<ObjectKey> = self
            .problems
            .iter()
            .filter(|(key, seen)| key.kind == kind && seen.list < list)
            .map(|(key, _)| key.clone())
            .collect();
        for key in stale {
            self.forget_problems(&key);
        }
        self.synced[kind as usize] = true;
        self.generation += 1;
    }

    fn older_than(&self, kind: Kind, list: u32) -> Vec<ObjectKey> {
        let key = |namespace: &Arc<str>, name: &Arc<str>| ObjectKey {
            kind,
            namespace: namespace.clone(),
            name: name.clone(),
        };
        match kind {
            Kind::Service => self
                .services
                .iter()
                .filter(|(_, seen)| seen.list < list)
                .map(|(k, _)| ObjectKey::service(k))
                .collect(),
            Kind::EndpointSlice => self
                .slices
                .iter()
                .flat_map(|(service, slices)| slices.iter().map(move |s| (service, s)))
                .filter(|(_, (_, seen))| seen.list < list)
                .map(|(service, (name, _))| key(&service.namespace, name))
                .collect(),
            Kind::Node => self
                .nodes
                .iter()
                .filter(|(_, seen)| seen.list < list)
                .map(|(name, _)| key(&"".into(), name))
                .collect(),
            Kind::Ingress | Kind::IngressClass | Kind::Secret | Kind::ConfigMap => Vec::new(),
        }
    }

    fn put_problems(&mut self, key: &ObjectKey, problems: Vec<ObjectProblem>) {
        if problems.is_empty() {
            return self.forget_problems(key);
        }
        let list = self.lists[key.kind as usize];
        self.touched.problems |= put_changed(&mut self.problems, key.clone(), list, problems);
    }

    fn forget_problems(&mut self, key: &ObjectKey) {
        self.touched.problems |= self.problems.remove(key).is_some();
    }

    /// Whether every kind that the agent reads has been listed completely at least once.
    pub fn synced(&self) -> bool {
        self.unsynced().next().is_none()
    }

    /// The kinds that have not been listed completely yet.
    pub fn unsynced(&self) -> impl Iterator<Item = Kind> {
        let kinds = Kind::AGENT.iter().copied();
        kinds.filter(|k| !self.synced[*k as usize])
    }

    /// Counts the changes taken in.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What changed since the last call.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Whether [`Self::take_touched`] would say anything.
    pub fn is_touched(&self) -> bool {
        self.touched != Touched::default()
    }

    /// A service with its slices, ordered by name.
    pub fn service(&self, key: &ServiceKey) -> Option<(&Service, Vec<&EndpointSlice>)> {
        let service = &self.services.get(key)?.value;
        let slices = self.slices.get(key).into_iter().flat_map(|s| s.values());
        Some((service, slices.map(|seen| &*seen.value).collect()))
    }

    /// The keys of all services.
    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    /// How many services there are.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// A Node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name).map(|seen| &seen.value)
    }

    /// What could not be read, by object.
    pub fn problems(&self) -> impl Iterator<Item = (&ObjectKey, &ObjectProblem)> {
        let all = self.problems.iter();
        all.flat_map(|(key, seen)| seen.value.iter().map(move |p| (key, p)))
    }
}

/// Puts a value; says whether it differs from the one that was there.
fn put_changed<K: Ord + Hash, T: PartialEq>(
    map: &mut BTreeMap<K, Seen<T>>,
    key: K,
    list: u32,
    value: T,
) -> bool {
    match map.get_mut(&key) {
        Some(known) if known.value == value => {
            known.list = list;
            false
        }
        _ => {
            map.insert(key, Seen { list, value });
            true
        }
    }
}
