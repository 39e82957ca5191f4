//! Follows those objects of a kind that others name: Secrets and ConfigMaps of Ingresses.
//!
//! Of all objects of the kind only the metadata is followed. The content of one is asked for when
//! it is named, and again when its version changes: what nobody names is never read.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    pin::pin,
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::watcher::{self, Event, watcher},
};
use lb_route::input::Name;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, watch},
    time,
};

use super::trouble::unreachable;
use crate::{
    backoff::Backoff,
    change::{Change, Kind, Object, ObjectKey},
    intern::Interner,
};

/// Pauses before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Follows the objects of a kind that are named.
pub(super) struct Named<K> {
    kind: Kind,
    client: Client,
    url: String,
    convert: fn(&K, &Interner) -> Object,
    changes: mpsc::Sender<Change>,
    interner: Interner,
    /// Of every object, its version.
    versions: HashMap<Name, String>,
    /// Of every object that was told of, its version; `None` for one that there is not.
    told: HashMap<Name, Option<String>>,
    listed: bool,
    backoff: Backoff,
    troubled: bool,
}

impl<K> Named<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    pub(super) fn new(
        kind: Kind,
        (client, url): (Client, String),
        convert: fn(&K, &Interner) -> Object,
        changes: mpsc::Sender<Change>,
    ) -> Self {
        Self {
            kind,
            client,
            url,
            convert,
            changes,
            interner: Interner::default(),
            versions: HashMap::new(),
            told: HashMap::new(),
            listed: false,
            backoff: Backoff::new(PAUSE, PAUSE_MAX),
            troubled: false,
        }
    }

    /// Follows them until the receiver of changes, or who names objects, is gone.
    pub(super) async fn run(
        mut self,
        config: watcher::Config,
        mut wanted: watch::Receiver<BTreeSet<Name>>,
    ) {
        let api = Api::<PartialObjectMeta<K>>::all(self.client.clone());
        let mut events = pin!(watcher(api, config));
        loop {
            let names = wanted.borrow_and_update().clone();
            if self.listed && self.tell(&names).await.is_err() {
                return;
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.next(event).await,
                    None => return,
                },
                changed = wanted.changed() => if changed.is_err() { return },
                () = self.changes.closed() => return,
            }
        }
    }

    async fn next(&mut self, event: watcher::Result<Event<PartialObjectMeta<K>>>) {
        match event {
            Ok(event) => {
                self.take(event);
                self.well().await;
            }
            Err(error) => {
                self.trouble(format!("{}: {error}", self.url)).await;
                time::sleep(self.backoff.pause()).await;
            }
        }
    }

    fn take(&mut self, event: Event<PartialObjectMeta<K>>) {
        match event {
            Event::Init => {
                self.versions.clear();
                self.listed = false;
            }
            Event::InitDone => self.listed = true,
            Event::InitApply(object) | Event::Apply(object) => {
                let version = object.metadata.resource_version.clone();
                self.versions
                    .insert(named(&object), version.unwrap_or_default());
            }
            Event::Delete(object) => drop(self.versions.remove(&named(&object))),
        }
    }

    /// Tells of what is named and has changed. `Err` when nobody listens.
    async fn tell(&mut self, names: &BTreeSet<Name>) -> Result<(), ()> {
        self.told.retain(|name, _| names.contains(name));
        for name in names {
            let version = self.versions.get(name).cloned();
            if self.told.get(name) == Some(&version) {
                continue;
            }
            let found = match version {
                Some(_) => self.get(name).await?,
                None => None,
            };
            let change = match &found {
                Some(object) => Change::Put((self.convert)(object, &self.interner)),
                None => Change::Delete(self.key(name)),
            };
            self.changes.send(change).await.map_err(drop)?;
            self.told.insert(name.clone(), version);
        }
        Ok(())
    }

    /// Asks for an object, again and again while the server does not answer. An object that
    /// there is not any more is none.
    async fn get(&mut self, name: &Name) -> Result<Option<K>, ()> {
        let api = Api::<K>::namespaced(self.client.clone(), &name.namespace);
        loop {
            let error = match api.get_opt(&name.name).await {
                Ok(found) => {
                    self.well().await;
                    return Ok(found);
                }
                Err(error) => error,
            };
            let kind = self.kind;
            let message = match &error {
                kube::Error::Api(status) if status.is_forbidden() => format!(
                    "{}: let the proxy's ServiceAccount get, list and watch {kind}s",
                    status.message
                ),
                error => unreachable(&self.url, error),
            };
            self.trouble(format!("{kind} {name}: {message}")).await;
            if self.changes.is_closed() {
                return Err(());
            }
            time::sleep(self.backoff.pause()).await;
        }
    }

    fn key(&self, name: &Name) -> ObjectKey {
        ObjectKey {
            kind: self.kind,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        }
    }

    async fn trouble(&mut self, message: String) {
        self.troubled = true;
        self.say(Some(message)).await;
    }

    async fn well(&mut self) {
        self.backoff.reset();
        if std::mem::take(&mut self.troubled) {
            self.say(None).await;
        }
    }

    async fn say(&self, message: Option<String>) {
        let place = format!("watch of {}s", self.kind);
        // A closed channel means that the proxy ends, which is noticed elsewhere.
        let _ = self.changes.send(Change::Trouble { place, message }).await;
    }
}

fn named<K: Resource<DynamicType = ()>>(object: &PartialObjectMeta<K>) -> Name {
    let meta = &object.metadata;
    let part = |part: &Option<String>| part.as_deref().unwrap_or_default().into();
    Name {
        namespace: part(&meta.namespace),
        name: part(&meta.name),
    }
}
