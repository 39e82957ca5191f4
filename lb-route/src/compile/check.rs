//! What an Ingress would be told, if it were there.

use std::{collections::HashMap, sync::Arc};

use super::{Compiler, Parsed};
use crate::{
    build::{self, Builder, Sources},
    input::{Ingress, Name},
    trouble::{Severity, Trouble, reason},
};

/// What would be wrong if an Ingress were there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Check {
    /// With it.
    pub own: Vec<Trouble>,
    /// With others, because of it.
    pub others: Vec<(Name, Trouble)>,
}

impl Trouble {
    /// Whether an Ingress that has it should not be taken: what it asks for is not done on
    /// purpose, or it has a path that is not served.
    pub fn is_refusal(&self) -> bool {
        let path = [
            reason::CONFLICTING_PATH,
            reason::CONFLICTING_CANARY,
            reason::INVALID_PATH,
        ];
        self.severity >= Severity::Refused || path.contains(&self.reason)
    }
}

impl Compiler {
    /// What would be wrong with an Ingress, and with others because of it, if it were there; one
    /// of the same name is replaced. Nothing changes by it. Objects that Ingresses name do not
    /// count, for they may come later: no Secret is asked.
    pub fn check(&self, ingress: &Arc<Ingress>) -> Check {
        let parsed = Arc::new(self.parse(ingress.clone()));
        let mut check = Check {
            own: parsed.troubles.clone(),
            others: Vec::new(),
        };
        for host in build::hosts_of(ingress) {
            let known = self.hosts.get(&host);
            let known = known.map(|built| built.troubles.as_slice());
            for entry in self.with(&host, &parsed) {
                let (name, trouble) = &entry;
                if name == &ingress.key {
                    // One Ingress may have many hosts, and say the same of each.
                    if !check.own.contains(trouble) {
                        check.own.push(trouble.clone());
                    }
                } else if !known.unwrap_or_default().contains(&entry) {
                    check.others.push(entry);
                }
            }
        }
        check
    }

    /// What is wrong with the Ingresses of a host that has another one.
    fn with(&self, host: &str, parsed: &Arc<Parsed>) -> Vec<(Name, Trouble)> {
        let order = |parsed: &Parsed| (parsed.ingress.created, parsed.ingress.key.clone());
        let keys = self.by_host.get(host).into_iter().flatten();
        let others = keys.filter(|(_, key)| *key != parsed.ingress.key);
        let mut all: Vec<_> = others
            .filter_map(|(_, key)| self.ingresses.get(key))
            .collect();
        all.push(parsed);
        all.sort_by_key(|parsed| order(parsed));
        let (secrets, config_maps) = (HashMap::new(), HashMap::new());
        let sources = Sources {
            options: &self.options,
            globals: &self.globals,
            secrets: &secrets,
            config_maps: &config_maps,
        };
        let mut builder = Builder::new(sources, host);
        builder.host(&all);
        let missing = [reason::MISSING_SECRET, reason::MISSING_CONFIG_MAP];
        let mut troubles = builder.troubles;
        troubles.retain(|(_, trouble)| !missing.contains(&trouble.reason));
        troubles
    }
}
