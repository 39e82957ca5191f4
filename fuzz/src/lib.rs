//! What is fuzzed of the proxy of Ingresses. Each function takes any bytes, and panics where
//! something is not as it has to be: `cargo xtask fuzz` has libFuzzer look for such bytes, and a
//! test takes all that it has kept (`corpus/`), and what it began with (`seeds/`).
//!
//! Inputs are text where they can be: whoever reads one sees what it is.

mod connection;
mod peers;
mod site;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use lb_proxy::proxy_protocol::{self, Header, Parsed};
use lb_route::{
    Table,
    action::Action,
    affinity::{Asker, Sticky},
    htpasswd::{self, Users},
    request::Head,
    settings::Affinity,
};

pub use connection::connection;
pub use peers::peers;

/// What takes any bytes.
type Target = fn(&[u8]);

/// All of them, by name: the inputs of each are in directories of that name.
pub const TARGETS: [(&str, Target); 7] = [
    ("connection", connection),
    ("cookie", cookie),
    ("head", head),
    ("htpasswd", htpasswd),
    ("peers", peers),
    ("proxy_header", proxy_header),
    ("rewrite", rewrite),
];

/// Headers that are read of a head.
const HEADERS: usize = 64;

/// The head of a request, to what becomes of it by a table with most annotations.
pub fn head(data: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(data), Ok(httparse::Status::Complete(_))) {
        return;
    }
    let parts = (request.method, request.path);
    let (Some(Ok(method)), Some(Ok(uri))) = (
        parts.0.map(str::parse::<Method>),
        parts.1.map(str::parse::<Uri>),
    ) else {
        return;
    };
    let mut map = HeaderMap::new();
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(header.value)) else {
            return;
        };
        map.append(name, value);
    }
    for https in [false, true] {
        decide(site::table(), (&method, &uri), &map, https);
    }
}

/// Decides twice; the same must become of the same.
fn decide(table: &Table, line: (&Method, &Uri), headers: &HeaderMap, https: bool) {
    let head = Head {
        method: line.0,
        uri: line.1,
        version: Version::HTTP_11,
        headers,
    };
    let client = site::client(https);
    let found = table.decide(&head, &client);
    let again = table.decide(&head, &client);
    match (found, again) {
        (Action::Answer(one), Action::Answer(other)) => {
            assert_eq!((one.status, one.headers), (other.status, other.headers));
        }
        (Action::Forward(one), Action::Forward(other)) => {
            assert_eq!(one.target, other.target);
            assert_eq!(one.headers, other.headers);
            assert_eq!(one.upstream.name, other.upstream.name);
            let mut known = table.upstreams();
            assert!(known.any(|upstream| Arc::ptr_eq(upstream, &one.upstream)));
        }
        (one, other) => panic!("{one:?} and then {other:?}"),
    }
}

/// An expression, what it is rewritten to, and a path, each in a line: whatever an Ingress has,
/// its table is made, and a request is decided in bounded time.
pub fn rewrite(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let (Some(path), Some(target), Some(asked)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let Ok(uri) = asked.parse::<Uri>() else {
        return;
    };
    let table = site::rewriting(path, target);
    let mut headers = HeaderMap::new();
    headers.insert(http::header::HOST, HeaderValue::from_static("a.example"));
    decide(&table, (&Method::GET, &uri), &headers, false);
}

/// The first bytes of a connection with the PROXY protocol: what is read of them does not depend
/// on how they come.
pub fn proxy_header(data: &[u8]) {
    let whole = proxy_protocol::parse(data);
    if let Ok(Parsed::Header(header, length)) = whole {
        assert!(length <= data.len() && length <= proxy_protocol::MOST);
        let alone = proxy_protocol::parse(&data[..length]);
        assert_eq!(alone, Ok(Parsed::Header(header, length)));
        if let Header::Forwarded {
            source,
            destination,
        } = header
        {
            assert_eq!(source.is_ipv4(), destination.is_ipv4());
        }
        for end in [length - 1, length / 2, 1] {
            let some = proxy_protocol::parse(&data[..end]);
            assert_eq!(some, Ok(Parsed::Incomplete), "of {end} bytes");
        }
    }
}

/// The value of a cookie of affinity, and headers with cookies.
pub fn cookie(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(http::header::COOKIE, value);
    let head = Head {
        method: &Method::GET,
        uri: &Uri::from_static("/"),
        version: Version::HTTP_11,
        headers: &headers,
    };
    let value = head.cookie("INGRESSCOOKIE");
    let endpoints = site::endpoints();
    for persistent in [false, true] {
        let affinity = Affinity {
            persistent,
            ..site::affinity()
        };
        let sticky = Sticky {
            affinity: &affinity,
            upstream: "default-a-80",
            endpoints: &endpoints,
        };
        binds(&sticky, value);
    }
}

/// A client is bound to an endpoint that is there, and by its new cookie to the same one.
fn binds(sticky: &Sticky<'_>, value: Option<&str>) {
    let bound = sticky.choose(value, &[], 7).expect("there are endpoints");
    assert!(sticky.endpoints.contains(&bound.endpoint));
    let Some(key) = bound.key else {
        return;
    };
    let asker = Asker {
        path: "/",
        is_https: true,
        user_agent: value,
        now: Duration::from_secs(1_700_000_000),
    };
    let set = sticky.cookie(&key, &asker).expect("plain settings");
    let set = set.to_str().expect("keys are hexadecimal digits");
    let pair = set.split(';').next().unwrap_or_default();
    let (_, value) = pair.split_once('=').expect("a cookie has a name");
    let again = sticky.choose(Some(value), &[], 8);
    assert_eq!(
        again.map(|bound| (bound.endpoint, bound.key)),
        Some((bound.endpoint, None))
    );
}

/// A password in the first line, and a file of htpasswd. Hashes that take long are read, and not
/// tried.
pub fn htpasswd(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (password, file) = (lines.next().unwrap_or_default(), lines.next());
    let (users, problems) = Users::from_file(file.unwrap_or_default());
    let lines = file
        .unwrap_or_default()
        .split(|byte| *byte == b'\n')
        .count();
    assert!(users.len() + problems.len() <= lines);
    for problem in problems {
        assert!(!problem.to_string().is_empty());
    }
    if !users.is_slow("nobody") {
        assert!(!users.check("", password), "nobody has no name");
        users.check("user", password);
    }
    if let Ok(value) = HeaderValue::from_bytes(password)
        && let Some((user, _)) = htpasswd::credentials(&value)
    {
        assert!(!user.is_empty() && !user.contains(':'));
    }
}
