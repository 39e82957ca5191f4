//! The proxy of Ingresses: from a source of objects to the table that `lb-proxy` serves by.

pub mod access_log;
pub mod admin;
mod core;
pub mod metrics;
pub mod migrate;
pub mod once;
pub mod page;
pub mod state;
pub mod store;
#[cfg(test)]
mod testing;
pub mod traces;
mod wants;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use lb_proxy::Server;
use lb_route::Table;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::{
    core::{Core, Outlets},
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
    let Outlets { tables, ours, .. } = follow_objects(&settings, &state, &mut tasks);
    let publisher = publisher(&settings, ours);
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
    let server = tokio::select! {
        served = serve(&settings, tables, (&state, ready), end) => served?,
        ended = ended => return ended,
    };
    let unpublish = async {
        if let Some(publisher) = publisher {
            publisher.end().await;
        }
    };
    let end = async {
        if let Some(server) = server {
            server.end().await;
        }
    };
    tokio::join!(end, unpublish);
    state.end(LAST_LINES).await;
    Ok(())
}

/// Serves by the tables that come, from the first one on, until `end`. What serves then has to be
/// ended.
async fn serve(
    settings: &Settings,
    mut tables: watch::Receiver<Option<Arc<Table>>>,
    (state, ready): (&Arc<State>, watch::Sender<bool>),
    end: impl Future<Output = &'static str>,
) -> anyhow::Result<Option<Server>> {
    let mut end = std::pin::pin!(end);
    let addresses = lb_proxy::Addresses {
        http: settings.http.iter().copied().collect(),
        https: settings.https.iter().copied().collect(),
    };
    let mut server: Option<Server> = None;
    let signal = loop {
        tokio::select! {
            signal = &mut end => break signal,
            changed = tables.changed() => changed.context("nobody makes tables any more")?,
        }
        let table = tables.borrow_and_update().clone();
        table.iter().for_each(|table| state.take(table));
        match (&server, table) {
            (Some(server), Some(table)) => server.take(table),
            (None, Some(table)) => {
                let started = Server::start(&addresses, table, state.clone())?;
                state.set_view(started.view());
                server = Some(started);
                tracing::info!(http = ?addresses.http, https = ?addresses.https, "serves");
                ready.send_replace(true);
            }
            (_, None) => {}
        }
    };
    tracing::info!("{signal}: ends when its requests are done");
    // Whoever is in front sends nothing new from here on.
    ready.send_replace(false);
    Ok(server)
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
