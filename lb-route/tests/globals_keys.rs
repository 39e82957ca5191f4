//! The keys of the ConfigMap: that each is known, what is told of those that are not served, and
//! authentication for all Ingresses.

use std::{collections::BTreeSet, fmt::Debug};

use lb_route::{
    globals::{self, Globals},
    trouble::{Mark, Severity, Trouble, reason},
};
use proptest::prelude::*;

fn read(data: &[(&str, &str)]) -> (Globals, Vec<Trouble>) {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Globals::read(&data.iter().map(own).collect())
}

fn d(what: impl Debug) -> String {
    format!("{what:?}")
}

#[test]
fn authentication_of_all() {
    let url = ("global-auth-url", "https://auth.local:4180/oauth2/auth");
    assert!(Globals::default().auth.is_none());
    let (globals, troubles) = read(&[
        url,
        ("global-auth-method", "POST"),
        ("global-auth-signin", "https://s/?rd=$escaped_request_uri"),
        ("global-auth-signin-redirect-param", "back"),
        ("global-auth-response-headers", "X-User,X-Group"),
        ("global-auth-request-redirect", "http://x/"),
        ("global-auth-always-set-cookie", "true"),
    ]);
    assert_eq!((troubles, globals.auth_unreadable), (vec![], None));
    let auth = globals.auth.expect("an authentication");
    assert_eq!((auth.url.text(), &*auth.host), (url.1, "auth.local"));
    assert_eq!(
        (d(&auth.method), &*auth.signin_redirect_param),
        ("Some(POST)".to_owned(), "back")
    );
    assert_eq!(
        d((&auth.response_headers, auth.always_set_cookie)),
        "([\"x-user\", \"x-group\"], true)"
    );
    let signin = auth.signin.as_ref().expect("an address");
    assert_eq!(signin.text(), "https://s/?rd=$escaped_request_uri");
    assert_eq!(
        auth.request_redirect.as_ref().expect("an address").text(),
        "http://x/"
    );

    for (key, bad, is_shut) in [
        ("global-auth-url", "auth.local", true),
        ("global-auth-method", "FETCH", true),
        ("global-auth-response-headers", "a b", true),
        ("global-auth-snippet", "proxy_set_header A b;", true),
        ("global-auth-signin", "sign.in", false),
        ("global-auth-signin-redirect-param", "a=b", false),
        ("global-auth-always-set-cookie", "x", false),
    ] {
        let (globals, troubles) = read(&[url, (key, bad)]);
        assert_eq!(globals.auth_unreadable.is_some(), is_shut, "{key}");
        assert_eq!(globals.auth.is_none(), is_shut, "{key}");
        assert!(
            troubles.iter().any(|trouble| trouble.message.contains(key)),
            "{key}"
        );
    }
}

/// All keys of docs/user-guide/nginx-configuration/configmap.md, and those of config.go that it
/// leaves out.
#[test]
fn every_key_is_known_once() {
    let names: Vec<&str> = globals::all().map(|key| key.name).collect();
    let known: BTreeSet<&str> = include_str!("ingress-nginx/configmap.txt")
        .lines()
        .collect();
    let once: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!((known.len(), once.len()), (192, names.len()));
    assert_eq!(
        known.difference(&once).collect::<Vec<_>>(),
        Vec::<&&str>::new()
    );
    let more: Vec<&str> = once.difference(&known).copied().collect();
    assert_eq!(
        more,
        [
            "disable-http-access-log",
            "disable-proxy-intercept-errors",
            "disable-stream-access-log",
            "enable-auth-access-log",
            "forwarded-host-header",
            "global-auth-always-set-cookie",
            // Of v1.11, and not of later ones.
            "global-rate-limit-memcached-connect-timeout",
            "global-rate-limit-memcached-host",
            "global-rate-limit-memcached-max-idle-timeout",
            "global-rate-limit-memcached-pool-size",
            "global-rate-limit-memcached-port",
            "global-rate-limit-status-code",
            "preserve-trailing-slash",
            "proxy-http-version",
            "proxy-max-temp-file-size",
            "proxy-redirect-to",
            "ssl-early-data",
            "use-port-in-redirects",
        ]
    );
    assert!(globals::all().all(|key| key.sentence.ends_with('.')));
}

#[test]
fn what_is_not_served_says_so() {
    let default = format!("{:?}", Globals::default());
    for key in globals::all().filter(|key| key.mark != Mark::Served) {
        let (globals, troubles) = read(&[(key.name, "true")]);
        let expected = match key.mark {
            Mark::Refused => (reason::CONFIG_REFUSED, Severity::Refused),
            _ => (reason::CONFIG_WITHOUT_EFFECT, Severity::Note),
        };
        assert_eq!(
            (troubles[0].reason, troubles[0].severity),
            expected,
            "{}",
            key.name
        );
        assert_eq!(troubles.len(), 1);
        if key.name == "enable-modsecurity" {
            assert!(globals.firewall_refused.is_some());
        } else {
            assert_eq!(format!("{globals:?}"), default, "{}", key.name);
        }
    }
    let (globals, troubles) = read(&[("enable-modsecurity", "false")]);
    assert_eq!((globals.firewall_refused, troubles), (None, vec![]));
    let (_, troubles) = read(&[("proxy-body-sizes", "1m"), ("whatever-this-is", "1")]);
    assert!(
        troubles[0].message.contains("is proxy-body-size meant?"),
        "{troubles:?}"
    );
    assert_eq!(troubles[1].reason, reason::CONFIG_UNSUPPORTED);
}

proptest! {
    #[test]
    fn no_text_of_any_key_panics(
        values in proptest::collection::vec(
            (0..210_usize, "(.{0,30}|[0-9]{1,25}[a-zµ.]{0,3})"),
            1..20,
        ),
    ) {
        let names: Vec<&str> = globals::all().map(|key| key.name).collect();
        let named = values.iter().map(|(at, value)| (names[*at].to_owned(), value.clone()));
        Globals::read(&named.collect());
    }
}
