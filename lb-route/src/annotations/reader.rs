//! What reading annotations has in common.

use std::collections::BTreeMap;

use super::{Read, find};
use crate::{
    globals::Globals,
    input::Name,
    settings::Settings,
    trouble::{Severity, Trouble, quoted, reason},
    values::Parsed,
};

/// The annotations of an Ingress while they are read.
pub(super) struct Reader<'a> {
    /// The Ingress.
    pub(super) ingress: &'a Name,
    /// What the ConfigMap says.
    pub(super) globals: &'a Globals,
    /// What has been read.
    pub(super) settings: Settings,
    annotations: BTreeMap<&'a str, &'a str>,
    prefix: &'a str,
    troubles: Vec<Trouble>,
    denied: Option<String>,
}

impl<'a> Reader<'a> {
    /// Of annotations without their prefix.
    pub(super) fn new(
        ingress: &'a Name,
        annotations: BTreeMap<&'a str, &'a str>,
        prefix: &'a str,
        globals: &'a Globals,
    ) -> Self {
        Self {
            ingress,
            globals,
            settings: globals.defaults.clone(),
            annotations,
            prefix,
            troubles: Vec::new(),
            denied: None,
        }
    }

    pub(super) fn finish(self) -> Read {
        Read {
            settings: self.settings,
            troubles: self.troubles,
            denied: self.denied,
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a, '_> {
        self.annotations.keys().copied()
    }

    pub(super) fn prefix(&self) -> &'a str {
        self.prefix
    }

    /// An annotation's value as it is written.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.annotations.get(name).copied()
    }

    /// Whether it has a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|value| !value.trim().is_empty())
    }

    /// Adds a trouble: the annotation's name, and the rest of the sentence.
    pub(super) fn tell(
        &mut self,
        name: &str,
        severity: Severity,
        reason: &'static str,
        rest: &str,
    ) {
        let message = format!("{}/{name} {rest}", self.prefix);
        self.troubles.push(Trouble {
            reason,
            severity,
            message,
        });
    }

    /// The value of an annotation that has one, and one that can be read; else the default is in
    /// force.
    pub(super) fn value<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&'a str) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.filled(name)?;
        let parsed = parse(value);
        let wanted = parsed.as_ref().err().map(ToString::to_string);
        if let Some(wanted) = wanted {
            let rest = format!(
                "is {}, which is left out; it has to be {wanted}",
                quoted(value)
            );
            self.tell(name, Severity::Warning, reason::PARSING_FAILED, &rest);
        }
        parsed.ok()
    }

    /// As [`Reader::value`], of an annotation that protects: if its value cannot be read, every
    /// request is refused.
    pub(super) fn guard<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&'a str) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.filled(name)?;
        let parsed = parse(value);
        let wanted = parsed.as_ref().err().map(ToString::to_string);
        if let Some(wanted) = wanted {
            let rest = format!("is {}; it has to be {wanted}", quoted(value));
            self.deny(name, &rest);
        }
        parsed.ok()
    }

    /// Puts the value of an annotation into the settings, if it has one that can be read.
    pub(super) fn set<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&'a str) -> Parsed<T>,
        place: impl for<'s> FnOnce(&'s mut Settings) -> &'s mut T,
    ) {
        if let Some(value) = self.value(name, parse) {
            *place(&mut self.settings) = value;
        }
    }

    /// Has every request refused; the first reason counts.
    pub(super) fn deny(&mut self, name: &str, why: &str) {
        let rest = format!("{why}; until then every request is refused");
        self.tell(name, Severity::Denied, reason::PARSING_FAILED, &rest);
        let denied = format!("{}/{name} {why}", self.prefix);
        self.denied.get_or_insert(denied);
    }

    /// Has every request refused because of the ConfigMap, which has a trouble of its own.
    pub(super) fn deny_by_config(&mut self, why: &str) {
        self.denied.get_or_insert(why.to_owned());
    }

    /// Tells of annotations that have no effect without another.
    pub(super) fn without(&mut self, missing: &str, names: &[&str]) {
        let there: Vec<&&str> = names.iter().filter(|name| self.has(name)).collect();
        for name in there {
            let rest = format!("has no effect without {missing}; set that too, or remove it");
            self.tell(name, Severity::Warning, reason::WITHOUT_EFFECT, &rest);
        }
    }

    /// A value that is not empty.
    fn filled(&mut self, name: &str) -> Option<&'a str> {
        let value = self.raw(name)?;
        // Charts write empty values for what is not set; so does ingress-nginx take them.
        if value.trim().is_empty() {
            let rest = "is empty, which is as if it were not there; remove it";
            self.tell(name, Severity::Note, reason::WITHOUT_EFFECT, rest);
            return None;
        }
        Some(value)
    }

    /// `annotation-value-word-blocklist` and `annotations-risk-level`: an Ingress that is not as
    /// they want is not served.
    pub(super) fn check_words_and_risks(&mut self) {
        let globals = self.globals;
        let annotations = self.annotations.clone();
        for (name, value) in annotations {
            let mut words = globals.blocked_words.iter();
            if let Some(word) = words.find(|word| value.contains(word.as_str())) {
                let why = format!(
                    "has {} in it, which annotation-value-word-blocklist forbids; take it out",
                    quoted(word)
                );
                self.deny(name, &why);
            }
            // What is critical is refused in any case, by itself.
            let risk = find(name).map(|(_, annotation)| annotation.risk);
            if risk.is_some_and(|risk| risk > globals.risk && risk < super::Risk::Critical) {
                let why = "is beyond annotations-risk-level; remove it, or raise the level";
                self.deny(name, why);
            }
        }
    }
}
