//! What a cluster is made of, built or fetched once into the cache: Go programs from their
//! modules at pinned versions, and packages of Debian, unpacked and not installed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::golang::{self, Programs, RUNC};
use super::topology::KUBERNETES;
use crate::cache::{self, Entry};
use crate::debian::{self, Unstable};
use crate::setup::packages;
use crate::ui;

/// What tests use without a cluster as well; etcd lies beside it.
const API: Programs = Programs {
    name: "kube-apiserver",
    module: "kubernetes",
    packages: &[
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-proxy",
    ],
    test: None,
};
/// The other programs of Kubernetes, and those of images of the tests.
const PROGRAMS: Programs = Programs {
    name: "kubernetes",
    module: "kubernetes",
    packages: &[
        "k8s.io/kubernetes/cmd/kubelet",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/test/images/agnhost",
        "k8s.io/kubernetes/test/images/regression-issue-74839",
    ],
    test: None,
};
/// The tests, and what runs them on any cluster.
const SUITE: Programs = Programs {
    name: "kubernetes-e2e",
    module: "kubernetes",
    packages: &[
        "k8s.io/kubernetes/cmd/kubectl",
        "github.com/onsi/ginkgo/v2/ginkgo",
    ],
    test: Some(("e2e.test", "k8s.io/kubernetes/test/e2e")),
};
/// Cluster DNS.
pub(super) const COREDNS: Programs = Programs {
    name: "coredns",
    module: "coredns",
    packages: &["example.com/coredns"],
    test: None,
};
/// What `auth-url` of the proxy of Ingresses is tested with; no part of a cluster.
const OAUTH2_PROXY: Programs = Programs {
    name: "oauth2-proxy",
    module: "oauth2-proxy",
    packages: &["github.com/oauth2-proxy/oauth2-proxy/v7"],
    test: None,
};
/// Packages of Debian's unstable suite: stable's containerd is too old for this kubelet.
const PACKAGES: [&str; 2] = ["containerd", "containernetworking-plugins"];

/// kube-apiserver.
pub(super) fn apiserver() -> PathBuf {
    API.path("kube-apiserver")
}

/// etcd, of the same place.
pub(super) fn etcd() -> PathBuf {
    API.path("etcd")
}

/// kube-proxy.
pub(super) fn kube_proxy() -> PathBuf {
    API.path("kube-proxy")
}

/// A program of Kubernetes, or of an image of the tests.
pub(super) fn program(name: &str) -> PathBuf {
    PROGRAMS.path(name)
}

/// What the images of the tests are made from.
pub(super) fn programs() -> Entry {
    PROGRAMS.entry()
}

/// A program that tests any cluster: kubectl, ginkgo, `e2e.test`.
pub(super) fn suite(name: &str) -> PathBuf {
    SUITE.path(name)
}

/// Directory of runc.
pub(super) fn runc() -> PathBuf {
    RUNC.entry().dir()
}

/// Debian packages, unpacked.
pub(super) fn unpacked() -> PathBuf {
    packaged().dir()
}

fn packaged() -> Entry {
    Entry::new("containerd", PACKAGES)
}

/// Directories of programs that others of the cluster call by name.
pub(super) fn path() -> [PathBuf; 4] {
    [
        PROGRAMS.entry().dir(),
        SUITE.entry().dir(),
        runc(),
        unpacked().join("usr/bin"),
    ]
}

/// Makes everything that is missing.
///
/// # Errors
/// A command of the system is missing and cannot be installed, or something cannot be built
/// or fetched.
pub(super) fn ensure() -> Result<()> {
    packages::ensure(&packages::CLUSTER)?;
    ensure_api()?;
    PROGRAMS.ensure()?;
    SUITE.ensure()?;
    COREDNS.ensure()?;
    golang::runc()?;
    packaged().ensure(|whole, scratch| {
        let unstable = Unstable::open(&scratch.join("apt"))?;
        debian::unpack(unstable.apt(), &PACKAGES, &scratch.join("packages"), whole)
    })?;
    Ok(())
}

/// kube-apiserver, etcd and kube-proxy in one directory, as `KUBEBUILDER_ASSETS` names it.
///
/// # Errors
/// One cannot be built or fetched.
pub(crate) fn ensure_api() -> Result<PathBuf> {
    API.entry().ensure(|whole, scratch| {
        API.build(whole)?;
        let unstable = Unstable::open(&scratch.join("apt"))?;
        let unpacked = scratch.join("etcd");
        debian::unpack(
            unstable.apt(),
            &["etcd-server"],
            &scratch.join("packages"),
            &unpacked,
        )?;
        let place = whole.join("etcd");
        fs::rename(unpacked.join("usr/bin/etcd"), &place)
            .with_context(|| format!("cannot make {}", place.display()))
    })
}

/// The directory of oauth2-proxy.
///
/// # Errors
/// It cannot be built.
pub(crate) fn ensure_oauth2_proxy() -> Result<PathBuf> {
    let entry = OAUTH2_PROXY.entry();
    entry.ensure(|whole, _| OAUTH2_PROXY.build(whole))
}

/// Only what testing another cluster needs.
///
/// # Errors
/// It cannot be built.
pub(super) fn ensure_suite() -> Result<()> {
    SUITE.ensure()
}

/// Says where the programs are, once all are there.
pub(super) fn report() {
    ui::say(format!(
        "the programs and images of Kubernetes {KUBERNETES}: {}",
        cache::root().display()
    ));
}
