//! Ingresses of the manifests: which requests they answer, and by which pods. As in
//! `manifest.rs` this is read from the Kubernetes API's rules, for the fields that `examples/l7`
//! uses: hosts, paths that begin with `/`, TLS, and a target that a path is rewritten to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use serde::Deserialize;

use super::manifest::{Manifests, Service};
use super::rows::{Ask, Expect, Kind, Proto, Row, RowKey};
use super::topology::{Place, Pod};

/// The annotation that gives the path that pods are asked for.
const REWRITE: &str = "nginx.ingress.kubernetes.io/rewrite-target";
/// Ports of HTTP and HTTPS at the load balancer.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// An Ingress.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ingress {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    annotations: BTreeMap<String, String>,
    spec: Spec,
}

#[derive(Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
struct Spec {
    tls: Vec<Tls>,
    rules: Vec<Rule>,
}

/// Hosts, and the Secret with their certificate.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tls {
    /// The hosts.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The Secret's name.
    #[serde(default)]
    pub secret_name: String,
}

#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
struct Rule {
    #[serde(default)]
    host: String,
    http: Option<Http>,
}

#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
struct Http {
    paths: Vec<HttpPath>,
}

#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
struct HttpPath {
    path: String,
    backend: Backend,
}

#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
struct Backend {
    service: BackendService,
}

#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
struct BackendService {
    name: String,
}

/// A document of any kind; what is no Ingress is left out.
#[derive(Deserialize)]
struct Document {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The Ingresses of a manifest.
///
/// # Errors
/// It is no YAML, or lacks a field.
pub(crate) fn parse(text: &str) -> Result<Vec<Ingress>> {
    let all = serde_saphyr::from_multiple::<Document>(text)?;
    let ingress = |document: Document| Ingress {
        namespace: match document.metadata.namespace {
            empty if empty.is_empty() => "default".to_owned(),
            namespace => namespace,
        },
        name: document.metadata.name,
        annotations: document.metadata.annotations,
        spec: document.spec,
    };
    let ours = all.into_iter().filter(|d| d.kind == "Ingress");
    Ok(ours.map(ingress).collect())
}

impl Ingress {
    /// Its hosts with TLS, by their Secrets.
    pub(crate) fn tls(&self) -> &[Tls] {
        &self.spec.tls
    }

    fn has_tls(&self, host: &str) -> bool {
        self.spec
            .tls
            .iter()
            .any(|t| t.hosts.iter().any(|h| h == host))
    }

    /// Its requests: host, path, and the Service that answers.
    fn paths(&self) -> impl Iterator<Item = (&str, &HttpPath)> {
        self.spec.rules.iter().flat_map(|rule| {
            let paths = rule.http.iter().flat_map(|http| &http.paths);
            paths.map(|path| (rule.host.as_str(), path))
        })
    }
}

/// The rows of all Ingresses, by every address of every proxy, from the client outside.
pub(crate) fn rows(manifests: &Manifests) -> Vec<Row> {
    let fronts = manifests.services.iter().filter(|s| s.is_proxy);
    let fronts: Vec<&Service> = fronts.collect();
    let mut rows = Vec::new();
    for ingress in &manifests.ingresses {
        for (host, path) in ingress.paths() {
            for front in &fronts {
                rows.extend(requests(manifests, ingress, (host, path), front));
            }
        }
    }
    rows
}

/// One request by every address; with TLS that over HTTPS, and the one over HTTP that is led
/// there (ingress-nginx's `ssl-redirect`, which is on by default).
fn requests(
    manifests: &Manifests,
    ingress: &Ingress,
    (host, path): (&str, &HttpPath),
    front: &Service,
) -> Vec<Row> {
    let service = format!("{}/{}", ingress.namespace, path.backend.service.name);
    let pods = manifests.ready_pods(&service);
    let spread = Expect::Spread(pods.iter().map(|pod: &Pod| pod.name()).collect());
    let kinds = match ingress.has_tls(host) {
        true => vec![("https", HTTPS, spread), ("http", HTTP, Expect::Redirected)],
        false => vec![("http", HTTP, spread)],
    };
    let mut rows = Vec::new();
    for (scheme, port, expect) in kinds {
        let ask = Ask {
            url: format!("{scheme}://{host}{}", path.path),
            path: ingress
                .annotations
                .get(REWRITE)
                .unwrap_or(&path.path)
                .clone(),
        };
        rows.extend(front.load_balancer_ips.iter().map(|ip| {
            Row {
                key: RowKey {
                    service: format!("{}/{}", ingress.namespace, ingress.name),
                    kind: Kind::Ingress,
                    ask: Some(ask.clone()),
                    proto: Proto::Tcp,
                    target: SocketAddr::new(*ip, port),
                    place: Place::Outside,
                },
                expect: expect.clone(),
                client: (expect != Expect::Redirected
                    && front.spec.external_traffic_policy == "Local")
                    .then(|| Place::Outside.addrs().of_family(*ip)),
            }
        }));
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::paths;

    fn examples() -> Manifests {
        let dir = paths::root().join("examples");
        let mut all = Manifests::read(&dir).unwrap();
        let more = Manifests::read(Path::new(&dir.join("l7"))).unwrap();
        all.services.extend(more.services);
        all.slices.extend(more.slices);
        all.ingresses.extend(more.ingresses);
        all
    }

    #[test]
    fn every_path_is_asked_for_by_every_address() {
        let rows = rows(&examples());
        let row = |url: &str, v4: bool| {
            let found = rows.iter().find(|row| {
                row.key.target.is_ipv4() == v4 && row.key.ask.as_ref().unwrap().url == url
            });
            found.unwrap_or_else(|| panic!("{url} is not asked for"))
        };
        let spread =
            |names: &[&str]| Expect::Spread(names.iter().map(|name| (*name).to_owned()).collect());
        for v4 in [true, false] {
            let web = spread(&["n1-a", "n2-a", "n3-a"]);
            assert_eq!(row("http://shop.test/", v4).expect, web);
            let api = row("http://shop.test/api", v4);
            assert_eq!(api.expect, spread(&["n1-a", "n3-a"]));
            let blog = row("https://blog.test/blog", v4);
            assert_eq!(blog.expect, web);
            assert_eq!(blog.key.ask.as_ref().unwrap().path, "/posts");
            assert_eq!(
                blog.client,
                Some(Place::Outside.addrs().of_family(blog.key.target.ip()))
            );
            let led = row("http://blog.test/blog", v4);
            assert_eq!((&led.expect, led.client), (&Expect::Redirected, None));
        }
        assert_eq!(rows.len(), 8);
    }

    #[test]
    fn other_documents_are_no_ingresses() {
        let text = "kind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n---\n\
                    kind: Ingress\nmetadata: {name: b}\nspec: {rules: [{host: h}]}\n";
        let all = parse(text).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!((&*all[0].namespace, &*all[0].name), ("default", "b"));
    }
}
