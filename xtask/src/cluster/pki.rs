//! Certificates and kubeconfigs of the cluster, made by openssl.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::topology::{API_SERVER, API_SERVICE, CONTROL, Node, pki};
use crate::sh::Sh;

/// Days that certificates hold: the cluster is for a session.
const DAYS: &str = "30";

/// A certificate to make.
struct Certificate<'a> {
    name: &'a str,
    authority: &'a str,
    /// What the API server reads as user (CN) and groups (O).
    subject: &'a str,
    /// Addresses and names of a server; a client's has none.
    hosts: &'a str,
}

/// Makes everything that is missing, for so many nodes.
///
/// # Errors
/// openssl is missing or older than 3.0, or a file cannot be written.
pub(crate) fn make(nodes: u8) -> Result<()> {
    let dir = pki("");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    authority("ca")?;
    authority("front-proxy-ca")?;
    account_keys()?;
    servers()?;
    let clients = [
        ("admin", "/O=system:masters/CN=admin"),
        ("controller-manager", "/CN=system:kube-controller-manager"),
        ("scheduler", "/CN=system:kube-scheduler"),
        // The role of kube-proxy reads what the agent reads.
        ("proxy", "/CN=system:kube-proxy"),
    ];
    for (name, subject) in clients {
        certify(&Certificate {
            name,
            authority: "ca",
            subject,
            hosts: "",
        })?;
        kubeconfig(name)?;
    }
    Node::first(nodes).try_for_each(node)
}

fn servers() -> Result<()> {
    let hosts = format!(
        "IP:{},IP:{},IP:{},IP:{},IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,\
         DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local",
        CONTROL.0, CONTROL.1, API_SERVICE.0, API_SERVICE.1
    );
    let all = [
        ("apiserver", "ca", "/CN=kube-apiserver", hosts.as_str()),
        (
            "kubelet-client",
            "ca",
            "/O=system:masters/CN=kube-apiserver-kubelet-client",
            "",
        ),
        (
            "front-proxy-client",
            "front-proxy-ca",
            "/CN=front-proxy-client",
            "",
        ),
    ];
    all.into_iter()
        .try_for_each(|(name, authority, subject, hosts)| {
            certify(&Certificate {
                name,
                authority,
                subject,
                hosts,
            })
        })
}

fn node(node: Node) -> Result<()> {
    let name = node.name();
    let (v4, v6) = node.addrs();
    certify(&Certificate {
        name: &name,
        authority: "ca",
        subject: &format!("/O=system:nodes/CN=system:node:{name}"),
        hosts: &format!("DNS:{name},IP:{v4},IP:{v6}"),
    })?;
    kubeconfig(&name)
}

fn openssl(what: &str, args: &[&str]) -> Result<()> {
    Sh::new("openssl")
        .args(args)
        .dir(&pki(""))
        .read()
        .map(|_| ())
        .with_context(|| format!("cannot make {what}: openssl 3.0 or newer is needed"))
}

/// The arguments of a request with a new key.
fn request<'a>(key: &'a str, out: &'a str, subject: &'a str) -> Vec<&'a str> {
    vec![
        "req",
        "-x509",
        "-new",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-days",
        DAYS,
        "-keyout",
        key,
        "-out",
        out,
        "-subj",
        subject,
    ]
}

fn authority(name: &str) -> Result<()> {
    let (key, out) = (format!("{name}.key"), format!("{name}.crt"));
    if pki(&out).exists() {
        return Ok(());
    }
    let subject = format!("/CN={name}");
    let mut args = request(&key, &out, &subject);
    args.extend([
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
    ]);
    openssl(&out, &args)
}

fn certify(certificate: &Certificate<'_>) -> Result<()> {
    let (key, out) = (
        format!("{}.key", certificate.name),
        format!("{}.crt", certificate.name),
    );
    if pki(&out).exists() {
        return Ok(());
    }
    let (ca, ca_key) = (
        format!("{}.crt", certificate.authority),
        format!("{}.key", certificate.authority),
    );
    let hosts = format!("subjectAltName={}", certificate.hosts);
    let mut args = request(&key, &out, certificate.subject);
    args.extend(["-CA", &ca, "-CAkey", &ca_key]);
    args.extend(["-addext", "basicConstraints=critical,CA:FALSE"]);
    args.extend([
        "-addext",
        "keyUsage=critical,digitalSignature,keyEncipherment",
    ]);
    args.extend(["-addext", "extendedKeyUsage=clientAuth,serverAuth"]);
    if !certificate.hosts.is_empty() {
        args.extend(["-addext", &hosts]);
    }
    openssl(&out, &args)
}

/// A certificate that a host of this name shows, which nobody else has signed, and its key. The
/// same version is the same certificate.
///
/// # Errors
/// openssl is missing or older than 3.0.
pub(crate) fn site(host: &str, version: &str) -> Result<(PathBuf, PathBuf)> {
    let stem = format!("site-{host}-{version}");
    let (key, out) = (format!("{stem}.key"), format!("{stem}.crt"));
    if !pki(&out).exists() {
        let (subject, names) = (format!("/CN={host}"), format!("subjectAltName=DNS:{host}"));
        let mut args = request(&key, &out, &subject);
        args.extend(["-addext", &names]);
        openssl(&out, &args)?;
    }
    Ok((pki(&out), pki(&key)))
}

/// The keys that service accounts' tokens are signed and checked with.
fn account_keys() -> Result<()> {
    if pki("accounts.pub").exists() {
        return Ok(());
    }
    openssl("accounts.key", &["genrsa", "-out", "accounts.key", "2048"])?;
    openssl(
        "accounts.pub",
        &[
            "rsa",
            "-in",
            "accounts.key",
            "-pubout",
            "-out",
            "accounts.pub",
        ],
    )
}

/// A kubeconfig that names its files, for processes that see this machine's files.
fn kubeconfig(name: &str) -> Result<()> {
    let file = |name: String| pki(&name).display().to_string();
    let text = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": {"server": API_SERVER, "certificate-authority": file("ca.crt".into())}}],
        "users": [{"name": name, "user": {
            "client-certificate": file(format!("{name}.crt")), "client-key": file(format!("{name}.key")),
        }}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": name}}],
        "current-context": "cluster",
    });
    let path = pki(&format!("{name}.kubeconfig"));
    fs::write(&path, format!("{text:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}
