//! What the straight line tells: the log, the metrics of problems, the names of
//! services, and its status.

use std::{net::SocketAddr, sync::Arc};

use super::{
    core::Core,
    dataplane::Dataplane,
    fold::Told,
    state::{ServiceNames, Status, Trouble},
};
use crate::{
    change::ObjectKey,
    health::{self, service},
};

impl<D: Dataplane> Core<D> {
    pub(super) fn trouble(&mut self, place: String, message: Option<String>) {
        match message {
            Some(message) => {
                let said = self.troubles.insert(place.clone(), message.clone());
                if said.as_ref() != Some(&message) {
                    let note = "what is known stays in force";
                    tracing::warn!(%place, "{message}; {note}");
                }
            }
            None => {
                if self.troubles.remove(&place).is_some() {
                    tracing::info!(%place, "is well again");
                }
            }
        }
        self.shared
            .metrics
            .source_troubles
            .set(self.troubles.len() as i64);
        self.untold = true;
    }

    /// Whether there is news for [`Self::tell`].
    pub fn is_untold(&self) -> bool {
        self.untold
    }

    /// Tells others what changed: problems, names. Now and then, after the work,
    /// because it costs more the more services there are.
    ///
    /// Returns the status, if it changed.
    pub fn tell(&mut self) -> Option<Status> {
        let fill = self.dataplane.fill(&self.planner.usage());
        self.shared.metrics.set_fill(&fill);
        let described = self.dataplane.describe();
        let metrics = &self.shared.metrics;
        metrics.set_takeover(&described.rules, described.left);
        let unheard = self.servers.failures();
        let wrong = [self.dataplane.problems(), self.self_test.problems()].concat();
        let same =
            described == self.described && unheard == self.unheard && wrong == self.node_problems;
        if !std::mem::take(&mut self.untold) && same {
            return None;
        }
        if described != self.described {
            let failed = described.refused().count() as i64;
            metrics.socket_hooks_failed.set(failed);
            let devices = described.devices.iter();
            metrics.set_devices(devices.map(|d| (d.role.as_str(), d.hooks.as_str())));
        }
        (self.described, self.unheard, self.node_problems) = (described, unheard, wrong);
        let mut told: Vec<Told> = self
            .store
            .problems()
            .map(|(key, p)| Told::new(key.to_string(), key.clone(), p.reason, p.message.clone()))
            .collect();
        let planned = self.planner.problems();
        told.extend(planned.into_iter().map(|p| {
            let key = ObjectKey::service(&p.object.service);
            Told::new(format!("Service {}", p.object), key, p.reason, p.message)
        }));
        told.extend(self.unheard.iter().map(|(service, message)| {
            let key = ObjectKey::service(service);
            Told::new(key.to_string(), key, service::FAILED, message.clone())
        }));
        told.extend(self.node_problems.iter().map(|p| {
            let key = ObjectKey::node(&self.view.name);
            Told::new(key.to_string(), key, p.reason, p.message.clone())
        }));
        self.shared
            .metrics
            .set_problems(told.iter().map(|t| t.reason));
        let notices = self.fold.tell(told, self.ticks);
        if let Some(events) = &self.shared.events {
            for notice in notices {
                // Where too many wait the log has said it.
                let _ = events.try_send(notice);
            }
        }
        if std::mem::take(&mut self.names_stale) {
            self.tell_names();
        }
        Some(self.status())
    }

    fn tell_names(&self) {
        let ids = self.planner.service_ids();
        let vips = self.planner.vips();
        let mut names = ServiceNames {
            ports: ids.map(|(id, key)| (id, key.clone())).collect(),
            vips: vips
                .map(|(id, at)| (id, SocketAddr::new(at.addr.into(), at.port)))
                .collect(),
        };
        names.vips.sort_unstable();
        names.vips.shrink_to_fit();
        if let Ok(mut shared) = self.shared.names.write()
            && **shared != names
        {
            *shared = Arc::new(names);
        }
    }

    fn status(&self) -> Status {
        let trouble = |(place, message): (&String, &String)| Trouble {
            place: place.clone(),
            message: message.clone(),
        };
        Status {
            pid: std::process::id(),
            version: env!("BASCULE_VERSION").into(),
            node: self.view.name.to_string(),
            started: health::time(self.started.1),
            synced: self.planned,
            waiting_for: self.store.unsynced().map(|k| k.name().into()).collect(),
            last_update: self.updated.map(health::time),
            services: self.planner.services(),
            pending_writes: self.dataplane.pending(),
            troubles: self.troubles.iter().map(trouble).collect(),
            problems: self.fold.standing(),
            problem_count: self.fold.count(),
            datapath: self.described.clone(),
        }
    }
}
