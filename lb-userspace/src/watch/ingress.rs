//! Ingresses, and the objects that they name, to the types of routing.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{ConfigMap as ApiConfigMap, Secret as ApiSecret},
    networking::v1::{
        HTTPIngressPath, Ingress as ApiIngress, IngressBackend, IngressClass as ApiClass,
        IngressRule as ApiRule, IngressTLS as ApiTls,
    },
};
use lb_route::{
    Mode, PathType,
    class::ANNOTATION,
    input::{BackendRef, Data, Ingress, IngressPath, IngressRule, IngressTls, Name, PortRef},
};
use serde_json::Value;

use super::convert::{Notes, annotation, key};
use crate::{
    change::{Address, ClassedIngress, Content, Kind, Object},
    intern::Interner,
};

/// Converts an Ingress that somebody sent.
///
/// # Errors
/// It is none.
pub fn from_json(object: Value) -> serde_json::Result<Object> {
    let object = serde_json::from_value(object)?;
    Ok(ingress(&object, &Interner::default()))
}

/// Converts an Ingress. Whether it is ours, and how its paths are compared, its class says later.
pub fn ingress(object: &ApiIngress, interner: &Interner) -> Object {
    let meta = &object.metadata;
    let key = key(Kind::Ingress, meta, interner);
    let mut notes = Notes::default();
    let spec = object.spec.clone().unwrap_or_default();
    let default = spec.default_backend.as_ref();
    let created = meta
        .creation_timestamp
        .as_ref()
        .map(|time| time.0.as_second());
    let rules = spec.rules.iter().flatten().enumerate();
    let content = ClassedIngress {
        class: spec.ingress_class_name,
        annotated: annotation(meta, ANNOTATION).map(str::to_owned),
        ingress: Arc::new(Ingress {
            key: Name {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
            },
            mode: Mode::Nginx,
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            created: created.unwrap_or_default(),
            annotations: meta.annotations.clone().unwrap_or_default(),
            default_backend: default.and_then(|b| backend(b, "spec.defaultBackend", &mut notes)),
            rules: rules
                .map(|(at, rule)| self::rule(at, rule, &mut notes))
                .collect(),
            tls: spec.tls.iter().flatten().map(tls).collect(),
        }),
        published: published(object),
    };
    Object {
        key,
        content: Content::Ingress(Box::new(content)),
        problems: notes.0,
    }
}

fn published(object: &ApiIngress) -> Vec<Address> {
    let status = object.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let entries = balancer.and_then(|balancer| balancer.ingress.as_deref());
    let entries = entries.unwrap_or_default().iter();
    let entry = entries.map(|entry| Address {
        hostname: entry.hostname.clone().unwrap_or_default(),
        ip: entry.ip.clone().unwrap_or_default(),
    });
    entry.collect()
}

fn rule(at: usize, object: &ApiRule, notes: &mut Notes) -> IngressRule {
    let paths = object.http.iter().flat_map(|http| &http.paths).enumerate();
    let path = |(path_at, path)| {
        let field = format!("spec.rules[{at}].http.paths[{path_at}]");
        self::path(&field, path, notes)
    };
    IngressRule {
        host: object.host.clone().unwrap_or_default(),
        paths: paths.filter_map(path).collect(),
    }
}

fn path(field: &str, object: &HTTPIngressPath, notes: &mut Notes) -> Option<IngressPath> {
    let kind = match object.path_type.as_str() {
        "Exact" => PathType::Exact,
        "Prefix" => PathType::Prefix,
        "ImplementationSpecific" => PathType::ImplementationSpecific,
        other => {
            let message = format!(
                "{field}.pathType: {other:?} is not one of Exact, Prefix and \
                 ImplementationSpecific; the path is left out"
            );
            notes.add("UnknownPathType", message);
            return None;
        }
    };
    let path = object.path.clone().unwrap_or_default();
    if !path.is_empty() && !path.starts_with('/') {
        let message = format!("{field}.path: {path:?} does not begin with /; it is left out");
        notes.add("InvalidPath", message);
        return None;
    }
    let backend = match &object.backend.service {
        Some(_) => Some(backend(
            &object.backend,
            &format!("{field}.backend"),
            notes,
        )?),
        // A resource: routing says what becomes of it.
        None => None,
    };
    Some(IngressPath {
        path,
        kind,
        backend,
    })
}

fn backend(object: &IngressBackend, field: &str, notes: &mut Notes) -> Option<BackendRef> {
    let service = object.service.as_ref()?;
    let port = service.port.as_ref();
    let name = port
        .and_then(|port| port.name.as_deref())
        .filter(|name| !name.is_empty());
    let port = match (name, port.and_then(|port| port.number)) {
        (Some(name), _) => Some(PortRef::Name(name.into())),
        (None, Some(number)) => {
            let number = notes.port(&format!("{field}.service.port.number"), number);
            number.map(PortRef::Number)
        }
        (None, None) => {
            let message = format!("{field}.service.port: it has no name and no number; give one");
            notes.add("MissingPort", message);
            None
        }
    };
    Some(BackendRef {
        service: service.name.as_str().into(),
        port: port?,
    })
}

fn tls(object: &ApiTls) -> IngressTls {
    let secret = object
        .secret_name
        .as_deref()
        .filter(|name| !name.is_empty());
    IngressTls {
        hosts: object.hosts.clone().unwrap_or_default(),
        secret: secret.map(Into::into),
    }
}

/// Converts an IngressClass.
pub fn class(object: &ApiClass, interner: &Interner) -> Object {
    let spec = object.spec.as_ref();
    let controller = spec.and_then(|spec| spec.controller.clone());
    Object {
        key: key(Kind::IngressClass, &object.metadata, interner),
        content: Content::IngressClass(controller.unwrap_or_default()),
        problems: Vec::new(),
    }
}

/// Converts a Secret.
pub fn secret(object: &ApiSecret, interner: &Interner) -> Object {
    let mut data = BTreeMap::new();
    let encoded = object.data.iter().flatten();
    data.extend(encoded.map(|(key, value)| (key.clone(), value.0.clone())));
    // Manifests may have text, which the API server would have encoded.
    let text = object.string_data.iter().flatten();
    data.extend(text.map(|(key, value)| (key.clone(), value.clone().into_bytes())));
    Object {
        key: key(Kind::Secret, &object.metadata, interner),
        content: Content::Data(Arc::new(Data(data))),
        problems: Vec::new(),
    }
}

/// Converts a ConfigMap.
pub fn config_map(object: &ApiConfigMap, interner: &Interner) -> Object {
    let mut data = BTreeMap::new();
    let text = object.data.iter().flatten();
    data.extend(text.map(|(key, value)| (key.clone(), value.clone().into_bytes())));
    let binary = object.binary_data.iter().flatten();
    data.extend(binary.map(|(key, value)| (key.clone(), value.0.clone())));
    Object {
        key: key(Kind::ConfigMap, &object.metadata, interner),
        content: Content::Data(Arc::new(Data(data))),
        problems: Vec::new(),
    }
}
