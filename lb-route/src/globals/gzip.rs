//! Compression of answers.

use regex::bytes::Regex;

use super::{Key, accepted, put, served};
use crate::values::{self, Parsed};

const BROTLI: &str = "answers are compressed by gzip, if use-gzip says so, and not by brotli; \
     backends may do that.";

pub(super) const KEYS: &[Key] = &[
    served(
        "use-gzip",
        "Whether answers are compressed for clients that take it: false.",
        |g, v| put(&mut g.gzip.on, values::flag(v)),
    ),
    served("gzip-level", "How hard it is tried, 1 to 9: 1.", |g, v| {
        put(&mut g.gzip.level, level(v))
    }),
    served(
        "gzip-min-length",
        "Bytes that an answer has at least, if it says how many: 256.",
        |g, v| put(&mut g.gzip.min_length, values::size(v)),
    ),
    served(
        "gzip-types",
        "Media types besides text/html, or *: those of text, scripts, JSON, XML and fonts.",
        |g, v| put(&mut g.gzip.types, types(v)),
    ),
    served(
        "gzip-disable",
        "An expression of User-Agent for which nothing is compressed: none.",
        |g, v| put(&mut g.gzip.disabled, agents(v).map(Some)),
    ),
    accepted("enable-brotli", BROTLI),
    accepted("brotli-level", BROTLI),
    accepted("brotli-min-length", BROTLI),
    accepted("brotli-types", BROTLI),
];

fn level(value: &str) -> Parsed<u32> {
    let level = values::count(value).ok();
    let level = level.filter(|level| (1..=9).contains(level));
    level.ok_or("a whole number from 1 to 9".into())
}

/// As `gzip_disable` of nginx reads it: small letters are as capitals, and one expression has a name.
fn agents(value: &str) -> Parsed<Regex> {
    let pattern = match value {
        "msie6" => r"MSIE [4-6]\.",
        other => other,
    };
    values::expression(&format!("(?i){pattern}"))
}

fn types<T: FromIterator<String>>(value: &str) -> Parsed<T> {
    let is_one = |one: &str| {
        let parts = one.split_once('/');
        one == "*" || parts.is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty())
    };
    let all: Vec<_> = value.split_whitespace().collect();
    match all.iter().all(|one| is_one(one)) {
        true => Ok(all.into_iter().map(str::to_ascii_lowercase).collect()),
        false => Err("media types such as text/css, with spaces between them".into()),
    }
}
