//! The process that answers health checks in the agent's place, so that they are
//! answered while the agent restarts: from the record that the agent keeps, by the
//! code that the agent would answer with.
//!
//! It has no memory and writes nothing: several may run, and one may take another's
//! place.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use lb_plan::{HealthCheck, model::ServiceKey};
use tokio::{runtime::Handle, sync::watch, time};

use super::{
    Health,
    service::{Server, Servers},
};
use crate::{
    agent::state::StateDir,
    http::{Place, Turn},
};

/// How often it looks at the record: a change is answered after half of this, and
/// after what the agent takes to write it.
const LOOK: Duration = Duration::from_millis(100);

struct StandIn {
    dir: StateDir,
    health: Arc<Health>,
    servers: Servers,
    /// The server of `/healthz` and `/livez`.
    proxy: Option<(SocketAddr, Server)>,
    turn: Turn,
    /// Says that this process answers.
    said: Option<std::fs::File>,
    /// What was last wrong with the record.
    trouble: Option<String>,
}

/// Answers until `end` comes, and then until others have taken its place.
pub async fn serve(dir: StateDir, end: impl Future<Output = ()>) {
    let (mine, turn) = watch::channel(true);
    let health = Arc::new(Health::default());
    let servers = Servers::new(Handle::current(), health.clone()).in_turn(turn.clone());
    let mut own = StandIn {
        dir,
        health,
        servers,
        proxy: None,
        turn,
        said: None,
        trouble: None,
    };
    let mut looks = time::interval(LOOK);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = looks.tick() => own.look(),
        }
    }
    tracing::info!("leaves: the agent, or another one like this, answers");
    // The agent begins to listen before this one ceases to.
    own.said = None;
    mine.send_replace(false);
    drop(mine);
    own.servers.ended().await;
    if let Some((_, proxy)) = own.proxy {
        proxy.ended().await;
    }
}

impl StandIn {
    fn look(&mut self) {
        // The servers of before have had a look's time to listen.
        self.say();
        match self.dir.record() {
            Ok(found) => {
                let (record, heard) = found.unzip();
                if let Some((record, heard)) = record.as_ref().zip(heard) {
                    self.health.hear(record.facts, heard);
                }
                // Without a record there is nothing to answer: the node was cleaned up.
                let (healthz, checks) =
                    record.map_or((None, Vec::new()), |r| (r.healthz, r.checks));
                self.follow(healthz, checks.into_iter().collect());
                self.trouble = None;
            }
            Err(error) => {
                let error = error.to_string();
                if self.trouble.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the agent's record cannot be read; the agent answers itself");
                }
                self.trouble = Some(error);
                self.follow(None, BTreeMap::new());
            }
        }
    }

    /// Serves what the agent would.
    fn follow(&mut self, healthz: Option<SocketAddr>, checks: BTreeMap<ServiceKey, HealthCheck>) {
        if self.proxy.as_ref().map(|(address, _)| *address) != healthz {
            self.proxy = healthz.map(|address| {
                let place = Place::new("health", "the agent's --healthz-bind-address", address);
                let place = place.in_turn(self.turn.clone());
                let server = Server::start(&Handle::current(), place, self.health.handler());
                (address, server)
            });
        }
        self.servers.retain(|service| checks.contains_key(service));
        for (service, check) in checks {
            self.servers.set(&service, Some(check));
        }
    }

    /// Says that it answers, if it does anywhere: the agent leaves all of its ports to
    /// it. One that this process cannot listen on is somebody else's, and the agent
    /// tells of it.
    fn say(&mut self) {
        let failed = self.servers.failures().len();
        let proxy = self.proxy.iter();
        let proxy = proxy.filter(|(_, server)| server.failure().is_none());
        let answers = self.servers.count() - failed + proxy.count() > 0;
        let seen = self.said.as_ref().is_some_and(|f| self.dir.is_seen(f));
        if answers && !seen {
            self.said = self.dir.stand_in();
            if self.said.is_some() {
                tracing::info!("answers in the agent's place");
            }
        } else if !answers && self.said.take().is_some() {
            tracing::info!("answers nowhere");
        }
    }
}
