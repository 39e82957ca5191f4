//! The objects of the proxy, as last seen, and the table that follows from them. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_plan::{
    endpoints,
    model::{EndpointSlice, NodeView, Protocol, Service, ServiceKey},
};
use lb_route::{
    Check, Compiler, Mode, Options, Table,
    class::Classes,
    input::{self, Data, Ingress, Name},
    trouble::Trouble,
};

use super::peers;
use crate::{
    change::{Change, ClassedIngress, Content, Kind, Object, ObjectKey, ObjectProblem},
    store,
    watch::status::Ours,
};

/// Which objects count, from the command line.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Which Ingresses are ours.
    pub classes: Classes,
    /// The ConfigMap of settings (`--configmap`).
    pub config_map: Option<Name>,
    /// The Service of the proxies (`--peers`).
    pub peers: Option<Name>,
    /// For the compiler of tables.
    pub options: Options,
}

/// The objects.
#[derive(Debug)]
pub struct Store {
    settings: Settings,
    /// Services with their slices.
    services: store::Store,
    ingresses: HashMap<Name, (u32, ClassedIngress)>,
    classes: HashMap<Arc<str>, (u32, String)>,
    data: HashMap<ObjectKey, (u32, Option<Arc<Data>>)>,
    problems: BTreeMap<ObjectKey, (u32, Vec<ObjectProblem>)>,
    lists: HashMap<Kind, u32>,
    synced: HashSet<Kind>,
    compiler: Compiler,
    classes_changed: bool,
    ours_changed: bool,
}

impl Store {
    /// Without objects.
    pub fn new(settings: Settings) -> Self {
        Self {
            services: store::Store::new(),
            ingresses: HashMap::new(),
            classes: HashMap::new(),
            data: HashMap::new(),
            problems: BTreeMap::new(),
            lists: HashMap::new(),
            synced: HashSet::new(),
            compiler: Compiler::new(settings.options.clone()),
            classes_changed: false,
            ours_changed: false,
            settings,
        }
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Begin(kind) => {
                *self.lists.entry(kind).or_default() += 1;
                if Kind::AGENT.contains(&kind) {
                    self.services.apply(Change::Begin(kind));
                }
            }
            Change::Put(object) => self.put(object),
            Change::Delete(key) => self.delete(&key),
            Change::Done(kind) => self.done(kind),
            Change::Trouble { .. } => {}
        }
    }

    fn list(&self, kind: Kind) -> u32 {
        self.lists.get(&kind).copied().unwrap_or_default()
    }

    fn put(&mut self, object: Object) {
        let key = object.key.clone();
        let list = self.list(key.kind);
        match object.problems.is_empty() {
            true => drop(self.problems.remove(&key)),
            false => drop(
                self.problems
                    .insert(key.clone(), (list, object.problems.clone())),
            ),
        }
        match object.content {
            Content::Ingress(ingress) => {
                let known = self.ingresses.get(&name(&key));
                // What only has another status is served as before.
                if !known.is_some_and(|(_, known)| known.is_same(&ingress)) {
                    self.take_ingress(&ingress);
                }
                self.ours_changed = true;
                self.ingresses.insert(name(&key), (list, *ingress));
            }
            Content::IngressClass(controller) => {
                let old = self.classes.insert(key.name, (list, controller.clone()));
                self.classes_changed |= old.is_none_or(|(_, old)| old != controller);
            }
            Content::Data(data) => {
                self.take_data(&key, Some(&data));
                self.data.insert(key, (list, Some(data)));
            }
            Content::Unusable if key.kind != Kind::EndpointSlice => self.delete(&key),
            _ => self.services.apply(Change::Put(object)),
        }
    }

    fn delete(&mut self, key: &ObjectKey) {
        match key.kind {
            Kind::Ingress => {
                self.ours_changed |= self.ingresses.remove(&name(key)).is_some();
                self.compiler.remove_ingress(&name(key));
            }
            Kind::IngressClass => {
                self.classes_changed |= self.classes.remove(&key.name).is_some();
            }
            Kind::Secret | Kind::ConfigMap => {
                let list = self.list(key.kind);
                self.take_data(key, None);
                self.data.insert(key.clone(), (list, None));
            }
            Kind::Service | Kind::EndpointSlice | Kind::Node => {
                self.services.apply(Change::Delete(key.clone()));
            }
        }
        self.problems.remove(key);
    }

    /// Ends a list: what it did not name is gone.
    fn done(&mut self, kind: Kind) {
        let list = self.list(kind);
        let key = |name: &Name| key(kind, name);
        let gone: Vec<ObjectKey> = match kind {
            Kind::Ingress => {
                let old = self.ingresses.iter().filter(|(_, (seen, _))| *seen < list);
                old.map(|(name, _)| key(name)).collect()
            }
            Kind::IngressClass => {
                let old = self.classes.iter().filter(|(_, (seen, _))| *seen < list);
                old.map(|(class, _)| key(&Name::new("", class))).collect()
            }
            Kind::Secret | Kind::ConfigMap => {
                let of_kind = self.data.iter().filter(|(key, _)| key.kind == kind);
                let old = of_kind.filter(|(_, (seen, _))| *seen < list);
                old.map(|(key, _)| key.clone()).collect()
            }
            Kind::Service | Kind::EndpointSlice | Kind::Node => Vec::new(),
        };
        for key in gone {
            self.delete(&key);
        }
        if Kind::AGENT.contains(&kind) {
            self.services.apply(Change::Done(kind));
        }
        self.problems
            .retain(|key, (seen, _)| key.kind != kind || *seen >= list);
        self.synced.insert(kind);
    }

    /// Gives an Ingress to the compiler, if it is ours.
    fn take_ingress(&mut self, classed: &ClassedIngress) {
        match self.mode(classed) {
            Some(mode) if mode == classed.ingress.mode => {
                self.compiler.put_ingress(classed.ingress.clone());
            }
            Some(mode) => {
                let ingress = Ingress {
                    mode,
                    ..(*classed.ingress).clone()
                };
                self.compiler.put_ingress(Arc::new(ingress));
            }
            None => self.compiler.remove_ingress(&classed.ingress.key),
        }
    }

    fn take_data(&mut self, key: &ObjectKey, data: Option<&Arc<Data>>) {
        let name = name(key);
        if key.kind == Kind::Secret {
            return self.compiler.put_secret(&name, data.cloned());
        }
        if self.settings.config_map.as_ref() == Some(&name) {
            let keys = data.iter().flat_map(|data| data.0.keys());
            let text = keys.filter_map(|key| Some((key.clone(), data?.text(key)?.to_owned())));
            self.compiler.set_globals(&text.collect());
        }
        self.compiler.put_config_map(&name, data.cloned());
    }

    /// The table, once everything has been seen; what is missing of it till then, nobody knows.
    pub fn table(&mut self) -> Option<Table> {
        if std::mem::take(&mut self.classes_changed) {
            self.ours_changed = true;
            let known = self.classes.iter();
            let known = known.map(|(name, (_, controller))| (name.to_string(), controller.clone()));
            self.settings.classes.known = known.collect();
            let all: Vec<_> = self
                .ingresses
                .values()
                .map(|(_, classed)| classed.clone())
                .collect();
            all.iter().for_each(|classed| self.take_ingress(classed));
        }
        for key in self.services.take_touched().services {
            let service = self.services.service(&key);
            let service = service.map(|(service, slices)| Arc::new(joined(service, &slices)));
            let name = Name {
                namespace: key.namespace,
                name: key.name,
            };
            self.compiler.put_service(&name, service);
        }
        self.unsynced().is_empty().then(|| self.compiler.compile())
    }

    /// The Ingresses that are ours, if they have changed since this was asked last. Classes count
    /// from [`Store::table`] on.
    pub fn ours(&mut self) -> Option<Ours> {
        if !std::mem::take(&mut self.ours_changed) {
            return None;
        }
        let is_ours = |classed: &ClassedIngress| self.mode(classed).is_some();
        let ours = self
            .ingresses
            .iter()
            .filter(|(_, (_, classed))| is_ours(classed));
        let ours = ours.map(|(name, (_, classed))| (name.clone(), classed.published.clone()));
        Some(Arc::new(ours.collect()))
    }

    /// Where the proxies are, by their Service.
    pub fn peers(&self) -> BTreeSet<SocketAddr> {
        let name = self.settings.peers.clone();
        let key = name.map(|Name { namespace, name }| ServiceKey { namespace, name });
        let service = key.and_then(|key| self.services.service(&key));
        service.map_or_else(BTreeSet::new, |(_, slices)| peers::addresses(&slices))
    }

    /// What is said of an Ingress that is not there yet, or is about to change; `None` where it
    /// is not ours.
    pub fn check(&self, classed: &ClassedIngress) -> Option<Check> {
        let ingress = Ingress {
            mode: self.mode(classed)?,
            ..(*classed.ingress).clone()
        };
        Some(self.compiler.check(&Arc::new(ingress)))
    }

    fn mode(&self, classed: &ClassedIngress) -> Option<Mode> {
        let (class, annotated) = (classed.class.as_deref(), classed.annotated.as_deref());
        self.settings.classes.mode(class, annotated)
    }

    /// What has not been seen yet: kinds, and objects that Ingresses name.
    pub fn unsynced(&self) -> Vec<String> {
        let listed = [
            Kind::Service,
            Kind::EndpointSlice,
            Kind::Ingress,
            Kind::IngressClass,
        ];
        let kinds = listed
            .into_iter()
            .filter(|kind| !self.synced.contains(kind));
        let mut missing: Vec<_> = kinds.map(|kind| format!("{kind}s")).collect();
        for (kind, names) in self.wanted() {
            // Of a directory everything is known at once.
            if self.synced.contains(&kind) {
                continue;
            }
            let keys = names.iter().map(|name| key(kind, name));
            let unseen = keys.filter(|key| !self.data.contains_key(key));
            missing.extend(unseen.map(|key| key.to_string()));
        }
        missing
    }

    /// The Secrets and ConfigMaps that are needed: no other is read.
    pub fn wanted(&self) -> [(Kind, BTreeSet<Name>); 2] {
        let mut maps = self.compiler.config_maps();
        maps.extend(self.settings.config_map.clone());
        [
            (Kind::Secret, self.compiler.secrets()),
            (Kind::ConfigMap, maps),
        ]
    }

    /// All Ingresses, and how the paths of each are compared; `None` for those of others.
    pub fn ingresses(&self) -> impl Iterator<Item = (&ClassedIngress, Option<Mode>)> {
        let all = self.ingresses.values();
        all.map(|(_, classed)| (classed, self.mode(classed)))
    }

    /// What a ConfigMap that is needed holds, if there is one.
    pub fn config_map(&self, name: &Name) -> Option<&Arc<Data>> {
        self.data.get(&key(Kind::ConfigMap, name))?.1.as_ref()
    }

    /// What was told at the start.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is wrong with objects: with what could not be read of them, and with what they mean.
    pub fn troubles(&self) -> Vec<(ObjectKey, Trouble)> {
        let mut all = Vec::new();
        for (key, (_, problems)) in &self.problems {
            let troubles = problems.iter().map(|problem| Trouble {
                reason: problem.reason,
                severity: lb_route::trouble::Severity::Warning,
                message: problem.message.clone(),
            });
            all.extend(troubles.map(|trouble| (key.clone(), trouble)));
        }
        for (name, troubles) in self.compiler.troubles() {
            let key = key(Kind::Ingress, &name);
            all.extend(troubles.into_iter().map(|trouble| (key.clone(), trouble)));
        }
        if let Some(name) = &self.settings.config_map {
            let key = key(Kind::ConfigMap, name);
            let troubles = self.compiler.global_troubles().cloned();
            all.extend(troubles.map(|trouble| (key.clone(), trouble)));
        }
        all
    }
}

fn key(kind: Kind, name: &Name) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: name.namespace.clone(),
        name: name.name.clone(),
    }
}

fn name(key: &ObjectKey) -> Name {
    Name {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

/// A Service with the endpoints that take new requests: the ready ones, and where there is none
/// those that terminate and still serve (KEP-1669).
fn joined(service: &Service, slices: &[&EndpointSlice]) -> input::Service {
    let tcp = service
        .ports
        .iter()
        .filter(|port| port.protocol == Protocol::Tcp);
    let port = |port: &lb_plan::model::ServicePort| {
        let mut invalid = BTreeSet::new();
        let all = endpoints::gather(port, slices, &NodeView::default(), &mut invalid);
        let all = || all.v4.iter().chain(&all.v6);
        let address = |c: &endpoints::Candidate<'_>| SocketAddr::new(IpAddr::from(c.addr), c.port);
        let mut found: Vec<_> = all()
            .filter(|c| c.ready && !c.terminating)
            .map(address)
            .collect();
        if found.is_empty() {
            found.extend(all().filter(|c| c.serving_terminating()).map(address));
        }
        found.sort_unstable();
        let vip = service.cluster_ips.first();
        input::ServicePort {
            name: port.name.clone(),
            number: port.port,
            address: vip.map(|ip| SocketAddr::new(*ip, port.port)),
            endpoints: found.into(),
        }
    };
    input::Service {
        ports: tcp.map(port).collect(),
        external_name: service.external_name.as_deref().map(str::to_owned),
    }
}
