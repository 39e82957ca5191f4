//! The endpoints of the Services that paths name.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::AtomicUsize},
};

use crate::{
    action::{Endpoints, Upstream},
    input::{Name, PortRef, Service, ServicePort},
    trouble::{Severity, Trouble},
};

/// An upstream that a path names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Wanted {
    pub(crate) service: Name,
    /// `None` for the first.
    pub(crate) port: Option<PortRef>,
    /// Whether the Service's own address is its only endpoint (`service-upstream`).
    pub(crate) by_address: bool,
}

impl Wanted {
    /// The name by which paths refer to it.
    pub(crate) fn id(&self) -> Arc<str> {
        let port = self
            .port
            .as_ref()
            .map_or_else(String::new, PortRef::to_string);
        let by = if self.by_address {
            " by its address"
        } else {
            ""
        };
        format!("{}:{port}{by}", self.service).into()
    }

    /// `NAMESPACE-SERVICE-PORT`.
    fn name(&self) -> Arc<str> {
        let Name { namespace, name } = &self.service;
        match &self.port {
            Some(port) => format!("{namespace}-{name}-{port}").into(),
            None => format!("{namespace}-{name}").into(),
        }
    }
}

/// All of them, and who names them.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    all: HashMap<Arc<str>, Held>,
    by_service: HashMap<Name, BTreeSet<Arc<str>>>,
    /// What tables have: shared with the last one until it changes.
    current: Arc<HashMap<Arc<str>, Arc<Upstream>>>,
}

#[derive(Debug)]
struct Held {
    wanted: Wanted,
    holders: usize,
    trouble: Option<Trouble>,
}

impl Upstreams {
    pub(crate) fn current(&self) -> Arc<HashMap<Arc<str>, Arc<Upstream>>> {
        self.current.clone()
    }

    /// What is wrong with one that is held.
    pub(crate) fn trouble(&self, id: &str) -> Option<&Trouble> {
        self.all.get(id)?.trouble.as_ref()
    }

    /// Something names it once more.
    pub(crate) fn hold(&mut self, wanted: &Wanted, service: Option<&Service>) {
        let id = wanted.id();
        if let Some(held) = self.all.get_mut(&id) {
            held.holders += 1;
            return;
        }
        let held = Held {
            wanted: wanted.clone(),
            holders: 1,
            trouble: None,
        };
        let of_service = self.by_service.entry(wanted.service.clone()).or_default();
        of_service.insert(id.clone());
        self.all.insert(id.clone(), held);
        self.refresh(&id, service);
    }

    /// Something names it no more.
    pub(crate) fn release(&mut self, wanted: &Wanted) {
        let id = wanted.id();
        let Some(held) = self.all.get_mut(&id) else {
            return;
        };
        held.holders -= 1;
        if held.holders > 0 {
            return;
        }
        self.all.remove(&id);
        Arc::make_mut(&mut self.current).remove(&id);
        if let Some(of_service) = self.by_service.get_mut(&wanted.service) {
            of_service.remove(&id);
            if of_service.is_empty() {
                self.by_service.remove(&wanted.service);
            }
        }
    }

    /// A Service or its endpoints changed.
    pub(crate) fn changed(&mut self, name: &Name, service: Option<&Service>) {
        let ids = self.by_service.get(name).cloned().unwrap_or_default();
        for id in ids {
            self.refresh(&id, service);
        }
    }

    fn refresh(&mut self, id: &Arc<str>, service: Option<&Service>) {
        let Some(held) = self.all.get_mut(id) else {
            return;
        };
        let (endpoints, trouble) = match endpoints(&held.wanted, service) {
            Ok(endpoints) => (endpoints, None),
            Err(trouble) => (Endpoints::At(Arc::new([])), Some(trouble)),
        };
        held.trouble = trouble;
        let old = self.current.get(id);
        if old.is_some_and(|old| old.endpoints == endpoints) {
            return;
        }
        let wanted = &held.wanted;
        let upstream = Upstream {
            name: wanted.name(),
            service: wanted.service.clone(),
            port: wanted.port.clone().unwrap_or(PortRef::Number(0)),
            endpoints,
            turn: old.map_or_else(|| Arc::new(AtomicUsize::new(0)), |old| old.turn.clone()),
        };
        Arc::make_mut(&mut self.current).insert(id.clone(), Arc::new(upstream));
    }
}

/// Where the endpoints are, or why there is no such port.
fn endpoints(wanted: &Wanted, service: Option<&Service>) -> Result<Endpoints, Trouble> {
    let name = &wanted.service;
    let Some(service) = service else {
        let message = format!("there is no Service {name}: its paths are answered 503; create it");
        return Err(trouble("MissingService", message));
    };
    let port = match &wanted.port {
        None => service.ports.first(),
        Some(PortRef::Number(number)) => service.ports.iter().find(|p| p.number == *number),
        Some(PortRef::Name(name)) => service.ports.iter().find(|p| p.name == *name),
    };
    if let Some(external) = &service.external_name {
        // A Service of this type need not list its ports.
        let number = match (port, &wanted.port) {
            (Some(port), _) => Some(port.number),
            (None, Some(PortRef::Number(number))) => Some(*number),
            _ => None,
        };
        return match number {
            Some(number) => Ok(Endpoints::Named(external.as_str().into(), number)),
            None => Err(no_port(wanted, service)),
        };
    }
    let port = port.ok_or_else(|| no_port(wanted, service))?;
    if !wanted.by_address {
        return Ok(Endpoints::At(port.endpoints.clone()));
    }
    match port.address {
        Some(address) => Ok(Endpoints::At(Arc::new([address]))),
        None => {
            let message = format!(
                "Service {name} has no address, which service-upstream asks for: its paths are \
                 answered 503; give it one, or leave the annotation out"
            );
            Err(trouble("MissingService", message))
        }
    }
}

fn no_port(wanted: &Wanted, service: &Service) -> Trouble {
    let name = &wanted.service;
    let text = |port: &ServicePort| match &*port.name {
        "" => port.number.to_string(),
        name => format!("{} ({name})", port.number),
    };
    let has: Vec<_> = service.ports.iter().map(text).collect();
    let port = wanted
        .port
        .as_ref()
        .map_or_else(|| "any".to_owned(), PortRef::to_string);
    let message = format!(
        "Service {name} has no port {port}: its paths are answered 503; it has {}",
        if has.is_empty() {
            "none".to_owned()
        } else {
            has.join(", ")
        }
    );
    trouble("MissingPort", message)
}

fn trouble(reason: &'static str, message: String) -> Trouble {
    Trouble {
        reason,
        severity: Severity::Warning,
        message,
    }
}
