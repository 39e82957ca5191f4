//! A request of a case, and what is expected of its answer.

use std::{collections::BTreeMap, net::IpAddr};

use regex::Regex;
use serde::Deserialize;

use super::client::Answer;

/// From and to.
pub type Range = (u64, u64);

/// A request, and what is expected. Texts that begin with `~` are expressions, and with `!~` ones
/// that nothing matches; null means that there must be none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Target.
    #[serde(default = "root")]
    pub get: String,
    /// Method.
    #[serde(default = "get")]
    pub method: String,
    /// Version of HTTP.
    #[serde(default = "version")]
    pub version: String,
    /// Headers. Without `host` it is the case's, without `connection` it is `close`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// More headers, for those that come several times.
    #[serde(default)]
    pub more: Vec<(String, String)>,
    /// Body.
    #[serde(default)]
    pub body: String,
    /// Bytes of a body of `x`.
    #[serde(default)]
    pub bytes: usize,
    /// Cookies of earlier answers are sent.
    #[serde(default)]
    pub jar: bool,
    /// It is sent by HTTPS.
    #[serde(default)]
    pub https: bool,
    /// The name that TLS asks for; without it, it is the request's host.
    #[serde(default)]
    pub sni: Option<String>,
    /// The certificate that the client shows.
    #[serde(default)]
    pub shows: Option<String>,
    /// The client's address.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// What is said before the request, such as a line of the PROXY protocol.
    #[serde(default)]
    pub before: String,
    /// Milliseconds that are waited before it.
    #[serde(default)]
    pub wait: u64,
    /// How often it is asked; every answer is as expected.
    #[serde(default = "once")]
    pub times: usize,
    /// These are asked at once.
    #[serde(default)]
    pub at_once: bool,
    /// How many of these went to each backend.
    #[serde(default)]
    pub spread: BTreeMap<String, Range>,
    /// How many of these had each status, where they differ.
    #[serde(default)]
    pub statuses: BTreeMap<u16, Range>,
    /// All of these went to one backend.
    #[serde(default)]
    pub same: bool,
    /// All of these went to the backend of the last request before.
    #[serde(default)]
    pub stays: bool,
    /// There is no answer: the connection ends.
    #[serde(default)]
    pub ends: bool,
    /// Milliseconds until the whole answer is there.
    #[serde(default)]
    pub took: Option<Range>,
    /// Status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Headers of the answer; `:certificate` is the server's, `:body-length` that of the body, in
    /// bytes, when it is unpacked.
    #[serde(default)]
    pub answer: BTreeMap<String, Option<String>>,
    /// Who answered.
    #[serde(default)]
    pub backend: Option<String>,
    /// No backend answered.
    #[serde(default)]
    pub by_proxy: bool,
    /// Target that the backend saw.
    #[serde(default)]
    pub target: Option<String>,
    /// Headers that it saw; `:method`, `:version` and `:body` are what they say.
    #[serde(default)]
    pub saw: BTreeMap<String, Option<String>>,
    /// Body of the answer has this.
    #[serde(default)]
    pub has: Option<String>,
}

fn root() -> String {
    "/".to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

fn version() -> String {
    "HTTP/1.1".to_owned()
}

const fn once() -> usize {
    1
}

const fn ok() -> u16 {
    200
}

impl Ask {
    /// The host that it names.
    #[must_use]
    pub fn host<'a>(&'a self, host: &'a str) -> &'a str {
        self.headers.get("host").map_or(host, String::as_str)
    }

    /// The head of the request, with cookies perhaps, and its body.
    #[must_use]
    pub fn request(&self, host: &str, cookies: &str) -> (String, String) {
        let body = match self.bytes {
            0 => self.body.clone(),
            many => "x".repeat(many),
        };
        let mut head = format!("{} {} {}\r\n", self.method, self.get, self.version);
        head += &format!("host: {}\r\n", self.host(host));
        if !self.headers.contains_key("connection") {
            head += "connection: close\r\n";
        }
        let single = self.headers.iter().filter(|(key, _)| *key != "host");
        let several = self.more.iter().map(|(key, value)| (key, value));
        for (key, value) in single.chain(several) {
            head += &format!("{key}: {value}\r\n");
        }
        if self.jar && !cookies.is_empty() {
            head += &format!("cookie: {cookies}\r\n");
        }
        let chunked = self.headers.contains_key("transfer-encoding");
        let has_length = chunked || self.headers.contains_key("content-length");
        if !body.is_empty() && !has_length {
            head += &format!("content-length: {}\r\n", body.len());
        }
        let body = match chunked {
            true => format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
            false => body,
        };
        (head, body)
    }

    /// What of an answer is not as expected.
    #[must_use]
    pub fn differences(&self, answer: &Answer) -> Vec<String> {
        let mut all = Vec::new();
        if self.statuses.is_empty() && answer.status != self.status {
            all.push(format!("status {}, not {}", answer.status, self.status));
        }
        let length = answer.body.len().to_string();
        for (key, expected) in &self.answer {
            let values: Vec<_> = match key.as_str() {
                ":body-length" => vec![length.as_str()],
                ":certificate" => answer.certificate.into_iter().collect(),
                key => answer.header(key).collect(),
            };
            let what = format!("answer's {key}");
            differs(&what, expected.as_deref(), &values, &mut all);
        }
        if let Some(part) = &self.has
            && !answer.body.contains(part.as_str())
        {
            all.push(format!("{part:?} is not in the body {:?}", answer.body));
        }
        self.of_backend(answer, &mut all);
        all
    }

    fn of_backend(&self, answer: &Answer, all: &mut Vec<String>) {
        let seen = answer.seen();
        if let Some(seen) = seen.as_ref().filter(|_| self.by_proxy) {
            all.push(format!("{} answered, not the proxy", seen.backend));
        }
        if let Some(backend) = &self.backend {
            let who = seen.as_ref().map(|seen| seen.backend.as_str());
            differs("backend", Some(backend), who.as_slice(), all);
        }
        let Some(seen) = seen else {
            if self.target.is_some() || !self.saw.is_empty() {
                let Answer { status, body, .. } = answer;
                all.push(format!("no backend answered: {status} {body:?}"));
            }
            return;
        };
        if let Some(target) = &self.target {
            differs("target", Some(target), &[&seen.target], all);
        }
        for (key, expected) in &self.saw {
            let value = match key.as_str() {
                ":method" => Some(seen.method.as_str()),
                ":version" => Some(seen.version.as_str()),
                ":body" => Some(seen.body.as_str()),
                key => seen.headers.get(key).map(String::as_str),
            };
            let what = format!("backend's {key}");
            differs(&what, expected.as_deref(), value.as_slice(), all);
        }
    }
}

fn differs(what: &str, expected: Option<&str>, values: &[&str], all: &mut Vec<String>) {
    let matched = |pattern: &str| {
        let pattern = Regex::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        values.iter().any(|value| pattern.is_match(value))
    };
    let is_so = match expected {
        None => values.is_empty(),
        Some(expected) => match (expected.strip_prefix("!~"), expected.strip_prefix('~')) {
            (Some(pattern), _) => !matched(pattern),
            (None, Some(pattern)) => matched(pattern),
            (None, None) => values.contains(&expected),
        },
    };
    if !is_so {
        all.push(format!("{what}: {values:?}, not {expected:?}"));
    }
}
