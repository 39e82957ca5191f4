//! Hosts: of requests, and of rules.

use std::collections::HashMap;

/// A request's host as rules have it: in lower case, without its port and without a dot at its
/// end; `None` for what is no host. (RFC 3986, section 3.2; RFC 9110, section 7.2.)
///
/// ```
/// assert_eq!(lb_route::host::normal("Shop.Example.:8080").as_deref(), Some("shop.example"));
/// assert_eq!(lb_route::host::normal("shop.example/admin"), None);
/// ```
pub fn normal(authority: &str) -> Option<String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (literal, port) = rest.split_once(']')?;
            let is_ip = literal.parse::<std::net::Ipv6Addr>().is_ok();
            (is_ip.then(|| format!("[{literal}]"))?, port)
        }
        None => {
            let at = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at(at);
            let host = host.strip_suffix('.').unwrap_or(host);
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            let is_host = !host.is_empty() && host.bytes().all(is_name);
            (is_host.then(|| host.to_owned())?, port)
        }
    };
    let digits = match port.strip_prefix(':') {
        Some(digits) => digits,
        None if port.is_empty() => "",
        None => return None,
    };
    let is_port = digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit());
    is_port.then(|| host.to_ascii_lowercase())
}

/// What is kept for each host of rules.
#[derive(Clone, Debug)]
pub(crate) struct Hosts<L> {
    exact: HashMap<String, L>,
    /// By what follows the `*.`: it stands for one label.
    wildcard: HashMap<String, L>,
    any: Option<L>,
}

impl<L> Hosts<L> {
    /// From what there is for each host of rules: a name, `*.` and a name, or nothing for all.
    pub(crate) fn new(all: impl IntoIterator<Item = (String, L)>) -> Self {
        let mut hosts = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            any: None,
        };
        for (host, what) in all {
            if let Some(rest) = host.strip_prefix("*.") {
                hosts.wildcard.insert(rest.to_owned(), what);
            } else if host.is_empty() {
                hosts.any = Some(what);
            } else {
                hosts.exact.insert(host, what);
            }
        }
        hosts
    }

    /// All, by the names of rules; `_` for every host.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, &L)> {
        let exact = self.exact.iter().map(|(name, what)| (name.clone(), what));
        let wildcard = self.wildcard.iter();
        let wildcard = wildcard.map(|(rest, what)| (format!("*.{rest}"), what));
        let any = self.any.iter().map(|what| ("_".to_owned(), what));
        exact.chain(wildcard).chain(any)
    }

    /// What there is for a host of a request: of the most specific host that it matches. What
    /// that has no path for, no other has.
    pub(crate) fn find(&self, host: &str) -> Option<&L> {
        let wildcard = || {
            let (label, rest) = host.split_once('.')?;
            self.wildcard.get(rest).filter(|_| !label.is_empty())
        };
        self.exact.get(host).or_else(wildcard).or(self.any.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_normal_without_case_port_and_last_dot() {
        for (authority, expected) in [
            ("foo.com", Some("foo.com")),
            ("FOO.com:80", Some("foo.com")),
            ("foo.com.", Some("foo.com")),
            ("foo.com.:443", Some("foo.com")),
            ("foo_1-a.com:", Some("foo_1-a.com")),
            ("192.0.2.1:8080", Some("192.0.2.1")),
            ("[2001:DB8::1]:443", Some("[2001:db8::1]")),
            ("[::1]", Some("[::1]")),
            ("", None),
            (".", None),
            (":80", None),
            ("foo.com:80a", None),
            ("foo.com:123456", None),
            ("foo.com:80:80", None),
            ("user@foo.com", None),
            ("foo.com/", None),
            ("foo bar", None),
            ("foo.com\r\nx: y", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[foo]", None),
            ("::1", None),
        ] {
            assert_eq!(normal(authority).as_deref(), expected, "{authority:?}");
        }
    }
}
