//! What becomes of the Ingresses of ingress-nginx when the proxy takes over: a report. Pure.

mod differences;
mod judge;
pub mod snippet;
mod troubles;

use std::collections::{BTreeSet, HashMap};

use lb_route::{Mode, trouble::Trouble};
use serde::Serialize;

use super::once::Read;
use crate::change::{ClassedIngress, Kind};
use judge::Judge;
use snippet::Line;

/// What becomes of an Ingress, or of a part of it: the worst of its parts counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is served as ingress-nginx serves it.
    Alike,
    /// It is accepted and has no effect, or a harmless one that is another.
    Differs,
    /// It is as wrong with ingress-nginx: an object is missing, or a value is none.
    Wrong,
    /// What is asked for is not done.
    Refused,
    /// Every request is refused, for it would be served without protection otherwise.
    Denied,
}

impl Verdict {
    /// All of them, the worst last.
    pub const ALL: [Self; 5] = [
        Self::Alike,
        Self::Differs,
        Self::Wrong,
        Self::Refused,
        Self::Denied,
    ];

    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alike => "alike",
            Self::Differs => "differs",
            Self::Wrong => "wrong",
            Self::Refused => "refused",
            Self::Denied => "denied",
        }
    }
}

/// Something that does not become the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The reason of its Event, in CamelCase.
    pub reason: &'static str,
    /// One sentence: what it is, and the change to make.
    pub message: String,
    /// Of a snippet: what each directive becomes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
}

/// What becomes of an Ingress.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IngressReport {
    /// Namespace and name.
    pub ingress: String,
    /// The hosts of its rules; `*` for every host.
    pub hosts: BTreeSet<String>,
    /// In a word.
    pub verdict: Verdict,
    /// What does not become the same, the worst first.
    pub findings: Vec<Finding>,
    /// Annotations without their prefix that do what they did.
    pub alike: Vec<String>,
}

/// What becomes of the ConfigMap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ConfigReport {
    /// Namespace and name; `None` if the defaults count.
    pub config_map: Option<String>,
    /// ConfigMaps that may be meant, where none is named and there are several.
    pub candidates: Vec<String>,
    /// In a word.
    pub verdict: Verdict,
    /// What does not become the same, the worst first.
    pub findings: Vec<Finding>,
    /// Keys that do what they did.
    pub alike: Vec<String>,
}

/// Ingresses by what becomes of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Summary {
    /// All.
    pub ingresses: usize,
    /// [`Verdict::Alike`].
    pub alike: usize,
    /// [`Verdict::Differs`].
    pub differs: usize,
    /// [`Verdict::Wrong`].
    pub wrong: usize,
    /// [`Verdict::Refused`].
    pub refused: usize,
    /// [`Verdict::Denied`].
    pub denied: usize,
    /// Those of other classes, which are no part of the report.
    pub others: usize,
}

/// What becomes of everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Version of this command.
    pub version: &'static str,
    /// How many Ingresses become what.
    pub summary: Summary,
    /// Whether something has to be changed, or could not be read.
    pub needs_change: bool,
    /// What could not be read.
    pub unread: Vec<String>,
    /// Kinds of which a directory has no object, so that nothing is said of missing ones.
    pub unchecked: Vec<&'static str>,
    /// The ConfigMap.
    pub config: ConfigReport,
    /// The Ingresses, by what becomes of them, the worst first, and by their names.
    pub ingresses: Vec<IngressReport>,
    /// What stands before the names of annotations.
    #[serde(skip)]
    pub prefix: String,
}

impl Report {
    /// Judges what was read.
    pub fn new(read: &Read) -> Self {
        let judge = Judge::new(read);
        let troubles = read.store.troubles();
        let mut by_ingress: HashMap<(&str, &str), Vec<&Trouble>> = HashMap::new();
        for (key, trouble) in troubles.iter().filter(|(key, _)| key.kind == Kind::Ingress) {
            let of = by_ingress.entry((&*key.namespace, &*key.name));
            of.or_default().push(trouble);
        }
        let of_config = troubles
            .iter()
            .filter(|(key, _)| key.kind == Kind::ConfigMap);
        let of_config = of_config.map(|(_, trouble)| trouble);
        let all = read.store.ingresses();
        let (ours, others): (Vec<_>, Vec<_>) =
            all.partition(|(_, mode)| *mode == Some(Mode::Nginx));
        let one = |(classed, _): (&ClassedIngress, _)| {
            let name = &classed.ingress.key;
            let of = by_ingress.get(&(&*name.namespace, &*name.name));
            judge.ingress(classed, of.into_iter().flatten().copied())
        };
        let mut ingresses: Vec<IngressReport> = ours.into_iter().map(one).collect();
        ingresses.sort_by(|a, b| (b.verdict, &a.ingress).cmp(&(a.verdict, &b.ingress)));
        let config = judge.config(of_config);
        let summary = Summary {
            others: others.len(),
            ..summary(&ingresses)
        };
        let refused = summary.refused + summary.denied > 0 || config.verdict >= Verdict::Refused;
        Self {
            version: env!("BASCULE_VERSION"),
            summary,
            needs_change: refused || !read.unread.is_empty(),
            unread: read.unread.clone(),
            unchecked: read.absent.iter().map(|kind| kind.name()).collect(),
            config,
            ingresses,
            prefix: judge.prefix.to_owned(),
        }
    }
}

fn summary(ingresses: &[IngressReport]) -> Summary {
    let count = |verdict| {
        ingresses
            .iter()
            .filter(|one| one.verdict == verdict)
            .count()
    };
    Summary {
        ingresses: ingresses.len(),
        alike: count(Verdict::Alike),
        differs: count(Verdict::Differs),
        wrong: count(Verdict::Wrong),
        refused: count(Verdict::Refused),
        denied: count(Verdict::Denied),
        others: 0,
    }
}
