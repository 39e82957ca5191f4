//! What counts for the whole proxy: the ConfigMap of ingress-nginx v1.15.1, typed, over its
//! defaults (internal/ingress/controller/config/config.go).

mod auth;
mod client;
mod compression;
mod defaults;
mod forwarding;
mod logs;
mod other;
mod settings;
mod tls;
mod traces;
mod types;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;

use crate::{
    annotations::{Risk, redirect_pair},
    settings::{ExternalAuth, Settings},
    trouble::{Mark, Severity, Trouble, nearest, quoted, reason},
    values::Parsed,
};

pub use types::{
    Block, Client, Coding, Collector, Compression, Forwarded, Headers, Hsts, Log, Pool, Tls,
};

/// What counts for the whole proxy.
#[derive(Clone, Debug)]
pub struct Globals {
    /// The settings of Ingresses that say nothing else.
    pub defaults: Settings,
    /// What is believed of clients, and how long is waited for them.
    pub client: Client,
    /// What is believed of what other proxies say.
    pub forwarded: Forwarded,
    /// Connections to backends that are kept.
    pub pool: Pool,
    /// TLS of clients.
    pub tls: Tls,
    /// Headers.
    pub headers: Headers,
    /// How answers are compressed.
    pub compression: Compression,
    /// Requests that are refused anywhere (403).
    pub block: Block,
    /// The access log.
    pub log: Log,
    /// Where spans are sent.
    pub collector: Collector,
    /// Server that is asked for every Ingress without one of its own (`global-auth-url`).
    pub auth: Option<Arc<ExternalAuth>>,
    /// Beginnings of paths of rules without authentication (`no-auth-locations`).
    pub no_auth: Vec<String>,
    /// Status beyond a rate (`limit-req-status-code`, 503).
    pub rate_status: StatusCode,
    /// Status beyond a number of connections (`limit-conn-status-code`, 503).
    pub connections_status: StatusCode,
    /// Status beyond a limit of all proxies together (`global-rate-limit-status-code`, 429).
    pub overall_status: StatusCode,
    /// Whether requests that are not idempotent are sent to a second endpoint
    /// (`retry-non-idempotent`).
    pub retry_non_idempotent: bool,
    /// Whether paths have to be as their type says (`strict-validate-path-type`).
    pub strict_paths: bool,
    /// Whether annotations may name objects of other namespaces
    /// (`allow-cross-namespace-resources`).
    pub cross_namespace: bool,
    /// What no annotation may have in it (`annotation-value-word-blocklist`).
    pub blocked_words: Vec<String>,
    /// The riskiest annotations that are allowed (`annotations-risk-level`).
    pub risk: Risk,
    /// How long connections have to end (`worker-shutdown-timeout`, 240 s).
    pub drain: Duration,
    /// Why Ingresses that global authentication is for are refused: it could not be read.
    pub auth_unreadable: Option<String>,
    /// Why Ingresses without `allowlist-source-range` are refused: the ConfigMap's has no network
    /// that can be read.
    pub allow_unreadable: Option<String>,
    /// Why Ingresses without `enable-modsecurity: "false"` are refused: the ConfigMap asks for
    /// that firewall.
    pub firewall_refused: Option<String>,
}

/// All keys, by what they are about.
pub const GROUPS: &[(&str, &[Key])] = &[
    ("defaults of Ingresses", settings::KEYS),
    ("clients", client::KEYS),
    ("TLS", tls::KEYS),
    ("forwarding", forwarding::KEYS),
    ("access", auth::KEYS),
    ("compression", compression::KEYS),
    ("logs", logs::KEYS),
    ("traces", traces::KEYS),
    ("other", other::KEYS),
];

/// A key of the ConfigMap.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What becomes of it.
    pub mark: Mark,
    /// What it does and its default, why nothing has to be done for it, or why it is refused and
    /// what to do.
    pub sentence: &'static str,
    /// Puts a value into place.
    read: fn(&mut Globals, &str) -> Parsed<()>,
}

/// One that is served.
const fn served(
    name: &'static str,
    sentence: &'static str,
    read: fn(&mut Globals, &str) -> Parsed<()>,
) -> Key {
    Key {
        name,
        mark: Mark::Served,
        sentence,
        read,
    }
}

/// One that has no effect.
const fn accepted(name: &'static str, sentence: &'static str) -> Key {
    Key {
        name,
        mark: Mark::Accepted,
        sentence,
        read: |_, _| Ok(()),
    }
}

/// One that is refused.
const fn refused(name: &'static str, sentence: &'static str) -> Key {
    Key {
        name,
        mark: Mark::Refused,
        sentence,
        read: |_, _| Ok(()),
    }
}

/// Puts a value into its place.
fn put<T>(place: &mut T, value: Parsed<T>) -> Parsed<()> {
    *place = value?;
    Ok(())
}

/// All keys.
pub fn all() -> impl Iterator<Item = &'static Key> {
    GROUPS.iter().flat_map(|(_, keys)| *keys)
}

/// A key by its name.
pub fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

impl Globals {
    /// Reads the ConfigMap. What cannot be read stays as it is by default, but where it protects:
    /// see [`Globals::auth_unreadable`] and its neighbours.
    pub fn read(data: &BTreeMap<String, String>) -> (Self, Vec<Trouble>) {
        let mut globals = Self::default();
        let mut troubles = Vec::new();
        for (name, value) in data {
            let Some(key) = find(name) else {
                troubles.push(unknown(name));
                continue;
            };
            troubles.extend(globals.read_key(key, value.trim()));
        }
        troubles.extend(auth::read(&mut globals, data));
        troubles.extend(traces::unsent(&globals));
        globals.finish(data);
        (globals, troubles)
    }

    /// Empty values are as if they were not there: so are those of mapstructure in ingress-nginx,
    /// whose charts write them.
    fn read_key(&mut self, key: &Key, value: &str) -> Option<Trouble> {
        if value.is_empty() {
            return None;
        }
        let Key { name, sentence, .. } = key;
        let is_off = crate::values::flag(value) == Ok(false);
        let (severity, reason, rest) = match key.mark {
            Mark::Refused if is_off => return None,
            Mark::Refused => {
                // What is refused asks for no value of its own.
                let _ = (key.read)(self, value);
                let rest = format!("is refused: {sentence}");
                (Severity::Refused, reason::CONFIG_REFUSED, rest)
            }
            Mark::Accepted => {
                let rest = format!("has no effect: {sentence}");
                (Severity::Note, reason::CONFIG_WITHOUT_EFFECT, rest)
            }
            Mark::Served => return self.read_served(key, value),
        };
        Some(trouble(name, severity, reason, &rest))
    }

    fn read_served(&mut self, key: &Key, value: &str) -> Option<Trouble> {
        let wanted = (key.read)(self, value).err()?;
        let rest = format!(
            "is {}, which is left out; it has to be {wanted}",
            quoted(value)
        );
        let severity = Severity::Warning;
        Some(trouble(key.name, severity, reason::CONFIG_INVALID, &rest))
    }

    /// What follows from several keys.
    fn finish(&mut self, data: &BTreeMap<String, String>) {
        let text = |key: &str| data.get(key).map(|text| text.trim().to_owned());
        let (from, to) = (text("proxy-redirect-from"), text("proxy-redirect-to"));
        self.defaults.response.redirect = redirect_pair(from, to);
        let next = &mut self.defaults.upstream.next;
        next.non_idempotent |= self.retry_non_idempotent;
        self.defaults.access_log = self.log.on;
    }
}

fn trouble(key: &str, severity: Severity, reason: &'static str, rest: &str) -> Trouble {
    Trouble {
        reason,
        severity,
        message: format!("{key} of the ConfigMap {rest}"),
    }
}

fn unknown(name: &str) -> Trouble {
    let rest = match nearest(name, all().map(|key| key.name)) {
        Some(near) => format!("is not known; is {near} meant?"),
        None => "is not known; remove it".to_owned(),
    };
    trouble(name, Severity::Warning, reason::CONFIG_UNSUPPORTED, &rest)
}
