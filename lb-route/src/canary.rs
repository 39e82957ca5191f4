//! Which requests a canary gets.

use http::HeaderName;

use crate::{request::Head, settings::Canary};

/// Whether a request is led to the canary: by its header, else by its cookie, else by chance
/// (ingress-nginx v1.15.1, rootfs/etc/nginx/lua/balancer.lua, `route_to_alternative_balancer`).
/// `random` is a number that nobody can foresee.
pub(crate) fn takes(canary: &Canary, head: &Head<'_>, random: u32) -> bool {
    let by_header = canary
        .header
        .as_ref()
        .and_then(|name| by_header(canary, name, head));
    let by_cookie = || match head.cookie(canary.cookie.as_deref()?)? {
        "always" => Some(true),
        "never" => Some(false),
        _ => None,
    };
    by_header.or_else(by_cookie).unwrap_or_else(|| {
        let total = u64::from(canary.weight_total.max(100));
        // The high bits decide, so that every remainder is as likely as the next.
        (u64::from(random) * total) >> 32 < u64::from(canary.weight)
    })
}

/// What the header says; `None` for nothing. A value that is asked for beats an expression, and
/// either beats `always` and `never`.
fn by_header(canary: &Canary, name: &HeaderName, head: &Head<'_>) -> Option<bool> {
    let sent = head.header(name)?;
    if let Some(value) = canary.header_value.as_ref().filter(|v| !v.is_empty()) {
        return (*value == sent).then_some(true);
    }
    if let Some(pattern) = &canary.header_pattern {
        return pattern.is_match(sent.as_bytes()).then_some(true);
    }
    match &*sent {
        "always" => Some(true),
        "never" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};

    use super::*;

    struct Case {
        canary: Canary,
        sent: Vec<(HeaderName, &'static str)>,
    }

    fn takes_at(case: &Case, random: u32) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in &case.sent {
            headers.append(name, HeaderValue::from_static(value));
        }
        let head = Head {
            method: &Method::GET,
            uri: &Uri::from_static("/"),
            version: Version::HTTP_11,
            headers: &headers,
        };
        takes(&case.canary, &head, random)
    }

    const X: HeaderName = HeaderName::from_static("x-canary");

    fn canary(value: Option<&str>, pattern: Option<&str>, cookie: Option<&str>) -> Canary {
        Canary {
            header: Some(X),
            header_value: value.map(str::to_owned),
            header_pattern: pattern.map(|p| regex::bytes::Regex::new(p).unwrap()),
            cookie: cookie.map(str::to_owned),
            weight: 0,
            weight_total: 100,
            own_affinity: false,
        }
    }

    #[test]
    fn header_then_cookie_then_weight() {
        let cookie = |value| (header::COOKIE, value);
        for (canary, sent, expected) in [
            (canary(None, None, None), vec![], false),
            (canary(None, None, None), vec![(X, "always")], true),
            (
                canary(None, None, Some("c")),
                vec![(X, "never"), cookie("c=always")],
                false,
            ),
            (
                canary(None, None, Some("c")),
                vec![(X, "other"), cookie("c=always")],
                true,
            ),
            (
                canary(None, None, Some("c")),
                vec![cookie("b=never; c=always")],
                true,
            ),
            (
                canary(None, None, Some("c")),
                vec![cookie("c=never")],
                false,
            ),
            // With a value, `always` is a value as any other.
            (canary(Some("v"), None, None), vec![(X, "v")], true),
            (canary(Some("v"), None, None), vec![(X, "always")], false),
            (
                canary(Some("v"), None, Some("c")),
                vec![(X, "w"), cookie("c=always")],
                true,
            ),
            // A value beats an expression.
            (canary(Some("v"), Some("w"), None), vec![(X, "w")], false),
            (canary(None, Some("^w+$"), None), vec![(X, "www")], true),
            (canary(None, Some("^w+$"), None), vec![(X, "always")], false),
            (
                canary(None, Some("^w+$"), Some("c")),
                vec![(X, "x"), cookie("c=always")],
                true,
            ),
        ] {
            let case = Case { canary, sent };
            assert_eq!(
                takes_at(&case, 0),
                expected,
                "{:?}, {:?}",
                case.canary,
                case.sent
            );
        }
    }

    #[test]
    fn a_weight_is_a_share() {
        for (weight, weight_total, expected) in [
            (0, 100, 0),
            (100, 100, 1000),
            (30, 100, 300),
            // A total below 100 counts as 100.
            (5, 10, 50),
            (5, 1000, 5),
            (2000, 1000, 1000),
        ] {
            let canary = Canary {
                weight,
                weight_total,
                ..Canary::default()
            };
            let case = Case {
                canary,
                sent: vec![],
            };
            let even = (0..1000_u64).map(|n| ((n << 32) / 1000) as u32);
            let taken = even.filter(|random| takes_at(&case, *random)).count();
            assert!(
                taken.abs_diff(expected) <= 1,
                "{weight}/{weight_total}: {taken}"
            );
        }
    }
}
