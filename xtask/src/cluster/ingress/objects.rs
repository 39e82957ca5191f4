//! What is served: pods, their Service, certificates, Ingresses.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cluster::control::apply;
use crate::cluster::pki::site;
use crate::cluster::pods;
use crate::cluster::topology::{AGNHOST, Node};

/// Where all is but the proxy.
pub(super) const NAMESPACE: &str = "bascule-ingress";
/// Without TLS, as Kubernetes specifies.
pub(super) const PLAIN: &str = "plain.test";
/// With TLS, as Kubernetes specifies.
pub(super) const SHOP: &str = "shop.test";
/// With TLS, as ingress-nginx serves it, its path rewritten.
pub(super) const BLOG: &str = "blog.test";
/// By the Service's own address, and not the pods'.
pub(super) const BY_SERVICE: &str = "service.test";

/// An Ingress of one path, for the Service `web`.
pub(super) struct Ingress<'a> {
    pub(super) name: &'a str,
    pub(super) class: &'a str,
    pub(super) host: &'a str,
    /// The path, and its type.
    pub(super) path: (&'a str, &'a str),
    /// Annotations of ingress-nginx, without the prefix.
    pub(super) annotations: &'a [(&'a str, &'a str)],
    /// The Secret of its certificate.
    pub(super) secret: Option<&'a str>,
}

impl<'a> Ingress<'a> {
    /// All paths of a host, as Kubernetes specifies.
    pub(super) fn new(name: &'a str, host: &'a str) -> Self {
        Self {
            name,
            class: "bascule",
            host,
            path: ("/", "Prefix"),
            annotations: &[],
            secret: None,
        }
    }

    /// The object.
    pub(super) fn object(&self) -> Value {
        let prefixed = |(key, value): &(&str, &str)| {
            (
                format!("nginx.ingress.kubernetes.io/{key}"),
                Value::from(*value),
            )
        };
        let annotations: serde_json::Map<_, _> = self.annotations.iter().map(prefixed).collect();
        let tls = self
            .secret
            .map(|secret| json!({"hosts": [self.host], "secretName": secret}));
        let (path, kind) = self.path;
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": self.name, "namespace": NAMESPACE, "annotations": annotations},
            "spec": {
                "ingressClassName": self.class,
                "tls": tls.into_iter().collect::<Vec<_>>(),
                "rules": [{"host": self.host, "http": {"paths": [{
                    "path": path, "pathType": kind,
                    "backend": {"service": {"name": "web", "port": {"number": 80}}},
                }]}}],
            },
        })
    }

    /// Has it made.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(super) fn apply(&self) -> Result<()> {
        apply(&self.object().to_string())
    }
}

/// Makes all of it, and waits until the pods are ready.
///
/// # Errors
/// The API server refuses something, or a pod is not ready in time.
pub(super) fn make(nodes: u8) -> Result<()> {
    let mut all = vec![service()];
    all.extend(Node::first(nodes).map(pod));
    for host in [SHOP, BLOG] {
        all.push(secret(host, &site(host, "first")?)?);
    }
    let ingresses = [
        Ingress::new("plain", PLAIN),
        Ingress {
            secret: Some(SHOP),
            ..Ingress::new("shop", SHOP)
        },
        Ingress {
            class: "nginx",
            path: ("/api(/|$)(.*)", "ImplementationSpecific"),
            annotations: &[("use-regex", "true"), ("rewrite-target", "/$2")],
            secret: Some(BLOG),
            ..Ingress::new("blog", BLOG)
        },
        Ingress {
            annotations: &[("service-upstream", "true")],
            ..Ingress::new("service", BY_SERVICE)
        },
    ];
    all.extend(ingresses.iter().map(Ingress::object));
    pods::make(NAMESPACE, all, nodes.into())
}

/// Whether this is the name of one of the pods.
pub(super) fn is_pod(name: &str) -> bool {
    name.strip_prefix("web-")
        .is_some_and(|node| Node::parse(node).is_some())
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {
            "ipFamilyPolicy": "PreferDualStack", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    })
}

fn pod(node: Node) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("web-{}", node.name()), "labels": {"app": "web"}},
        "spec": {
            "nodeName": node.name(), "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "web", "image": AGNHOST,
                "args": ["netexec", "--http-port=8080", "--udp-port=-1"],
                "readinessProbe": {"httpGet": {"path": "/hostname", "port": 8080}, "periodSeconds": 1},
            }],
        },
    })
}

/// The Secret of a host, with a certificate that [`site`] made.
///
/// # Errors
/// Its files cannot be read.
pub(super) fn secret(host: &str, (certificate, key): &(PathBuf, PathBuf)) -> Result<Value> {
    let text = |file: &PathBuf| {
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    };
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": host, "namespace": NAMESPACE},
        "stringData": {"tls.crt": text(certificate)?, "tls.key": text(key)?},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_pods_if_it_has_its_name() {
        assert!(is_pod("web-n2"));
        assert!(!is_pod("web-x"));
        assert!(!is_pod("NOW: 2026"));
    }

    #[test]
    fn an_ingress_has_its_annotations_by_their_whole_name() {
        let ingress = Ingress {
            annotations: &[("rewrite-target", "/$2")],
            secret: Some("cert"),
            ..Ingress::new("a", "a.test")
        };
        let object = ingress.object();
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(
            annotations["nginx.ingress.kubernetes.io/rewrite-target"],
            "/$2"
        );
        assert_eq!(object["spec"]["tls"][0]["hosts"][0], "a.test");
        let without = Ingress::new("a", "a.test").object();
        assert_eq!(without["spec"]["tls"], json!([]));
    }
}
