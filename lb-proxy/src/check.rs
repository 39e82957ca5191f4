//! What a request's head has to be beyond what the parsers ask of it.

use http::{Method, StatusCode, Version, header};
use lb_route::request::Head;

/// What is wrong with a head.
///
/// # Errors
/// The status that the request gets.
pub(crate) fn check(head: &Head<'_>) -> Result<(), StatusCode> {
    // Both are refused by nginx too (ngx_http_process_request_header): a tunnel to anywhere, and
    // an echo of credentials.
    if matches!(*head.method, Method::CONNECT | Method::TRACE) {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let asterisk = head.uri.path() == "*";
    if head.uri.path_and_query().is_none() || (asterisk && head.method != Method::OPTIONS) {
        return Err(StatusCode::BAD_REQUEST);
    }
    if !host_is_clear(head) {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(())
}

/// Whether there is one host that everybody reads out of it (RFC 9112, section 3.2; RFC 9113,
/// section 8.3.1).
fn host_is_clear(head: &Head<'_>) -> bool {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    let authority = head.uri.authority();
    if more.is_some() {
        return false;
    }
    if authority.is_some_and(|authority| !is_host(authority.as_str().as_bytes())) {
        return false;
    }
    match (host, authority) {
        (Some(host), None) => is_host(host.as_bytes()),
        // A proxy is to replace the header by the target's. Nobody needs them to differ.
        (Some(host), Some(authority)) => host
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes()),
        (None, Some(_)) => head.version >= Version::HTTP_2,
        (None, None) => head.version < Version::HTTP_11,
    }
}

/// Whether these are bytes of a host and a port (RFC 3986, section 3.2.2), and there are some.
fn is_host(bytes: &[u8]) -> bool {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte);
    !bytes.is_empty() && bytes.iter().all(known)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    /// Status, 200 for none, of a request.
    fn status(method: &str, uri: &str, version: Version, hosts: &[&str]) -> u16 {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        let head = Head {
            method: &method.parse().unwrap(),
            uri: &uri.parse().unwrap(),
            version,
            headers: &headers,
        };
        check(&head).err().unwrap_or(StatusCode::OK).as_u16()
    }

    #[test]
    fn heads() {
        let (v0, v1, v2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        let cases: &[(&str, &str, Version, &[&str], u16)] = &[
            ("GET", "/", v1, &["a"], 200),
            ("GET", "/", v1, &["a:80"], 200),
            ("GET", "/", v1, &["[::1]:80"], 200),
            ("GET", "/", v1, &[], 400),
            ("GET", "/", v0, &[], 200),
            ("GET", "/", v2, &[], 400),
            ("GET", "/", v1, &[""], 400),
            ("GET", "/", v1, &["a", "a"], 400),
            ("GET", "/", v1, &["a", "b"], 400),
            ("GET", "/", v1, &["a/b"], 400),
            ("GET", "/", v1, &["a@b"], 400),
            ("GET", "/", v1, &["a b"], 400),
            ("GET", "/", v1, &["a#b"], 400),
            ("GET", "http://a/", v1, &["a"], 200),
            ("GET", "http://A/", v1, &["a"], 200),
            ("GET", "http://a/", v1, &["b"], 400),
            ("GET", "http://a/", v1, &["a:80"], 400),
            ("GET", "http://u@a/", v1, &["u@a"], 400),
            ("GET", "http://a/", v1, &[], 400),
            ("GET", "http://a/", v2, &[], 200),
            ("GET", "http://a/", v2, &["a"], 200),
            ("GET", "http://a/", v2, &["b"], 400),
            ("GET", "a:80", v1, &["a:80"], 400),
            ("OPTIONS", "*", v1, &["a"], 200),
            ("GET", "*", v1, &["a"], 400),
            ("CONNECT", "a:80", v1, &["a:80"], 405),
            ("TRACE", "/", v1, &["a"], 405),
            ("PROPFIND", "/", v1, &["a"], 200),
        ];
        for (method, uri, version, hosts, expected) in cases {
            let found = status(method, uri, *version, hosts);
            assert_eq!(found, *expected, "{method} {uri} {version:?} {hosts:?}");
        }
    }
}
