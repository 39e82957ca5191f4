//! Settings of the kernel's own conntrack. Nothing of Bascule's uses it; others on a
//! node do, a CNI that masquerades above all, and they count on kube-proxy to size it.
//! kubernetes v1.36.3, pkg/proxy/conntrack/sysctls.go.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time;

/// What one setting is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sysctl {
    /// Its name below `net.netfilter`.
    pub name: &'static str,
    /// Its value.
    pub value: i64,
    /// More than this is left alone.
    pub at_least: bool,
}

/// What to set, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The directory of `net.netfilter`.
    pub dir: PathBuf,
    /// The settings, in the order in which they are made.
    pub sysctls: Vec<Sysctl>,
}

/// Where a process of the host finds them.
pub const DIR: &str = "/proc/sys/net/netfilter";
/// Is there when the kernel has conntrack.
const PRESENT: &str = "nf_conntrack_max";
/// How often it is looked for until then. A rule of somebody's that needs it may load
/// it long after the agent has started.
const LOOK: Duration = Duration::from_secs(10);

/// Makes the settings once the kernel has conntrack, which is not loaded for it.
pub async fn make(settings: Settings) {
    while !settings.dir.join(PRESENT).exists() {
        time::sleep(LOOK).await;
    }
    for sysctl in &settings.sysctls {
        match sysctl.make(&settings.dir) {
            Ok(None) => {}
            Ok(Some(before)) => {
                let Sysctl { name, value, .. } = sysctl;
                tracing::info!("net.netfilter.{name} was {before} and is {value} now");
            }
            Err(warning) => tracing::warn!("{warning}"),
        }
    }
}

impl Sysctl {
    /// Sets it, unless it is right: returns what it was.
    ///
    /// # Errors
    /// It cannot be read or written: a sentence with the remedy.
    pub fn make(&self, dir: &Path) -> Result<Option<i64>, String> {
        let Self { name, value, .. } = self;
        let path = dir.join(name);
        let remedy = |found: &str, error: io::Error| {
            format!(
                "net.netfilter.{name} is {found}, and cannot be made {value}: {}: {error}; run `sysctl -w net.netfilter.{name}={value}` on the node, or name a directory by which the agent may with --netfilter-sysctls",
                path.display()
            )
        };
        let text = fs::read_to_string(&path).map_err(|e| remedy("not known", e))?;
        let found = text.trim();
        let before: i64 = found
            .parse()
            .map_err(|_| remedy(found, io::ErrorKind::InvalidData.into()))?;
        if before == *value || (self.at_least && before > *value) {
            return Ok(None);
        }
        fs::write(&path, value.to_string()).map_err(|e| remedy(found, e))?;
        Ok(Some(before))
    }
}

/// How many CPUs run, whatever this process may use of them. In a container that is
/// another number (kubernetes#99225).
pub fn cpus() -> i64 {
    let online = fs::read_to_string("/sys/devices/system/cpu/online");
    let count = online.ok().and_then(|text| count(text.trim()));
    count.unwrap_or_else(|| {
        let own = std::thread::available_parallelism();
        own.map_or(1, |n| i64::try_from(n.get()).unwrap_or(i64::MAX))
    })
}

/// The length of a list such as `0-3,6` (Documentation/admin-guide/cputopology.rst).
fn count(list: &str) -> Option<i64> {
    let range = |text: &str| -> Option<i64> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (i64, i64) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(last - first + 1)
    };
    list.split(',').map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn sysctl(value: i64, at_least: bool) -> Sysctl {
        Sysctl {
            name: "nf_conntrack_max",
            value,
            at_least,
        }
    }

    #[test]
    fn what_differs_is_set_and_a_size_only_raised() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nf_conntrack_max");
        for (before, wanted, after) in [
            (65_536, sysctl(131_072, true), 131_072),
            (262_144, sysctl(131_072, true), 262_144),
            (131_072, sysctl(131_072, true), 131_072),
            (432_000, sysctl(86_400, false), 86_400),
            (60, sysctl(3_600, false), 3_600),
        ] {
            fs::write(&path, format!("{before}\n")).unwrap();
            let changed = wanted.make(dir.path()).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.trim(), after.to_string(), "{before} {wanted:?}");
            assert_eq!(changed, (before != after).then_some(before));
        }
    }

    #[test]
    fn what_cannot_be_set_is_named_with_its_value_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = sysctl(131_072, true);
        let missing = wanted.make(dir.path()).unwrap_err();
        assert!(missing.contains("is not known"), "{missing}");
        let path = dir.path().join("nf_conntrack_max");
        fs::write(&path, "many\n").unwrap();
        let odd = wanted.make(dir.path()).unwrap_err();
        assert!(odd.contains("is many"), "{odd}");
        // A directory can be read by nobody, and by root neither.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let refused = wanted.make(dir.path()).unwrap_err();
        for words in [
            "net.netfilter.nf_conntrack_max",
            "`sysctl -w net.netfilter.nf_conntrack_max=131072`",
            "--netfilter-sysctls",
        ] {
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn lists_of_cpus_are_counted() {
        for (list, expected) in [
            ("0", Some(1)),
            ("0-3", Some(4)),
            ("0-1,4,6-7", Some(5)),
            ("", None),
            ("3-1", None),
            ("0-x", None),
        ] {
            assert_eq!(count(list), expected, "{list}");
        }
        assert!(cpus() >= 1);
    }
}
