//! Which of several replicas leads: by a Lease of `coordination.k8s.io`, as client-go's
//! `tools/leaderelection` does it.
//!
//! Clocks of machines differ, so no time that the Lease has is compared with one of here. Who
//! holds it writes it anew every few seconds; to the others it is free when they have not seen it
//! change for as long as it says, by their own clock. The holder stops earlier than that, counted
//! from when it sent its last write that was taken.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::trouble::describe;
use crate::backoff::Backoff;

/// As of kube-controller-manager: how long a Lease is held that is not written anew
/// (`--leader-elect-lease-duration`) …
const HELD: Duration = Duration::from_secs(15);
/// … how long its holder goes on without having written it (`--leader-elect-renew-deadline`) …
const DEADLINE: Duration = Duration::from_secs(10);
/// … and how often it is looked at (`--leader-elect-retry-period`).
const RETRY: Duration = Duration::from_secs(2);
/// How long a replica that ends waits for another one to lead: all of them look within [`RETRY`].
const HANDOVER: Duration = Duration::from_secs(6);
/// How long a request may take: the next one has to come before [`DEADLINE`].
const PATIENCE: Duration = Duration::from_secs(4);

/// What is known of the Lease, and whether this one holds it.
#[derive(Debug)]
struct Election {
    identity: String,
    /// What it said last, and since when here.
    seen: Option<(LeaseSpec, Instant)>,
    /// Until when this one leads.
    until: Option<Instant>,
}

impl Election {
    fn new(identity: String) -> Self {
        Self {
            identity,
            seen: None,
            until: None,
        }
    }

    /// What to write, by what the Lease says (`None`: there is no Lease); `None` while another
    /// one holds it.
    fn claim(
        &mut self,
        found: Option<&LeaseSpec>,
        now: Instant,
        clock: Timestamp,
    ) -> Option<LeaseSpec> {
        let none = LeaseSpec::default();
        let found = found.unwrap_or(&none);
        let since = match &self.seen {
            Some((seen, since)) if seen == found => *since,
            _ => now,
        };
        self.seen = Some((found.clone(), since));
        let is_own = self.holds(found);
        if !is_own {
            self.until = None;
        }
        let seconds = found.lease_duration_seconds.unwrap_or_default();
        let held = Duration::from_secs(seconds.try_into().unwrap_or_default());
        let is_free = found.holder_identity.as_deref().unwrap_or("").is_empty();
        if !is_own && !is_free && now < since + held {
            return None;
        }
        let transitions = found.lease_transitions.unwrap_or_default();
        let acquired = found.acquire_time.clone().filter(|_| is_own);
        Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(HELD.as_secs() as i32),
            acquire_time: Some(acquired.unwrap_or(MicroTime(clock))),
            renew_time: Some(MicroTime(clock)),
            lease_transitions: Some(transitions.saturating_add(i32::from(!is_own))),
            ..found.clone()
        })
    }

    /// The Lease was taken as it was claimed, by a request that was sent at this time.
    fn claimed(&mut self, spec: LeaseSpec, sent: Instant) {
        self.seen = Some((spec, sent));
        self.until = Some(sent + DEADLINE);
    }

    /// What to write to give it up: the others need not wait. `None` where it is not held.
    fn release(&mut self, found: &LeaseSpec, clock: Timestamp) -> Option<LeaseSpec> {
        self.until = None;
        self.holds(found).then(|| LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(clock)),
            ..found.clone()
        })
    }

    fn holds(&self, found: &LeaseSpec) -> bool {
        found.holder_identity.as_deref() == Some(&self.identity)
    }
}

/// Until when this replica leads; over when that has passed.
#[derive(Clone, Debug)]
pub(super) struct Term(watch::Receiver<Option<Instant>>);

impl Term {
    /// Whether it leads now.
    pub(super) fn leads(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits for news: every few seconds while it leads.
    pub(super) async fn news(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// One of those who want to lead.
pub(super) struct Candidate {
    api: Api<Lease>,
    name: String,
    /// Where the Lease is, for messages.
    place: String,
    election: Election,
    until: watch::Sender<Option<Instant>>,
    troubled: bool,
}

impl Candidate {
    /// For a Lease of an API server's namespace; in a pod.
    pub(super) fn new(client: Client, place: [&str; 2], name: &str, pod: &str) -> Self {
        let [url, namespace] = place;
        Self {
            place: format!("{url}: Lease {namespace}/{name}"),
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            election: Election::new(identity(pod)),
            until: watch::Sender::new(None),
            troubled: false,
        }
    }

    /// What tells whether it leads.
    pub(super) fn term(&self) -> Term {
        Term(self.until.subscribe())
    }

    /// Tries to lead, and goes on leading, until the task is dropped.
    pub(super) async fn run(&mut self) {
        // Between half of it and all of it: not all of them at once.
        let mut pause = Backoff::new(RETRY, RETRY);
        loop {
            self.step().await;
            time::sleep(pause.pause()).await;
        }
    }

    /// Looks at the Lease once, and takes it or keeps it if that may be.
    async fn step(&mut self) {
        let result = self.claim().await;
        let until = self.election.until;
        let led = self.until.send_replace(until).is_some();
        match (led, until.is_some()) {
            (false, true) => tracing::info!("{}: this replica leads", self.place),
            (true, false) => tracing::info!("{}: another replica leads", self.place),
            _ => {}
        }
        match result {
            Ok(()) if std::mem::take(&mut self.troubled) => {
                tracing::info!("{}: is well again", self.place);
            }
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.troubled, true) {
                    tracing::warn!("{}: {}", self.place, said(&error));
                }
            }
        }
    }

    async fn claim(&mut self) -> kube::Result<()> {
        let found = self.get().await?;
        let now = Instant::now();
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        if let Some(claim) = self.election.claim(spec, now, clock())
            && self.put(found, claim.clone()).await?
        {
            self.election.claimed(claim, now);
        }
        Ok(())
    }

    /// Gives the Lease up, if it is held, and waits for another replica to take it. Whether none
    /// did, and it is held again: this replica is the last one.
    pub(super) async fn is_last(&mut self) -> bool {
        if !self.term().leads() {
            return false;
        }
        if let Err(error) = self.release().await {
            tracing::warn!("{}: is not given up: {}", self.place, said(&error));
            return false;
        }
        let end = Instant::now() + HANDOVER;
        while Instant::now() < end {
            time::sleep(RETRY / 2).await;
            let found = self.get().await.ok().flatten().and_then(|lease| lease.spec);
            let holder = found.and_then(|spec| spec.holder_identity);
            if holder.is_some_and(|holder| !holder.is_empty()) {
                return false;
            }
        }
        self.step().await;
        self.term().leads()
    }

    /// Gives the Lease up, if it is held.
    pub(super) async fn release(&mut self) -> kube::Result<()> {
        self.until.send_replace(None);
        let found = self.get().await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        if let Some(spec) = spec.and_then(|spec| self.election.release(spec, clock())) {
            self.put(found, spec).await?;
        }
        Ok(())
    }

    async fn get(&self) -> kube::Result<Option<Lease>> {
        patient(self.api.get_opt(&self.name)).await
    }

    /// Writes the Lease, unless it has changed meanwhile (`false`).
    async fn put(&self, found: Option<Lease>, spec: LeaseSpec) -> kube::Result<bool> {
        let params = PostParams::default();
        let spec = Some(spec);
        let written = match found {
            Some(found) => {
                let lease = Lease { spec, ..found };
                patient(self.api.replace(&self.name, &params, &lease)).await
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                };
                let lease = Lease { metadata, spec };
                patient(self.api.create(&params, &lease)).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A request that may not take longer than [`PATIENCE`].
async fn patient<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let late = |_| Err(kube::Error::Service("it does not answer in time".into()));
    time::timeout(PATIENCE, request).await.unwrap_or_else(late)
}

fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => format!(
            "{}: let the proxy's ServiceAccount get, create and update leases of \
             coordination.k8s.io in its namespace",
            status.message
        ),
        error => describe(error),
    }
}

fn clock() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or_default()
}

/// Who this one is: its pod, and something that another process there does not have.
fn identity(pod: &str) -> String {
    format!(
        "{pod}_{:016x}",
        RandomState::new().hash_one(std::process::id())
    )
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
