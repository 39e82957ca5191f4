//! From objects to tables, one after the other.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use lb_route::Table;
use tokio::{
    sync::{mpsc, watch},
    time,
};

use super::{
    state::State,
    store::{self, Store},
    wants::Wants,
};
use crate::{
    agent::fold::{Fold, Told},
    change::{Change, Notice, ObjectKey},
    watch::{reflect, status::Ours},
    webhook::Question,
};

/// How often it is told what is wrong with objects.
const TELL: Duration = Duration::from_secs(1);

/// Takes objects in, and hands tables out.
pub(super) struct Core {
    store: Store,
    wants: Wants,
    table: watch::Sender<Option<Arc<Table>>>,
    ours: watch::Sender<Option<Ours>>,
    peers: watch::Sender<BTreeSet<SocketAddr>>,
    fold: Fold,
    pub(super) notices: Option<mpsc::Sender<Notice>>,
    ticks: u64,
    /// Whether an object changed since it was told what is wrong with them.
    is_changed: bool,
    state: Arc<State>,
}

/// What the core hands out.
pub(super) struct Outlets {
    pub(super) wanted: reflect::Wanted,
    pub(super) tables: watch::Receiver<Option<Arc<Table>>>,
    pub(super) ours: watch::Receiver<Option<Ours>>,
    pub(super) peers: watch::Receiver<BTreeSet<SocketAddr>>,
}

impl Core {
    pub(super) fn new(objects: store::Settings, state: Arc<State>) -> (Self, Outlets) {
        let (wants, wanted) = Wants::new();
        let (table, tables) = watch::channel(None);
        let (ours, known_ours) = watch::channel(None);
        let (peers, known_peers) = watch::channel(BTreeSet::new());
        let core = Self {
            store: Store::new(objects),
            wants,
            table,
            ours,
            peers,
            fold: Fold::default(),
            notices: None,
            ticks: 0,
            is_changed: false,
            state,
        };
        let outlets = Outlets {
            wanted,
            tables,
            ours: known_ours,
            peers: known_peers,
        };
        (core, outlets)
    }

    pub(super) async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        mut questions: mpsc::Receiver<Question>,
    ) -> anyhow::Result<()> {
        let mut tick = time::interval(TELL);
        loop {
            tokio::select! {
                change = changes.recv() => {
                    let change = change.context("the source of objects has ended")?;
                    self.take(change);
                    // What came meanwhile is one table with it.
                    while let Ok(change) = changes.try_recv() {
                        self.take(change);
                    }
                    self.hand_out();
                }
                Some(question) = questions.recv() => self.answer(question),
                _ = tick.tick() => self.tell(),
            }
        }
    }

    fn take(&mut self, change: Change) {
        if let Change::Trouble { place, message } = &change {
            self.state.set_source(place, message.as_deref());
            match message {
                Some(message) => tracing::warn!(%place, "{message}"),
                None => tracing::info!(%place, "is well again"),
            }
        }
        self.store.apply(change);
        self.is_changed = true;
    }

    fn hand_out(&mut self) {
        let first = self.table.borrow().is_none();
        let table = self.store.table();
        self.wants.tell(&self.store);
        let peers = self.store.peers();
        self.peers.send_if_modified(|known| {
            let is_other = *known != peers;
            *known = peers;
            is_other
        });
        if let Some(table) = table {
            if first {
                tracing::info!("every object has been read");
            }
            self.table.send_replace(Some(Arc::new(table)));
            if let Some(ours) = self.store.ours() {
                self.ours.send_replace(Some(ours));
            }
        }
    }

    /// Says what an Ingress would be told; nothing before everything has been seen.
    fn answer(&self, question: Question) {
        if self.table.borrow().is_some() {
            // Who asked may have given up.
            let _ = question.answer.send(self.store.check(&question.ingress));
        }
    }

    /// Tells what is new wrong with objects, on the log and as Events.
    fn tell(&mut self) {
        self.ticks += 1;
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let told = |(key, trouble): (ObjectKey, lb_route::trouble::Trouble)| {
            Told::new(key.to_string(), key, trouble.reason, trouble.message)
        };
        let troubles = self.store.troubles();
        self.state.set_troubles(troubles.clone());
        let now = troubles.into_iter().map(told).collect();
        for notice in self.fold.tell(now, self.ticks) {
            if let Some(notices) = &self.notices {
                // Full: the log has said it.
                let _ = notices.try_send(notice);
            }
        }
    }
}
