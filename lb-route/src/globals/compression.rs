//! Compression of answers.

use regex::bytes::Regex;

use super::{Key, put, served};
use crate::values::{self, Parsed};

pub(super) const KEYS: &[Key] = &[
    served(
        "use-gzip",
        "Whether answers are compressed for clients that take it: false.",
        |g, v| put(&mut g.compression.gzip.on, values::flag(v)),
    ),
    served("gzip-level", "How hard it is tried, 1 to 9: 1.", |g, v| {
        put(&mut g.compression.gzip.level, level(v, 1, 9))
    }),
    served(
        "gzip-min-length",
        "Bytes that an answer has at least, if it says how many: 256.",
        |g, v| put(&mut g.compression.gzip.min_length, values::size(v)),
    ),
    served(
        "gzip-types",
        "Media types besides text/html, or *: those of text, scripts, JSON, XML and fonts.",
        |g, v| put(&mut g.compression.gzip.types, types(v)),
    ),
    served(
        "gzip-disable",
        "An expression of User-Agent for which nothing is compressed by gzip: none.",
        |g, v| put(&mut g.compression.gzip_disabled, agents(v).map(Some)),
    ),
    served(
        "enable-brotli",
        "Whether answers are compressed by brotli for clients that take it, before gzip: false.",
        |g, v| put(&mut g.compression.brotli.on, values::flag(v)),
    ),
    served(
        "brotli-level",
        "How hard it is tried, 0 to 11: 4.",
        |g, v| put(&mut g.compression.brotli.level, level(v, 0, 11)),
    ),
    served(
        "brotli-min-length",
        "Bytes that an answer has at least, if it says how many: 20.",
        |g, v| put(&mut g.compression.brotli.min_length, values::size(v)),
    ),
    served(
        "brotli-types",
        "Media types besides text/html, or *: those of gzip-types, and application/xml+rss.",
        |g, v| put(&mut g.compression.brotli.types, types(v)),
    ),
];

fn level(value: &str, least: u32, most: u32) -> Parsed<u32> {
    let level = values::count(value).ok();
    let level = level.filter(|level| (least..=most).contains(level));
    level.ok_or_else(|| format!("a whole number from {least} to {most}").into())
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
