//! The paths of a host's rules.

use std::collections::HashMap;

use regex::bytes::{Regex, RegexBuilder};

/// Bytes that a compiled expression may take: of those that are written by hand none comes near.
const EXPRESSION: usize = 1 << 20;
/// Steps back that an expression may take for a path, which is about a millisecond: PCRE's own
/// limit is a hundred times that, and a client chooses the path.
const STEPS: usize = 10_000;

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
    /// There is one, with this number, for the path with a slash at its end only.
    AddSlash(usize),
}

/// Paths that are compared as they are.
#[derive(Clone, Default, Debug)]
pub(crate) struct Plain {
    /// Whether a path leads to the one with a slash behind it, if only that is there.
    adds_slashes: bool,
    exact: HashMap<Vec<u8>, usize>,
    /// Without slashes at their ends, and whether there was one.
    elements: HashMap<Vec<u8>, (usize, bool)>,
    bytes: HashMap<Vec<u8>, usize>,
    /// Of the paths in `bytes`, each once, the greatest first.
    lengths: Vec<usize>,
    /// Those that end in a slash, without it.
    slashes: HashMap<Vec<u8>, usize>,
}

impl Plain {
    /// Without paths. Where `adds_slashes`, the path of a rule that ends in a slash is the target
    /// of a redirect from the same without it, as a location of nginx with a proxy in it is.
    pub(crate) fn new(adds_slashes: bool) -> Self {
        Self {
            adds_slashes,
            ..Self::default()
        }
    }

    /// Adds the path of a rule; the number of the rule that has it already, if one has.
    pub(crate) fn add(&mut self, path: &str, compare: Compare, rule: usize) -> Result<(), usize> {
        let bare = path.trim_end_matches('/');
        let ends_in_slash = bare.len() < path.len() && !bare.is_empty();
        let first = match compare {
            Compare::Exact => self.exact.get(path.as_bytes()),
            Compare::Elements => self.elements.get(bare.as_bytes()).map(|(rule, _)| rule),
            Compare::Bytes => self.bytes.get(path.as_bytes()),
        };
        if let Some(first) = first {
            return Err(*first);
        }
        let whole = path.as_bytes().to_vec();
        match compare {
            Compare::Exact => drop(self.exact.insert(whole, rule)),
            Compare::Elements => {
                let bare = bare.as_bytes().to_vec();
                self.elements.insert(bare, (rule, ends_in_slash));
            }
            Compare::Bytes => drop(self.bytes.insert(whole, rule)),
        }
        if compare == Compare::Bytes && !self.lengths.contains(&path.len()) {
            self.lengths.push(path.len());
            self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        }
        if ends_in_slash && self.adds_slashes {
            let without = path.as_bytes()[..path.len() - 1].to_vec();
            self.slashes.entry(without).or_insert(rule);
        }
        Ok(())
    }

    /// The rule of a path: that it is, else the longest that it begins with.
    pub(crate) fn find(&self, path: &[u8]) -> Option<Found> {
        let rule = |rule: &usize| Found::Rule(*rule, Vec::new());
        if let Some(exact) = self.exact.get(path) {
            return Some(rule(exact));
        }
        if let Some(slash) = self.slash_behind(path) {
            return Some(Found::AddSlash(slash));
        }
        let bytes = self.bytes_of(path);
        match (self.elements_of(path), bytes) {
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

    /// The rule of a path with a slash behind it, if there is none of the path itself
    /// (`ngx_http_find_static_location`).
    fn slash_behind(&self, path: &[u8]) -> Option<usize> {
        let rule = self.slashes.get(path)?;
        let elements = self.elements.get(path);
        let is_there = elements.is_some_and(|(_, ended_in_slash)| !ended_in_slash);
        (!is_there && !self.bytes.contains_key(path)).then_some(*rule)
    }

    /// The most elements that a path begins with, and their length.
    fn elements_of(&self, path: &[u8]) -> Option<(usize, &usize)> {
        let slashes = path.iter().enumerate().rev();
        let slashes = slashes.filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let mut ends = std::iter::once(path.len()).chain(slashes);
        ends.find_map(|end| {
            let (rule, _) = self.elements.get(&path[..end])?;
            Some((end, rule))
        })
    }

    /// The most bytes that a path begins with, and how many.
    fn bytes_of(&self, path: &[u8]) -> Option<(usize, &usize)> {
        let mut lengths = self.lengths.iter().filter(|len| **len <= path.len());
        lengths.find_map(|len| Some((*len, self.bytes.get(&path[..*len])?)))
    }
}

/// Paths as expressions, in the order in which they are tried.
#[derive(Clone, Debug)]
pub(crate) struct Expressions(Vec<(Expression, usize)>);

/// An expression of a path.
#[derive(Clone, Debug)]
enum Expression {
    /// One whose time is linear in the path's length.
    Linear(Regex),
    /// One with look-around or back-references, as PCRE has them. It may step back so often; what
    /// takes more does not match.
    Backtracking(Box<fancy_regex::Regex>),
}

impl Expression {
    /// Its groups, that of the whole match first, if it matches.
    fn groups(&self, path: &[u8]) -> Option<Vec<Vec<u8>>> {
        match self {
            Self::Linear(expression) => {
                let groups = expression.captures(path)?;
                let bytes = |group: Option<regex::bytes::Match<'_>>| {
                    group.map_or_else(Vec::new, |group| group.as_bytes().to_vec())
                };
                Some(groups.iter().map(bytes).collect())
            }
            Self::Backtracking(expression) => {
                // It knows text only: a path that is none matches no such expression.
                let path = std::str::from_utf8(path).ok()?;
                let groups = expression.captures(path).ok()??;
                let bytes = |group: Option<fancy_regex::Match<'_>>| {
                    group.map_or_else(Vec::new, |group| group.as_str().as_bytes().to_vec())
                };
                Some(groups.iter().map(bytes).collect())
            }
        }
    }
}

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
                Err(why) => bad.push((rule, why)),
            }
        }
        (Self(all), bad)
    }

    /// The first that matches.
    pub(crate) fn find(&self, path: &[u8]) -> Option<Found> {
        let mut all = self.0.iter();
        all.find_map(|(expression, rule)| Some(Found::Rule(*rule, expression.groups(path)?)))
    }
}

/// nginx's `location ~* "^path"`, where a character is a byte: `.` is any, and `\w` is of ASCII. An
/// expression that cannot be read so (`[ä]`) is one of characters. Else why it is none.
fn expression(path: &str) -> Result<Expression, String> {
    let anchored = format!("^{path}");
    let mut builder = RegexBuilder::new(&anchored);
    builder.case_insensitive(true).size_limit(EXPRESSION);
    let bytes = builder.unicode(false).build();
    let why = match bytes.or_else(|_| builder.unicode(true).build()) {
        Ok(linear) => return Ok(Expression::Linear(linear)),
        Err(regex::Error::CompiledTooBig(_)) => return Err("it is too large".to_owned()),
        Err(why) => why,
    };
    let backtracking = fancy_regex::RegexBuilder::new(&anchored)
        .case_insensitive(true)
        .delegate_size_limit(EXPRESSION)
        .backtrack_limit(STEPS)
        .build();
    match backtracking {
        Ok(backtracking) => Ok(Expression::Backtracking(Box::new(backtracking))),
        // That of the other says more, but in many lines: the last has the reason.
        Err(_) => {
            let why = why.to_string();
            let reason = why.lines().last().unwrap_or_default();
            Err(reason.trim_start_matches("error: ").to_owned())
        }
    }
}
