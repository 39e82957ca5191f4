//! Judges Ingresses and the ConfigMap.

use lb_route::{
    annotations, globals,
    input::Name,
    trouble::{Mark, Trouble},
};

use super::{
    ConfigReport, Finding, IngressReport, Verdict, differences, snippet,
    troubles::{self, Denials},
};
use crate::{change::ClassedIngress, proxy::once::Read};

/// Judges Ingresses and the ConfigMap.
pub(super) struct Judge<'a> {
    read: &'a Read,
    /// What stands before the names of annotations, without its slash.
    pub(super) prefix: &'a str,
    denials: Denials,
}

impl<'a> Judge<'a> {
    pub(super) fn new(read: &'a Read) -> Self {
        let options = &read.store.settings().options;
        Self {
            read,
            prefix: options.annotations_prefix.trim_end_matches('/'),
            denials: Denials::of(&read.table),
        }
    }

    /// Of an Ingress and what is wrong with it.
    pub(super) fn ingress<'t>(
        &self,
        classed: &ClassedIngress,
        troubles: impl Iterator<Item = &'t Trouble>,
    ) -> IngressReport {
        let ingress = &classed.ingress;
        let all = ingress.annotations.iter();
        let own = all.filter_map(|(name, value)| {
            let name = name.strip_prefix(self.prefix)?.strip_prefix('/')?;
            Some((name, value.as_str()))
        });
        let own: Vec<(&str, &str)> = own.collect();
        let mut findings: Vec<Finding> = troubles
            .filter(|trouble| !troubles::is_unchecked(trouble, &self.read.absent))
            .map(|trouble| self.finding(trouble, &own))
            .collect();
        findings.extend(differences::of_settings(&own));
        self.denials
            .add(&ingress.key, &self.read.absent, &mut findings);
        finish(&mut findings);
        let is_alike = |name: &str| {
            let is_served = annotations::find(name).is_some_and(|(_, a)| a.mark == Mark::Served);
            is_served && !findings.iter().any(|f| self.is_about(&f.message, name))
        };
        let alike = own
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| is_alike(name));
        let alike = alike.map(str::to_owned).collect();
        let of_rules = ingress.rules.iter().map(|rule| rule.host.as_str());
        let of_none = ingress.default_backend.iter().map(|_| "");
        let of_none = of_none.filter(|_| ingress.rules.is_empty());
        let hosts = of_rules.chain(of_none).map(|host| match host {
            "" => "*".to_owned(),
            host => host.to_owned(),
        });
        IngressReport {
            ingress: ingress.key.to_string(),
            hosts: hosts.collect(),
            verdict: worst(&findings),
            alike,
            findings,
        }
    }

    fn finding(&self, trouble: &Trouble, own: &[(&str, &str)]) -> Finding {
        let about = own
            .iter()
            .find(|(name, _)| self.is_about(&trouble.message, name));
        let lines = match about {
            Some((name, value)) if troubles::is_snippet_told(trouble, name) => {
                snippet::advise(value)
            }
            _ => Vec::new(),
        };
        Finding {
            verdict: troubles::verdict(trouble, about.copied()),
            reason: trouble.reason,
            message: trouble.message.clone(),
            lines,
        }
    }

    /// Whether a sentence is about an annotation: it begins with its name.
    fn is_about(&self, message: &str, name: &str) -> bool {
        let message = message
            .strip_prefix(self.prefix)
            .map_or(message, |rest| rest.strip_prefix('/').unwrap_or(message));
        let rest = message.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', ':']))
    }

    /// Of the ConfigMap and what is wrong with it.
    pub(super) fn config<'t>(&self, troubles: impl Iterator<Item = &'t Trouble>) -> ConfigReport {
        let store = &self.read.store;
        let name = store.settings().config_map.as_ref();
        let data = name.and_then(|name| store.config_map(name));
        let pairs = data.iter().flat_map(|data| data.0.keys());
        let pairs = pairs.filter_map(|key| Some((key.as_str(), data?.text(key)?)));
        let pairs: Vec<(&str, &str)> = pairs.collect();
        let mut findings: Vec<Finding> = troubles
            .filter(|trouble| !troubles::is_unchecked(trouble, &self.read.absent))
            .map(|trouble| self.finding(trouble, &pairs))
            .collect();
        if let (Some(name), None) = (name, data) {
            findings.push(troubles::missing(name));
        }
        findings.extend(differences::of_settings(&pairs));
        finish(&mut findings);
        let is_alike = |(key, value): &&(&str, &str)| {
            let is_served = globals::find(key).is_some_and(|key| key.mark == Mark::Served);
            let is_told = findings.iter().any(|f| self.is_about(&f.message, key));
            is_served && !value.trim().is_empty() && !is_told
        };
        let alike = pairs.iter().filter(is_alike);
        let candidates = self.read.candidates.iter().filter(|_| name.is_none());
        ConfigReport {
            config_map: name.map(Name::to_string),
            candidates: candidates.map(Name::to_string).collect(),
            verdict: worst(&findings),
            alike: alike.map(|(key, _)| (*key).to_owned()).collect(),
            findings,
        }
    }
}

/// The worst first, each once.
fn finish(findings: &mut Vec<Finding>) {
    findings.sort_by(|a, b| (b.verdict, &a.message).cmp(&(a.verdict, &b.message)));
    findings.dedup();
}

fn worst(findings: &[Finding]) -> Verdict {
    let verdicts = findings.iter().map(|finding| finding.verdict);
    verdicts.max().unwrap_or(Verdict::Alike)
}
