//! Answers for scripts of other sites (`enable-cors`), as ingress-nginx v1.15.1 gives them
//! (rootfs/etc/nginx/template/nginx.tmpl, `CORS`).

use http::{HeaderName, HeaderValue, Method, header};

use crate::{request::Head, settings::Cors};

/// What a request gets whose origin is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allowed {
    /// Whether it is answered by the proxy, 204: each OPTIONS is.
    pub is_preflight: bool,
    /// Headers of the answer, which take the place of a backend's.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// What a request gets; `None` if its origin is not allowed: it goes on as any other, and the
/// browser refuses its script the answer.
pub fn answer(cors: &Cors, head: &Head<'_>) -> Option<Allowed> {
    let origin = allowed_origin(cors, head)?;
    let is_preflight = head.method == Method::OPTIONS;
    let mut headers = vec![(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)];
    if cors.credentials {
        let yes = HeaderValue::from_static("true");
        headers.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes));
    }
    headers.push((header::ACCESS_CONTROL_ALLOW_METHODS, cors.methods.clone()));
    headers.push((header::ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.clone()));
    if let Some(expose) = &cors.expose {
        headers.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone()));
    }
    headers.push((header::ACCESS_CONTROL_MAX_AGE, cors.max_age.into()));
    if is_preflight {
        let text = HeaderValue::from_static("text/plain charset=UTF-8");
        headers.push((header::CONTENT_TYPE, text));
        headers.push((header::CONTENT_LENGTH, 0.into()));
    }
    Some(Allowed {
        is_preflight,
        headers,
    })
}

/// Value of `Access-Control-Allow-Origin`: `*` for every request, where all are allowed, else the
/// origin as the request has it.
fn allowed_origin(cors: &Cors, head: &Head<'_>) -> Option<HeaderValue> {
    if cors.origins.iter().any(|origin| origin == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    let mut all = head.headers.get_all(header::ORIGIN).iter();
    let origin = all.next().filter(|_| all.next().is_none())?;
    let text = origin.to_str().ok()?;
    let is_allowed = cors.origins.iter().any(|pattern| matches(pattern, text));
    is_allowed.then(|| origin.clone())
}

/// Whether an origin is that of a pattern, of which the first `*` is letters, digits and `-`, at
/// least one. The case does not count. (internal/ingress/controller/template/template.go,
/// `buildOriginRegex`. The expression there has no beginning: for it `evil-http://a` is `http://a`,
/// a scheme that no browser has. Here the whole origin counts.)
fn matches(pattern: &str, origin: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern.eq_ignore_ascii_case(origin);
    };
    let middle = origin.len().checked_sub(before.len() + after.len());
    let Some(end) = middle.filter(|len| *len > 0).map(|len| before.len() + len) else {
        return false;
    };
    // An origin that was read as text is ASCII, so that it can be split anywhere.
    let (Some(start), Some(label), Some(rest)) = (
        origin.get(..before.len()),
        origin.get(before.len()..end),
        origin.get(end..),
    ) else {
        return false;
    };
    start.eq_ignore_ascii_case(before)
        && rest.eq_ignore_ascii_case(after)
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Uri, Version};

    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        Cors {
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            methods: HeaderValue::from_static("GET, PUT"),
            headers: HeaderValue::from_static("DNT,X-Own"),
            expose: None,
            credentials: true,
            max_age: 1_728_000,
        }
    }

    fn ask(cors: &Cors, method: &Method, origins: &[&'static str]) -> Option<Allowed> {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(header::ORIGIN, HeaderValue::from_static(origin));
        }
        let head = Head {
            method,
            uri: &Uri::from_static("/"),
            version: Version::HTTP_11,
            headers: &headers,
        };
        answer(cors, &head)
    }

    fn text(allowed: &Allowed) -> String {
        let line = |(name, value): &(HeaderName, HeaderValue)| {
            format!("{name}: {}\n", value.to_str().unwrap())
        };
        allowed.headers.iter().map(line).collect()
    }

    #[test]
    fn origins_are_compared_as_ingress_nginx_does() {
        // Its docs/user-guide/nginx-configuration/annotations.md and test/e2e/annotations/cors.go.
        for (pattern, origin, expected) in [
            ("https://origin.com", "https://origin.com", true),
            ("https://origin.com", "HTTPS://Origin.COM", true),
            ("https://origin.com", "http://origin.com", false),
            ("https://origin.com", "https://origin.com:8080", false),
            ("https://origin.com:8080", "https://origin.com:8080", true),
            ("https://origin.com:8080", "https://origin.com", false),
            ("https://origin.com", "https://originxcom", false),
            (
                "https://origin.com",
                "https://origin.com.evil.example",
                false,
            ),
            ("https://origin.com", "https://evil-origin.com", false),
            ("https://origin.com", "evil-https://origin.com", false),
            ("http://*.origin.com", "http://sub.origin.com", true),
            ("http://*.origin.com", "http://Sub-1.Origin.com", true),
            ("http://*.origin.com", "http://origin.com", false),
            ("http://*.origin.com", "http://.origin.com", false),
            ("http://*.origin.com", "http://a.b.origin.com", false),
            ("http://*.origin.com", "http://a_b.origin.com", false),
            ("http://*.origin.com", "https://sub.origin.com", false),
            ("http://*.origin.com", "http://sub.origin.com:8080", false),
            (
                "http://*.origin.com:8080",
                "http://sub.origin.com:8080",
                true,
            ),
            ("myproto://*.a.b.com:9000", "myproto://x.a.b.com:9000", true),
            ("null", "null", true),
            ("https://origin.com", "null", false),
            ("https://origin.com", "", false),
        ] {
            let allowed = ask(&cors(&[pattern]), &Method::GET, &[origin]);
            assert_eq!(allowed.is_some(), expected, "{pattern} {origin}");
        }
    }

    #[test]
    fn of_several_origins_each_is_answered_with_itself() {
        let two = cors(&["https://a.com", "https://*.b.com"]);
        for origin in ["https://a.com", "https://x.b.com"] {
            let allowed = ask(&two, &Method::GET, &[origin]).unwrap();
            let (name, value) = &allowed.headers[0];
            assert_eq!(name, header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(value, origin);
            assert!(!allowed.is_preflight);
        }
        for method in [Method::GET, Method::OPTIONS] {
            assert_eq!(ask(&two, &method, &["https://c.com"]), None);
            assert_eq!(ask(&two, &method, &[]), None);
            let both = &["https://a.com", "https://a.com"];
            assert_eq!(ask(&two, &method, both), None);
        }
        assert_eq!(ask(&cors(&[]), &Method::GET, &["https://a.com"]), None);
    }

    #[test]
    fn headers_are_those_of_the_settings() {
        let allowed = ask(&cors(&["*"]), &Method::POST, &[]).unwrap();
        assert_eq!(
            text(&allowed),
            "access-control-allow-origin: *\n\
             access-control-allow-credentials: true\n\
             access-control-allow-methods: GET, PUT\n\
             access-control-allow-headers: DNT,X-Own\n\
             access-control-max-age: 1728000\n"
        );
        let other = Cors {
            expose: Some(HeaderValue::from_static("X-One, X-Two")),
            credentials: false,
            max_age: 7,
            ..cors(&["https://a.com"])
        };
        let allowed = ask(&other, &Method::OPTIONS, &["https://a.com"]).unwrap();
        assert!(allowed.is_preflight);
        assert_eq!(
            text(&allowed),
            "access-control-allow-origin: https://a.com\n\
             access-control-allow-methods: GET, PUT\n\
             access-control-allow-headers: DNT,X-Own\n\
             access-control-expose-headers: X-One, X-Two\n\
             access-control-max-age: 7\n\
             content-type: text/plain charset=UTF-8\n\
             content-length: 0\n"
        );
    }

    proptest::proptest! {
        #[test]
        fn a_star_is_one_label(label in "[a-zA-Z0-9-]{1,9}", other in "[._:/]") {
            let origin = format!("https://{label}.example.com");
            proptest::prop_assert!(matches("https://*.example.com", &origin));
            let split = format!("https://{label}{other}{label}.example.com");
            proptest::prop_assert!(!matches("https://*.example.com", &split));
        }

        #[test]
        fn any_text_is_compared_without_a_panic(pattern in "[a*é.]{0,6}", origin in "[aé.]{0,6}") {
            matches(&pattern, &origin);
        }
    }
}
