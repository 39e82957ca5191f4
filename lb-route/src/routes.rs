//! The paths of a host, and what each leads to.

use crate::locations::{Compare, Expressions, Found, Plain};

/// How paths are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// As `networking.k8s.io/v1` says; what is specific to an implementation is a prefix.
    Specification,
    /// As ingress-nginx v1.15.1 does: what is specific to it is a location of nginx, and one
    /// rule with an expression makes all paths of its host expressions.
    Nginx,
}

/// `pathType` of `networking.k8s.io/v1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathType {
    /// The path is it, to the letter.
    Exact,
    /// The path's elements begin with its elements; slashes at its end do not count.
    Prefix,
    /// See [`Mode`].
    ImplementationSpecific,
}

/// A path of a rule of an Ingress.
#[derive(Clone, Debug)]
pub(crate) struct Rule<T> {
    /// The path; nothing is `/`.
    pub path: String,
    /// How it is compared.
    pub kind: PathType,
    /// Whether its Ingress asks for expressions (`use-regex`, or a `rewrite-target` that is
    /// another path): [`Mode::Nginx`] only.
    pub regex: bool,
    /// Where it leads.
    pub target: T,
}

/// A rule that is not among the paths as it was meant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// An older rule has its host and path.
    #[error("rule {with}, which is older, has the same host and path")]
    Conflict {
        /// Number of the rule, which is left out.
        rule: usize,
        /// Number of the older one, which stays.
        with: usize,
    },
    /// Its path is no expression, or one that costs too much.
    #[error("its path is no regular expression: {why}")]
    Expression {
        /// Number of the rule, which is left out.
        rule: usize,
        /// What is wrong.
        why: String,
    },
}

/// What a request's path leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Route<'t, T> {
    /// To the target of a rule.
    To {
        /// The target.
        target: &'t T,
        /// Groups of its expression, that of the whole match first; none without expressions.
        groups: Vec<Vec<u8>>,
    },
    /// To the same path with a slash at its end, by a redirect (301) that this target's settings
    /// are for.
    AddSlash(&'t T),
}

/// The paths of a host. They do not change.
#[derive(Clone, Debug)]
pub(crate) struct Paths<T> {
    targets: Vec<T>,
    locations: Locations,
}

#[derive(Clone, Debug)]
enum Locations {
    Plain(Box<Plain>),
    Expressions(Expressions),
}

impl<T> Paths<T> {
    /// Of rules, the older ones first; also tells of those that are not in it.
    pub(crate) fn new(rules: Vec<Rule<T>>, mode: Mode) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let paths = Self {
            locations: locations(&rules, mode, &mut problems),
            targets: rules.into_iter().map(|rule| rule.target).collect(),
        };
        (paths, problems)
    }

    /// All targets.
    pub(crate) fn targets(&self) -> &[T] {
        &self.targets
    }

    /// Where a request goes: its path as [`crate::uri::normal`] gives it. `None`: no rule has it.
    pub(crate) fn find(&self, path: &[u8]) -> Option<Route<'_, T>> {
        let found = match &self.locations {
            Locations::Plain(plain) => plain.find(path)?,
            Locations::Expressions(expressions) => expressions.find(path)?,
        };
        Some(match found {
            Found::Rule(rule, groups) => Route::To {
                target: &self.targets[rule],
                groups,
            },
            Found::AddSlash(rule) => Route::AddSlash(&self.targets[rule]),
        })
    }
}

/// The paths of a host.
fn locations<T>(rules: &[Rule<T>], mode: Mode, problems: &mut Vec<Problem>) -> Locations {
    let mut plain = Plain::new(mode == Mode::Nginx);
    let mut kept = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        let compare = match (rule.kind, mode) {
            (PathType::Exact, _) => Compare::Exact,
            (PathType::ImplementationSpecific, Mode::Nginx) => Compare::Bytes,
            _ => Compare::Elements,
        };
        let path = match rule.path.as_str() {
            "" => "/",
            path => path,
        };
        match plain.add(path, compare, number) {
            Ok(()) => kept.push((path, number)),
            Err(with) => problems.push(Problem::Conflict { rule: number, with }),
        }
    }
    if mode == Mode::Specification || !rules.iter().any(|rule| rule.regex) {
        return Locations::Plain(Box::new(plain));
    }
    let (expressions, bad) = Expressions::new(kept);
    let bad = bad.into_iter();
    problems.extend(bad.map(|(rule, why)| Problem::Expression { rule, why }));
    Locations::Expressions(expressions)
}
