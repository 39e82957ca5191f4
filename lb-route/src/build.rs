//! A host of rules, from the Ingresses that have it.

mod canaries;
pub(crate) mod named;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    Mode, PathType,
    action::Location,
    compile::{Options, Parsed},
    globals::Globals,
    input::{BackendRef, Data, Ingress, IngressPath, Name, PortRef},
    routes::{Paths, Rule},
    settings::Settings,
    table::{ClientAuthority, Host, Serves},
    trouble::{Severity, Trouble, reason},
    upstreams::Wanted,
};

/// What a host is made of.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) options: &'a Options,
    pub(crate) globals: &'a Globals,
    pub(crate) secrets: &'a HashMap<Name, Arc<Data>>,
    pub(crate) config_maps: &'a HashMap<Name, Arc<Data>>,
}

/// Makes a host.
pub(crate) struct Builder<'a> {
    sources: Sources<'a>,
    /// Its name, as in rules: empty for every host.
    name: &'a str,
    /// What is wrong, and with which Ingress.
    pub(crate) troubles: Vec<(Name, Trouble)>,
    /// The upstreams that it needs, and which Ingress names them.
    pub(crate) wanted: Vec<(Name, Wanted)>,
}

/// The hosts that an Ingress has paths for, as in rules; one without rules is for every host.
pub(crate) fn hosts_of(ingress: &Ingress) -> BTreeSet<String> {
    let rules = ingress.rules.iter();
    let mut hosts: BTreeSet<_> = rules.map(|rule| rule.host.to_ascii_lowercase()).collect();
    if ingress.default_backend.is_some() && ingress.rules.is_empty() {
        hosts.insert(String::new());
    }
    hosts
}

/// The Secrets that an Ingress names.
pub(crate) fn secrets_of(parsed: &Parsed) -> Vec<Name> {
    let settings = &parsed.settings;
    let namespace = &parsed.ingress.key.namespace;
    let tls = parsed
        .ingress
        .tls
        .iter()
        .filter_map(|tls| tls.secret.as_ref());
    let mut names: Vec<_> = tls.map(|secret| Name::new(namespace, secret)).collect();
    names.extend(
        settings
            .access
            .basic
            .as_ref()
            .map(|basic| basic.secret.clone()),
    );
    names.extend(settings.upstream.tls.secret.clone());
    names.extend(
        settings
            .host
            .client_cert
            .as_ref()
            .map(|cert| cert.secret.clone()),
    );
    names
}

/// The ConfigMaps that an Ingress names.
pub(crate) fn config_maps_of(parsed: &Parsed) -> Vec<Name> {
    let settings = &parsed.settings;
    let external = settings.access.external.as_ref();
    let headers = external.and_then(|external| external.proxy_set_headers.clone());
    settings
        .response
        .headers
        .iter()
        .cloned()
        .chain(headers)
        .collect()
}

/// A path as it is to be served.
struct PathOf<'p> {
    parsed: &'p Parsed,
    path: &'p str,
    kind: PathType,
    backend: &'p BackendRef,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(sources: Sources<'a>, name: &'a str) -> Self {
        Self {
            sources,
            name,
            troubles: Vec::new(),
            wanted: Vec::new(),
        }
    }

    /// The host of its Ingresses, the older ones first.
    pub(crate) fn host(&mut self, all: &[&Arc<Parsed>]) -> Host {
        let primaries: Vec<_> = all.iter().filter(|p| p.settings.canary.is_none()).collect();
        let is_nginx = all.iter().any(|p| p.ingress.mode == Mode::Nginx);
        let mode = if is_nginx {
            Mode::Nginx
        } else {
            Mode::Specification
        };
        let mut rules = Vec::new();
        let mut owners = Vec::new();
        for parsed in &primaries {
            for (path, of) in self.paths(parsed) {
                let Some(location) = self.location(&path) else {
                    continue;
                };
                owners.push(of);
                rules.push(self.rule(&path, location));
            }
        }
        self.canaries(all, &mut rules);
        if let Some(root) = self.root(&primaries, &rules) {
            owners.push(root.target.ingress.clone());
            rules.push(root);
        }
        let (paths, problems) = Paths::new(rules, mode);
        for problem in problems {
            self.problem(&problem, &paths, &owners);
        }
        self.finish(&primaries, paths)
    }

    fn finish(&mut self, primaries: &[&&Arc<Parsed>], paths: Paths<Arc<Location>>) -> Host {
        let first = |of: fn(&Settings) -> bool| primaries.iter().find(|p| of(&p.settings));
        let app_root = primaries
            .iter()
            .find_map(|p| p.settings.rewrite.app_root.clone());
        let passthrough = first(|s| s.host.passthrough)
            .and_then(|_| {
                paths
                    .targets()
                    .iter()
                    .find(|location| &*location.path == "/")
            })
            .map(|location| location.upstream.clone());
        let client_cert = primaries.iter().find_map(|p| {
            let settings = p.settings.host.client_cert.clone()?;
            let data = self.sources.secrets.get(&settings.secret).cloned();
            if data.is_none() {
                self.missing(&p.ingress.key, "auth-tls-secret", &settings.secret);
            }
            Some(Arc::new(ClientAuthority { settings, data }))
        });
        Host {
            name: self.display().into(),
            serves: Serves::Paths { paths, app_root },
            certificate: self.certificate(primaries),
            client_cert,
            denied: primaries
                .iter()
                .find_map(|p| p.settings.host.denied.clone()),
            passthrough,
        }
    }

    /// The host's name in logs and metrics.
    fn display(&self) -> &'a str {
        if self.name.is_empty() { "_" } else { self.name }
    }

    /// Other names of it that are names of hosts, each once.
    pub(crate) fn aliases(&self, all: &[&Arc<Parsed>]) -> Vec<String> {
        let first = all.iter().find(|p| !p.settings.host.aliases.is_empty());
        first
            .map(|p| p.settings.host.aliases.clone())
            .unwrap_or_default()
    }

    /// The paths that an Ingress has for the host.
    fn paths<'p>(&mut self, parsed: &'p Parsed) -> Vec<(PathOf<'p>, Name)> {
        let key = &parsed.ingress.key;
        let rules = parsed.ingress.rules.iter();
        let rules = rules.filter(|rule| rule.host.eq_ignore_ascii_case(self.name));
        let mut out = Vec::new();
        for path in rules.flat_map(|rule| &rule.paths) {
            let Some(backend) = &path.backend else {
                let message = format!(
                    "path {:?} of host {} leads to a resource, and is left out: only Services are \
                     served",
                    path.path,
                    self.display()
                );
                self.warn(key, "BackendResourceUnsupported", message);
                continue;
            };
            if !self.is_allowed(parsed, path) {
                continue;
            }
            let of = PathOf {
                parsed,
                path: if path.path.is_empty() {
                    "/"
                } else {
                    &path.path
                },
                kind: path.kind,
                backend,
            };
            out.push((of, key.clone()));
        }
        out
    }

    /// `strict-validate-path-type`: what is no plain path has to be of no specified type
    /// (ingress-nginx v1.15.1, pkg/util/ingress; the rule came with CVE-2023-5043).
    fn is_allowed(&mut self, parsed: &Parsed, path: &IngressPath) -> bool {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        let is_strict = self.sources.globals.strict_paths
            && parsed.ingress.mode == Mode::Nginx
            && path.kind != PathType::ImplementationSpecific;
        if !is_strict || path.path.chars().all(is_plain) {
            return true;
        }
        let message = format!(
            "path {:?} of host {} has characters that an {:?} path must not have, and is left out: \
             make it ImplementationSpecific, or set strict-validate-path-type to false",
            path.path,
            self.display(),
            path.kind
        );
        self.warn(&parsed.ingress.key, reason::INVALID_PATH, message);
        false
    }

    fn rule(&self, path: &PathOf<'_>, location: Location) -> Rule<Arc<Location>> {
        let rewrite = &path.parsed.settings.rewrite;
        let rewrites = rewrite
            .target
            .as_ref()
            .is_some_and(|to| to.text() != path.path);
        Rule {
            path: path.path.to_owned(),
            kind: path.kind,
            regex: rewrite.use_regex || rewrites,
            target: Arc::new(location),
        }
    }

    fn location(&mut self, path: &PathOf<'_>) -> Option<Location> {
        let parsed = path.parsed;
        let key = &parsed.ingress.key;
        let settings = self.settings(path);
        let (users, refused) = self.users(parsed);
        let headers = self.named_headers(parsed);
        let service = Name::new(&key.namespace, &path.backend.service);
        let upstream = self.want(key, &service, Some(&path.backend.port), &settings);
        Some(Location {
            ingress: key.clone(),
            uid: parsed.ingress.uid.clone(),
            host: self.display().into(),
            path: path.path.into(),
            kind: path.kind,
            service,
            port: path.backend.port.clone(),
            upstream,
            canary: None,
            errors: self.errors(parsed),
            stand_in: self.own_errors(parsed),
            users,
            upstream_secret: self.upstream_secret(parsed),
            denied: parsed.denied.clone().or(refused).or(headers.denied),
            auth_headers: headers.questions,
            answer_headers: headers.answers,
            settings,
        })
    }

    /// The settings of a path: those of its Ingress, but for authentication where
    /// `no-auth-locations` exempts it.
    fn settings(&self, path: &PathOf<'_>) -> Arc<Settings> {
        let mut settings = path.parsed.settings.clone();
        let mut exempt = self.sources.globals.no_auth.iter();
        let is_exempt = exempt.any(|start| path.path.starts_with(start.as_str()));
        let access = &settings.access;
        if is_exempt && (access.basic.is_some() || access.external.is_some()) {
            let access = &mut Arc::make_mut(&mut settings).access;
            (access.basic, access.external) = (None, None);
        }
        settings
    }

    /// The upstream of a port of a Service.
    fn want(
        &mut self,
        ingress: &Name,
        service: &Name,
        port: Option<&PortRef>,
        settings: &Settings,
    ) -> Arc<str> {
        let wanted = Wanted {
            service: service.clone(),
            port: port.cloned(),
            by_address: settings.upstream.service_upstream && port.is_some(),
        };
        let id = wanted.id();
        self.wanted.push((ingress.clone(), wanted));
        id
    }

    /// Who answers errors: the Ingress's own, else the proxy's default backend.
    fn errors(&mut self, parsed: &Parsed) -> Option<Arc<str>> {
        let own = self.own_errors(parsed);
        own.or_else(|| {
            let service = self.sources.options.default_backend.clone()?;
            Some(self.want(&parsed.ingress.key, &service, None, &parsed.settings))
        })
    }

    /// `default-backend`.
    fn own_errors(&mut self, parsed: &Parsed) -> Option<Arc<str>> {
        let key = &parsed.ingress.key;
        let service = parsed.settings.errors.backend.as_ref()?;
        let service = Name::new(&key.namespace, service);
        Some(self.want(key, &service, None, &parsed.settings))
    }

    fn warn(&mut self, ingress: &Name, reason: &'static str, message: String) {
        let trouble = Trouble {
            reason,
            severity: Severity::Warning,
            message,
        };
        self.troubles.push((ingress.clone(), trouble));
    }

    fn missing(&mut self, ingress: &Name, annotation: &str, secret: &Name) {
        let message = format!("{annotation}: there is no Secret {secret}: create it");
        self.warn(ingress, reason::MISSING_SECRET, message);
    }
}
