//! Values of annotations and of the ConfigMap: how each is written (ingress-nginx v1.15.1,
//! internal/ingress/annotations/parser/validators.go, and the functions of Go that it calls).
//!
//! Each function says what is wanted, if a value is another: "true or false".

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr, time::Duration};

use http::{HeaderName, StatusCode};
use ipnet::IpNet;
use regex::bytes::{Regex, RegexBuilder};

use crate::{input::Name, settings::NextUpstream, variables::Template};

/// A value, or what is wanted in its place.
pub(crate) type Parsed<T> = Result<T, Cow<'static, str>>;

/// What a text may have beside letters and digits (`BasicCharsRegex`).
pub(crate) const BASIC: &str = "-._~/: ";
/// Of addresses (`URLIsValidRegex`).
pub(crate) const URL: &str = "-._~/:,?&= ";
/// Of addresses with variables (`URLWithNginxVariableRegex`).
pub(crate) const URL_VARIABLES: &str = "-._~/:,?&=$ ";
/// Of paths with groups (`RegexPathWithCapture`).
pub(crate) const PATH: &str = "-._~/:$";
/// Of values with variables (`NGINXVariable`).
pub(crate) const VARIABLES: &str = "-_${} ";
/// Of expressions (`IsValidRegex`).
pub(crate) const EXPRESSION: &str = "-._~/:^$[](){}*+?|&=\\";
/// Of lists of headers (`HeadersVariable`).
pub(crate) const HEADERS: &str = "-_, ";

/// Bytes that a compiled expression may take.
const EXPRESSION_SIZE: usize = 1 << 20;

/// Letters, digits and the characters of a set; without whitespace around it.
pub(crate) fn text<'v>(value: &'v str, also: &str) -> Parsed<&'v str> {
    let is_of_set = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
    if !value.chars().all(is_of_set) {
        return Err(format!("letters, digits and {also:?} only").into());
    }
    Ok(value.trim())
}

/// One of some words, with whitespace around it perhaps; `wanted` names them.
pub(crate) fn word<T: Copy>(value: &str, words: &[(&str, T)], wanted: &'static str) -> Parsed<T> {
    let found = words.iter().find(|(word, _)| *word == value.trim());
    found.map(|(_, what)| *what).ok_or(wanted.into())
}

/// As Go's `strconv.ParseBool`.
pub(crate) fn flag(value: &str) -> Parsed<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false".into()),
    }
}

/// `on` or `off`.
pub(crate) fn switch(value: &str) -> Parsed<bool> {
    word(value, &[("on", true), ("off", false)], "on or off")
}

/// As Go's `strconv.Atoi`.
pub(crate) fn whole(value: &str) -> Parsed<i64> {
    // Rust takes a sign as Go does.
    value.parse().map_err(|_| "a whole number".into())
}

/// A whole number from 0 up.
pub(crate) fn count(value: &str) -> Parsed<u32> {
    let count = whole(value)?.try_into();
    count.map_err(|_| "a whole number from 0 up".into())
}

/// Seconds.
pub(crate) fn seconds(value: &str) -> Parsed<Duration> {
    let seconds = count(value).map_err(|_| "a whole number of seconds")?;
    Ok(Duration::from_secs(seconds.into()))
}

/// A time of nginx: `1h 30m`, and seconds without a unit
/// (<https://nginx.org/en/docs/syntax.html>).
pub(crate) fn time(value: &str) -> Parsed<Duration> {
    const DAY: f64 = 86_400.0;
    let unit = |unit: &str| match unit {
        "ms" => Some(0.001),
        "s" | "" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3_600.0),
        "d" => Some(DAY),
        "w" => Some(7.0 * DAY),
        "M" => Some(30.0 * DAY),
        "y" => Some(365.0 * DAY),
        _ => None,
    };
    let is_ok = |c: char| c.is_ascii_alphanumeric() || c == ' ';
    let sum = value.chars().all(is_ok).then(|| sum(value, unit)).flatten();
    sum.ok_or("a time such as 240s or 1h".into())
}

/// As Go's `time.ParseDuration`, without signs.
pub(crate) fn duration(value: &str) -> Parsed<Duration> {
    let unit = |unit: &str| match unit {
        "ns" => Some(1e-9),
        "us" | "µs" | "μs" => Some(1e-6),
        "ms" => Some(1e-3),
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3_600.0),
        _ => None,
    };
    let zero = (value == "0").then_some(Duration::ZERO);
    let is_tight = !value.contains(char::is_whitespace);
    let sum = || is_tight.then(|| sum(value, unit)).flatten();
    zero.or_else(sum).ok_or("a duration such as 5s".into())
}

/// The sum of numbers with units.
fn sum(value: &str, seconds: impl Fn(&str) -> Option<f64>) -> Option<Duration> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut rest = value.trim();
    let mut sum = (!rest.is_empty()).then_some(Duration::ZERO)?;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let end = behind.find(|c| is_number(c) || c == ' ');
        let (unit, behind) = behind.split_at(end.unwrap_or(behind.len()));
        let part = number.parse::<f64>().ok()? * seconds(unit)?;
        sum = sum.checked_add(Duration::try_from_secs_f64(part).ok()?)?;
        rest = behind.trim_start();
    }
    Some(sum)
}

/// Bytes, with `k`, `m` or `g` (`SizeRegex`, `nginxOffsetRegex`).
pub(crate) fn size(value: &str) -> Parsed<u64> {
    let value = value.trim();
    let end = value.len() - value.ends_with(|c: char| c.is_ascii_alphabetic()) as usize;
    let (number, unit) = value.split_at(end);
    let shift = match unit {
        "" => Some(0),
        "k" | "K" => Some(10),
        "m" | "M" => Some(20),
        "g" | "G" => Some(30),
        _ => None,
    };
    let is_number = number.bytes().all(|b| b.is_ascii_digit());
    let number = is_number.then(|| number.parse::<u64>().ok()).flatten();
    let bytes = number.zip(shift);
    let bytes = bytes.and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or("a size such as 8m".into())
}

/// A network, or an address.
pub(crate) fn network(value: &str) -> Option<IpNet> {
    let value = value.trim();
    let net = value.parse::<IpNet>().map(|net| net.trunc()).ok();
    net.or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Networks and addresses, between commas.
pub(crate) fn networks(value: &str) -> Parsed<Vec<IpNet>> {
    let networks: Option<Vec<IpNet>> = value.split(',').map(network).collect();
    let mut networks = networks.ok_or("addresses or networks such as 10.0.0.0/8, with commas")?;
    networks.sort_unstable();
    networks.dedup();
    Ok(networks)
}

/// The parts of a list, between commas; none is empty.
pub(crate) fn list(value: &str) -> impl Iterator<Item = &str> {
    let parts = value.split(',').map(str::trim);
    parts.filter(|part| !part.is_empty())
}

/// A value with variables.
pub(crate) fn template(value: &str) -> Parsed<Template> {
    let unknown = |unknown| format!("a text with variables that exist: {unknown}");
    Template::parse(value).map_err(|why| unknown(why).into())
}

/// A value with variables, of a set of characters.
pub(crate) fn template_of(value: &str, also: &str) -> Parsed<Template> {
    template(text(value, also)?)
}

/// A regular expression, bounded in what it costs.
pub(crate) fn expression(value: &str) -> Parsed<Regex> {
    let built = RegexBuilder::new(value).size_limit(EXPRESSION_SIZE).build();
    built.map_err(|_| {
        "a regular expression without look-around and back references, and not too large".into()
    })
}

/// A header's name.
pub(crate) fn header(value: &str) -> Parsed<HeaderName> {
    let is_of_set = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let name = value.bytes().all(is_of_set).then(|| value.parse().ok());
    name.flatten().ok_or("the name of a header".into())
}

/// Names of headers, between commas.
pub(crate) fn headers(value: &str) -> Parsed<Vec<HeaderName>> {
    let names: Parsed<Vec<HeaderName>> = list(value).map(header).collect();
    names.map_err(|_| "names of headers, with commas".into())
}

/// Statuses of a range, between commas.
pub(crate) fn statuses(value: &str, range: std::ops::Range<u16>) -> Parsed<BTreeSet<u16>> {
    let statuses: Option<BTreeSet<u16>> = list(value)
        .map(|status| status.parse().ok().filter(|n| range.contains(n)))
        .collect();
    let wanted = || format!("statuses from {} to {}", range.start, range.end - 1);
    statuses.ok_or_else(|| wanted().into())
}

/// A status of a range.
pub(crate) fn status(value: &str, range: std::ops::RangeInclusive<u16>) -> Parsed<StatusCode> {
    let number = value.parse::<u16>().ok().filter(|n| range.contains(n));
    let status = number.and_then(|number| StatusCode::from_u16(number).ok());
    let wanted = || format!("a status from {} to {}", range.start(), range.end());
    status.ok_or_else(|| wanted().into())
}

/// `NAME`, or `NAMESPACE/NAME`; the namespace is `own` if there is none, and no other unless
/// that is allowed (`allow-cross-namespace-resources`).
pub(crate) fn object(value: &str, own: &str, others: bool) -> Parsed<Name> {
    let value = text(value, BASIC).map_err(|_| "NAMESPACE/NAME")?;
    let (namespace, name) = value.split_once('/').unwrap_or((own, value));
    let namespace = if namespace.is_empty() { own } else { namespace };
    if name.is_empty() || name.contains(['/', ' ', ':', '~']) {
        return Err("NAMESPACE/NAME".into());
    }
    if namespace != own && !others {
        let wanted = format!(
            "an object of the namespace {own}, or set allow-cross-namespace-resources to true"
        );
        return Err(wanted.into());
    }
    Ok(Name::new(namespace, name))
}

/// The host of an address of HTTP or HTTPS (`StringToURL`).
pub(crate) fn host_of(url: &str) -> Parsed<String> {
    let rest = url.strip_prefix("https://");
    let rest = rest.or_else(|| url.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    let host = authority.map(|all| all.rsplit_once('@').map_or(all, |(_, host)| host));
    let host = host.map(|all| match all.find(']') {
        Some(end) => &all[..=end],
        None => all.split(':').next().unwrap_or(all),
    });
    let host = host.filter(|host| !host.is_empty() && !host.contains(".."));
    let host = host.map(str::to_owned);
    host.ok_or("an address with http:// or https:// and a host".into())
}

/// `proxy_next_upstream` of nginx.
pub(crate) fn next_upstream(value: &str) -> Parsed<NextUpstream> {
    const STATUSES: [u16; 7] = [500, 502, 503, 504, 403, 404, 429];
    let mut next = NextUpstream::default();
    let mut off = false;
    let mut words = value.split_ascii_whitespace().peekable();
    let mut is_known = words.peek().is_some();
    for word in words {
        let status = word.strip_prefix("http_").and_then(|n| n.parse().ok());
        match word {
            "error" => next.error = true,
            "timeout" => next.timeout = true,
            "invalid_header" => next.invalid_header = true,
            "non_idempotent" => next.non_idempotent = true,
            "off" => off = true,
            _ => match status.filter(|status| STATUSES.contains(status)) {
                Some(status) => drop(next.statuses.insert(status)),
                None => is_known = false,
            },
        }
    }
    // Beside others, nginx takes `off` alone.
    let next = if off { NextUpstream::default() } else { next };
    is_known.then_some(next).ok_or(
        "off, or some of error, timeout, invalid_header, non_idempotent, http_500, http_502, \
         http_503, http_504, http_403, http_404 and http_429"
            .into(),
    )
}

/// Two texts, or `off`.
pub(crate) fn pair(value: &str) -> Parsed<Option<(String, String)>> {
    let value = text(value, URL)?;
    if value == "off" {
        return Ok(None);
    }
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    match words[..] {
        [from, to] if !from.starts_with('~') => Ok(Some((from.to_owned(), to.to_owned()))),
        _ => Err("off, or two texts, from and to, of which none is an expression".into()),
    }
}
