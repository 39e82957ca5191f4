//! Objects as they are now, read once: for a report.

use std::{collections::BTreeSet, path::Path};

use anyhow::Context as _;
use lb_route::{Mode, Table, input::Name};
use tokio::sync::mpsc;

use super::{
    CHANGES, Source,
    store::{Settings, Store},
    wants::Wants,
};
use crate::{
    change::{Change, Kind},
    source::dir::Dir,
    watch::{find, reflect},
};

/// What the ConfigMap of ingress-nginx is called, at least in part: its chart and its manifests
/// have it so.
const CONFIG_MAP: &str = "ingress-nginx-controller";

/// What was read.
#[derive(Debug)]
pub struct Read {
    /// The objects.
    pub store: Store,
    /// The table that follows from them.
    pub table: Table,
    /// Kinds of which a directory has no object: whether one is missing cannot be told.
    pub absent: BTreeSet<Kind>,
    /// Files, or parts of them, that could not be read.
    pub unread: Vec<String>,
    /// ConfigMaps that may be ingress-nginx's; what is meant has to be said where there are
    /// several.
    pub candidates: Vec<Name>,
}

/// Reads every object, and of Secrets and ConfigMaps those that are named. The ConfigMap of
/// settings is looked for if none is named.
///
/// # Errors
/// The directory or the server cannot be read.
pub async fn read(source: &Source, settings: Settings) -> anyhow::Result<Read> {
    match source {
        Source::Dir(path) => directory(path, settings).await,
        Source::Cluster(cluster) => self::cluster(cluster.clone(), settings).await,
    }
}

/// Takes the only candidate, if nothing else is said.
fn choose(settings: &mut Settings, candidates: &[Name]) {
    if let (None, [only]) = (&settings.config_map, candidates) {
        settings.config_map = Some(only.clone());
    }
}

async fn directory(path: &Path, mut settings: Settings) -> anyhow::Result<Read> {
    let listed = std::fs::read_dir(path).map(drop);
    listed.with_context(|| format!("{}: give a directory of manifests", path.display()))?;
    let (told, mut changes) = mpsc::channel(CHANGES);
    let follow = tokio::spawn(Dir::new(path, &Kind::PROXY).follow(told));
    let mut all = Vec::new();
    let mut unread = Vec::new();
    let mut absent: BTreeSet<Kind> = Kind::PROXY.into();
    let mut candidates = BTreeSet::new();
    let mut open = Kind::PROXY.len();
    while open > 0 {
        let change = changes.recv().await.context("the directory is gone")?;
        match &change {
            Change::Trouble { place, message } => {
                unread.extend(message.iter().map(|message| format!("{place}: {message}")));
            }
            Change::Put(object) => {
                absent.remove(&object.key.kind);
                let key = &object.key;
                if key.kind == Kind::ConfigMap && key.name.contains(CONFIG_MAP) {
                    candidates.insert(Name::new(&key.namespace, &key.name));
                }
            }
            Change::Done(_) => open -= 1,
            Change::Begin(_) | Change::Delete(_) => {}
        }
        all.push(change);
    }
    follow.abort();
    let candidates: Vec<Name> = candidates.into_iter().collect();
    choose(&mut settings, &candidates);
    if absent.contains(&Kind::IngressClass) {
        // Charts of applications have none: the usual name is taken for ingress-nginx's.
        let classes = &mut settings.classes;
        let mut controllers = classes.controllers.iter();
        let theirs = controllers.find(|(_, mode)| **mode == Mode::Nginx);
        let usual = theirs.map(|(name, _)| (classes.annotation.clone(), name.clone()));
        classes.known = usual.into_iter().collect();
    }
    let mut store = Store::new(settings);
    all.into_iter().for_each(|change| store.apply(change));
    let table = store.table().context("a list of objects has no end")?;
    Ok(Read {
        store,
        table,
        absent,
        unread,
        candidates,
    })
}

async fn cluster(cluster: reflect::Settings, mut settings: Settings) -> anyhow::Result<Read> {
    let candidates = match settings.config_map {
        Some(_) => Vec::new(),
        None => find::config_maps(&cluster, CONFIG_MAP).await?,
    };
    choose(&mut settings, &candidates);
    let mut store = Store::new(settings);
    let (told, mut changes) = mpsc::channel(CHANGES);
    let (wants, wanted) = Wants::new();
    let taken = async {
        loop {
            let change = changes.recv().await.context("the watches have ended")?;
            take(&mut store, change)?;
            // A table is tried once for all that has come.
            while let Ok(change) = changes.try_recv() {
                take(&mut store, change)?;
            }
            let table = store.table();
            wants.tell(&store);
            if let Some(table) = table {
                return anyhow::Ok(table);
            }
        }
    };
    let table = tokio::select! {
        table = taken => table?,
        followed = reflect::follow_ingresses(cluster, wanted, told) => {
            followed?;
            anyhow::bail!("the watches have ended");
        }
    };
    Ok(Read {
        store,
        table,
        absent: BTreeSet::new(),
        unread: Vec::new(),
        candidates,
    })
}

/// A report is not worth to wait for a server that does not answer.
fn take(store: &mut Store, change: Change) -> anyhow::Result<()> {
    if let Change::Trouble {
        place,
        message: Some(message),
    } = &change
    {
        anyhow::bail!("{place}: {message}");
    }
    store.apply(change);
    Ok(())
}
