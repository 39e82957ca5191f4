//! The table: hosts, and the paths of each.

use std::collections::BTreeMap;

use crate::{
    host::Hosts,
    locations::{Compare, Expressions, Found, Plain},
};

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
pub struct Rule<T> {
    /// A name, `*.` and a name, or nothing for every host.
    pub host: String,
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

/// A rule that is not in the table as it was meant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
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

/// What a request's host and path lead to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route<'t, T> {
    /// To the target of a rule.
    To {
        /// The target.
        target: &'t T,
        /// Groups of its expression, that of the whole match first; none without expressions.
        groups: Vec<Vec<u8>>,
    },
    /// To the same path with a slash at its end, by a redirect (301).
    AddSlash,
}

/// The table. It does not change.
#[derive(Clone, Debug)]
pub struct Routes<T> {
    targets: Vec<T>,
    hosts: Hosts<Locations>,
}

#[derive(Clone, Debug)]
enum Locations {
    Plain(Plain),
    Expressions(Expressions),
}

impl<T> Routes<T> {
    /// Makes the table of rules, the older ones first, and tells of those that are not in it.
    ///
    /// ```
    /// use lb_route::{Mode, PathType, Route, Routes, Rule};
    /// let rule = Rule {
    ///     host: "*.example".to_owned(),
    ///     path: "/shop".to_owned(),
    ///     kind: PathType::Prefix,
    ///     regex: false,
    ///     target: "shop:80",
    /// };
    /// let (routes, problems) = Routes::new(vec![rule], Mode::Specification);
    /// assert!(problems.is_empty());
    /// let found = routes.find("www.example", b"/shop/cart");
    /// assert_eq!(found, Some(Route::To { target: &"shop:80", groups: vec![] }));
    /// ```
    pub fn new(rules: Vec<Rule<T>>, mode: Mode) -> (Self, Vec<Problem>) {
        let mut by_host: BTreeMap<String, Vec<(usize, &Rule<T>)>> = BTreeMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let host = rule.host.to_ascii_lowercase();
            by_host.entry(host).or_default().push((number, rule));
        }
        let mut problems = Vec::new();
        let locations: Vec<(String, Locations)> = by_host
            .into_iter()
            .map(|(host, rules)| (host, locations(&rules, mode, &mut problems)))
            .collect();
        let routes = Self {
            hosts: Hosts::new(locations),
            targets: rules.into_iter().map(|rule| rule.target).collect(),
        };
        (routes, problems)
    }

    /// Where a request goes: its host as [`crate::host::normal`] gives it, its path as
    /// [`crate::uri::normal`] does. `None`: no rule has them.
    pub fn find(&self, host: &str, path: &[u8]) -> Option<Route<'_, T>> {
        let found = match self.hosts.find(host)? {
            Locations::Plain(plain) => plain.find(path)?,
            Locations::Expressions(expressions) => expressions.find(path)?,
        };
        Some(match found {
            Found::Rule(rule, groups) => Route::To {
                target: &self.targets[rule],
                groups,
            },
            Found::AddSlash => Route::AddSlash,
        })
    }
}

/// The paths of a host.
fn locations<T>(rules: &[(usize, &Rule<T>)], mode: Mode, problems: &mut Vec<Problem>) -> Locations {
    let mut plain = Plain::default();
    let mut kept = Vec::new();
    for (number, rule) in rules {
        let compare = match (rule.kind, mode) {
            (PathType::Exact, _) => Compare::Exact,
            (PathType::ImplementationSpecific, Mode::Nginx) => Compare::Bytes,
            _ => Compare::Elements,
        };
        let path = match rule.path.as_str() {
            "" => "/",
            path => path,
        };
        match plain.add(path, compare, *number) {
            Ok(()) => kept.push((path, *number)),
            Err(with) => problems.push(Problem::Conflict {
                rule: *number,
                with,
            }),
        }
    }
    if mode == Mode::Specification || !rules.iter().any(|(_, rule)| rule.regex) {
        return Locations::Plain(plain);
    }
    let (expressions, bad) = Expressions::new(kept);
    let bad = bad.into_iter();
    problems.extend(bad.map(|(rule, why)| Problem::Expression { rule, why }));
    Locations::Expressions(expressions)
}
