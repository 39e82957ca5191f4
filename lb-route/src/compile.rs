//! From Kubernetes objects to the table. A change costs the hosts that it touches.

mod check;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

pub use check::Check;

use crate::{
    annotations,
    build::{self, Builder, Sources, named},
    globals::Globals,
    headers::Value,
    host::Hosts,
    input::{Data, Ingress, Name, Service},
    settings::Settings,
    table::{Headers, Host, Table},
    trouble::{Severity, Trouble, reason},
    upstreams::{Upstreams, Wanted},
};

/// What does not come from objects of the cluster, but from the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The prefix of annotations, without its slash.
    pub annotations_prefix: String,
    /// Who answers what no rule has, and errors (`--default-backend-service`): its first port.
    pub default_backend: Option<Name>,
    /// The Secret with the certificate of hosts that have none (`--default-ssl-certificate`).
    pub default_certificate: Option<Name>,
    /// Whether this proxy hears no other: limits of all proxies are then its own.
    pub is_alone: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            annotations_prefix: "nginx.ingress.kubernetes.io".to_owned(),
            default_backend: None,
            default_certificate: None,
            is_alone: false,
        }
    }
}

/// An Ingress whose annotations were read.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) ingress: Arc<Ingress>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) denied: Option<String>,
    troubles: Vec<Trouble>,
}

/// Keeps the objects, and makes tables of them.
#[derive(Debug)]
pub struct Compiler {
    options: Options,
    globals: Arc<Globals>,
    global_troubles: Vec<Trouble>,
    headers: Arc<Headers>,
    header_troubles: Vec<Trouble>,
    ingresses: BTreeMap<Name, Arc<Parsed>>,
    services: HashMap<Name, Arc<Service>>,
    secrets: HashMap<Name, Arc<Data>>,
    config_maps: HashMap<Name, Arc<Data>>,
    /// The Ingresses of each host of rules, those of canaries too: the older ones first.
    by_host: BTreeMap<String, BTreeSet<(i64, Name)>>,
    hosts: BTreeMap<String, Built>,
    dirty: BTreeSet<String>,
    /// Hosts by all of their names, while none changes.
    names: Option<Arc<Hosts<Arc<Host>>>>,
    upstreams: Upstreams,
}

/// A host, with what is wrong with its Ingresses.
#[derive(Debug)]
struct Built {
    host: Arc<Host>,
    aliases: Vec<String>,
    from_to_www: bool,
    wanted: Vec<(Name, Wanted)>,
    troubles: Vec<(Name, Trouble)>,
}

impl Compiler {
    /// Without objects.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            globals: Arc::new(Globals::default()),
            global_troubles: Vec::new(),
            headers: Arc::default(),
            header_troubles: Vec::new(),
            ingresses: BTreeMap::new(),
            services: HashMap::new(),
            secrets: HashMap::new(),
            config_maps: HashMap::new(),
            by_host: BTreeMap::new(),
            hosts: BTreeMap::new(),
            dirty: BTreeSet::from([String::new()]),
            names: None,
            upstreams: Upstreams::default(),
        }
    }

    /// Takes the ConfigMap of settings, which all Ingresses inherit; none is an empty one.
    pub fn set_globals(&mut self, data: &BTreeMap<String, String>) {
        let (globals, troubles) = Globals::read(data);
        self.globals = Arc::new(globals);
        self.global_troubles = troubles;
        let all: Vec<_> = self.ingresses.values().map(|p| p.ingress.clone()).collect();
        for ingress in all {
            self.put_ingress(ingress);
        }
        self.dirty.insert(String::new());
        self.refresh_headers();
    }

    /// What is wrong with the ConfigMap of settings.
    pub fn global_troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.global_troubles.iter().chain(&self.header_troubles)
    }

    /// Reads the ConfigMaps that the settings name.
    fn refresh_headers(&mut self) {
        let mut troubles = Vec::new();
        let mut read = |key: &str, name: &Option<Name>| {
            let name = name.as_ref()?;
            let map = self.config_maps.get(name);
            let (headers, bad) = named::headers(key, (name, map), Value::parse);
            troubles.extend(bad);
            Some(headers)
        };
        let headers = Headers {
            requests: read("proxy-set-headers", &self.globals.headers.requests).unwrap_or_default(),
            answers: read("add-headers", &self.globals.headers.answers).unwrap_or_default(),
        };
        self.headers = Arc::new(headers);
        self.header_troubles = troubles;
    }

    /// Takes an Ingress, new or changed.
    pub fn put_ingress(&mut self, ingress: Arc<Ingress>) {
        self.remove_ingress(&ingress.key);
        for host in build::hosts_of(&ingress) {
            let of_host = self.by_host.entry(host.clone()).or_default();
            of_host.insert((ingress.created, ingress.key.clone()));
            self.dirty.insert(host);
        }
        let key = ingress.key.clone();
        let parsed = Arc::new(self.parse(ingress));
        self.ingresses.insert(key, parsed);
    }

    fn parse(&self, ingress: Arc<Ingress>) -> Parsed {
        let prefix = &self.options.annotations_prefix;
        let mut read = annotations::read(&ingress.key, &ingress.annotations, prefix, &self.globals);
        if self.options.is_alone && read.settings.limits.overall.is_some() {
            read.troubles.push(alone(prefix));
        }
        Parsed {
            settings: Arc::new(read.settings),
            denied: read.denied,
            troubles: read.troubles,
            ingress,
        }
    }

    /// Forgets an Ingress.
    pub fn remove_ingress(&mut self, name: &Name) {
        let Some(parsed) = self.ingresses.remove(name) else {
            return;
        };
        for host in build::hosts_of(&parsed.ingress) {
            if let Some(of_host) = self.by_host.get_mut(&host) {
                of_host.remove(&(parsed.ingress.created, name.clone()));
            }
            self.dirty.insert(host);
        }
    }

    /// Takes a Service with its endpoints, or forgets it. State of balancing survives.
    pub fn put_service(&mut self, name: &Name, service: Option<Arc<Service>>) {
        self.upstreams.changed(name, service.as_deref());
        match service {
            Some(service) => self.services.insert(name.clone(), service),
            None => self.services.remove(name),
        };
    }

    /// Takes a Secret, or forgets it.
    pub fn put_secret(&mut self, name: &Name, secret: Option<Arc<Data>>) {
        if put(&mut self.secrets, name, secret) {
            self.touch(name, build::secrets_of);
        }
    }

    /// Takes a ConfigMap that an Ingress names, or forgets it.
    pub fn put_config_map(&mut self, name: &Name, map: Option<Arc<Data>>) {
        if put(&mut self.config_maps, name, map) {
            self.touch(name, build::config_maps_of);
            self.refresh_headers();
        }
    }

    /// The hosts of the Ingresses that name an object are built anew.
    fn touch(&mut self, name: &Name, of: fn(&Parsed) -> Vec<Name>) {
        let parsed = self
            .ingresses
            .values()
            .filter(|parsed| of(parsed).contains(name));
        self.dirty
            .extend(parsed.flat_map(|parsed| build::hosts_of(&parsed.ingress)));
    }

    /// The Secrets that Ingresses and the options name: no other is read.
    pub fn secrets(&self) -> BTreeSet<Name> {
        let of_ingresses = self.ingresses.values().flat_map(|p| build::secrets_of(p));
        let own = self.options.default_certificate.clone();
        own.into_iter().chain(of_ingresses).collect()
    }

    /// The ConfigMaps that Ingresses and the settings name.
    pub fn config_maps(&self) -> BTreeSet<Name> {
        let headers = &self.globals.headers;
        let own = [&headers.requests, &headers.answers]
            .into_iter()
            .flatten()
            .cloned();
        let of_ingresses = self
            .ingresses
            .values()
            .flat_map(|p| build::config_maps_of(p));
        own.chain(of_ingresses).collect()
    }

    /// What is wrong with each Ingress that something is wrong with. What it says of others'
    /// objects (a Secret that is missing) is said of the Ingress that names them.
    pub fn troubles(&self) -> BTreeMap<Name, Vec<Trouble>> {
        let mut all: BTreeMap<Name, Vec<Trouble>> = BTreeMap::new();
        let own = self.ingresses.iter();
        let own = own.flat_map(|(name, p)| p.troubles.iter().map(move |t| (name, t)));
        let hosts = self.hosts.values().flat_map(|built| &built.troubles);
        let hosts = hosts.map(|(name, trouble)| (name, trouble));
        let upstreams = self.hosts.values().flat_map(|built| &built.wanted);
        let upstreams = upstreams
            .filter_map(|(name, wanted)| Some((name, self.upstreams.trouble(&wanted.id())?)));
        for (name, trouble) in own.chain(hosts).chain(upstreams) {
            let troubles = all.entry(name.clone()).or_default();
            // One Ingress may have many hosts, and say the same of each.
            if !troubles.contains(trouble) {
                troubles.push(trouble.clone());
            }
        }
        all
    }

    /// The table of what there is now.
    pub fn compile(&mut self) -> Table {
        for host in std::mem::take(&mut self.dirty) {
            self.rebuild(&host);
            self.names = None;
        }
        let names = match &self.names {
            Some(names) => names.clone(),
            None => Arc::new(self.names()),
        };
        self.names = Some(names.clone());
        let default = self.options.default_certificate.as_ref();
        Table {
            globals: self.globals.clone(),
            headers: self.headers.clone(),
            default_certificate: default.and_then(|name| self.secrets.get(name).cloned()),
            hosts: names,
            upstreams: self.upstreams.current(),
        }
    }

    /// Builds a host anew. That for every host is there always.
    fn rebuild(&mut self, name: &str) {
        let of_host = self.by_host.get(name).filter(|of_host| !of_host.is_empty());
        let built = (of_host.is_some() || name.is_empty()).then(|| {
            let keys = of_host.into_iter().flatten();
            let parsed: Vec<_> = keys
                .filter_map(|(_, key)| self.ingresses.get(key))
                .collect();
            self.build(name, &parsed)
        });
        // Held before the old ones are released: what stays keeps its state.
        for (_, wanted) in built.iter().flat_map(|built| &built.wanted) {
            let service = self.services.get(&wanted.service);
            self.upstreams
                .hold(wanted, service.map(|service| &**service));
        }
        let old = match built {
            Some(built) => self.hosts.insert(name.to_owned(), built),
            None => {
                self.by_host.remove(name);
                self.hosts.remove(name)
            }
        };
        for (_, wanted) in old.iter().flat_map(|old| &old.wanted) {
            self.upstreams.release(wanted);
        }
    }

    fn build(&self, name: &str, parsed: &[&Arc<Parsed>]) -> Built {
        let sources = Sources {
            options: &self.options,
            globals: &self.globals,
            secrets: &self.secrets,
            config_maps: &self.config_maps,
        };
        let mut builder = Builder::new(sources, name);
        let host = builder.host(parsed);
        Built {
            host: Arc::new(host),
            aliases: builder.aliases(parsed),
            from_to_www: parsed.iter().any(|p| p.settings.host.from_to_www),
            wanted: builder.wanted,
            troubles: builder.troubles,
        }
    }

    /// Hosts by all of their names: those of rules win over others (`server-alias`,
    /// `from-to-www-redirect`).
    fn names(&self) -> Hosts<Arc<Host>> {
        let mut names: BTreeMap<String, Arc<Host>> = BTreeMap::new();
        for (name, built) in &self.hosts {
            for alias in &built.aliases {
                names
                    .entry(alias.clone())
                    .or_insert_with(|| built.host.clone());
            }
            if built.from_to_www && !name.is_empty() {
                let other = match name.strip_prefix("www.") {
                    Some(bare) => bare.to_owned(),
                    None => format!("www.{name}"),
                };
                let redirect = || Arc::new(Host::redirect(&built.host));
                names.entry(other).or_insert_with(redirect);
            }
        }
        let own = self.hosts.iter();
        names.extend(own.map(|(name, built)| (name.clone(), built.host.clone())));
        Hosts::new(names)
    }
}

/// Whether something changed.
fn put(map: &mut HashMap<Name, Arc<Data>>, name: &Name, data: Option<Arc<Data>>) -> bool {
    match data {
        Some(data) => map.insert(name.clone(), data.clone()) != Some(data),
        None => map.remove(name).is_some(),
    }
}

/// Each proxy has for itself what is meant for all of them.
fn alone(prefix: &str) -> Trouble {
    let prefix = prefix.trim_end_matches('/');
    Trouble {
        reason: reason::COUNTED_ALONE,
        severity: Severity::Note,
        message: format!(
            "{prefix}/global-rate-limit counts what each proxy lets in for itself: if there is \
             more than one, give them --peers (proxy.peers.enabled of the chart)"
        ),
    }
}
