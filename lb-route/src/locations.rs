//! The paths of a host's rules.

use std::collections::HashMap;

use regex::bytes::{Regex, RegexBuilder};

/// Bytes that a compiled expression may take: of those that are written by hand none comes near.
const EXPRESSION: usize = 1 << 20;

/// How a path is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compare {
    /// It is the path.
    Exact,
    /// The path begins with its elements.
    Elements,
    /// The path begins with its bytes, as a location of nginx.
    Bytes,
}

/// A rule that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// By its number, with the groups of its expression; of the whole match first.
    Rule(usize, Vec<Vec<u8>>),
    /// There is one for the path with a slash at its end only.
    AddSlash,
}

/// Paths that are compared as they are.
#[derive(Clone, Default, Debug)]
pub(crate) struct Plain {
    exact: HashMap<Vec<u8>, usize>,
    /// Without slashes at their ends.
    elements: HashMap<Vec<u8>, usize>,
    bytes: HashMap<Vec<u8>, usize>,
    /// Of the paths in `bytes`, each once, the greatest first.
    lengths: Vec<usize>,
}

impl Plain {
    /// Adds the path of a rule; the number of the rule that has it already, if one has.
    pub(crate) fn add(&mut self, path: &str, compare: Compare, rule: usize) -> Result<(), usize> {
        let (map, path) = match compare {
            Compare::Exact => (&mut self.exact, path),
            Compare::Elements => (&mut self.elements, path.trim_end_matches('/')),
            Compare::Bytes => (&mut self.bytes, path),
        };
        if let Some(first) = map.get(path.as_bytes()) {
            return Err(*first);
        }
        map.insert(path.as_bytes().to_vec(), rule);
        if compare == Compare::Bytes && !self.lengths.contains(&path.len()) {
            self.lengths.push(path.len());
            self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        }
        Ok(())
    }

    /// The rule of a path: that it is, else the longest that it begins with.
    pub(crate) fn find(&self, path: &[u8]) -> Option<Found> {
        let rule = |rule: &usize| Found::Rule(*rule, Vec::new());
        if let Some(exact) = self.exact.get(path) {
            return Some(rule(exact));
        }
        let elements = self.elements_of(path);
        let is_whole = elements.is_some_and(|(len, _)| len == path.len());
        let may_be = !is_whole && self.lengths.contains(&(path.len() + 1));
        if may_be && self.bytes.contains_key(&[path, b"/"].concat()) {
            return Some(Found::AddSlash);
        }
        let bytes = self.bytes_of(path);
        match (elements, bytes) {
            // nginx has elements as a location with a slash at its end.
            (Some((len, elements)), Some((bytes_len, bytes))) => {
                Some(rule(if len + 1 >= bytes_len {
                    elements
                } else {
                    bytes
                }))
            }
            (one, other) => one.or(other).map(|(_, found)| rule(found)),
        }
    }

    /// The most elements that a path begins with, and their length.
    fn elements_of(&self, path: &[u8]) -> Option<(usize, &usize)> {
        let slashes = path.iter().enumerate().rev();
        let slashes = slashes.filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let mut ends = std::iter::once(path.len()).chain(slashes);
        ends.find_map(|end| Some((end, self.elements.get(&path[..end])?)))
    }

    /// The most bytes that a path begins with, and how many.
    fn bytes_of(&self, path: &[u8]) -> Option<(usize, &usize)> {
        let mut lengths = self.lengths.iter().filter(|len| **len <= path.len());
        lengths.find_map(|len| Some((*len, self.bytes.get(&path[..*len])?)))
    }
}

/// Paths as expressions, in the order in which they are tried.
#[derive(Clone, Debug)]
pub(crate) struct Expressions(Vec<(Regex, usize)>);

impl Expressions {
    /// From paths and the numbers of their rules, the older rules first: what is longer is tried
    /// first, of the same length what sorts last (ingress-nginx v1.15.1,
    /// internal/ingress/controller/controller.go, `getBackendServers`). Also the rules whose path
    /// is no expression, and why.
    pub(crate) fn new(mut paths: Vec<(&str, usize)>) -> (Self, Vec<(usize, String)>) {
        paths.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| b.cmp(a)));
        let (mut all, mut bad) = (Vec::new(), Vec::new());
        for (path, rule) in paths {
            match expression(path) {
                Ok(expression) => all.push((expression, rule)),
                Err(why) => bad.push((rule, why.to_string())),
            }
        }
        (Self(all), bad)
    }

    /// The first that matches.
    pub(crate) fn find(&self, path: &[u8]) -> Option<Found> {
        self.0.iter().find_map(|(expression, rule)| {
            let groups = expression.captures(path)?;
            let groups = groups.iter().map(|group| {
                let bytes = group.map_or(&b""[..], |group| group.as_bytes());
                bytes.to_vec()
            });
            Some(Found::Rule(*rule, groups.collect()))
        })
    }
}

/// nginx's `location ~* "^path"`.
fn expression(path: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^{path}"))
        .case_insensitive(true)
        .size_limit(EXPRESSION)
        .build()
}
