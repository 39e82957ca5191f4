//! kube-proxy's configuration as a file or the flags give it, and what Bascule
//! reads from it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_plan::{cidr::Cidr, model::NodePortAddresses};
use serde_json::Value;

use super::{
    fields::{Effect, FIELDS, Field},
    kind::{ip, ip_port, is_zero},
    period,
};

/// Where a configuration comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A file: kube-proxy's defaults count for what it leaves out.
    File,
    /// The command line: Bascule's own defaults count.
    Flags,
}

/// kube-proxy's configuration: what was set. The rest has its default.
#[derive(Clone, PartialEq, Debug)]
pub struct KubeProxy {
    pub(super) origin: Origin,
    values: BTreeMap<&'static str, Value>,
}

/// Ports of kube-proxy: kubernetes v1.36.3, pkg/cluster/ports/ports.go.
const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

impl KubeProxy {
    /// Takes a document, and adds the fields that nobody knows to `unknown`.
    ///
    /// # Errors
    /// Fields whose values are of another type: one sentence each.
    pub fn decode(document: &Value, unknown: &mut Vec<String>) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        let mut config = Self {
            origin: Origin::File,
            values: BTreeMap::new(),
        };
        if let Some(fields) = document.as_object() {
            let known =
                |(name, _): &(&String, &Value)| !matches!(name.as_str(), "apiVersion" | "kind");
            let mut at = Place {
                unknown,
                errors: &mut errors,
            };
            for (name, value) in fields.iter().filter(known) {
                config.take(name, value, &mut at);
            }
        }
        match errors.is_empty() {
            true => Ok(config),
            false => Err(errors),
        }
    }

    /// The configuration that flags give.
    pub fn from_flags(flags: impl IntoIterator<Item = (&'static Field, Value)>) -> Self {
        let set = flags.into_iter().filter(|(_, value)| !value.is_null());
        let mut config = Self {
            origin: Origin::Flags,
            values: set.map(|(field, value)| (key(field), value)).collect(),
        };
        if let Some(name) = config.values.get_mut("hostnameOverride") {
            *name = lower(name);
        }
        // The flags are named after iptables, and count in mode nftables too.
        if config.mode() == "nftables" {
            for name in ["masqueradeAll", "syncPeriod", "minSyncPeriod"] {
                let from = FIELDS.iter().find(|f| f.path == format!("iptables.{name}"));
                let to = FIELDS.iter().find(|f| f.path == format!("nftables.{name}"));
                if let (Some(from), Some(to)) = (from, to)
                    && let Some(value) = config.values.remove(from.path)
                {
                    config.values.insert(to.path, value);
                }
            }
        }
        config
    }

    /// Lets those flags go before the file which do in kube-proxy: the node's name
    /// and the log (`copyLogsFromFlags`, `processHostnameOverrideFlag`). Returns
    /// the names of the others, which are ignored.
    pub fn overlay(
        &mut self,
        flags: impl IntoIterator<Item = (&'static Field, Value)>,
    ) -> Vec<&'static str> {
        let mut ignored = Vec::new();
        for (field, value) in flags {
            match field.path {
                "logging.vmodule" => {
                    let mut all = value.as_array().cloned().unwrap_or_default();
                    let known = self.get(field.path);
                    all.extend(known.as_array().into_iter().flatten().cloned());
                    self.values.insert(field.path, all.into());
                }
                "hostnameOverride" => {
                    self.values.insert(field.path, lower(&value));
                }
                path if path.starts_with("logging.") => {
                    self.values.insert(field.path, value);
                }
                _ => ignored.push(field.flag),
            }
        }
        ignored
    }

    fn take(&mut self, path: &str, value: &Value, at: &mut Place<'_>) {
        if let Some(field) = FIELDS.iter().find(|f| !f.path.is_empty() && f.path == path) {
            match field.kind.decode(value) {
                _ if value.is_null() => {}
                Ok(value) if is_zero(&value) && !field.keeps_zero => {}
                Ok(value) => {
                    self.values.insert(field.path, value);
                }
                Err(error) => at.errors.push(format!("{path}: {error}")),
            }
            return;
        }
        let below = format!("{path}.");
        match value {
            _ if !FIELDS.iter().any(|f| f.path.starts_with(&below)) => {
                at.unknown.push(path.to_owned());
            }
            Value::Null => {}
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.take(&format!("{below}{name}"), value, at);
                }
            }
            other => at
                .errors
                .push(format!("{path}: must have fields, and is {other}")),
        }
    }

    /// The value of a field, or of a flag that has no field.
    pub fn get(&self, name: &str) -> Value {
        self.values
            .get(name)
            .cloned()
            .unwrap_or_else(|| default(name))
    }

    /// A field that is a string.
    pub fn text(&self, path: &str) -> String {
        self.get(path).as_str().unwrap_or_default().to_owned()
    }

    /// A field that is a truth value.
    pub fn is(&self, path: &str) -> bool {
        self.get(path).as_bool().unwrap_or_default()
    }

    /// A field that is a number.
    pub fn number(&self, path: &str) -> i64 {
        self.get(path).as_i64().unwrap_or_default()
    }

    /// A field that is a list.
    pub fn list(&self, path: &str) -> Vec<String> {
        let items = self.get(path);
        let items = items.as_array().into_iter().flatten();
        items.filter_map(|i| i.as_str().map(Into::into)).collect()
    }

    /// A field that is a duration, in nanoseconds.
    pub fn nanos(&self, path: &str) -> i64 {
        let value = self.get(path);
        let text = value.as_str().unwrap_or_default();
        // What was decoded is a duration.
        let nanos = value.as_i64().or_else(|| period::parse(text).ok());
        nanos.unwrap_or_default()
    }

    /// The mode, as kube-proxy would choose it; of flags that do not say it,
    /// none.
    pub fn mode(&self) -> String {
        match (self.text("mode"), self.origin) {
            (mode, Origin::File) if mode.is_empty() => "iptables".into(),
            (mode, _) => mode,
        }
    }

    /// The fields that have a value without meaning here, with that value.
    pub fn meaningless(&self) -> impl Iterator<Item = (&'static Field, &Value)> {
        let set = self.values.iter().filter_map(|(name, value)| {
            let field = FIELDS.iter().find(|f| key(f) == *name)?;
            Some((field, value))
        });
        set.filter(|(field, value)| {
            field.effect == Effect::Nothing && **value != default(key(field))
        })
    }

    /// Which node addresses answer NodePorts: all, in kube-proxy's default modes.
    pub fn node_port_addresses(&self) -> NodePortAddresses {
        let list = self.list("nodePortAddresses");
        let primary = match list.as_slice() {
            [] => !matches!(self.mode().as_str(), "iptables" | "ipvs"),
            list => list.iter().any(|item| item == "primary"),
        };
        if primary {
            return NodePortAddresses::Primary;
        }
        let nets = list.iter().filter_map(|text| Cidr::parse(text));
        NodePortAddresses::Cidrs(nets.map(|net| (net.addr, net.prefix)).collect())
    }

    /// Whether NodePorts answer on loopback: in mode iptables where a setting
    /// allows it and the networks of NodePorts do not forbid it
    /// (pkg/proxy/iptables/proxier.go), in others never. Bascule's own default
    /// is that they do.
    pub fn localhost_node_ports(&self) -> bool {
        let named = |net: Cidr| net.prefix == 0 || net.addr.is_loopback();
        let list = self.list("nodePortAddresses");
        let admitted = list.is_empty() || list.iter().filter_map(|t| Cidr::parse(t)).any(named);
        let own = self.origin == Origin::Flags && self.mode().is_empty();
        let asked = self.is("iptables.localhostNodePorts");
        asked && (own || (self.mode() == "iptables" && admitted))
    }

    /// The address that the user says is the node's primary one.
    pub fn bind_address(&self) -> Option<IpAddr> {
        ip(&self.text("bindAddress")).filter(|ip| !ip.is_unspecified())
    }

    /// Where health checks of the proxy are answered; `None` for nowhere.
    pub fn healthz(&self) -> Option<SocketAddr> {
        let port = self.number("--healthz-port");
        self.address(
            "healthzBindAddress",
            (HEALTHZ_PORT, port),
            ["0.0.0.0", "[::]"],
        )
    }

    /// Where metrics are answered; `None` for nowhere.
    pub fn metrics(&self) -> Option<SocketAddr> {
        let port = self.number("--metrics-port");
        self.address(
            "metricsBindAddress",
            (METRICS_PORT, port),
            ["127.0.0.1", "[::1]"],
        )
    }

    fn address(
        &self,
        path: &str,
        (port, flag): (u16, i64),
        defaults: [&str; 2],
    ) -> Option<SocketAddr> {
        ip_port(&self.address_text(path, (port, flag), defaults))
            .ok()
            .map(SocketAddr::from)
    }

    /// The address as kube-proxy completes it, which may be no address.
    fn address_text(&self, path: &str, (port, flag): (u16, i64), defaults: [&str; 2]) -> String {
        if self.origin == Origin::Flags && flag == 0 {
            return String::new();
        }
        // kube-proxy completes its flags' defaults before it reads them.
        let v6 = self.origin == Origin::File
            && ip(&self.text("bindAddress")).is_some_and(|ip| ip.is_ipv6());
        // The flag of the port counts for an address without one, and no more.
        let given = match self.origin {
            Origin::Flags => u16::try_from(flag).unwrap_or(port),
            Origin::File => port,
        };
        let text = self.text(path);
        match ip(&text) {
            _ if text.is_empty() => format!("{}:{port}", defaults[usize::from(v6)]),
            Some(IpAddr::V6(_)) => format!("[{text}]:{given}"),
            Some(IpAddr::V4(_)) => format!("{text}:{given}"),
            None => text,
        }
    }

    /// Both addresses as text: of health and of metrics.
    pub(super) fn address_texts(&self) -> [String; 2] {
        let healthz = (HEALTHZ_PORT, self.number("--healthz-port"));
        let metrics = (METRICS_PORT, self.number("--metrics-port"));
        [
            self.address_text("healthzBindAddress", healthz, ["0.0.0.0", "[::]"]),
            self.address_text("metricsBindAddress", metrics, ["127.0.0.1", "[::1]"]),
        ]
    }

    /// How long a change may wait before the proxy is unhealthy: twice the sync
    /// period of the mode (cmd/kube-proxy/app/server.go).
    pub fn health_timeout(&self) -> Duration {
        let period = self.nanos(match self.mode().as_str() {
            "ipvs" => "ipvs.syncPeriod",
            "nftables" => "nftables.syncPeriod",
            _ => "iptables.syncPeriod",
        });
        Duration::from_nanos(2 * period.unsigned_abs())
    }

    /// The devices of pods, where the configuration says how they are named.
    pub fn pod_devices(&self) -> Vec<String> {
        let prefix = self.text("detectLocal.interfaceNamePrefix");
        match self.text("detectLocalMode") == "InterfaceNamePrefix" && !prefix.is_empty() {
            true => vec![format!("{prefix}*")],
            false => Vec::new(),
        }
    }

    /// How much to log: 0 to 3 for klog's 0 to 10.
    pub fn verbose(&self) -> u8 {
        match self.number("logging.verbosity") {
            ..4 => 0,
            4..6 => 1,
            6..8 => 2,
            _ => 3,
        }
    }
}

/// Where errors of a document are gathered.
struct Place<'a> {
    unknown: &'a mut Vec<String>,
    errors: &'a mut Vec<String>,
}

/// Kubernetes' names are in lower case (`processHostnameOverrideFlag`).
fn lower(name: &Value) -> Value {
    let name = name.as_str().unwrap_or_default();
    name.trim().to_lowercase().into()
}

/// How the value of a field is kept: by its path, or by the name of its flag.
fn key(field: &'static Field) -> &'static str {
    match (field.path, field.flag) {
        ("", "healthz-port") => "--healthz-port",
        ("", "metrics-port") => "--metrics-port",
        ("", flag) => flag,
        (path, _) => path,
    }
}

fn default(name: &str) -> Value {
    let field = FIELDS.iter().find(|f| key(f) == name);
    // The table's own texts are right: a test reads them all.
    field.map_or(Value::Null, |f| f.kind.parse(f.default).unwrap_or_default())
}
