//! What a proxy tells of itself: on the log of requests, in metrics, on its status page.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use lb_proxy::{
    Observe, Record, View,
    tls::{SecretError, certificates::Facts},
};
use lb_route::{Table, class::Classes, input::Name, trouble::Trouble};
use tokio::sync::watch;

use super::{
    access_log::AccessLog,
    metrics::{Counts, Identity},
    traces::Traces,
};
use crate::change::ObjectKey;

/// What a proxy tells of itself.
pub struct State {
    identity: Identity,
    log: AccessLog,
    counts: Counts,
    traces: Traces,
    shown: ArcSwapOption<Shown>,
    view: OnceLock<View>,
    troubles: ArcSwap<Vec<(ObjectKey, Trouble)>>,
    sources: Mutex<BTreeMap<String, String>>,
    ready: watch::Receiver<bool>,
}

/// A table, and when it came.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The table.
    pub table: Arc<Table>,
    /// When it came.
    pub since: SystemTime,
    /// Its number, from 1.
    pub number: u64,
}

/// What a host shows to clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateRow {
    /// The host; `_` for those without one of their own.
    pub host: String,
    /// The Secret of its certificate; `None` where it has none of its own.
    pub secret: Option<Name>,
    /// What the certificate says, or why handshakes are refused.
    pub facts: Result<Facts, SecretError>,
    /// Whether it is not for the host, and the default one is shown.
    pub not_covered: bool,
}

impl State {
    /// Of a proxy that serves while `ready` says so, with its access log on standard output.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(classes: &Classes, ready: watch::Receiver<bool>) -> io::Result<Self> {
        let identity = Identity::new(classes);
        Ok(Self::new(identity, AccessLog::start()?, ready))
    }

    /// Of a proxy that serves while `ready` says so.
    pub fn new(identity: Identity, log: AccessLog, ready: watch::Receiver<bool>) -> Self {
        Self {
            traces: Traces::new(identity.clone()),
            identity,
            log,
            counts: Counts::default(),
            shown: ArcSwapOption::empty(),
            view: OnceLock::new(),
            troubles: ArcSwap::default(),
            sources: Mutex::default(),
            ready,
        }
    }

    /// From now on another table counts. It has to be told before it is served by.
    pub fn take(&self, table: &Arc<Table>) {
        let old = self.shown.load();
        let old = old.as_ref();
        self.log.set(table.globals().clone());
        self.traces.set(table.globals().clone());
        // Most changes are of endpoints.
        if old.is_none_or(|old| !table.has_hosts_of(&old.table)) {
            self.counts.take(table);
        }
        self.shown.store(Some(Arc::new(Shown {
            table: table.clone(),
            since: SystemTime::now(),
            number: old.map_or(0, |old| old.number) + 1,
        })));
    }

    /// The proxy serves.
    pub fn set_view(&self, view: View) {
        // There is one for a process.
        let _ = self.view.set(view);
    }

    /// What is wrong with objects now.
    pub fn set_troubles(&self, troubles: Vec<(ObjectKey, Trouble)>) {
        self.troubles.store(Arc::new(troubles));
    }

    /// What is wrong with a place that objects come from; `None` when it is well again.
    pub fn set_source(&self, place: &str, message: Option<&str>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            Some(message) => _ = sources.insert(place.to_owned(), message.to_owned()),
            None => _ = sources.remove(place),
        }
    }

    /// Writes the lines of the access log that wait, and sends the spans, if that takes no longer
    /// than `patience` each.
    pub async fn end(&self, patience: Duration) {
        self.traces.end(patience).await;
        self.log.end(patience);
    }

    /// Whether requests are served.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// The table in force, if there is one.
    pub fn shown(&self) -> Option<Arc<Shown>> {
        self.shown.load_full()
    }

    /// What can be seen of the proxy, if it serves.
    pub fn view(&self) -> Option<&View> {
        self.view.get()
    }

    /// What is wrong with objects.
    pub fn troubles(&self) -> Arc<Vec<(ObjectKey, Trouble)>> {
        self.troubles.load_full()
    }

    /// Places that objects come from and that cannot be read, and why.
    pub fn sources(&self) -> BTreeMap<String, String> {
        let sources = self.sources.lock();
        sources.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The access log.
    pub fn log(&self) -> &AccessLog {
        &self.log
    }

    /// The spans of requests.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// What each host shows, in the order of their names, and last what those do that have no
    /// certificate of their own.
    pub fn certificates(&self) -> Vec<CertificateRow> {
        let (Some(view), Some(shown)) = (self.view(), self.shown()) else {
            return Vec::new();
        };
        let secrets = shown.table.hosts().filter_map(|(name, host)| {
            let certificate = host.certificate.as_ref()?;
            Some((name, certificate.name.clone()?))
        });
        let secrets: BTreeMap<String, Name> = secrets.collect();
        let certificates = view.certificates();
        let mut rows: Vec<_> = certificates
            .reports()
            .filter_map(|report| {
                let secret = secrets.get(report.host)?;
                Some(CertificateRow {
                    host: report.host.to_owned(),
                    secret: Some(secret.clone()),
                    facts: report.certificate?.cloned().map_err(Clone::clone),
                    not_covered: report.not_covered,
                })
            })
            .collect();
        rows.sort_by(|a, b| a.host.cmp(&b.host));
        rows.push(CertificateRow {
            host: "_".to_owned(),
            secret: None,
            facts: Ok(certificates.default_facts().clone()),
            not_covered: false,
        });
        rows
    }
}

impl Observe for State {
    fn begun(&self) {
        self.counts.begun();
    }

    fn done(&self, record: &Record) {
        self.counts.done(record);
        self.log.done(record);
        self.traces.done(record, self.log.hostname());
    }
}
