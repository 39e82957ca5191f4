//! Annotations of Ingresses: what each of ingress-nginx v1.15.1 asks for, and what becomes of it.
//!
//! A value that cannot be read is left out, with a [`Trouble`], and the default stays; where it
//! protects, every request of the Ingress is refused instead ([`Read::denied`]). Ingress-nginx
//! drops the whole Ingress for some of them. What is refused on purpose is left out too, but for
//! what protects: a firewall, digest authentication, and snippets that keep requests out.

mod access;
mod affinity;
mod canary;
mod client_cert;
mod cors;
mod errors;
mod external;
mod host;
mod limits;
mod mirror;
mod reader;
mod redirect;
mod refused;
mod rewrite;
mod traces;
mod upstream;
mod upstream_tls;

use std::collections::BTreeMap;

use crate::{
    globals::Globals,
    input::Name,
    settings::Settings,
    trouble::{Mark, Severity, Trouble, nearest, reason},
    values,
};

use reader::Reader;

// Values that the ConfigMap has too.
pub(crate) use external::{
    auth_cache, method as auth_method, times as auth_cache_times, url as auth_url,
};
pub(crate) use limits::{after as rate_after, rate};
pub(crate) use redirect::redirect_pair;
pub(crate) use upstream::{balance, body_size, is_http10};

/// The prefix of ingress-nginx's annotations; a flag changes it.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io";

/// All annotations, by what they are about.
pub const GROUPS: &[Group] = &[
    rewrite::GROUP,
    redirect::GROUP,
    canary::GROUP,
    affinity::GROUP,
    upstream::BALANCE,
    upstream::GROUP,
    upstream_tls::GROUP,
    access::GROUP,
    external::GROUP,
    client_cert::GROUP,
    cors::GROUP,
    limits::GROUP,
    errors::GROUP,
    mirror::GROUP,
    traces::GROUP,
    host::GROUP,
    refused::GROUP,
];

/// Annotations that are read together.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What they are about.
    pub name: &'static str,
    /// Whether they count on a canary (`canary: "true"`); others are those of its Ingress.
    pub on_canary: bool,
    /// They.
    pub annotations: &'static [Annotation],
    /// Puts what they ask for into the settings.
    read: fn(&mut Reader<'_>),
}

/// An annotation.
#[derive(Clone, Copy, Debug)]
pub struct Annotation {
    /// Its name without the prefix.
    pub name: &'static str,
    /// What becomes of it.
    pub mark: Mark,
    /// How much harm it can do; `annotations-risk-level` of the ConfigMap says what is too much.
    pub risk: Risk,
    /// What it does, why nothing has to be done for it, or why it is refused and what to do.
    pub sentence: &'static str,
}

/// How much harm a value can do, in ingress-nginx's judgement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Risk {
    /// It is one of few words, or a number.
    Low,
    /// It is of harmless characters.
    Medium,
    /// It has variables or expressions.
    High,
    /// It is text of nginx's configuration.
    Critical,
}

/// One that is served.
const fn served(name: &'static str, risk: Risk, sentence: &'static str) -> Annotation {
    Annotation {
        name,
        mark: Mark::Served,
        risk,
        sentence,
    }
}

/// One that has no effect.
const fn accepted(name: &'static str, risk: Risk, sentence: &'static str) -> Annotation {
    Annotation {
        name,
        mark: Mark::Accepted,
        risk,
        sentence,
    }
}

/// One that is refused.
const fn refused(name: &'static str, risk: Risk, sentence: &'static str) -> Annotation {
    Annotation {
        name,
        mark: Mark::Refused,
        risk,
        sentence,
    }
}

/// What the annotations of an Ingress ask for.
#[derive(Clone, Debug)]
pub struct Read {
    /// The settings of its paths.
    pub settings: Settings,
    /// What is wrong with them.
    pub troubles: Vec<Trouble>,
    /// Why every request is refused, 503.
    pub denied: Option<String>,
}

/// All annotations, with their groups: for documentation, and for a migration's report.
pub fn all() -> impl Iterator<Item = (&'static Group, &'static Annotation)> {
    let groups = GROUPS.iter();
    groups.flat_map(|group| group.annotations.iter().map(move |one| (group, one)))
}

/// An annotation by its name without the prefix; also the older names of some.
pub fn find(name: &str) -> Option<(&'static Group, &'static Annotation)> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name, |(_, name)| name);
    all().find(|(_, annotation)| annotation.name == name)
}

/// Older names, and those that are in use.
pub const ALIASES: &[(&str, &str)] = &[
    ("limit-whitelist", "limit-allowlist"),
    ("whitelist-source-range", "allowlist-source-range"),
];

/// Reads the annotations of an Ingress, of which those with the prefix are meant.
pub fn read(
    ingress: &Name,
    annotations: &BTreeMap<String, String>,
    prefix: &str,
    globals: &Globals,
) -> Read {
    let prefix = prefix.trim_end_matches('/');
    let with_prefix = annotations.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix(prefix)?.strip_prefix('/')?;
        Some((name, value.as_str()))
    });
    let mut reader = Reader::new(ingress, with_prefix.collect(), prefix, globals);
    reader.check_words_and_risks();
    let is_canary = reader
        .raw("canary")
        .is_some_and(|v| values::flag(v) == Ok(true));
    reader.check_names(is_canary);
    for group in GROUPS.iter().filter(|group| group.on_canary || !is_canary) {
        (group.read)(&mut reader);
    }
    reader.finish()
}

impl Reader<'_> {
    /// Tells of annotations by their names alone.
    fn check_names(&mut self, is_canary: bool) {
        let names: Vec<&str> = self.names().collect();
        for name in names {
            let Some((group, annotation)) = find(name) else {
                self.unknown(name);
                continue;
            };
            if is_canary && !group.on_canary {
                let rest =
                    "does not count on a canary; set it on the Ingress that the canary is of";
                self.tell(name, Severity::Note, reason::WITHOUT_EFFECT, rest);
                continue;
            }
            let is_off = self.raw(name).is_some_and(|v| values::flag(v) == Ok(false));
            let sentence = annotation.sentence;
            match annotation.mark {
                Mark::Served => {}
                Mark::Accepted => {
                    let rest = format!("has no effect: {sentence}");
                    self.tell(name, Severity::Note, reason::WITHOUT_EFFECT, &rest);
                }
                Mark::Refused if is_off => {}
                Mark::Refused => {
                    let rest = format!("is refused: {sentence}");
                    self.tell(name, Severity::Refused, reason::REFUSED, &rest);
                }
            }
        }
    }

    fn unknown(&mut self, name: &str) {
        let aliases = ALIASES.iter().map(|(alias, _)| *alias);
        let known = all().map(|(_, annotation)| annotation.name).chain(aliases);
        let rest = match nearest(name, known) {
            Some(near) => format!("is not known; is {}/{near} meant?", self.prefix()),
            None => "is not known; remove it".to_owned(),
        };
        self.tell(name, Severity::Warning, reason::UNSUPPORTED, &rest);
    }
}
