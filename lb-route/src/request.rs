//! The head of a request, and who sent it.

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use http::{HeaderMap, HeaderName, Method, Uri, Version, header};

/// The head of a request as it came.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Method.
    pub method: &'a Method,
    /// Target.
    pub uri: &'a Uri,
    /// Version of HTTP.
    pub version: Version,
    /// Headers.
    pub headers: &'a HeaderMap,
}

impl<'a> Head<'a> {
    /// A header's value: of several, joined by commas, as nginx has `$http_NAME`. Bytes that are no
    /// UTF-8 are replaced.
    pub fn header(&self, name: &HeaderName) -> Option<Cow<'a, str>> {
        Some(match self.header_bytes(name)? {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
        })
    }

    /// [`Head::header`] as it is.
    pub(crate) fn header_bytes(&self, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
        let mut all = self.headers.get_all(name).iter();
        let first = Cow::Borrowed(all.next()?.as_bytes());
        let joint: &[u8] = if name == header::COOKIE { b"; " } else { b", " };
        Some(all.fold(first, |joined, value| {
            Cow::Owned([&joined, joint, value.as_bytes()].concat())
        }))
    }

    /// A cookie's value, of the first with that name, whose case does not count, as nginx has
    /// `$cookie_NAME` (`ngx_http_parse_multi_header_lines`); `None` for one that is no UTF-8.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.cookie_bytes(name)?).ok()
    }

    /// [`Head::cookie`] as it is.
    pub(crate) fn cookie_bytes(&self, name: &str) -> Option<&'a [u8]> {
        let headers = self.headers.get_all(header::COOKIE).iter();
        let mut pairs = headers.flat_map(|value| value.as_bytes().split(|b| *b == b';'));
        pairs.find_map(|pair| {
            let at = pair.iter().position(|b| *b == b'=')?;
            let (key, value) = (&pair[..at], &pair[at + 1..]);
            let is_it = key.trim_ascii().eq_ignore_ascii_case(name.as_bytes());
            is_it.then(|| value.trim_ascii())
        })
    }

    /// An argument of the query as it is written, of the first with that name and a `=`, as nginx
    /// has `$arg_NAME` (`ngx_http_arg`).
    pub fn arg(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.uri.query()?.split('&');
        pairs.find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Host and port that it asks for: of an absolute target, else of `Host`. `None` for none, and
    /// for a request with several `Host`, which has to be answered 400 (RFC 9112, section 3.2).
    pub fn authority(&self) -> Option<&'a str> {
        let mut hosts = self.headers.get_all(header::HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return None;
        }
        let of_target = self.uri.authority().map(http::uri::Authority::as_str);
        of_target.or_else(|| host?.to_str().ok())
    }

    /// Path and query as they came.
    pub fn target(&self) -> &'a str {
        self.uri.path_and_query().map_or("/", |both| both.as_str())
    }
}

/// Who sent a request, and by which connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its address: of the connection, or what the PROXY protocol says of it.
    pub address: SocketAddr,
    /// The port that it dialled.
    pub port: u16,
    /// The connection's TLS, if it has any: all its requests share it.
    pub tls: Option<Arc<Tls>>,
    /// A number for this request that nobody can foresee: canaries are chosen by it.
    pub random: u32,
    /// An identifier of this request, for those that have none: 32 hexadecimal digits.
    pub request_id: String,
}

/// The TLS of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// The name that the client asked for.
    pub server_name: Option<String>,
    /// Version, as OpenSSL writes it (`TLSv1.3`).
    pub protocol: &'static str,
    /// Cipher, as OpenSSL writes it.
    pub cipher: String,
    /// The certificate that the client showed.
    pub certificate: Option<Certificate>,
}

/// A client's certificate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Certificate {
    /// Whether the host's authority signed it, for `$ssl_client_verify`: why not.
    pub trouble: Option<String>,
    /// Whether that is only that nobody who is known signed it: it is good besides.
    pub is_of_unknown_issuer: bool,
    /// Subject (RFC 2253).
    pub subject: String,
    /// Issuer (RFC 2253).
    pub issuer: String,
    /// The certificate, PEM.
    pub pem: String,
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// What `read` makes of a request with a target and headers.
    fn with<T>(
        target: &str,
        headers: &[(HeaderName, &[u8])],
        read: impl FnOnce(Head<'_>) -> T,
    ) -> T {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        read(Head {
            method: &Method::GET,
            uri: &target.parse().unwrap(),
            version: Version::HTTP_11,
            headers: &map,
        })
    }

    const X: HeaderName = HeaderName::from_static("x-one");

    #[test]
    fn headers_are_joined_in_their_order() {
        let two: &[(HeaderName, &[u8])] = &[(X, b"a"), (header::VIA, b"v"), (X, b"b, c")];
        with("/", two, |head| {
            assert_eq!(head.header(&X).as_deref(), Some("a, b, c"));
            assert_eq!(head.header(&header::VIA).as_deref(), Some("v"));
            assert_eq!(head.header(&header::COOKIE), None);
        });
        let cookies: &[(HeaderName, &[u8])] = &[(header::COOKIE, b"a=1"), (header::COOKIE, b"b=2")];
        with("/", cookies, |head| {
            assert_eq!(head.header(&header::COOKIE).as_deref(), Some("a=1; b=2"));
        });
        let odd: &[(HeaderName, &[u8])] = &[(X, b""), (X, b"\xe4")];
        with("/", odd, |head| {
            assert_eq!(head.header(&X).as_deref(), Some(", \u{fffd}"));
            assert_eq!(head.header_bytes(&X).as_deref(), Some(&b", \xe4"[..]));
        });
    }

    #[test]
    fn the_first_cookie_with_a_name_counts() {
        for (cookies, expected) in [
            (vec!["c=1"], Some("1")),
            (vec!["a=0; c=1; c=2"], Some("1")),
            (vec!["a=0", "c=1", "c=2"], Some("1")),
            (vec!["a=0;c=1;b=2"], Some("1")),
            (vec!["a=0;   c = 1 ;b=2"], Some("1")),
            (vec!["C=1"], Some("1")),
            (vec!["c=a=b|c"], Some("a=b|c")),
            (vec!["c=\"q\""], Some("\"q\"")),
            (vec!["c="], Some("")),
            (vec!["c"], None),
            (vec!["cc=1; xc=2; c; =c"], None),
            (vec!["b=\u{e9}; c=1"], Some("1")),
            (vec![""], None),
            (vec![], None),
        ] {
            let headers: Vec<_> = cookies
                .iter()
                .map(|value| (header::COOKIE, value.as_bytes()))
                .collect();
            with("/", &headers, |head| {
                assert_eq!(head.cookie("c"), expected, "{cookies:?}");
            });
        }
        let odd: &[(HeaderName, &[u8])] = &[(header::COOKIE, b"c=\xff; d=1")];
        with("/", odd, |head| {
            assert_eq!(head.cookie("c"), None);
            assert_eq!(head.cookie_bytes("c"), Some(&b"\xff"[..]));
            assert_eq!(head.cookie("d"), Some("1"));
        });
    }

    #[test]
    fn the_first_argument_with_a_value_counts() {
        for (target, expected) in [
            ("/?a=1", Some("1")),
            ("/?b=0&a=1&a=2", Some("1")),
            ("/?A=1", Some("1")),
            ("/?a&a=1", Some("1")),
            ("/?a=x%20y+z=", Some("x%20y+z=")),
            ("/?a=", Some("")),
            ("/?a", None),
            ("/?aa=1&xa=2", None),
            ("/?", None),
            ("/a=1", None),
        ] {
            with(target, &[], |head| {
                assert_eq!(head.arg("a"), expected, "{target}")
            });
        }
    }

    #[test]
    fn the_host_is_that_of_an_absolute_target_before_that_of_the_header() {
        for (target, hosts, expected) in [
            ("/", vec!["a.example"], Some("a.example")),
            ("/", vec!["a.example:8080"], Some("a.example:8080")),
            (
                "http://b.example:81/x",
                vec!["a.example"],
                Some("b.example:81"),
            ),
            ("http://b.example/x", vec![], Some("b.example")),
            ("/", vec![], None),
            ("/", vec!["a.example", "a.example"], None),
            ("http://b.example/", vec!["a.example", "b.example"], None),
        ] {
            let headers: Vec<_> = hosts
                .iter()
                .map(|host| (header::HOST, host.as_bytes()))
                .collect();
            with(target, &headers, |head| {
                assert_eq!(head.authority(), expected, "{target} {hosts:?}");
            });
        }
    }

    #[test]
    fn the_target_is_path_and_query_as_they_came() {
        for (target, expected) in [
            ("/a%2Fb/../c?d=%20", "/a%2Fb/../c?d=%20"),
            ("/?", "/?"),
            ("http://a.example", "/"),
            ("http://a.example/b?c", "/b?c"),
            ("*", "*"),
        ] {
            with(target, &[], |head| assert_eq!(head.target(), expected));
        }
    }
}
