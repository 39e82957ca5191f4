//! Canaries, and the path that hosts have without a rule.

use std::sync::Arc;

use crate::{
    PathType,
    action::{CanaryOf, Location},
    build::Builder,
    compile::Parsed,
    input::{Name, PortRef},
    routes::{Paths, Problem, Rule},
    settings::Settings,
    trouble::reason,
};

impl Builder<'_> {
    /// Canaries join the paths that they have in common with other Ingresses: one canary each
    /// (ingress-nginx v1.15.1, internal/ingress/controller/controller.go,
    /// `mergeAlternativeBackends`).
    pub(super) fn canaries(&mut self, all: &[&Arc<Parsed>], rules: &mut [Rule<Arc<Location>>]) {
        for parsed in all.iter().filter(|p| p.settings.canary.is_some()) {
            for (path, key) in self.paths(parsed) {
                let same = |rule: &&mut Rule<_>| rule.path == path.path && rule.kind == path.kind;
                let Some(rule) = rules.iter_mut().find(same) else {
                    let message = format!(
                        "path {:?} of host {} is of no other Ingress, so nothing is led to this \
                         canary: it needs one with the same host, path and pathType",
                        path.path,
                        self.display()
                    );
                    self.warn(&key, "CanaryWithoutPrimary", message);
                    continue;
                };
                let location = Arc::make_mut(&mut rule.target);
                if let Some(other) = &location.canary {
                    let message = format!(
                        "path {:?} of host {} has a canary already, of Ingress {}: one is served",
                        path.path,
                        self.display(),
                        other.ingress
                    );
                    self.warn(&key, reason::CONFLICTING_CANARY, message);
                    continue;
                }
                let service = Name::new(&key.namespace, &path.backend.service);
                let port = Some(&path.backend.port);
                let upstream = self.want(&key, &service, port, &parsed.settings);
                let affinity = location.settings.affinity.clone();
                location.canary = parsed.settings.canary.clone().map(|when| {
                    let mut settings = parsed.settings.clone();
                    // `mergeAlternativeBackend`: it is copied, even if there is none.
                    if !when.own_affinity && settings.affinity != affinity {
                        Arc::make_mut(&mut settings).affinity = affinity;
                    }
                    Arc::new(CanaryOf {
                        ingress: key,
                        upstream,
                        when,
                        settings,
                    })
                });
            }
        }
    }

    /// What no rule of the host has is for the default backend: of the oldest Ingress of the
    /// host, else the proxy's, else it is answered 404. The Ingress's settings count for it too,
    /// but for those that lead elsewhere where it has no rules at all (`createServers`).
    pub(super) fn root(
        &mut self,
        primaries: &[&&Arc<Parsed>],
        rules: &[Rule<Arc<Location>>],
    ) -> Option<Rule<Arc<Location>>> {
        let is_root = |rule: &Rule<_>| rule.path == "/" && rule.kind != PathType::Exact;
        if rules.iter().any(is_root) {
            return None;
        }
        let without_rules = |p: &&&&Arc<Parsed>| p.ingress.rules.is_empty();
        let of_host = primaries.iter().find(without_rules).or(primaries.first());
        let location = match of_host {
            Some(parsed) => self.root_of(parsed),
            None => self.default_root()?,
        };
        Some(Rule {
            path: "/".to_owned(),
            kind: PathType::Prefix,
            regex: false,
            target: Arc::new(location),
        })
    }

    fn root_of(&mut self, parsed: &Parsed) -> Location {
        let ingress = &parsed.ingress;
        let key = &ingress.key;
        let mut settings = parsed.settings.clone();
        if ingress.rules.is_empty() {
            let settings = Arc::make_mut(&mut settings);
            settings.rewrite = crate::settings::Rewrite::default();
            settings.redirect.to = None;
        }
        let own = ingress.default_backend.as_ref();
        let own = own.map(|to| {
            (
                Name::new(&key.namespace, &to.service),
                Some(to.port.clone()),
            )
        });
        let default = self
            .sources
            .options
            .default_backend
            .clone()
            .map(|name| (name, None));
        let to = own.or(default);
        let upstream = match &to {
            Some((service, port)) => self.want(key, service, port.as_ref(), &settings),
            None => "".into(),
        };
        let (users, refused) = self.users(parsed);
        let headers = self.named_headers(parsed);
        Location {
            ingress: key.clone(),
            uid: ingress.uid.clone(),
            denied: parsed.denied.clone().or(refused).or(headers.denied),
            users,
            upstream_secret: self.upstream_secret(parsed),
            auth_headers: headers.questions,
            answer_headers: headers.answers,
            ..self.bare_root(upstream, to, settings)
        }
    }

    /// Of a host without an Ingress: the proxy's default backend.
    fn default_root(&mut self) -> Option<Location> {
        let service = self.sources.options.default_backend.clone()?;
        let settings = Arc::new(self.sources.globals.defaults.clone());
        let none = Name::new("", "");
        let upstream = self.want(&none, &service, None, &settings);
        Some(self.bare_root(upstream, Some((service, None)), settings))
    }

    fn bare_root(
        &self,
        upstream: Arc<str>,
        to: Option<(Name, Option<PortRef>)>,
        settings: Arc<Settings>,
    ) -> Location {
        let (service, port) = to.unwrap_or_else(|| (Name::new("", ""), None));
        Location {
            ingress: Name::new("", ""),
            uid: "".into(),
            host: self.display().into(),
            path: "/".into(),
            kind: PathType::Prefix,
            service,
            port: port.unwrap_or(PortRef::Number(0)),
            upstream,
            canary: None,
            errors: None,
            stand_in: None,
            users: None,
            upstream_secret: None,
            auth_headers: Vec::new(),
            answer_headers: Vec::new(),
            denied: None,
            settings,
        }
    }

    /// A path that is not served as it was meant.
    pub(super) fn problem(
        &mut self,
        problem: &Problem,
        paths: &Paths<Arc<Location>>,
        owners: &[Name],
    ) {
        let (Problem::Conflict { rule, .. } | Problem::Expression { rule, .. }) = problem;
        let path = &paths.targets()[*rule].path;
        let host = self.display();
        let (reason, message) = match problem {
            Problem::Conflict { with, .. } => {
                let other = &owners[*with];
                let message = format!(
                    "path {path:?} of host {host} is left out: Ingress {other}, which is older, \
                     has it already"
                );
                (reason::CONFLICTING_PATH, message)
            }
            Problem::Expression { why, .. } => {
                let message = format!(
                    "path {path:?} of host {host} is left out: it is no regular expression that \
                     can be served: {why}"
                );
                (reason::INVALID_PATH, message)
            }
        };
        self.warn(&owners[*rule], reason, message);
    }
}
