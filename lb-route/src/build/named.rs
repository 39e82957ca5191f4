//! Objects that Ingresses name: Secrets and ConfigMaps.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::{
    build::Builder,
    compile::Parsed,
    headers::{Headers, Value, literal},
    htpasswd::Users,
    input::{Data, Name},
    table::Certificate,
    trouble::{Severity, Trouble, reason},
};

/// Headers of the ConfigMaps that an Ingress names.
pub(super) struct NamedHeaders {
    /// `auth-proxy-set-headers`.
    pub(super) questions: Headers,
    /// `custom-headers`.
    pub(super) answers: Vec<(HeaderName, HeaderValue)>,
    /// Why every request is refused.
    pub(super) denied: Option<String>,
}

impl Builder<'_> {
    /// The users of basic authentication; without them, why every request is refused.
    pub(super) fn users(&mut self, parsed: &Parsed) -> (Option<Arc<Users>>, Option<String>) {
        let Some(basic) = &parsed.settings.access.basic else {
            return (None, None);
        };
        let key = &parsed.ingress.key;
        let Some(secret) = self.sources.secrets.get(&basic.secret) else {
            self.missing(key, "auth-secret", &basic.secret);
            return (None, Some(format!("there is no Secret {}", basic.secret)));
        };
        let (users, problems) = if basic.map {
            let keys = secret.0.iter();
            Users::from_map(keys.map(|(user, hash)| (user.as_str(), hash.as_slice())))
        } else {
            match secret.0.get("auth") {
                Some(file) => Users::from_file(file),
                None => {
                    let why = format!("Secret {} has no key auth", basic.secret);
                    let remedy = "make it of `htpasswd`'s file, or set auth-secret-type: auth-map";
                    self.warn(
                        key,
                        "InvalidSecret",
                        format!("auth-secret: {why}: {remedy}"),
                    );
                    return (None, Some(why));
                }
            }
        };
        for problem in problems {
            let message = format!("auth-secret: Secret {}: {problem}", basic.secret);
            self.warn(key, "InvalidSecret", message);
        }
        (Some(Arc::new(users)), None)
    }

    pub(super) fn upstream_secret(&mut self, parsed: &Parsed) -> Option<Arc<Data>> {
        let name = parsed.settings.upstream.tls.secret.as_ref()?;
        let secret = self.sources.secrets.get(name).cloned();
        if secret.is_none() {
            self.missing(&parsed.ingress.key, "proxy-ssl-secret", name);
        }
        secret
    }

    /// The headers of the ConfigMaps that an Ingress names. Where one is missing, or has what is no
    /// header, every request is refused, as in ingress-nginx: they may protect.
    pub(super) fn named_headers(&mut self, parsed: &Parsed) -> NamedHeaders {
        let external = parsed.settings.access.external.as_ref();
        let map = external.and_then(|external| external.proxy_set_headers.as_ref());
        let (questions, bad) = self.headers(parsed, ("auth-proxy-set-headers", map), Value::parse);
        let map = parsed.settings.response.headers.as_ref();
        // Ingress-nginx escapes the `$` of these (`escapeLiteralDollar`).
        let (answers, worse) = self.headers(parsed, ("custom-headers", map), literal);
        let allowed = &self.sources.globals.headers.allowed;
        let refused = answers.iter().find(|(name, _)| !allowed.contains(name));
        let refused = refused.map(|(name, _)| {
            format!(
                "custom-headers: {name} is not allowed: name it in \
                 global-allowed-response-headers of the proxy's ConfigMap; until then every \
                 request is refused"
            )
        });
        if let Some(message) = &refused {
            self.warn(&parsed.ingress.key, "HeaderNotAllowed", message.clone());
        }
        NamedHeaders {
            questions,
            answers,
            denied: bad.or(worse).or(refused),
        }
    }

    /// The headers of a ConfigMap, and why every request is refused.
    fn headers<V>(
        &mut self,
        parsed: &Parsed,
        (annotation, map): (&str, Option<&Name>),
        parse: fn(&[u8]) -> Result<V, String>,
    ) -> (Vec<(HeaderName, V)>, Option<String>) {
        let Some(name) = map else {
            return (Vec::new(), None);
        };
        let data = self.sources.config_maps.get(name);
        let (headers, troubles) = headers(annotation, (name, data), parse);
        let denied = troubles.first().map(|trouble| trouble.message.clone());
        let key = &parsed.ingress.key;
        self.troubles
            .extend(troubles.into_iter().map(|trouble| (key.clone(), trouble)));
        (headers, denied)
    }

    /// The certificate of the host: of the first Ingress that has any entry of `tls`. Where that
    /// names no Secret for the host, it is the default certificate, as in ingress-nginx
    /// (`createServers`): HTTP is led to HTTPS all the same.
    pub(super) fn certificate(&mut self, primaries: &[&&Arc<Parsed>]) -> Option<Certificate> {
        let parsed = primaries.iter().find(|p| !p.ingress.tls.is_empty())?;
        let ingress = &parsed.ingress;
        let named = |host: &String| host.eq_ignore_ascii_case(self.name);
        let covers = |host: &String| covers(host, self.name);
        let mut entries = ingress.tls.iter();
        let own = entries.clone().find(|tls| tls.hosts.iter().any(named));
        let wide = || entries.clone().find(|tls| tls.hosts.iter().any(covers));
        let entry = own.or_else(wide);
        let entry = entry.or_else(|| entries.find(|tls| tls.hosts.is_empty()));
        let Some(secret) = entry.and_then(|tls| tls.secret.as_ref()) else {
            let (name, data) = (None, None);
            return Some(Certificate { name, data });
        };
        let name = Name::new(&ingress.key.namespace, secret);
        let data = self.sources.secrets.get(&name).cloned();
        if data.is_none() {
            let message = format!(
                "tls: there is no Secret {name}: host {} has the default certificate; create it",
                self.display()
            );
            self.warn(&ingress.key, reason::MISSING_SECRET, message);
        }
        let name = Some(name);
        Some(Certificate { name, data })
    }
}

/// The headers of a ConfigMap that `what` names, and what is wrong with it.
pub(crate) fn headers<V>(
    what: &str,
    (name, map): (&Name, Option<&Arc<Data>>),
    parse: fn(&[u8]) -> Result<V, String>,
) -> (Vec<(HeaderName, V)>, Vec<Trouble>) {
    let mut troubles = Vec::new();
    let mut warn = |reason, message| {
        let severity = Severity::Warning;
        troubles.push(Trouble {
            reason,
            severity,
            message,
        });
    };
    let mut headers = Vec::new();
    let Some(data) = map else {
        warn(
            reason::MISSING_CONFIG_MAP,
            format!("{what}: there is no ConfigMap {name}: create it"),
        );
        return (headers, troubles);
    };
    for (header, value) in &data.0 {
        let no_name = |_| "it is no name of a header".to_owned();
        let name_of = header.parse::<HeaderName>().map_err(no_name);
        match name_of.and_then(|header| Ok((header, parse(value)?))) {
            Ok(header) => headers.push(header),
            Err(why) => {
                let message = format!(
                    "{what}: {header:?} of ConfigMap {name} is left out: {why}; correct it"
                );
                warn("InvalidHeader", message);
            }
        }
    }
    (headers, troubles)
}

/// Whether a host of `tls` covers one of rules by `*`, one label.
fn covers(tls: &str, host: &str) -> bool {
    let label = |name: &str| {
        name.split_once('.')
            .map(|(_, rest)| rest.to_ascii_lowercase())
    };
    let rest = tls.strip_prefix("*.").map(str::to_ascii_lowercase);
    rest.is_some() && rest == label(host)
}
