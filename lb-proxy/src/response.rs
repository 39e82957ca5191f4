//! The phase in which headers of answers are changed.

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{LOCATION, REFRESH, SET_COOKIE},
};
use lb_route::{action::Forward, settings};

use crate::access::Cookies;

/// Changes what the settings of a path change.
pub(crate) fn change<B>(forward: &Forward, response: &mut Response<B>, cookies: Cookies) {
    let status = response.status();
    let headers = response.headers_mut();
    let location = &forward.location;
    rewrite(&location.settings.response, headers);
    let ours = forward.answer_headers.iter();
    for (name, value) in ours.chain(&location.answer_headers) {
        headers.insert(name, value.clone());
    }
    if cookies.always || sets_cookies(status) {
        for cookie in cookies.values {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

/// Statuses with which `add_header` of nginx adds one (ngx_http_headers_module).
fn sets_cookies(status: StatusCode) -> bool {
    let known = [200, 201, 204, 206, 301, 302, 303, 304, 307, 308];
    known.contains(&status.as_u16())
}

/// `proxy_redirect`, `proxy_cookie_domain`, `proxy_cookie_path`.
fn rewrite(settings: &settings::Response, headers: &mut HeaderMap) {
    if let Some((from, to)) = &settings.redirect {
        for name in [LOCATION, REFRESH] {
            each(headers, &name, |value| redirected(value, from, to));
        }
    }
    let (domain, path) = (&settings.cookie_domain, &settings.cookie_path);
    if domain.is_some() || path.is_some() {
        each(headers, &SET_COOKIE, |cookie| {
            rewritten(cookie, domain.as_ref(), path.as_ref())
        });
    }
}

/// Replaces values; those that are no text stay.
fn each(headers: &mut HeaderMap, name: &HeaderName, change: impl Fn(&str) -> Option<String>) {
    if let http::header::Entry::Occupied(mut values) = headers.entry(name) {
        for value in values.iter_mut() {
            let changed = value.to_str().ok().and_then(&change);
            if let Some(changed) = changed.and_then(|text| HeaderValue::from_str(&text).ok()) {
                *value = changed;
            }
        }
    }
}

/// A target that begins with `from`, or a refresh to one.
fn redirected(value: &str, from: &str, to: &str) -> Option<String> {
    let at = match value.to_ascii_lowercase().find("url=") {
        Some(at) if !value.starts_with(from) => at + 4,
        _ => 0,
    };
    let (before, target) = value.split_at(at);
    let rest = target.strip_prefix(from)?;
    Some(format!("{before}{to}{rest}"))
}

/// What an attribute of a cookie becomes: from, to.
type Change<'c> = Option<&'c (String, String)>;

/// A cookie with another domain, which is compared as a whole, and another path, whose beginning is
/// (ngx_http_proxy_module).
fn rewritten(cookie: &str, domain: Change<'_>, path: Change<'_>) -> Option<String> {
    let mut parts: Vec<String> = cookie.split(';').map(str::to_owned).collect();
    let mut changed = false;
    for part in parts.iter_mut().skip(1) {
        let Some((name, value)) = part.split_once('=') else {
            continue;
        };
        let value = value.trim();
        let new = match name.trim().to_ascii_lowercase().as_str() {
            "domain" => domain.and_then(|(from, to)| {
                let plain = |text: &str| text.trim_start_matches('.').to_ascii_lowercase();
                (plain(value) == plain(from)).then(|| to.clone())
            }),
            "path" => path.and_then(|(from, to)| {
                let rest = value.strip_prefix(from.as_str())?;
                Some(format!("{to}{rest}"))
            }),
            _ => None,
        };
        if let Some(new) = new {
            *part = format!("{name}={new}");
            changed = true;
        }
    }
    changed.then(|| parts.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_of_backends() {
        let cases = [
            ("http://a:8080/x", Some("https://b/x")),
            ("http://other/x", None),
            ("5; url=http://a:8080/x", Some("5; url=https://b/x")),
            ("0;URL=http://a:8080/", Some("0;URL=https://b/")),
            ("/x", None),
        ];
        for (value, expected) in cases {
            let found = redirected(value, "http://a:8080/", "https://b/");
            assert_eq!(found.as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn cookies_of_backends() {
        let domain = ("a.example".to_owned(), "b.example".to_owned());
        let path = ("/one/".to_owned(), "/two/".to_owned());
        let cases = [
            (
                "c=1; Domain=a.example; Path=/one/x",
                Some("c=1; Domain=b.example; Path=/two/x"),
            ),
            ("c=1; domain=.A.example", Some("c=1; domain=b.example")),
            ("c=1; Domain=x.a.example", None),
            ("c=1; Path=/other/one/", None),
            ("path=/one/; Secure", None),
            (
                "c=1; HttpOnly; path=/one/",
                Some("c=1; HttpOnly; path=/two/"),
            ),
        ];
        for (cookie, expected) in cases {
            let found = rewritten(cookie, Some(&domain), Some(&path));
            assert_eq!(found.as_deref(), expected, "{cookie}");
        }
    }

    #[test]
    fn only_what_is_set_changes() {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static("http://a/"));
        headers.append(SET_COOKIE, HeaderValue::from_static("a=1; Path=/x"));
        headers.append(SET_COOKIE, HeaderValue::from_static("b=1; Path=/y"));
        let before = headers.clone();
        rewrite(&settings::Response::default(), &mut headers);
        assert_eq!(headers, before);
        let settings = settings::Response {
            cookie_path: Some(("/x".to_owned(), "/z".to_owned())),
            ..settings::Response::default()
        };
        rewrite(&settings, &mut headers);
        let cookies: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; Path=/z", "b=1; Path=/y"]);
    }
}
