//! `cargo xtask run --l7`: the proxy of Ingresses in pods of the lab, behind a Service that the
//! agents serve. The manifests of `examples/l7` are fed beside the user's, and a Secret for every
//! certificate that an Ingress names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::manifest::{self, Manifests};
use super::netns::spawn;
use super::node::{says_ok, tail};
use super::topology::{Pod, STATE_DIR};
use crate::paths;
use crate::sh::Sh;

/// Where the proxy says how it is, in its pod's namespace.
const ADMIN: &str = "127.0.0.1:10254";
/// Lines of a log that an error shows.
const TAIL: usize = 8;

/// Where agents and proxies read manifests.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// The user's directory.
    user: PathBuf,
    /// With the proxy: its manifests, and where those of both are put together.
    joined: Option<(PathBuf, PathBuf)>,
}

impl Sources {
    /// The user's directory, and with `l7` what the proxy needs besides.
    pub(crate) fn new(user: PathBuf, l7: bool) -> Self {
        let own = paths::root().join("examples/l7");
        let joined = l7.then(|| (own, dir().join("manifests")));
        Self { user, joined }
    }

    /// Whether there is a proxy.
    pub(crate) fn l7(&self) -> bool {
        self.joined.is_some()
    }

    /// The directories whose manifests may be changed meanwhile.
    pub(crate) fn places(&self) -> Vec<&Path> {
        let own = self.joined.iter().map(|(own, _)| own.as_path());
        std::iter::once(self.user.as_path()).chain(own).collect()
    }

    /// The directory that is read.
    pub(crate) fn fed(&self) -> &Path {
        self.joined.as_ref().map_or(&self.user, |(_, fed)| fed)
    }

    /// What is there now, before any of it is fed.
    ///
    /// # Errors
    /// A manifest cannot be read.
    pub(crate) fn read(&self) -> Result<Manifests> {
        let mut all = Manifests::read(&self.user)?;
        if let Some((own, _)) = &self.joined {
            all.add(Manifests::read(own)?);
        }
        Ok(all)
    }

    /// Puts together what is fed, with the certificates that these manifests name.
    ///
    /// # Errors
    /// A file cannot be written, or there is no openssl.
    pub(crate) fn feed(&self, manifests: &Manifests) -> Result<()> {
        let Some((own, fed)) = &self.joined else {
            return Ok(());
        };
        fs::create_dir_all(fed).with_context(|| format!("cannot make {}", fed.display()))?;
        let secrets = fed.join("lab-secrets.json");
        replace(&secrets, &make_secrets(manifests)?)?;
        let mut wanted = vec![secrets];
        for dir in [own, &self.user] {
            for file in manifest::files(dir)? {
                let name = file.file_name().unwrap_or_default();
                let text = fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                replace(&fed.join(name), &text)?;
                wanted.push(fed.join(name));
            }
        }
        for gone in manifest::files(fed)?.iter().filter(|f| !wanted.contains(f)) {
            fs::remove_file(gone).with_context(|| format!("cannot remove {}", gone.display()))?;
        }
        Ok(())
    }

    /// What changes whenever a file does.
    pub(crate) fn fingerprint(&self) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
        let places = self.places().into_iter();
        places.flat_map(manifest::fingerprint).collect()
    }
}

/// The proxy's files.
fn dir() -> PathBuf {
    Path::new(STATE_DIR).join("l7")
}

/// The certificates of all hosts, for clients.
pub(crate) fn certificates() -> PathBuf {
    dir().join("certificates.pem")
}

/// Writes a file as a whole, if it is another than what is there: who follows the directory reads
/// no half of it.
fn replace(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Names that begin with a dot do not count.
    let partial = path.with_file_name(format!(".{name}"));
    fs::write(&partial, text)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The Secrets that Ingresses name, as a manifest; each has a certificate for its hosts.
fn make_secrets(manifests: &Manifests) -> Result<String> {
    let (mut secrets, mut certificates) = (Vec::new(), String::new());
    for ingress in &manifests.ingresses {
        for tls in ingress.tls().iter().filter(|t| !t.secret_name.is_empty()) {
            let stem = format!("{}.{}", ingress.namespace, tls.secret_name);
            let (certificate, key) = certificate(&stem, &tls.hosts)?;
            certificates.push_str(&certificate);
            secrets.push(json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                "metadata": {"name": tls.secret_name, "namespace": ingress.namespace},
                "stringData": {"tls.crt": certificate, "tls.key": key},
            }));
        }
    }
    replace(&self::certificates(), &certificates)?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": secrets});
    Ok(list.to_string())
}

/// A certificate that nobody else has signed, and its key, in PEM; the same as before if it is
/// there.
fn certificate(stem: &str, hosts: &[String]) -> Result<(String, String)> {
    let file = |end: &str| dir().join(format!("{stem}.{end}"));
    let names: Vec<_> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
    let names = format!("subjectAltName={}", names.join(","));
    let (key, out, said) = (file("key"), file("crt"), file("names"));
    if fs::read_to_string(&said).ok().as_ref() != Some(&names) {
        Sh::new("openssl")
            .args(["req", "-x509", "-new", "-nodes", "-days", "30"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", "/CN=bascule-lab", "-addext", &names, "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&out)
            .read()
            .context("cannot make a certificate for an Ingress: install openssl 3.0 or newer")?;
        replace(&said, &names)?;
    }
    let text = |file: &Path| {
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    };
    Ok((text(&out)?, text(&key)?))
}

/// Where the proxy's output goes.
pub(crate) fn log(pod: Pod) -> PathBuf {
    dir().join(format!("{}.log", pod.name()))
}

/// Starts the proxy in a pod.
///
/// # Errors
/// It cannot be started, or its log cannot be made.
pub(crate) fn start(pod: Pod, bascule: &Path, manifests: &Path, cgroup: &Path) -> Result<Child> {
    let log = log(pod);
    let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    let errors = file.try_clone();
    let mut command = Command::new(bascule);
    command
        .arg("proxy")
        .arg("--source")
        .arg(manifests)
        .args(["--admin", ADMIN])
        .stdin(Stdio::null())
        .stdout(errors.context("cannot duplicate the log's descriptor")?)
        .stderr(file);
    spawn(command, &pod.netns(), cgroup)
}

/// Whether the proxy of a pod says that it serves.
pub(crate) fn ready(pod: Pod) -> bool {
    says_ok(&pod.netns(), ADMIN, "/readyz")
}

/// Says that a proxy is not as it should be, why, and what to do.
///
/// # Errors
/// Always.
pub(crate) fn fail(pod: Pod, what: &str) -> Result<()> {
    let tail = tail(&log(pod), TAIL);
    bail!(
        "the proxy in pod {} {what}: correct what the end of its log says, or run the lab without --l7\n  | {tail}",
        pod.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_proxy_the_users_directory_is_read() {
        let user = PathBuf::from("/x");
        let alone = Sources::new(user.clone(), false);
        assert_eq!((alone.fed(), alone.l7()), (user.as_path(), false));
        let joined = Sources::new(user.clone(), true);
        assert_eq!(joined.fed(), Path::new("/run/bascule-lab/l7/manifests"));
        assert_eq!(joined.places()[0], user);
        assert!(joined.places()[1].ends_with("examples/l7"));
    }

    #[test]
    fn a_file_that_is_the_same_is_left_alone() {
        let dir = std::env::temp_dir().join(format!("bascule-replace-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.yaml");
        replace(&path, "x").unwrap();
        let before = manifest::fingerprint(&dir);
        replace(&path, "x").unwrap();
        assert_eq!(manifest::fingerprint(&dir), before);
        replace(&path, "xy").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "xy");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}
