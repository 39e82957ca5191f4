//! Headers that end at the proxy (RFC 9110, section 7.6.1), and those that replace them.

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};

/// Whether a header of a message ends at the proxy, apart from those that `Connection` names.
/// `Proxy` is no header of HTTP, but many programs make `HTTP_PROXY` of it.
fn ends_here(name: &HeaderName) -> bool {
    match *name {
        CONNECTION | TE | TRAILER | TRANSFER_ENCODING | UPGRADE => true,
        _ => {
            let name = name.as_str();
            match name.as_bytes()[0] {
                b'k' => name == "keep-alive",
                b'p' => name == "proxy" || name.starts_with("proxy-"),
                b'h' => name == "http2-settings",
                _ => false,
            }
        }
    }
}

/// Sets a header, or takes it away.
pub(crate) fn set(headers: &mut HeaderMap, name: &HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

/// What stands between commas in the values of a header; those that are no text have nothing.
pub(crate) fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

/// What `Connection` names.
fn named(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    words(headers, CONNECTION)
}

/// The headers of a client's request that a server behind gets, without those of its host, its
/// length and its expectations; names with underscores only if `underscores`
/// (`underscores_in_headers` and `ignore_invalid_headers` of nginx).
pub(crate) fn passed(headers: &HeaderMap, underscores: bool, room: usize) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(headers.len() + room);
    // Mostly there is nothing but these three, which end here in any case.
    let usual = |name: &&str| matches!(*name, "close" | "keep-alive" | "Upgrade");
    let hidden: Vec<&str> = named(headers).filter(|name| !usual(name)).collect();
    let hides = |name: &str| {
        hidden
            .iter()
            .any(|hidden| hidden.eq_ignore_ascii_case(name))
    };
    for (name, value) in headers {
        let ours = matches!(*name, HOST | CONTENT_LENGTH | EXPECT);
        let text = name.as_str();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let valid = text
            .bytes()
            .all(|byte| plain(byte) || (underscores && byte == b'_'));
        if !ours && valid && !ends_here(name) && !hides(text) {
            passed.append(name, value.clone());
        }
    }
    passed
}

/// The protocol that a client asks for in place of HTTP. Not HTTP/2: a server behind that changed
/// to it would have requests that the proxy does not see.
pub(crate) fn upgrade(headers: &HeaderMap, version: Version) -> Option<&HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let asked = version == Version::HTTP_11
        && named(headers).any(|name| name.eq_ignore_ascii_case("upgrade"));
    let text = protocol.to_str().ok()?;
    let mut protocols = text.split(',').map(str::trim);
    let h2 = protocols.any(|name| name.eq_ignore_ascii_case("h2c") || name.starts_with("HTTP"));
    let one = headers.get_all(UPGRADE).iter().count() == 1;
    (asked && one && !h2).then_some(protocol)
}

/// Takes away what ends here of an answer, and what only nginx would understand.
pub(crate) fn clean(headers: &mut HeaderMap, status: StatusCode) {
    let ends: Vec<HeaderName> = {
        let named: Vec<&str> = named(headers).collect();
        let hides = |name: &HeaderName| named.iter().any(|n| n.eq_ignore_ascii_case(name.as_str()));
        let names = headers.keys();
        let ends = names.filter(|name| ends_here(name) || is_accel(name) || hides(name));
        ends.cloned().collect()
    };
    // RFC 9112, section 6.3: the coding is what counts.
    let coded = ends.contains(&TRANSFER_ENCODING);
    if coded || status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
    }
    for name in ends {
        headers.remove(name);
    }
}

/// `X-Accel-*`: to nginx (`proxy_hide_header`, `proxy_ignore_headers`).
fn is_accel(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-accel-")
}

#[cfg(test)]
pub(crate) mod testing {
    use http::{Response, response::Parts};

    use super::*;

    /// Headers of these names and values.
    pub(crate) fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        headers.iter().map(pair).collect()
    }

    /// The head of an answer.
    pub(crate) fn answer(status: u16, headers: &[(&str, &str)]) -> Parts {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(status).unwrap();
        parts.headers = map(headers);
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::map, *};

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_ends_here_is_not_passed() {
        let sent = map(&[
            ("Host", "a"),
            ("Connection", "close, X-Secret"),
            ("Connection", "a1,a2,a3,a4,a5,a6,a7,a8,x-ninth"),
            ("X-Secret", "1"),
            ("X-Ninth", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic eA=="),
            ("Proxy", "http://evil"),
            ("TE", "trailers"),
            ("Trailer", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "websocket"),
            ("HTTP2-Settings", "x"),
            ("Expect", "100-continue"),
            ("Content-Length", "3"),
            ("X_Forwarded_For", "1.2.3.4"),
            ("Accept", "a"),
            ("Accept", "b"),
            ("Cookie", "c"),
        ]);
        assert_eq!(names(&passed(&sent, false, 0)), ["accept", "cookie"]);
        assert_eq!(passed(&sent, false, 0).get_all("accept").iter().count(), 2);
        let with = passed(&sent, true, 0);
        assert_eq!(names(&with), ["accept", "cookie", "x_forwarded_for"]);
    }

    #[test]
    fn what_ends_here_of_an_answer() {
        let mut answer = map(&[
            ("Connection", "keep-alive, x-hop"),
            ("Keep-Alive", "timeout=5"),
            ("X-Hop", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "5"),
            ("X-Accel-Redirect", "/secret"),
            ("Server", "backend"),
            ("Set-Cookie", "a=b"),
        ]);
        clean(&mut answer, StatusCode::OK);
        assert_eq!(names(&answer), ["server", "set-cookie"]);
        let mut plain = map(&[("Content-Length", "5")]);
        clean(&mut plain, StatusCode::OK);
        assert_eq!(names(&plain), ["content-length"]);
    }

    #[test]
    fn protocols() {
        type Case<'c> = (&'c [(&'c str, &'c str)], Version, bool);
        let cases: &[Case<'_>] = &[
            (
                &[("Upgrade", "websocket"), ("Connection", "Upgrade")],
                Version::HTTP_11,
                true,
            ),
            (
                &[("Upgrade", "x/1"), ("Connection", "keep-alive, upgrade")],
                Version::HTTP_11,
                true,
            ),
            (&[("Upgrade", "websocket")], Version::HTTP_11, false),
            (
                &[("Upgrade", "websocket"), ("Connection", "Upgrade")],
                Version::HTTP_10,
                false,
            ),
            (
                &[("Upgrade", "h2c"), ("Connection", "Upgrade")],
                Version::HTTP_11,
                false,
            ),
            (
                &[("Upgrade", "websocket, H2C"), ("Connection", "Upgrade")],
                Version::HTTP_11,
                false,
            ),
            (
                &[("Upgrade", "HTTP/2.0"), ("Connection", "Upgrade")],
                Version::HTTP_11,
                false,
            ),
            (&[("Connection", "Upgrade")], Version::HTTP_11, false),
        ];
        for (headers, version, expected) in cases {
            assert_eq!(
                upgrade(&map(headers), *version).is_some(),
                *expected,
                "{headers:?}"
            );
        }
    }
}
