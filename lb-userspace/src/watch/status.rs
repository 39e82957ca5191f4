//! `status.loadBalancer.ingress` of Ingresses: the addresses that lead to the proxy, for their
//! users and for who makes DNS records of them.
//!
//! One of several replicas writes ([`super::lease`]), and only what differs. A replica that ends
//! gives its lead up; if no other one takes it, it was the last, and removes the addresses.
//! Ingress-nginx (v1.15.1, internal/ingress/status) lists pods for that, which takes the right to.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::{core::v1::Service as ApiService, networking::v1::Ingress as ApiIngress};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::watcher::{self, watch_object},
};
use lb_route::input::Name;
use serde_json::{Value, json};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{self, Instant},
};

use super::{
    lease::{Candidate, Term},
    reflect,
    trouble::{describe, status},
};
use crate::{backoff::Backoff, change::Address};

/// How long a write counts that is not seen yet; also how often an Ingress is written that
/// somebody else writes too.
const SETTLE: Duration = Duration::from_secs(30);
/// Between two writes: 100 a second at most.
const EVERY: Duration = Duration::from_millis(10);
/// How long a write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of the proxy may take for the status.
const LAST: Duration = Duration::from_secs(60);
/// Pauses while the API server does not answer.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is written, and by whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where the addresses come from.
    pub addresses: Addresses,
    /// Name of the Lease of who writes (`--election-id`), in the pod's namespace.
    pub election_id: String,
    /// Whether the last replica removes the addresses (`--update-status-on-shutdown`).
    pub on_shutdown: bool,
}

/// Where the addresses of the proxy come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// Of a Service (`--publish-service`).
    Service(Name),
    /// Of the command line (`--publish-status-address`).
    Fixed(Vec<Address>),
}

/// The Ingresses that are ours, and the addresses that they have now.
pub type Ours = Arc<BTreeMap<Name, Vec<Address>>>;

/// An IP address, or else a host name.
pub fn address(text: &str) -> Address {
    let text = text.trim().to_owned();
    match text.parse::<IpAddr>() {
        Ok(_) => Address {
            ip: text,
            ..Address::default()
        },
        Err(_) => Address {
            hostname: text,
            ..Address::default()
        },
    }
}

/// The addresses that lead to a Service: as ingress-nginx v1.15.1 has it
/// (internal/ingress/status/status.go, `statusAddressFromService`), but for a Service without an
/// address, which has none.
fn addresses_of(service: &ApiService) -> Vec<Address> {
    let spec = service.spec.clone().unwrap_or_default();
    let external = || spec.external_ips.iter().flatten().map(|ip| address(ip));
    let cluster = || {
        let ip = spec.cluster_ip.iter();
        ip.filter(|ip| !ip.is_empty() && *ip != "None")
            .map(|ip| address(ip))
    };
    let mut all: Vec<Address> = match spec.type_.as_deref() {
        Some("ExternalName") => spec
            .external_name
            .iter()
            .map(|name| address(name))
            .collect(),
        Some("LoadBalancer") => {
            let balancer = service
                .status
                .as_ref()
                .and_then(|s| s.load_balancer.as_ref());
            let entries = balancer.and_then(|balancer| balancer.ingress.as_deref());
            let entries = entries.unwrap_or_default().iter();
            let entries = entries.map(|entry| Address {
                hostname: entry.hostname.clone().unwrap_or_default(),
                ip: entry.ip.clone().unwrap_or_default(),
            });
            entries.chain(external()).collect()
        }
        Some("NodePort") if spec.external_ips.iter().flatten().next().is_some() => {
            external().collect()
        }
        _ => cluster().collect(),
    };
    all.sort();
    all.dedup();
    all
}

/// The status that has these addresses.
fn patch(addresses: &[Address]) -> Value {
    let entry = |address: &Address| {
        let mut entry = json!({});
        for (key, value) in [("hostname", &address.hostname), ("ip", &address.ip)] {
            if !value.is_empty() {
                entry[key] = json!(value);
            }
        }
        entry
    };
    let entries: Vec<Value> = addresses.iter().map(entry).collect();
    json!({"status": {"loadBalancer": {"ingress": entries}}})
}

/// What has been written, and may not be seen yet.
#[derive(Debug, Default)]
struct Written(HashMap<Name, (Vec<Address>, Instant)>);

impl Written {
    /// The Ingresses that have to be written, for they have other addresses than these.
    fn due(&mut self, ours: &Ours, addresses: &[Address], now: Instant) -> Vec<Name> {
        self.0
            .retain(|name, (_, at)| ours.contains_key(name) && now < *at + SETTLE);
        let differs = |name: &Name, there: &[Address]| {
            let mut there = there.to_vec();
            there.sort();
            let is_written = self.0.get(name).is_some_and(|(what, _)| what == addresses);
            there != addresses && !is_written
        };
        let due = ours.iter().filter(|(name, there)| differs(name, there));
        due.map(|(name, _)| name.clone()).collect()
    }

    fn wrote(&mut self, name: Name, addresses: &[Address], now: Instant) {
        self.0.insert(name, (addresses.to_vec(), now));
    }
}

/// Who writes the status.
pub struct Publisher {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Publisher {
    /// Begins to write, where this replica leads, the Ingresses that are ours.
    pub fn start(
        cluster: reflect::Settings,
        settings: Settings,
        ours: watch::Receiver<Option<Ours>>,
    ) -> Self {
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            // Who follows the cluster says what is wrong with its configuration.
            if let Ok((client, url)) = reflect::client(&cluster).await {
                let namespace = std::env::var("POD_NAMESPACE").ok();
                let namespace = namespace.filter(|name| !name.is_empty());
                let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
                let (place, pod) = ([&*url, &*namespace], &cluster.node_name);
                let candidate = Candidate::new(client.clone(), place, &settings.election_id, pod);
                run((client, &url), candidate, settings, ours, ended).await;
            }
        });
        Self { end, task }
    }

    /// Ends it: addresses are removed if no other replica is there, which takes seconds to find.
    pub async fn end(self) {
        // One that has ended by itself has nothing more to do.
        let _ = self.end.send(());
        let abort = self.task.abort_handle();
        if time::timeout(LAST, self.task).await.is_err() {
            tracing::warn!(
                "the status of Ingresses stays as it is: the API server does not answer"
            );
            abort.abort();
        }
    }
}

async fn run(
    (client, url): (Client, &str),
    mut candidate: Candidate,
    settings: Settings,
    ours: watch::Receiver<Option<Ours>>,
    ended: oneshot::Receiver<()>,
) {
    let (addresses, known) = watch::channel(None);
    let mut writer = Writer {
        client: client.clone(),
        url: url.to_owned(),
        ours,
        addresses: known,
        term: candidate.term(),
        written: Written::default(),
        troubled: false,
    };
    tokio::select! {
        _ = ended => {}
        () = candidate.run() => {}
        () = writer.run() => {}
        () = follow(client, settings.addresses, addresses) => {}
    }
    if !settings.on_shutdown {
        // Else it is free when it has been silent for long enough.
        let _ = candidate.release().await;
        return;
    }
    if candidate.is_last().await {
        tracing::info!("no other replica is there: removes the addresses of Ingresses");
        let remove = async {
            while !writer.write(&[]).await {
                time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = remove => {}
            () = candidate.run() => {}
        }
        let _ = candidate.release().await;
    }
}

/// Tells what the addresses are, and goes on for as long as it is asked.
async fn follow(client: Client, from: Addresses, addresses: watch::Sender<Option<Vec<Address>>>) {
    let name = match from {
        Addresses::Fixed(mut fixed) => {
            fixed.sort();
            fixed.dedup();
            addresses.send_replace(Some(fixed));
            return std::future::pending().await;
        }
        Addresses::Service(name) => name,
    };
    let api = Api::<ApiService>::namespaced(client, &name.namespace);
    let mut services = pin!(watch_object(api, &name.name));
    let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
    let mut told = false;
    while let Some(service) = services.next().await {
        match service {
            Ok(found) => {
                backoff.reset();
                told = false;
                if found.is_none() {
                    tracing::warn!(
                        "--publish-service: there is no Service {name}: the status of Ingresses stays as it is"
                    );
                }
                addresses.send_replace(found.as_ref().map(addresses_of));
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("--publish-service: Service {name}: {}", said(&error));
                }
                time::sleep(backoff.pause()).await;
            }
        }
    }
}

fn said(error: &watcher::Error) -> String {
    match status(error) {
        Some(status) if status.is_forbidden() => format!(
            "{}: let the proxy's ServiceAccount list and watch services",
            status.message
        ),
        _ => describe(error),
    }
}

struct Writer {
    client: Client,
    url: String,
    ours: watch::Receiver<Option<Ours>>,
    addresses: watch::Receiver<Option<Vec<Address>>>,
    term: Term,
    written: Written,
    troubled: bool,
}

impl Writer {
    /// Writes what differs, again when something changes and every few seconds. It can be dropped
    /// at any time.
    async fn run(&mut self) {
        let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
        loop {
            let addresses = self.addresses.borrow_and_update().clone();
            let well = match addresses.filter(|_| self.term.leads()) {
                Some(addresses) => self.write(&addresses).await,
                None => true,
            };
            if !well {
                time::sleep(backoff.pause()).await;
                continue;
            }
            backoff.reset();
            let ended = tokio::select! {
                changed = self.ours.changed() => changed.is_err(),
                changed = self.addresses.changed() => changed.is_err(),
                () = self.term.news() => false,
            };
            if ended {
                return std::future::pending().await;
            }
        }
    }

    /// Gives all Ingresses that are ours these addresses, for as long as this replica leads;
    /// `false` if the API server did not take one.
    async fn write(&mut self, addresses: &[Address]) -> bool {
        let Some(ours) = self.ours.borrow_and_update().clone() else {
            return true;
        };
        let patch = Patch::Merge(patch(addresses));
        let mut every = time::interval(EVERY);
        every.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        for name in self.written.due(&ours, addresses, Instant::now()) {
            every.tick().await;
            if !self.term.leads() {
                return true;
            }
            if let Err(goes_on) = self.write_one(&name, &patch).await
                && !goes_on
            {
                return false;
            }
            self.written.wrote(name, addresses, Instant::now());
        }
        if std::mem::take(&mut self.troubled) {
            tracing::info!("the status of Ingresses is written again");
        }
        true
    }

    /// Writes one; else whether others may be tried.
    async fn write_one(&mut self, name: &Name, patch: &Patch<Value>) -> Result<(), bool> {
        let api = Api::<ApiIngress>::namespaced(self.client.clone(), &name.namespace);
        let params = PatchParams::default();
        let answer = time::timeout(PATIENCE, api.patch_status(&name.name, &params, patch)).await;
        let late = |_| Err(kube::Error::Service("it does not answer in time".into()));
        let error = match answer.unwrap_or_else(late) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let (message, goes_on) = match &error {
            // It is gone.
            kube::Error::Api(status) if status.code == 404 => return Ok(()),
            kube::Error::Api(status) if status.is_forbidden() => {
                let remedy = "let the proxy's ServiceAccount patch ingresses/status";
                (format!("{}: {remedy}", status.message), false)
            }
            kube::Error::Api(status) => {
                let is_its_own = status.code < 500 && status.code != 429;
                (status.message.clone(), is_its_own)
            }
            error => (describe(error), false),
        };
        if goes_on || !std::mem::replace(&mut self.troubled, true) {
            tracing::warn!("{}: the status of Ingress {name}: {message}", self.url);
        }
        Err(goes_on)
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
