//! The configuration as kube-proxy writes it.

use lb_plan::model::NodePortAddresses;
use serde_json::{Map, Value};

use super::{
    KUBE_PROXY, KubeProxy,
    fields::FIELDS,
    kind::{Kind, is_zero},
};

impl KubeProxy {
    /// The configuration as kube-proxy writes it: every field, after defaults.
    pub fn document(&self) -> Value {
        let mut root = Map::new();
        root.insert("apiVersion".into(), KUBE_PROXY.0.into());
        root.insert("kind".into(), KUBE_PROXY.1.into());
        let mode = match self.mode() {
            mode if mode.is_empty() => "iptables".to_owned(),
            mode => mode,
        };
        let [healthz, metrics] = self.address_texts();
        for field in FIELDS.iter().filter(|f| !f.path.is_empty()) {
            let value = match field.path {
                "mode" => mode.clone().into(),
                "detectLocalMode" if is_zero(&self.get(field.path)) => "ClusterCIDR".into(),
                "healthzBindAddress" => healthz.clone().into(),
                "metricsBindAddress" => metrics.clone().into(),
                // kube-proxy reads it and forgets it.
                "portRange" => "".into(),
                "nodePortAddresses" if self.node_port_addresses() == NodePortAddresses::Primary => {
                    vec!["primary"].into()
                }
                // Of these, kube-proxy keeps its mode's only.
                path if of_other_mode(path, &mode) => match field.kind {
                    Kind::Bool => false.into(),
                    _ => "0s".into(),
                },
                path => self.get(path),
            };
            if !(OMITTED.contains(&field.path) && is_zero(&value)) {
                insert(&mut root, field.path, value);
            }
        }
        Value::Object(root)
    }
}

/// What Go omits when it is zero (`omitempty`).
const OMITTED: [&str; 5] = [
    "featureGates",
    "logging.vmodule",
    "logging.options.text.splitStream",
    "logging.options.json.splitStream",
    "windowsRunAsService",
];

/// kube-proxy's conversion keeps the periods and `masqueradeAll` of its mode only
/// (pkg/proxy/apis/config/v1alpha1/conversion.go); the latter is that of iptables
/// in mode ipvs.
fn of_other_mode(path: &str, mode: &str) -> bool {
    let Some((of, name)) = path.split_once('.') else {
        return false;
    };
    match name {
        "syncPeriod" | "minSyncPeriod" => of != mode,
        "masqueradeAll" => (of == "nftables") != (mode == "nftables"),
        _ => false,
    }
}

fn insert(at: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            at.insert(path.into(), value);
        }
        Some((first, rest)) => {
            let below = at.entry(first).or_insert_with(|| Map::new().into());
            if let Some(below) = below.as_object_mut() {
                insert(below, rest, value);
            }
        }
    }
}
