//! The manifests that the agents are fed, read for what the lab must know: which
//! frontends there are and which pods should answer. It is written from the Kubernetes
//! API's rules for the fields that `examples/` uses, and shares no code with the agent, so
//! that the two can disagree.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::ingress::{self, Ingress};
use super::topology::Pod;

/// The label and its value by which the Service of the proxy is known, as in the chart.
const COMPONENT: &str = "app.kubernetes.io/component";
const PROXY: &str = "ingress-proxy";
/// What a manifest with Ingresses has.
const INGRESS: &str = "kind: Ingress";

/// One document of a manifest; fields of kinds that the lab does not read are left out.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
struct Document {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Deserialize, Clone, Debug)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

/// `spec` of a Service.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    /// `type`; empty means ClusterIP.
    #[serde(rename = "type")]
    pub kind: String,
    /// `clusterIPs`; "None" for a headless Service.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// `externalIPs`.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<IpAddr>,
    /// `ports`.
    pub ports: Vec<Port>,
    /// `sessionAffinity`.
    pub session_affinity: String,
    /// `internalTrafficPolicy`.
    pub internal_traffic_policy: String,
    /// `externalTrafficPolicy`.
    pub external_traffic_policy: String,
    /// `loadBalancerSourceRanges`.
    pub load_balancer_source_ranges: Vec<String>,
}

/// A port of a Service or of an EndpointSlice.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    /// Name.
    pub name: String,
    /// Protocol; empty means TCP.
    pub protocol: String,
    /// Port.
    pub port: u16,
    /// NodePort; 0 for none.
    pub node_port: u16,
}

impl Port {
    /// The protocol, its default included.
    pub(crate) fn protocol(&self) -> &str {
        if self.protocol.is_empty() {
            "TCP"
        } else {
            &self.protocol
        }
    }
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    load_balancer: LoadBalancer,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<Entry>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    ip: Option<IpAddr>,
    ip_mode: String,
}

/// An endpoint of a slice.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoint {
    /// Addresses; the first counts.
    pub addresses: Vec<IpAddr>,
    /// Node it runs on.
    pub node_name: Option<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Deserialize, Clone, Debug, Default)]
struct Conditions {
    ready: Option<bool>,
}

impl Endpoint {
    /// `conditions.ready`; absent means true.
    pub(crate) fn ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    /// Namespace and name of its Service.
    pub service: String,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ports.
    pub ports: Vec<Port>,
}

/// A Service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// `namespace/name`.
    pub name: String,
    /// Whether it leads to the proxy of Ingresses, as its label says: the pods that are its
    /// endpoints do not answer by themselves.
    pub is_proxy: bool,
    /// Its `spec`.
    pub spec: Spec,
    /// Addresses of its load balancer that are frontends (not `ipMode: Proxy`).
    pub load_balancer_ips: Vec<IpAddr>,
}

/// All that the manifests of a directory say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifests {
    /// Services.
    pub services: Vec<Service>,
    /// EndpointSlices.
    pub slices: Vec<Slice>,
    /// Ingresses.
    pub ingresses: Vec<Ingress>,
}

impl Manifests {
    /// Reads all YAML files of `dir`.
    ///
    /// # Errors
    /// The directory or a file cannot be read or parsed: the error names the file.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let mut all = Self::default();
        for path in files(dir)? {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            all.parse(&text)
                .with_context(|| format!("cannot read {}", path.display()))?;
            if text.contains(INGRESS) {
                let more = ingress::parse(&text);
                let more = more.with_context(|| format!("cannot read {}", path.display()))?;
                all.ingresses.extend(more);
            }
        }
        if all.services.is_empty() {
            bail!(
                "{} holds no Service: put YAML manifests there",
                dir.display()
            );
        }
        all.services.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Takes in what another directory has.
    pub(crate) fn add(&mut self, more: Self) {
        self.services.extend(more.services);
        self.services.sort_by(|a, b| a.name.cmp(&b.name));
        self.slices.extend(more.slices);
        self.ingresses.extend(more.ingresses);
    }

    /// The pods that are ready endpoints of a Service (`namespace/name`), of whichever port and
    /// family.
    pub(crate) fn ready_pods(&self, service: &str) -> BTreeSet<Pod> {
        let slices = self.slices.iter().filter(|s| s.service == service);
        let ready = slices.flat_map(|s| &s.endpoints).filter(|e| e.ready());
        let addrs = ready.filter_map(|e| e.addresses.first());
        addrs.filter_map(|addr| Pod::by_addr(*addr)).collect()
    }

    fn parse(&mut self, text: &str) -> Result<()> {
        for document in serde_saphyr::from_multiple::<Document>(text)? {
            let name = |n: &str| {
                let ns = if document.metadata.namespace.is_empty() {
                    "default"
                } else {
                    &document.metadata.namespace
                };
                format!("{ns}/{n}")
            };
            match document.kind.as_str() {
                "Service" => self.services.push(Service {
                    name: name(&document.metadata.name),
                    is_proxy: document
                        .metadata
                        .labels
                        .get(COMPONENT)
                        .is_some_and(|c| c == PROXY),
                    load_balancer_ips: load_balancer_ips(&document.status),
                    spec: document.spec,
                }),
                "EndpointSlice" => {
                    if let Some(service) =
                        document.metadata.labels.get("kubernetes.io/service-name")
                    {
                        let service = name(service);
                        self.slices.push(Slice {
                            service,
                            endpoints: document.endpoints,
                            ports: document.ports,
                        });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn load_balancer_ips(status: &Status) -> Vec<IpAddr> {
    status
        .load_balancer
        .ingress
        .iter()
        .filter(|i| i.ip_mode != "Proxy")
        .filter_map(|i| i.ip)
        .collect()
}

/// The YAML files of `dir`, in order.
///
/// # Errors
/// It cannot be read.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)
        .with_context(|| format!("cannot read the manifests in {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What changes whenever a file of `dir` does: names, sizes and times.
pub(crate) fn fingerprint(dir: &Path) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
    // A directory that vanished is reported by the read that follows.
    let files = files(dir).unwrap_or_default();
    let describe = |path: PathBuf| {
        let meta = std::fs::metadata(&path).ok();
        (
            path,
            meta.as_ref().map_or(0, std::fs::Metadata::len),
            meta.and_then(|m| m.modified().ok()),
        )
    };
    files.into_iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_service_and_its_slice_are_read() {
        let mut m = Manifests::default();
        m.parse(
            "kind: Node\nmetadata: {name: n1}\nspec: {podCIDR: 10.244.1.0/24}\n---\nkind: Service\nmetadata: {name: a}\n\
             spec: {type: LoadBalancer, clusterIPs: [10.96.0.1], ports: [{port: 80, nodePort: 30000}]}\n\
             status: {loadBalancer: {ingress: [{ip: 1.2.3.4}, {ip: 1.2.3.5, ipMode: Proxy}, {hostname: x}]}}\n---\n\
             kind: EndpointSlice\nmetadata: {name: a-1, namespace: x, labels: {kubernetes.io/service-name: a}}\n\
             endpoints: [{addresses: [10.244.1.2], conditions: {ready: false}}, {addresses: [10.244.1.3]}]\n",
        )
        .unwrap();
        assert_eq!(m.services[0].name, "default/a");
        assert_eq!(
            m.services[0].load_balancer_ips,
            ["1.2.3.4".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(m.services[0].spec.ports[0].protocol(), "TCP");
        assert_eq!(m.slices[0].service, "x/a");
        assert_eq!(
            m.slices[0]
                .endpoints
                .iter()
                .map(Endpoint::ready)
                .collect::<Vec<_>>(),
            [false, true]
        );
    }

    #[test]
    fn a_broken_manifest_is_named() {
        let dir = std::env::temp_dir().join(format!("bascule-manifest-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("bad.yaml"), "kind: Service\nmetadata: [").unwrap();
        let error = format!("{:#}", Manifests::read(&dir).unwrap_err());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(error.contains("bad.yaml"), "{error}");
    }

    #[test]
    fn every_change_of_a_file_changes_the_fingerprint() {
        let dir = std::env::temp_dir().join(format!("bascule-fingerprint-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let empty = fingerprint(&dir);
        std::fs::write(dir.join("a.yaml"), "x").unwrap();
        let one = fingerprint(&dir);
        std::fs::write(dir.join("a.yaml"), "xy").unwrap();
        let longer = fingerprint(&dir);
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(empty.is_empty() && one != empty && longer != one);
    }
}
