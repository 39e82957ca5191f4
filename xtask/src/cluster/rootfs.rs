//! The files of images: a small Debian for the tests' pods, and the first process of a pod.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::images::{copy, write};
use super::tools;
use super::topology::source;
use crate::cache::remake;
use crate::debian::list;
use crate::sh::Sh;

/// What the tests call in their pods.
pub(super) const PACKAGES: [&str; 10] = [
    "busybox-static",
    "bash",
    "curl",
    "netcat-openbsd",
    "bind9-dnsutils",
    "iproute2",
    "iperf",
    "ca-certificates",
    "libc-bin",
    "conntrack",
];
/// Packages that these depend on only to be installed, by the beginning of their names.
const NOT_NEEDED: [&str; 12] = [
    "perl",
    "libperl",
    "systemd",
    "libpython",
    "python",
    "debconf",
    "krb5",
    "gcc-",
    "dpkg_",
    "tar_",
    "adduser",
    "passwd",
];
/// Files of `tests/cluster/rootfs`.
pub(super) const OWN: [&str; 4] = [
    "etc/passwd",
    "etc/group",
    "etc/nsswitch.conf",
    "usr/bin/wget",
];
/// Documentation and translations.
const EXCLUDED: [&str; 4] = [
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/locale",
    "./usr/share/info",
];

/// Fills the root directory of agnhost's image.
///
/// # Errors
/// A package cannot be had or unpacked.
pub(super) fn agnhost(root: &Path, scratch: &Path) -> Result<()> {
    skeleton(root)?;
    let packages = scratch.join("packages");
    fetch(&packages, scratch)?;
    for package in list(&packages)? {
        let name = package
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.ends_with(".deb") && !NOT_NEEDED.iter().any(|n| name.starts_with(n)) {
            unpack(&package, root)?;
        }
    }
    applets(root)?;
    // Debian's busybox prefers its own applets to programs on the PATH, and they lack options.
    link("bash", &root.join("usr/bin/sh"))?;
    link("nc.openbsd", &root.join("usr/bin/nc"))?;
    link("/usr/bin/iperf", &root.join("usr/local/bin/iperf"))?;
    for name in OWN {
        let place = root.join(name);
        let _ = fs::remove_file(&place);
        copy(&source().join("rootfs").join(name), &place)?;
    }
    copy(&tools::program("agnhost"), &root.join("agnhost"))?;
    link("agnhost", &root.join("agnhost-2"))?;
    // Tests of DNS start it as a server of their own names.
    copy(&tools::COREDNS.path("coredns"), &root.join("coredns"))?;
    let porter = kubernetes_source()?.join("test/images/agnhost/porter");
    for name in ["localhost.crt", "localhost.key"] {
        let place = root.join(name);
        copy(&porter.join(name), &place)?;
        mode(&place, 0o644)?;
    }
    Ok(())
}

/// Compiles the program that holds a pod's namespaces and reaps its orphans.
///
/// # Errors
/// It does not compile.
pub(super) fn pause(root: &Path) -> Result<()> {
    Sh::new("gcc")
        .args(["-Os", "-static", "-DVERSION=cluster", "-o"])
        .arg(root.join("pause"))
        .arg(kubernetes_source()?.join("build/pause/linux/pause.c"))
        .run_quietly("compiling pause")
}

/// Where Go keeps the source of Kubernetes.
fn kubernetes_source() -> Result<PathBuf> {
    Sh::new("go")
        .args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"])
        .dir(&source().join("kubernetes"))
        .read()
        .map(PathBuf::from)
}

fn skeleton(root: &Path) -> Result<()> {
    for dir in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "usr/local/bin",
        "etc",
        "tmp",
        "proc",
        "sys",
        "dev",
        "run",
        "var/lib",
        "uploads",
        "root",
    ] {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    mode(&root.join("tmp"), 0o1777)?;
    ["bin", "sbin", "lib", "lib64"]
        .iter()
        .try_for_each(|dir| link(&format!("usr/{dir}"), &root.join(dir)))
}

/// Fetches the packages with all that they depend on: as if none were installed.
fn fetch(packages: &Path, scratch: &Path) -> Result<()> {
    remake(&packages.join("partial"))?;
    let state = scratch.join("apt");
    remake(&state)?;
    write(&state.join("status"), "")?;
    let option = |name: &str, value: &Path| format!("-oDir::{name}={}", value.display());
    Sh::new("apt-get")
        .arg(option("State::status", &state.join("status")))
        .arg(option("Cache", &state))
        .arg(option("Cache::archives", packages))
        .args([
            "-oAPT::Install-Recommends=0",
            "-oAPT::Sandbox::User=root",
            "-qq",
            "--yes",
            "--download-only",
            "install",
        ])
        .args(PACKAGES)
        .run_quietly("fetching the packages of the tests' image")
}

fn unpack(package: &Path, root: &Path) -> Result<()> {
    let plain = root.with_extension("package");
    let file =
        fs::File::create(&plain).with_context(|| format!("cannot write {}", plain.display()))?;
    let status = std::process::Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(file)
        .status()
        .context("cannot start dpkg-deb")?;
    anyhow::ensure!(
        status.success(),
        "dpkg-deb cannot read {}",
        package.display()
    );
    Sh::new("tar")
        .args(["--extract", "--keep-directory-symlink", "--directory"])
        .arg(root)
        .args(EXCLUDED.map(|e| format!("--exclude={e}")))
        .arg("--file")
        .arg(&plain)
        .read()?;
    fs::remove_file(&plain).with_context(|| format!("cannot remove {}", plain.display()))
}

/// Busybox under all its names that nothing else has.
fn applets(root: &Path) -> Result<()> {
    let names = Sh::new(root.join("usr/bin/busybox")).arg("--list").read()?;
    for name in names.lines() {
        let taken = |dir: &str| root.join(dir).join(name).symlink_metadata().is_ok();
        if !taken("usr/bin") && !taken("usr/sbin") {
            link("busybox", &root.join("usr/bin").join(name))?;
        }
    }
    Ok(())
}

fn link(target: &str, place: &Path) -> Result<()> {
    let _ = fs::remove_file(place);
    symlink(target, place).with_context(|| format!("cannot make {}", place.display()))
}

fn mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot change the mode of {}", path.display()))
}
