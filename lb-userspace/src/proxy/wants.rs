//! The Secrets and ConfigMaps that are needed, told to who reads them.

use std::collections::BTreeSet;

use lb_route::input::Name;
use tokio::sync::watch;

use super::store::Store;
use crate::{change::Kind, watch::reflect::Wanted};

/// Tells a source what is needed.
#[derive(Debug)]
pub(super) struct Wants {
    secrets: watch::Sender<BTreeSet<Name>>,
    config_maps: watch::Sender<BTreeSet<Name>>,
}

impl Wants {
    /// Nothing is needed yet; also what the source is given.
    pub(super) fn new() -> (Self, Wanted) {
        let (secrets, wanted_secrets) = watch::channel(BTreeSet::new());
        let (config_maps, wanted_maps) = watch::channel(BTreeSet::new());
        let wanted = Wanted {
            secrets: wanted_secrets,
            config_maps: wanted_maps,
        };
        let wants = Self {
            secrets,
            config_maps,
        };
        (wants, wanted)
    }

    /// Tells of what is needed now.
    pub(super) fn tell(&self, store: &Store) {
        for (kind, names) in store.wanted() {
            let wanted = if kind == Kind::Secret {
                &self.secrets
            } else {
                &self.config_maps
            };
            wanted.send_if_modified(|known| {
                let changed = *known != names;
                *known = names;
                changed
            });
        }
    }
}
