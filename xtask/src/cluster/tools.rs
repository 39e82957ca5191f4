//! What a cluster is made of, built or fetched once: Go programs from their modules at pinned
//! versions, and packages of Debian, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::topology::{KUBERNETES, bin, cache, debian, source};
use crate::setup::Unfit;
use crate::sh::{Sh, which};
use crate::{paths, ui};

/// Commands that building and running need, and the Debian packages that have them.
const COMMANDS: [(&str, &str); 9] = [
    ("gcc", "gcc"),
    ("pkg-config", "pkg-config"),
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("tar", "tar"),
    ("openssl", "openssl"),
    // The kubelet's and the CNI plugins'.
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("curl", "curl"),
];
/// Kubernetes' programs, by package.
const KUBERNETES_PROGRAMS: [&str; 8] = [
    "k8s.io/kubernetes/cmd/kubelet",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-scheduler",
    "k8s.io/kubernetes/cmd/kube-proxy",
    "k8s.io/kubernetes/cmd/kubectl",
    "k8s.io/kubernetes/test/images/agnhost",
    "k8s.io/kubernetes/test/images/regression-issue-74839",
    "github.com/onsi/ginkgo/v2/ginkgo",
];
/// Packages of Debian's unstable suite: stable's containerd is too old for this kubelet.
const UNSTABLE: [&str; 2] = ["containerd", "containernetworking-plugins"];

/// kube-apiserver, which the tests against an API server use as well.
pub(crate) fn apiserver() -> PathBuf {
    paths::tools().join("kubernetes/kube-apiserver")
}

/// etcd, of the same place.
pub(crate) fn etcd() -> PathBuf {
    paths::tools().join("kubernetes/etcd")
}

/// Makes everything that is missing.
///
/// # Errors
/// [`Unfit`] for a command that is missing; else what could not be built or fetched.
pub(crate) fn ensure() -> Result<()> {
    commands()?;
    if !apiserver().is_file() || !etcd().is_file() {
        Sh::new("bash")
            .arg(paths::root().join("tests/src/e2e/kubernetes.sh"))
            .arg(paths::tools().join("kubernetes"))
            .run_quietly("building kube-apiserver, fetching etcd")?;
    }
    fs::create_dir_all(bin()).with_context(|| format!("cannot make {}", bin().display()))?;
    kubernetes()?;
    suite()?;
    coredns()?;
    if !debian().join("usr/bin/containerd").is_file() {
        unstable()?;
    }
    runc()
}

/// Only ginkgo and the suite: what testing another cluster needs.
///
/// # Errors
/// One cannot be built.
pub(crate) fn ensure_suite() -> Result<()> {
    go_command()?;
    fs::create_dir_all(bin()).with_context(|| format!("cannot make {}", bin().display()))?;
    build_missing(&[
        "k8s.io/kubernetes/cmd/kubectl",
        "github.com/onsi/ginkgo/v2/ginkgo",
    ])?;
    suite()
}

fn commands() -> Result<()> {
    go_command()?;
    let missing: Vec<_> = COMMANDS
        .iter()
        .filter(|(c, _)| which(c).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    Err(Unfit::new(format!(
        "as root: `apt-get install {}`: the cluster needs them",
        packages.join(" ")
    ))
    .into())
}

fn go_command() -> Result<()> {
    if which("go").is_some() {
        return Ok(());
    }
    Err(
        Unfit::new("Go is not installed (https://go.dev/dl): it builds Kubernetes and its tests")
            .into(),
    )
}

/// Go in one of the cluster's modules, as it is pinned there. One setting for CGO: with two,
/// what the programs share would be compiled twice.
fn go(module: &str, command: &str) -> Sh {
    Sh::new("go")
        .args([command, "-trimpath", "-buildvcs=false"])
        .env("CGO_ENABLED", "0")
        .dir(&source().join(module))
}

/// Without these the programs call themselves v0.0.0, and the suite skips what it must not.
fn version_flags() -> String {
    let variable = "k8s.io/component-base/version";
    let mut numbers = KUBERNETES.split('.');
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    format!(
        "-s -w -X {variable}.gitVersion=v{KUBERNETES} -X {variable}.gitMajor={major} \
         -X {variable}.gitMinor={minor} -X {variable}.gitTreeState=clean"
    )
}

fn kubernetes() -> Result<()> {
    build_missing(&KUBERNETES_PROGRAMS)
}

fn build_missing(packages: &[&str]) -> Result<()> {
    let name = |package: &str| package.rsplit('/').next().unwrap_or_default().to_owned();
    let missing: Vec<_> = packages
        .iter()
        .filter(|p| !bin().join(name(p)).is_file())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|p| name(p)).collect();
    go("kubernetes", "build")
        .args(["-ldflags", &version_flags(), "-o"])
        .arg(format!("{}/", bin().display()))
        .args(&missing)
        .run_quietly(&format!(
            "building {} of Kubernetes {KUBERNETES}",
            names.join(", ")
        ))
}

/// The suite is a test program.
fn suite() -> Result<()> {
    let program = bin().join("e2e.test");
    if program.is_file() {
        return Ok(());
    }
    go("kubernetes", "test")
        .args(["-c", "-ldflags", &version_flags(), "-o"])
        .arg(&program)
        .arg("k8s.io/kubernetes/test/e2e")
        .run_quietly(&format!("building the tests of Kubernetes {KUBERNETES}"))
}

fn coredns() -> Result<()> {
    let program = bin().join("coredns");
    if program.is_file() {
        return Ok(());
    }
    go("coredns", "build")
        .args(["-ldflags", "-s -w", "-o"])
        .arg(&program)
        .arg(".")
        .run_quietly("building CoreDNS")
}

/// runc with seccomp: containerd gives every sandbox a profile. The library is linked in, from
/// Debian's development package of this machine's suite.
fn runc() -> Result<()> {
    let program = bin().join("runc");
    if program.is_file() {
        return Ok(());
    }
    let library = cache().join("libseccomp");
    if !library.join("usr/include/seccomp.h").is_file() {
        let packages = cache().join("packages");
        remake(&packages)?;
        download(Sh::new("apt-get"), &packages, &["libseccomp-dev"])?;
        unpack(&packages, &library)?;
    }
    let usr = library.join("usr");
    let (libraries, pkgconfig) = find_pkgconfig(&usr.join("lib"))?;
    go("runc", "build")
        .env("CGO_ENABLED", "1")
        .env("PKG_CONFIG_PATH", pkgconfig)
        .env(
            "CGO_CFLAGS",
            format!("-O2 -I{}", usr.join("include").display()),
        )
        .env("CGO_LDFLAGS", format!("-L{}", libraries.display()))
        .args(["-tags", "netgo osusergo seccomp"])
        .args(["-ldflags", "-s -w -extldflags -static", "-o"])
        .arg(&program)
        .arg("github.com/opencontainers/runc")
        .run_quietly("building runc")
}

/// Where the unpacked libraries are: a directory named after the machine, and pkg-config's
/// below it.
fn find_pkgconfig(lib: &Path) -> Result<(PathBuf, PathBuf)> {
    let entries = fs::read_dir(lib).with_context(|| format!("cannot read {}", lib.display()))?;
    entries
        .flatten()
        .map(|e| (e.path(), e.path().join("pkgconfig")))
        .find(|(_, p)| p.join("libseccomp.pc").is_file())
        .with_context(|| format!("no libseccomp.pc below {}", lib.display()))
}

/// Packages of the unstable suite of the mirror that this machine uses, by lists apart from
/// the machine's own.
fn unstable() -> Result<()> {
    let dir = cache().join("apt");
    remake(&dir.join("lists/partial"))?;
    remake(&dir.join("cache/archives/partial"))?;
    let sources = format!(
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} sid main\n",
        mirror()?
    );
    let settings = format!(
        "Dir::State::Lists \"{0}/lists\";\nDir::Cache \"{0}/cache\";\nDir::Etc::SourceList \"{0}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\nAPT::Sandbox::User \"root\";\n",
        dir.display()
    );
    let file = dir.join("apt.conf");
    for (path, text) in [
        (dir.join("sources.list"), sources),
        (file.clone(), settings),
    ] {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let apt = || Sh::new("apt-get").arg("-c").arg(&file);
    apt()
        .args(["-qq", "update"])
        .run_quietly("reading the package lists of Debian unstable")?;
    let packages = cache().join("packages");
    remake(&packages)?;
    download(apt(), &packages, &UNSTABLE)?;
    unpack(&packages, &debian())?;
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// The Debian mirror of this machine.
fn mirror() -> Result<String> {
    let ask = || {
        let lines = Sh::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI) $(LABEL)"])
            .read()?;
        let found = lines
            .lines()
            .find_map(|l| l.strip_suffix(" Debian"))
            .map(str::to_owned);
        anyhow::Ok(found)
    };
    if let Some(found) = ask()? {
        return Ok(found);
    }
    Sh::new("apt-get")
        .args(["-qq", "update"])
        .run_quietly("reading the package lists")?;
    ask()?.context("no Debian mirror is configured on this machine (/etc/apt/sources.list)")
}

fn download(apt: Sh, dir: &Path, packages: &[&str]) -> Result<()> {
    apt.arg("-qq")
        .arg("download")
        .args(packages)
        .dir(dir)
        .run_quietly(&format!("fetching {}", packages.join(", ")))
}

/// Unpacks all packages of a directory, and removes them.
fn unpack(packages: &Path, into: &Path) -> Result<()> {
    for package in list(packages)? {
        Sh::new("dpkg-deb")
            .arg("--extract")
            .arg(&package)
            .arg(into)
            .read()?;
    }
    fs::remove_dir_all(packages).with_context(|| format!("cannot remove {}", packages.display()))
}

/// The files of a directory, in order.
///
/// # Errors
/// It cannot be read.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<_> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    Ok(files)
}

/// Makes a directory that has nothing in it.
///
/// # Errors
/// It cannot be made or emptied.
pub(crate) fn remake(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Says where the programs are, once all are there.
pub(crate) fn report() {
    ui::say(format!(
        "the cluster's programs and images: {}",
        cache().display()
    ));
}
