//! The node that a takeover happens on: its seam, and the real one.

use std::{
    collections::BTreeSet, fs, io, net::IpAddr, os::unix::fs::MetadataExt as _, path::PathBuf,
};

use crate::{
    bpf::{self, Binding, Datapath, Seeded, Sticky},
    netfilter::{
        affinity::{self, Bound, Endpoint},
        conntrack::{self, Translated},
        kube_proxy::{self, Mode},
    },
};

/// The node's netfilter, and who might write there.
pub trait Host: Send {
    /// The modes whose rules are there.
    ///
    /// # Errors
    /// The kernel does not tell, or refuses; the same holds for the others.
    fn rules(&self) -> io::Result<Vec<Mode>>;
    /// Removes what rules can be removed.
    ///
    /// # Errors
    /// As [`Self::rules`].
    fn remove_rules(&self) -> io::Result<()>;
    /// Makes our own table.
    ///
    /// # Errors
    /// As [`Self::rules`].
    fn keep_nat(&self) -> io::Result<()>;
    /// Whether our own table is there.
    ///
    /// # Errors
    /// As [`Self::rules`].
    fn keeps_nat(&self) -> io::Result<bool>;
    /// Removes our own table.
    ///
    /// # Errors
    /// As [`Self::rules`].
    fn release_nat(&self) -> io::Result<()>;
    /// Connections whose destination the kernel translates.
    ///
    /// # Errors
    /// As [`Self::rules`].
    fn connections(&self) -> io::Result<Vec<Translated>>;
    /// Clients that kube-proxy has bound, to these endpoints where only it knows which.
    ///
    /// # Errors
    /// As [`Self::rules`].
    fn bound(&self, endpoints: &[Endpoint]) -> io::Result<Vec<Bound>>;
    /// Processes that are kube-proxy, as far as they can be seen.
    fn processes(&self) -> Vec<u32>;
    /// Addresses of network namespaces, each with the namespace's cookie.
    fn cookies(&self) -> Vec<(IpAddr, u64)>;
}

/// The datapath's part.
pub trait Flows {
    /// Leaves connections to the kernel.
    ///
    /// # Errors
    /// A map cannot be used; the same holds for the others.
    fn leave(&self, flows: &[Translated]) -> io::Result<Seeded>;
    /// How many of them are left still.
    ///
    /// # Errors
    /// As [`Self::leave`].
    fn count_left(&self, flows: &[Translated]) -> io::Result<usize>;
    /// Forgets those of UDP whose backend is gone.
    ///
    /// # Errors
    /// As [`Self::leave`].
    fn forget_left_udp(&self) -> io::Result<u64>;
    /// The backends of services with affinity.
    ///
    /// # Errors
    /// As [`Self::leave`].
    fn sticky(&self) -> io::Result<BTreeSet<Sticky>>;
    /// Binds clients.
    ///
    /// # Errors
    /// As [`Self::leave`].
    fn bind(&self, bindings: &[Binding], cookies: &[(IpAddr, u64)]) -> io::Result<usize>;
    /// Whether the rules of another proxy are in place.
    ///
    /// # Errors
    /// As [`Self::leave`].
    fn set_beside_rules(&mut self, beside: bool) -> io::Result<()>;
}

/// The network namespace of this process.
#[derive(Debug)]
pub struct Here {
    /// The cgroup whose processes' sockets are served; none where only packets are.
    pub cgroup: Option<PathBuf>,
}

impl Host for Here {
    fn rules(&self) -> io::Result<Vec<Mode>> {
        kube_proxy::find()
    }
    fn remove_rules(&self) -> io::Result<()> {
        kube_proxy::remove()
    }
    fn keep_nat(&self) -> io::Result<()> {
        kube_proxy::keep_nat()
    }
    fn keeps_nat(&self) -> io::Result<bool> {
        kube_proxy::keeps_nat()
    }
    fn release_nat(&self) -> io::Result<()> {
        kube_proxy::release_nat()
    }
    fn connections(&self) -> io::Result<Vec<Translated>> {
        conntrack::translated()
    }
    fn bound(&self, endpoints: &[Endpoint]) -> io::Result<Vec<Bound>> {
        affinity::bound(endpoints)
    }
    fn processes(&self) -> Vec<u32> {
        processes()
    }
    fn cookies(&self) -> Vec<(IpAddr, u64)> {
        let Some(cgroup) = &self.cgroup else {
            return Vec::new();
        };
        bpf::cookies(cgroup).unwrap_or_else(|error| {
            tracing::debug!(%error, "network namespaces cannot be listed");
            Vec::new()
        })
    }
}

/// The name of the process, of 15 characters at most.
const PROGRAM: &str = "kube-proxy";

/// Processes of kube-proxy in this network namespace. One whose namespace may not be
/// looked at counts: better to wait for one too many.
fn processes() -> Vec<u32> {
    let namespace = |path: &str| fs::metadata(path).map(|found| found.ino());
    let own = namespace("/proc/thread-self/ns/net").ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim_end() == PROGRAM
            && match namespace(&format!("/proc/{pid}/ns/net")) {
                Ok(of) => Some(of) == own,
                // It has ended.
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            }
    });
    found.collect()
}

impl Flows for Datapath {
    fn leave(&self, flows: &[Translated]) -> io::Result<Seeded> {
        self.leave(flows).map_err(io::Error::other)
    }
    fn count_left(&self, flows: &[Translated]) -> io::Result<usize> {
        self.count_left(flows).map_err(io::Error::other)
    }
    fn forget_left_udp(&self) -> io::Result<u64> {
        self.forget_left_udp().map_err(io::Error::other)
    }
    fn sticky(&self) -> io::Result<BTreeSet<Sticky>> {
        self.sticky().map_err(io::Error::other)
    }
    fn bind(&self, bindings: &[Binding], cookies: &[(IpAddr, u64)]) -> io::Result<usize> {
        self.bind(bindings, cookies).map_err(io::Error::other)
    }
    fn set_beside_rules(&mut self, beside: bool) -> io::Result<()> {
        self.set_beside_rules(beside).map_err(io::Error::other)
    }
}
