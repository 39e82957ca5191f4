//! What a snippet of nginx's configuration becomes: for each directive the annotation or the key
//! of the ConfigMap that does the same. Pure.
//!
//! What is said to do the same has been read by the proxy itself: a value that it would not take
//! is never advised.

mod advice;
mod directives;
mod headers;
mod plain;

use std::collections::BTreeMap;

use lb_route::{annotations, globals::Globals, input::Name, trouble::reason};
use serde::Serialize;

use directives::{Directive, directives};

/// A directive of a snippet, and what it becomes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Line {
    /// The line of the snippet that it begins on, from 1.
    pub line: usize,
    /// It as it is written, in one line.
    pub text: String,
    /// What becomes of it.
    #[serde(flatten)]
    pub advice: Advice,
}

/// What a directive becomes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Advice {
    /// Where the same is set.
    pub place: Place,
    /// What is set there.
    pub settings: Vec<Setting>,
    /// What has to be done besides, or why nothing can be.
    pub note: String,
}

/// Where the same is set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Nowhere: it is so anyway.
    Nowhere,
    /// In annotations of the Ingress.
    Annotation,
    /// In the ConfigMap, for all Ingresses.
    ConfigMap,
    /// In the rules of an Ingress.
    Rules,
    /// In the backend: the proxy does not do it.
    Backend,
}

/// An annotation without its prefix, or a key of the ConfigMap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Advice {
    fn new(place: Place, settings: &[(&str, &str)], note: impl Into<String>) -> Self {
        let setting = |(name, value): &(&str, &str)| Setting {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        Self {
            place,
            settings: settings.iter().map(setting).collect(),
            note: note.into(),
        }
    }

    fn annotation(name: &str, value: &str) -> Self {
        Self::new(Place::Annotation, &[(name, value)], "")
    }

    fn key(name: &str, value: &str) -> Self {
        Self::new(Place::ConfigMap, &[(name, value)], "")
    }

    fn nowhere(why: impl Into<String>) -> Self {
        Self::new(Place::Nowhere, &[], why)
    }

    fn backend(why: impl Into<String>) -> Self {
        Self::new(Place::Backend, &[], why)
    }

    fn with(self, note: impl Into<String>) -> Self {
        let note = note.into();
        Self { note, ..self }
    }

    /// It, if the proxy takes its values, else that it does not.
    fn checked(self) -> Self {
        let bad = match self.place {
            Place::Annotation => self.bad_annotation(),
            Place::ConfigMap => self.bad_key(),
            Place::Nowhere | Place::Rules | Place::Backend => None,
        };
        match bad {
            None => self,
            Some(message) => {
                // The sentence names the setting and the value, and ends with what is wanted.
                let prefix = format!("{}/", annotations::PREFIX);
                let message = message
                    .replace(&prefix, "")
                    .replace(", which is left out", "");
                Self::backend(format!("no setting does it: {message}"))
            }
        }
    }

    fn bad_annotation(&self) -> Option<String> {
        let name = |setting: &Setting| format!("{}/{}", annotations::PREFIX, setting.name);
        let all = self.settings.iter();
        let all = all.map(|setting| (name(setting), setting.value.clone()));
        let ingress = Name::new("default", "snippet");
        let read = annotations::read(
            &ingress,
            &all.collect(),
            annotations::PREFIX,
            &Globals::default(),
        );
        let mut troubles = read.troubles.into_iter();
        let bad = troubles.find(|trouble| trouble.reason == reason::PARSING_FAILED);
        bad.map(|trouble| trouble.message)
    }

    fn bad_key(&self) -> Option<String> {
        let all = self.settings.iter();
        let all = all.map(|setting| (setting.name.clone(), setting.value.clone()));
        let (_, troubles) = Globals::read(&all.collect::<BTreeMap<_, _>>());
        let mut troubles = troubles.into_iter();
        let bad = troubles.find(|trouble| trouble.reason == reason::CONFIG_INVALID);
        bad.map(|trouble| trouble.message)
    }
}

/// What each directive becomes; what is in a condition, with it.
pub fn advise(snippet: &str) -> Vec<Line> {
    let all = directives(snippet);
    let is_condition = |at: usize| all[at].opens && all[at].words[0] != "location";
    // The blocks around come before what is in them.
    let mut hidden: Vec<bool> = Vec::with_capacity(all.len());
    for directive in &all {
        let outer = directive.within;
        hidden.push(outer.is_some_and(|outer| hidden[outer] || is_condition(outer)));
    }
    let shown = all.iter().zip(hidden).filter(|(_, hidden)| !hidden);
    shown.map(|(directive, _)| line(directive)).collect()
}

fn line(directive: &Directive) -> Line {
    let (name, rest) = directive
        .words
        .split_first()
        .map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
    let arguments: Vec<&str> = rest.iter().map(String::as_str).collect();
    let advice = match directive.opens {
        true => advice::block(name, &arguments, &directive.text),
        false => advice::directive(name, &arguments),
    };
    Line {
        line: directive.line,
        text: match directive.opens {
            true => format!("{} {{ … }}", directive.text),
            false => directive.text.clone(),
        },
        advice: advice.checked(),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
