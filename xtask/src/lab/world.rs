//! The lab as a whole: brought up, asked for health, given routes, and taken down when it is
//! dropped, however that comes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::manifest::Manifests;
use super::netns::ip;
use super::rows::vip_routes;
use super::signals;
use super::teardown::{self, Lock};
use super::topology::{Node, Place, Pod, fabric_netns};
use super::{l7, node, pod};
use crate::ui;

/// How long the agents get until they say that they serve.
const READY: Duration = Duration::from_secs(60);

/// A lab that is up.
#[derive(Debug)]
pub(crate) struct Lab {
    cgroup: PathBuf,
    agents: Vec<(Node, Child)>,
    proxies: Vec<(Pod, Child)>,
    servers: Vec<Child>,
    routes: BTreeMap<IpAddr, Vec<Node>>,
    down: bool,
    _lock: Lock,
}

impl Lab {
    /// Clears away what a killed lab left, and brings up namespaces, devices and servers.
    ///
    /// # Errors
    /// Another lab runs, or something could not be made; nothing is left then.
    pub(crate) fn up() -> Result<Self> {
        let lock = Lock::take()?;
        if !teardown::leftovers().is_empty() {
            ui::warn("an earlier lab was killed: clearing away what it left");
            teardown::remove_all()?;
            // The directory went, too: the lock must be on the new one.
            drop(lock);
            return Self::up();
        }
        let cgroup = teardown::cgroup()?;
        let mut lab = Self {
            cgroup,
            agents: Vec::new(),
            proxies: Vec::new(),
            servers: Vec::new(),
            routes: BTreeMap::new(),
            down: false,
            _lock: lock,
        };
        // From here on, dropping it takes down what there is.
        lab.make()?;
        Ok(lab)
    }

    fn make(&mut self) -> Result<()> {
        self.make_cgroups()?;
        node::make_fabric()?;
        for node in Node::ALL {
            signals::check()?;
            node::make(node)?;
            node::make_files(node)?;
        }
        for place in [Place::Outside, Place::Stranger] {
            node::make_host(&place.netns(), place.label(), place.addrs(), false)?;
        }
        for pod in Pod::all() {
            signals::check()?;
            pod::make(pod)?;
            self.servers.push(pod::serve(pod, &self.pod_cgroup(pod))?);
        }
        Ok(())
    }

    fn make_cgroups(&self) -> Result<()> {
        let mut dirs = vec![self.cgroup.join("outside")];
        for node in Node::ALL {
            dirs.extend(
                ["host", "a", "b", "c"].map(|name| self.cgroup.join(node.name()).join(name)),
            );
        }
        dirs.iter().try_for_each(|dir| {
            fs::create_dir_all(dir)
                .with_context(|| format!("cannot make the cgroup {}", dir.display()))
        })
    }

    fn pod_cgroup(&self, pod: Pod) -> PathBuf {
        let name = pod.device().replace("pod-", "");
        self.cgroup.join(pod.node.name()).join(name)
    }

    /// Where a cgroup of the lab is.
    pub(crate) fn cgroup(&self, below: &str) -> PathBuf {
        self.cgroup.join(below)
    }

    /// Starts the agents and waits until each says that it serves.
    ///
    /// # Errors
    /// One ended or is not ready in time: the error shows the end of its log.
    pub(crate) fn start_agents(&mut self, bascule: &Path, manifests: &Path) -> Result<()> {
        for node in Node::ALL {
            let child = node::start_agent(node, bascule, manifests, &self.cgroup(&node.name()))?;
            self.agents.push((node, child));
        }
        let end = Instant::now() + READY;
        for node in Node::ALL {
            while !node::healthy(node) {
                signals::check()?;
                self.check_agents()?;
                if Instant::now() > end {
                    let tail = node::log_tail(node);
                    bail!(
                        "the agent of {} is not ready after {} s; its log ends:\n  | {tail}",
                        node.name(),
                        READY.as_secs()
                    );
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Whether all agents are alive.
    ///
    /// # Errors
    /// One ended: the error shows the end of its log.
    pub(crate) fn check_agents(&mut self) -> Result<()> {
        for (node, child) in &mut self.agents {
            if let Some(status) = child
                .try_wait()
                .context("cannot ask for an agent's state")?
            {
                let tail = node::log_tail(*node);
                bail!(
                    "the agent of {} ended ({status}); its log ends:\n  | {tail}",
                    node.name()
                );
            }
        }
        Ok(())
    }

    /// Starts the proxies, in the pods that are endpoints of their Service, and waits until each
    /// says that it serves.
    ///
    /// # Errors
    /// One ended or is not ready in time: the error shows the end of its log.
    pub(crate) fn start_proxies(
        &mut self,
        bascule: &Path,
        manifests: &Manifests,
        fed: &Path,
    ) -> Result<()> {
        let fronts = manifests.services.iter().filter(|s| s.is_proxy);
        let pods = fronts.flat_map(|front| manifests.ready_pods(&front.name));
        for pod in pods.collect::<BTreeSet<_>>() {
            let child = l7::start(pod, bascule, fed, &self.pod_cgroup(pod))?;
            self.proxies.push((pod, child));
        }
        let end = Instant::now() + READY;
        for pod in self.proxies.iter().map(|(pod, _)| *pod).collect::<Vec<_>>() {
            while !l7::ready(pod) {
                signals::check()?;
                self.check_proxies()?;
                if Instant::now() > end {
                    l7::fail(pod, &format!("is not ready after {} s", READY.as_secs()))?;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Whether all proxies are alive.
    ///
    /// # Errors
    /// One ended: the error shows the end of its log.
    pub(crate) fn check_proxies(&mut self) -> Result<()> {
        for (pod, child) in &mut self.proxies {
            let state = child.try_wait().context("cannot ask for a proxy's state")?;
            if let Some(status) = state {
                l7::fail(*pod, &format!("ended ({status})"))?;
            }
        }
        Ok(())
    }

    /// Process ids of the agents.
    pub(crate) fn agent_pids(&self) -> Vec<u32> {
        self.agents.iter().map(|(_, child)| child.id()).collect()
    }

    /// Gives the fabric its routes to the addresses of the manifests: it is the router
    /// that hosts outside send them to. (A host that chose among equal routes itself would
    /// send the resets of its stack by another one than the connection's packets.)
    ///
    /// # Errors
    /// A route cannot be set.
    pub(crate) fn route_vips(&mut self, manifests: &Manifests) -> Result<()> {
        let wanted = vip_routes(manifests);
        let mut script = String::new();
        for vip in self.routes.keys().filter(|vip| !wanted.contains_key(vip)) {
            script.push_str(&format!("route del {vip}\n"));
        }
        for (vip, nodes) in wanted
            .iter()
            .filter(|(vip, nodes)| self.routes.get(vip) != Some(*nodes))
        {
            script.push_str(&format!("route replace {vip}"));
            for node in nodes {
                script.push_str(&format!(" nexthop via {}", node.addrs().of_family(*vip)));
            }
            script.push('\n');
        }
        if !script.is_empty() {
            ip(Some(&fabric_netns()), &script)?;
        }
        self.routes = wanted;
        Ok(())
    }

    /// Takes everything down.
    ///
    /// # Errors
    /// Something is left: the error lists it.
    pub(crate) fn down(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        self.down = true;
        let children = self
            .servers
            .iter_mut()
            .chain(self.agents.iter_mut().map(|(_, child)| child))
            .chain(self.proxies.iter_mut().map(|(_, child)| child));
        for child in children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        teardown::remove_all()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.down
            && let Err(error) = self.take_down()
        {
            ui::error(format!("{error:#}"));
        }
    }
}
