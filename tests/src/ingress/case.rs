//! Cases: Ingresses of a host, requests, and what comes of them.
//!
//! They are files, so that whoever knows ingress-nginx can read and write them. `{host}` stands
//! for the case's host in every text.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::Ask;

/// A file of cases that share the proxy's ConfigMap.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The ConfigMap of settings.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// More objects: Secrets, ConfigMaps.
    #[serde(default)]
    pub objects: Vec<Value>,
    /// More flags of the proxy.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Whether the proxy has a default backend, the Service `errors`.
    #[serde(default = "yes")]
    pub default_backend: bool,
    /// The cases, each a [`Case`] once its host is in it.
    pub cases: Vec<Value>,
}

/// A case. Its host is of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, in a few words.
    pub case: String,
    /// The class of its Ingresses: `nginx`, whose paths are as ingress-nginx has them, `bascule`,
    /// or another; empty for none.
    #[serde(default = "nginx")]
    pub class: String,
    /// Entries of `tls`: the Secret of each for the case's host, or the whole entry.
    #[serde(default)]
    pub tls: Vec<Value>,
    /// The Ingresses of the host: one, mostly.
    #[serde(default)]
    pub ingresses: Vec<OneIngress>,
    /// Annotations, without their prefix, of a single Ingress.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Paths of a single Ingress.
    #[serde(default)]
    pub paths: Vec<OnePath>,
    /// Path of a single Ingress, if it has one.
    #[serde(default = "root")]
    pub path: String,
    /// `pathType` of it.
    #[serde(default = "prefix", rename = "type")]
    pub kind: String,
    /// Service of it.
    #[serde(default = "one")]
    pub service: String,
    /// Requests, one after the other.
    pub ask: Vec<Ask>,
}

fn yes() -> bool {
    true
}

fn root() -> String {
    "/".to_owned()
}

fn nginx() -> String {
    "nginx".to_owned()
}

fn prefix() -> String {
    "Prefix".to_owned()
}

fn one() -> String {
    "one".to_owned()
}

/// An Ingress.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneIngress {
    /// Annotations, those of the proxy without their prefix.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Hosts of its rules, each with all its paths; the case's, if none is named.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Whether it has rules.
    #[serde(default)]
    pub without_rules: bool,
    /// Its paths.
    #[serde(default)]
    pub paths: Vec<OnePath>,
    /// Service of its default backend.
    #[serde(default)]
    pub default: Option<String>,
    /// Its class, if it is another than the case's.
    #[serde(default)]
    pub class: Option<String>,
}

/// A path.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnePath {
    /// `path`.
    #[serde(default = "root")]
    pub path: String,
    /// `pathType`.
    #[serde(default = "prefix", rename = "type")]
    pub kind: String,
    /// Service; empty for a backend that is none.
    #[serde(default = "one")]
    pub service: String,
    /// Its port: 80, if nothing else is said.
    #[serde(default)]
    pub port: Option<Value>,
}

/// A file of cases, and the cases.
///
/// # Panics
/// It is not as it has to be.
#[must_use]
pub fn read(path: &Path) -> (File, Vec<Case>) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file: File =
        serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let cases = file.cases.iter().enumerate().map(|(number, case)| {
        let with_host = filled(case, &Case::host(number));
        serde_json::from_value(with_host)
            .unwrap_or_else(|e| panic!("{}: case {number}, {}: {e}", path.display(), case["case"]))
    });
    let cases = cases.collect();
    (file, cases)
}

/// A value with a host in the place of `{host}`.
fn filled(value: &Value, host: &str) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("{host}", host)),
        Value::Array(all) => all.iter().map(|one| filled(one, host)).collect(),
        Value::Object(all) => {
            let pairs = all.iter();
            pairs
                .map(|(key, value)| (key.replace("{host}", host), filled(value, host)))
                .collect()
        }
        other => other.clone(),
    }
}

impl Case {
    /// Its host, by its number.
    #[must_use]
    pub fn host(number: usize) -> String {
        format!("case-{number}.test")
    }

    /// Its Ingresses.
    #[must_use]
    pub fn manifests(&self, number: usize) -> Vec<Value> {
        let path = OnePath {
            path: self.path.clone(),
            kind: self.kind.clone(),
            service: self.service.clone(),
            port: None,
        };
        let single = OneIngress {
            annotations: self.annotations.clone(),
            paths: match self.paths.is_empty() {
                true => vec![path],
                false => self.paths.clone(),
            },
            ..OneIngress::default()
        };
        let all = match self.ingresses.is_empty() {
            true => vec![single],
            false => self.ingresses.clone(),
        };
        let all = all.iter().enumerate();
        all.map(|(at, ingress)| self.manifest(number, at, ingress))
            .collect()
    }

    fn manifest(&self, number: usize, at: usize, ingress: &OneIngress) -> Value {
        let host = Self::host(number);
        let mut spec = json!({});
        let class = ingress.class.as_ref().unwrap_or(&self.class);
        if !class.is_empty() {
            spec["ingressClassName"] = json!(class);
        }
        if let Some(service) = &ingress.default {
            spec["defaultBackend"] = backend(service, None);
        }
        if !ingress.without_rules {
            let paths: Vec<Value> = ingress.paths.iter().map(path).collect();
            let own = [host.clone()];
            let hosts = match ingress.hosts.is_empty() {
                true => &own[..],
                false => &ingress.hosts,
            };
            let rule = |host: &String| match host.as_str() {
                "" => json!({"http": {"paths": paths}}),
                host => json!({"host": host, "http": {"paths": paths}}),
            };
            spec["rules"] = hosts.iter().map(rule).collect();
        }
        let entry = |tls: &Value| match tls.as_str() {
            Some(secret) => json!({"hosts": [host], "secretName": secret}),
            None => tls.clone(),
        };
        if !self.tls.is_empty() {
            spec["tls"] = self.tls.iter().map(entry).collect();
        }
        let name = format!("case-{number}-{at}");
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {
                "name": name, "namespace": "default", "uid": name,
                "creationTimestamp": format!("2026-01-01T00:00:{at:02}Z"),
                "annotations": prefixed(&ingress.annotations),
            },
            "spec": spec,
        })
    }
}

fn prefixed(annotations: &BTreeMap<String, String>) -> BTreeMap<String, &String> {
    let name = |name: &String| match name.contains('/') {
        true => name.clone(),
        false => format!("nginx.ingress.kubernetes.io/{name}"),
    };
    let pairs = annotations.iter();
    pairs.map(|(key, value)| (name(key), value)).collect()
}

fn path(path: &OnePath) -> Value {
    let backend = backend(&path.service, path.port.as_ref());
    json!({"path": path.path, "pathType": path.kind, "backend": backend})
}

fn backend(service: &str, port: Option<&Value>) -> Value {
    if service.is_empty() {
        return json!({"resource": {"apiGroup": "example.com", "kind": "Bucket", "name": "b"}});
    }
    let port = match port {
        None => json!({"number": 80}),
        Some(Value::String(name)) => json!({"name": name}),
        Some(number) => json!({"number": number}),
    };
    json!({"service": {"name": service, "port": port}})
}
