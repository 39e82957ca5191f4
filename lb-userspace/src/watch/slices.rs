//! EndpointSlices to the types of planning.

use std::{sync::Arc, time::SystemTime};

use k8s_openapi::{
    api::discovery::v1::{
        Endpoint as ApiEndpoint, EndpointPort as ApiPort, EndpointSlice as ApiSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use lb_plan::model::{Endpoint, EndpointPort, EndpointSlice, ServiceKey};

use super::convert::{Notes, annotation, key, label};
use crate::{
    change::{Content, Kind, Object, Trigger},
    intern::Interner,
};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// When the change that led to this version of the slice happened.
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Annotation of an EndpointSlice: the weight of each of its endpoints among
/// those of its Service, 1 to 256. Without it the weight is 1.
pub const WEIGHT_ANNOTATION: &str = "bascule.dev/weight";
const WEIGHT_MAX: u32 = 256;

/// Converts an EndpointSlice.
pub fn slice(object: &ApiSlice, interner: &Interner) -> Object {
    let key = key(Kind::EndpointSlice, &object.metadata, interner);
    let mut notes = Notes::default();
    let Some(service) = served(object, &mut notes) else {
        return Object {
            key,
            content: Content::Unusable,
            problems: notes.0,
        };
    };
    let weight = weight(&object.metadata, &mut notes);
    let ipv6 = object.address_type == "IPv6";
    let listed = object.endpoints.as_deref().unwrap_or_default();
    // As large as needed: this is most of the agent's memory.
    let mut endpoints = Vec::with_capacity(listed.len());
    endpoints.extend(
        listed
            .iter()
            .filter_map(|e| endpoint(e, (ipv6, weight), interner, &mut notes)),
    );
    let content = EndpointSlice {
        name: key.name.clone(),
        service: ServiceKey {
            namespace: key.namespace.clone(),
            name: interner.get(service),
        },
        endpoints,
        ports: ports(
            object.ports.as_deref().unwrap_or_default(),
            interner,
            &mut notes,
        ),
    };
    let at = trigger(&object.metadata, &mut notes);
    let trigger = at.map(|at| Trigger { at, ipv6 });
    Object {
        content: Content::Slice(Arc::new(content), trigger),
        key,
        problems: notes.0,
    }
}

/// The name of the Service that a slice belongs to; none if it cannot be served.
fn served<'a>(object: &'a ApiSlice, notes: &mut Notes) -> Option<&'a str> {
    let service = label(&object.metadata, SERVICE_LABEL).filter(|name| !name.is_empty());
    if service.is_none() {
        let message = format!(
            "metadata.labels: {SERVICE_LABEL} is missing, so the slice belongs to no Service: add the label"
        );
        notes.add("NoServiceLabel", message);
    }
    match object.address_type.as_str() {
        "IPv4" | "IPv6" => service,
        // Deprecated, and without a meaning for a proxy: not worth a problem.
        "FQDN" => None,
        other => {
            let message =
                format!("addressType: {other:?} is neither IPv4 nor IPv6; the slice is left out");
            notes.add("UnknownAddressType", message);
            None
        }
    }
}

fn endpoint(
    object: &ApiEndpoint,
    (ipv6, weight): (bool, u32),
    interner: &Interner,
    notes: &mut Notes,
) -> Option<Endpoint> {
    let mut addresses = Vec::with_capacity(1);
    // Only the first counts: the others are fungible by the API's contract.
    if let Some(text) = object.addresses.first() {
        let ip = notes.address("endpoints.addresses", text)?;
        if ip.is_ipv6() != ipv6 {
            let message = format!(
                "endpoints.addresses: {ip} is not of the slice's addressType, and is left out"
            );
            notes.add("InvalidAddress", message);
            return None;
        }
        addresses.push(ip);
    }
    let conditions = object.conditions.as_ref();
    let intern = |text: &String| interner.get(text);
    let hints = object.hints.as_ref();
    let zones = hints
        .and_then(|h| h.for_zones.as_ref())
        .into_iter()
        .flatten();
    let nodes = hints
        .and_then(|h| h.for_nodes.as_ref())
        .into_iter()
        .flatten();
    Some(Endpoint {
        addresses,
        ready: conditions.and_then(|c| c.ready),
        serving: conditions.and_then(|c| c.serving),
        terminating: conditions.and_then(|c| c.terminating),
        node: object.node_name.as_ref().map(intern),
        zone: object.zone.as_ref().map(intern),
        zone_hints: zones.map(|z| intern(&z.name)).collect(),
        node_hints: nodes.map(|n| intern(&n.name)).collect(),
        weight,
    })
}

fn ports(list: &[ApiPort], interner: &Interner, notes: &mut Notes) -> Vec<EndpointPort> {
    let mut all = Vec::with_capacity(list.len());
    for port in list {
        // Without a number the port is not restricted, which a proxy cannot serve:
        // kubernetes v1.36.3, pkg/proxy/endpointslicecache.go, skips it too.
        let Some(number) = port.port else { continue };
        let name: Arc<str> = interner.get(port.name.as_deref().unwrap_or_default());
        let protocol = notes.protocol("ports", port.protocol.as_deref());
        let number = notes.port("ports.port", number);
        if let (Some(protocol), Some(port)) = (protocol, number) {
            all.push(EndpointPort {
                name,
                protocol,
                port,
            });
        }
    }
    all
}

fn weight(meta: &ObjectMeta, notes: &mut Notes) -> u32 {
    let Some(text) = annotation(meta, WEIGHT_ANNOTATION) else {
        return 1;
    };
    match text.trim().parse() {
        Ok(weight @ 1..=WEIGHT_MAX) => weight,
        _ => {
            let message = format!(
                "metadata.annotations: {WEIGHT_ANNOTATION} is {text:?}, not a number of 1 to {WEIGHT_MAX}; 1 is used"
            );
            notes.add("InvalidWeight", message);
            1
        }
    }
}

fn trigger(meta: &ObjectMeta, notes: &mut Notes) -> Option<SystemTime> {
    let text = annotation(meta, TRIGGER_ANNOTATION)?;
    match text.parse::<k8s_openapi::jiff::Timestamp>() {
        Ok(time) => Some(time.into()),
        Err(_) => {
            let message = format!(
                "metadata.annotations: {TRIGGER_ANNOTATION} is {text:?}, not a time as in RFC 3339; it is not measured"
            );
            notes.add("InvalidTriggerTime", message);
            None
        }
    }
}
