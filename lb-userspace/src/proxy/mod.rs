//! The proxy of Ingresses: from a source of objects to the table that `lb-proxy` serves by.

pub mod access_log;
pub mod admin;
mod core;
pub mod metrics;
pub mod migrate;
pub mod once;
pub mod page;
pub mod peers;
pub mod state;
pub mod store;
#[cfg(test)]
mod testing;
pub mod traces;
mod wants;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use lb_proxy::Server;
use lb_route::Table;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::{
    core::{Core, Outlets},
    peers::Others,
    state::State,
};
use crate::{
    change::{Change, Kind},
    signals,
    source::dir::Dir,
    watch::{
        events, reflect,
        status::{Ours, Publisher, Settings as Publish},
    },
    webhook,
};

/// Changes that wait to be taken in.
const CHANGES: usize = 1024;
/// Events that wait to be written; what comes beyond is on the log only.
const NOTICES: usize = 256;
/// How long the access log may take for its last lines, and the collector for the last spans.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Reviews of Ingresses that wait.
const QUESTIONS: usize = 16;

/// What a proxy is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where objects come from.
    pub source: Source,
    /// Where HTTP is served.
    pub http: Vec<SocketAddr>,
    /// Where HTTPS is served.
    pub https: Vec<SocketAddr>,
    /// Where health and metrics are served.
    pub admin: SocketAddr,
    /// What is written to the status of Ingresses, if anything is.
    pub status: Option<Publish>,
    /// Where Ingresses are reviewed before they are there, if they are.
    pub webhook: Option<webhook::Settings>,
    /// How this proxy and others tell each other what they have counted, if they do.
    pub peers: Option<peers::Settings>,
    /// Which objects count.
    pub objects: store::Settings,
}

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Manifests in a directory.
    Dir(PathBuf),
    /// An API server.
    Cluster(reflect::Settings),
}

/// Runs until a signal ends it.
///
/// # Errors
/// It cannot start, or its source ends.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let end = signals::ended().context("signals cannot be waited for")?;
    let mut tasks = JoinSet::new();
    let (ready, is_ready) = watch::channel(false);
    let state = State::start(&settings.objects.classes, is_ready);
    let state = Arc::new(state.context("the access log cannot be written")?);
    let outlets = follow_objects(&settings, &state, &mut tasks);
    let publisher = publisher(&settings, outlets.ours.clone());
    let of_traces = state.clone();
    tasks.spawn(async move {
        of_traces.traces().run().await;
        Ok(())
    });
    tasks.spawn(admin::run(settings.admin, state.clone()));
    let ended = async {
        match tasks.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(panicked)) => Err(panicked.into()),
            None => Ok(()),
        }
    };
    let serving = tokio::select! {
        served = serve(&settings, outlets, (&state, ready), end) => served?,
        ended = ended => return ended,
    };
    let unpublish = async {
        if let Some(publisher) = publisher {
            publisher.end().await;
        }
    };
    let end = async {
        if let Some(serving) = serving {
            serving.end().await;
        }
    };
    tokio::join!(end, unpublish);
    state.end(LAST_LINES).await;
    Ok(())
}

/// A proxy that serves, and the others that hear it.
struct Serving {
    server: Server,
    others: Option<Others>,
}

impl Serving {
    fn start(
        settings: &Settings,
        table: Arc<Table>,
        state: &Arc<State>,
        peers: watch::Receiver<BTreeSet<SocketAddr>>,
    ) -> anyhow::Result<Self> {
        let addresses = lb_proxy::Addresses {
            http: settings.http.iter().copied().collect(),
            https: settings.https.iter().copied().collect(),
        };
        let server = Server::start(&addresses, table, state.clone())?;
        state.set_view(server.view());
        let start = |of: &peers::Settings| Others::start(of, server.together().clone(), peers);
        let others = settings.peers.as_ref().map(start).transpose()?;
        tracing::info!(http = ?addresses.http, https = ?addresses.https, "serves");
        Ok(Self { server, others })
    }

    async fn end(self) {
        self.server.end().await;
        if let Some(others) = self.others {
            others.end().await;
        }
    }
}

/// Serves by the tables that come, from the first one on, until `end`. What serves then has to be
/// ended.
async fn serve(
    settings: &Settings,
    mut outlets: Outlets,
    (state, ready): (&Arc<State>, watch::Sender<bool>),
    end: impl Future<Output = &'static str>,
) -> anyhow::Result<Option<Serving>> {
    let mut end = std::pin::pin!(end);
    let mut serving: Option<Serving> = None;
    let tables = &mut outlets.tables;
    let signal = loop {
        tokio::select! {
            signal = &mut end => break signal,
            changed = tables.changed() => changed.context("nobody makes tables any more")?,
        }
        let table = tables.borrow_and_update().clone();
        table.iter().for_each(|table| state.take(table));
        match (&serving, table) {
            (Some(serving), Some(table)) => serving.server.take(table),
            (None, Some(table)) => {
                let peers = outlets.peers.clone();
                serving = Some(Serving::start(settings, table, state, peers)?);
                ready.send_replace(true);
            }
            (_, None) => {}
        }
    };
    tracing::info!("{signal}: ends when its requests are done");
    // Whoever is in front sends nothing new from here on.
    ready.send_replace(false);
    Ok(serving)
}

/// Follows the source, makes tables of what it says, and answers what an Ingress would be told.
fn follow_objects(
    settings: &Settings,
    state: &Arc<State>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> Outlets {
    let (changes, taken) = mpsc::channel(CHANGES);
    let (mut core, outlets) = Core::new(settings.objects.clone(), state.clone());
    if let Source::Cluster(cluster) = &settings.source {
        let (notices, waiting) = mpsc::channel(NOTICES);
        core.notices = Some(notices);
        let cluster = cluster.clone();
        tasks.spawn(async move {
            events::write(cluster, "bascule-proxy", waiting).await;
            std::future::pending().await
        });
    }
    let wanted = outlets.wanted.clone();
    tasks.spawn(follow(settings.source.clone(), wanted, changes));
    let (ask, questions) = mpsc::channel(QUESTIONS);
    if let Some(webhook) = settings.webhook.clone() {
        tasks.spawn(webhook::serve(webhook, ask));
    }
    tasks.spawn(core.run(taken, questions));
    outlets
}

/// Who writes the status of Ingresses, if anybody does.
fn publisher(settings: &Settings, ours: watch::Receiver<Option<Ours>>) -> Option<Publisher> {
    let Source::Cluster(cluster) = &settings.source else {
        return None;
    };
    let status = settings.status.clone()?;
    Some(Publisher::start(cluster.clone(), status, ours))
}

async fn follow(
    source: Source,
    wanted: reflect::Wanted,
    changes: mpsc::Sender<Change>,
) -> anyhow::Result<()> {
    match source {
        Source::Dir(path) => Dir::new(&path, &Kind::PROXY).follow(changes).await,
        Source::Cluster(settings) => reflect::follow_ingresses(settings, wanted, changes).await?,
    }
    anyhow::bail!("the source of objects has ended")
}
