//! Annotations that protect, and bad values of all: a setting that protects refuses every request
//! when it cannot be read, any other keeps its default.

mod common;

use std::{collections::BTreeMap, fmt::Debug};

use common::{read, read_with};
use lb_route::{
    annotations::{self, PREFIX},
    globals::Globals,
    input::Name,
    settings::{Settings, VerifyClient},
    trouble::{Severity, Trouble},
};
use proptest::prelude::*;

/// Reads what has no trouble.
fn clean(annotations: &[(&str, &str)]) -> Settings {
    let read = read(annotations);
    assert_eq!(
        (read.troubles, read.denied),
        (vec![], None),
        "{annotations:?}"
    );
    read.settings
}

fn d(what: impl Debug) -> String {
    format!("{what:?}")
}

fn severities(troubles: &[Trouble]) -> Vec<Severity> {
    troubles.iter().map(|trouble| trouble.severity).collect()
}

#[test]
fn source_ranges() {
    let none = clean(&[]);
    assert_eq!(
        (none.access.allow, none.access.deny, none.access.any),
        (vec![], vec![], false)
    );
    for name in ["allowlist-source-range", "whitelist-source-range"] {
        let access = clean(&[(name, "10.1.2.3/8,192.0.2.1, ::1")]).access;
        assert_eq!(d(access.allow), "[10.0.0.0/8, 192.0.2.1/32, ::1/128]");
    }
    let access = clean(&[("denylist-source-range", "10.0.0.0/8"), ("satisfy", "any")]).access;
    assert_eq!(
        (d(access.deny), access.any),
        ("[10.0.0.0/8]".to_owned(), true)
    );
    assert!(!clean(&[("satisfy", "all")]).access.any);

    let both = read(&[
        ("allowlist-source-range", "10.0.0.0/8"),
        ("whitelist-source-range", "0.0.0.0/0"),
    ]);
    assert_eq!(d(both.settings.access.allow), "[10.0.0.0/8]");
    assert_eq!(severities(&both.troubles), [Severity::Warning]);

    // Of the ConfigMap, unless the Ingress has its own.
    let globals = [
        ("whitelist-source-range", "192.0.2.0/24"),
        ("denylist-source-range", "10.1.1.1"),
    ];
    let access = read_with(&globals, &[]).settings.access;
    assert_eq!(
        (d(access.allow), d(access.deny)),
        ("[192.0.2.0/24]".into(), "[10.1.1.1/32]".into())
    );
    let own = [("allowlist-source-range", "10.0.0.0/8")];
    assert_eq!(
        d(read_with(&globals, &own).settings.access.allow),
        "[10.0.0.0/8]"
    );

    // An older name without a value is as if it were not there; so it is in ingress-nginx.
    let empty = read(&[("whitelist-source-range", "")]);
    assert_eq!((empty.settings.access.allow, empty.denied), (vec![], None));
}

#[test]
fn basic_authentication() {
    let basic = |more: &[(&str, &str)]| {
        let all = [&[("auth-type", "basic")], more].concat();
        let basic = clean(&all).access.basic.expect("basic authentication");
        format!("{} {} {:?}", basic.secret, basic.map, basic.realm)
    };
    assert_eq!(basic(&[("auth-secret", "users")]), "shop/users false \"\"");
    assert_eq!(
        basic(&[("auth-secret", "shop/users")]),
        "shop/users false \"\""
    );
    let more = [
        ("auth-secret", "users"),
        ("auth-secret-type", "auth-map"),
        ("auth-realm", "Authentication Required - foo"),
    ];
    assert_eq!(
        basic(&more),
        "shop/users true \"Authentication Required - foo\""
    );
    let file = [("auth-secret", "users"), ("auth-secret-type", "auth-file")];
    assert_eq!(basic(&file), "shop/users false \"\"");

    let other = [("auth-type", "basic"), ("auth-secret", "other/users")];
    let allowed = read_with(&[("allow-cross-namespace-resources", "true")], &other);
    let secret = allowed.settings.access.basic.expect("allowed").secret;
    assert_eq!(
        (secret, allowed.denied),
        (Name::new("other", "users"), None)
    );
}

#[test]
fn external_authentication() {
    let url = ("auth-url", "https://$host/oauth2/auth");
    let external = clean(&[url])
        .access
        .external
        .expect("external authentication");
    assert_eq!(external.url.text(), "https://$host/oauth2/auth");
    assert_eq!(
        (&*external.host, &*external.signin_redirect_param),
        ("$host", "rd")
    );
    let rest = (
        &external.method,
        &external.signin,
        &external.request_redirect,
    );
    assert_eq!(d(rest), "(None, None, None)");
    assert_eq!(
        d((&external.response_headers, external.always_set_cookie)),
        "([], false)"
    );

    let all = clean(&[
        ("auth-url", "http://auth.local:8080/check?x=1"),
        ("auth-method", "POST"),
        (
            "auth-signin",
            "https://sign.in/start?rd=$escaped_request_uri",
        ),
        ("auth-signin-redirect-param", "back"),
        ("auth-response-headers", "X-User, X_Group"),
        ("auth-request-redirect", "https://foo.bar/"),
        ("auth-always-set-cookie", "true"),
        ("auth-proxy-set-headers", "shop/auth-headers"),
    ]);
    let external = all.access.external.expect("external authentication");
    assert_eq!(
        (&*external.host, d(&external.method)),
        ("auth.local", "Some(POST)".to_owned())
    );
    let signin = external.signin.as_ref().expect("signin").text();
    assert_eq!(signin, "https://sign.in/start?rd=$escaped_request_uri");
    assert_eq!(external.signin_redirect_param, "back");
    assert_eq!(d(&external.response_headers), "[\"x-user\", \"x_group\"]");
    let redirect = external.request_redirect.as_ref().expect("redirect").text();
    assert_eq!(
        (redirect, external.always_set_cookie),
        ("https://foo.bar/", true)
    );
    let headers = external.proxy_set_headers.clone();
    assert_eq!(headers, Some(Name::new("shop", "auth-headers")));
}

#[test]
fn authentication_of_all() {
    let globals = [
        ("global-auth-url", "http://auth.local/"),
        ("global-auth-method", "HEAD"),
        ("global-auth-signin", "https://sign.in/"),
        ("global-auth-response-headers", "X-User"),
    ];
    let host = |annotations: &[(&str, &str)]| {
        let read = read_with(&globals, annotations);
        assert_eq!(read.denied, None);
        read.settings
            .access
            .external
            .map(|external| external.host.clone())
    };
    assert_eq!(host(&[]).as_deref(), Some("auth.local"));
    assert_eq!(
        host(&[("enable-global-auth", "true")]).as_deref(),
        Some("auth.local")
    );
    assert_eq!(host(&[("enable-global-auth", "false")]), None);
    // What cannot be read does not open the door.
    assert_eq!(
        host(&[("enable-global-auth", "no")]).as_deref(),
        Some("auth.local")
    );
    assert_eq!(
        host(&[("auth-url", "http://own.local/")]).as_deref(),
        Some("own.local")
    );

    for bad in [
        ("global-auth-url", "auth.local"),
        ("global-auth-method", "GET;"),
    ] {
        let globals = [globals[0], bad];
        assert!(read_with(&globals, &[]).denied.is_some(), "{bad:?}");
        assert_eq!(
            read_with(&globals, &[("enable-global-auth", "false")]).denied,
            None
        );
        assert_eq!(
            read_with(&globals, &[("auth-url", "http://own/")]).denied,
            None
        );
    }
}

#[test]
fn client_certificates() {
    assert!(clean(&[]).host.client_cert.is_none());
    let secret = ("auth-tls-secret", "shop/ca");
    let cert = clean(&[secret])
        .host
        .client_cert
        .expect("client certificates");
    assert_eq!(
        (cert.secret, cert.verify),
        (Name::new("shop", "ca"), VerifyClient::On)
    );
    assert_eq!(d((cert.depth, cert.pass_to_upstream)), "(1, false)");
    assert!(cert.error_page.is_none() && cert.match_cn.is_none());

    for (word, verify) in [
        ("on", VerifyClient::On),
        ("off", VerifyClient::Off),
        ("optional", VerifyClient::Optional),
        ("optional_no_ca", VerifyClient::OptionalNoCa),
    ] {
        let host = clean(&[secret, ("auth-tls-verify-client", word)]).host;
        assert_eq!(
            host.client_cert.expect("client certificates").verify,
            verify,
            "{word}"
        );
    }
    let all = clean(&[
        secret,
        ("auth-tls-verify-depth", "2"),
        ("auth-tls-error-page", "http://e.example/error"),
        ("auth-tls-pass-certificate-to-upstream", "true"),
        ("auth-tls-match-cn", "CN=client[0-9]+"),
    ]);
    let cert = all.host.client_cert.expect("client certificates");
    assert_eq!(d((cert.depth, cert.pass_to_upstream)), "(2, true)");
    assert_eq!(
        cert.error_page.expect("page").text(),
        "http://e.example/error"
    );
    let name = cert.match_cn.expect("expression");
    assert!(name.is_match(b"O=x,CN=client7") && !name.is_match(b"CN=client"));
}

#[test]
fn hosts() {
    let aliases = |value| clean(&[("server-alias", value)]).host.aliases;
    assert_eq!(
        aliases("b.example, A.example,,*.c.example,b.example"),
        ["*.c.example", "a.example", "b.example"]
    );
    assert!(clean(&[("ssl-passthrough", "true")]).host.passthrough);
    assert!(!clean(&[]).host.passthrough);
}

const BASIC: (&str, &str) = ("auth-type", "basic");
const URL: (&str, &str) = ("auth-url", "http://auth/");

/// Settings that protect and cannot be read.
#[rustfmt::skip]
const GUARDS: &[&[(&str, &str)]] = &[
    &[("allowlist-source-range", "10.0.0.0/33")],
    &[("allowlist-source-range", "")],
    &[("allowlist-source-range", "10.0.0.0/8,")],
    &[("whitelist-source-range", "10.0.0.0/8;0.0.0.0/0")],
    &[("denylist-source-range", "everyone")],
    &[("denylist-source-range", "")],
    &[("auth-type", "digest"), ("auth-secret", "users")],
    &[("auth-type", "none"), ("auth-secret", "users")],
    &[BASIC],
    &[BASIC, ("auth-secret", "a/b/c")],
    &[BASIC, ("auth-secret", "us ers")],
    &[BASIC, ("auth-secret", "other/users")],
    &[BASIC, ("auth-secret", "users"), ("auth-secret-type", "file")],
    &[("auth-url", "auth.local/check")],
    &[("auth-url", "http:///check")],
    &[("auth-url", "http://a..b/")],
    &[("auth-url", "http://a/\";deny all")],
    &[("auth-url", "http://$nothing/")],
    &[("auth-url", "ftp://a/")],
    &[URL, ("auth-method", "FETCH")],
    &[URL, ("auth-response-headers", "X-User; X-Group")],
    &[URL, ("auth-proxy-set-headers", "other/headers")],
    &[URL, ("auth-proxy-set-headers", "a/b/c")],
    &[("auth-tls-secret", "ca")],
    &[("auth-tls-secret", "other/ca")],
    &[("auth-tls-secret", "shop/ca"), ("auth-tls-match-cn", "client")],
    &[("auth-tls-secret", "shop/ca"), ("auth-tls-match-cn", "CN=(")],
    &[("proxy-ssl-secret", "other/tls")],
    &[("custom-headers", "other/headers")],
    &[("backend-protocol", "FCGI")],
];

#[test]
fn what_protects_refuses_when_it_cannot_be_read() {
    for annotations in GUARDS {
        let read = read(annotations);
        let denied = read.denied.unwrap_or_else(|| panic!("{annotations:?}"));
        let (name, _) = annotations[annotations.len() - 1];
        let is_named = annotations.iter().any(|(name, _)| denied.contains(name));
        assert!(is_named, "{name}: {denied}");
        assert!(
            severities(&read.troubles).contains(&Severity::Denied),
            "{annotations:?}"
        );
        let of_host = name.starts_with("auth-tls");
        assert_eq!(
            read.settings.host.denied.is_some(),
            of_host,
            "{annotations:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_text_of_any_annotation_panics(
        values in proptest::collection::vec((0..136_usize, ".{0,40}"), 1..12),
        canary: bool,
    ) {
        let names: Vec<&str> = annotations::all().map(|(_, one)| one.name).collect();
        let mut annotations: BTreeMap<String, String> = values
            .into_iter()
            .map(|(at, value)| (format!("{PREFIX}/{}", names[at]), value))
            .collect();
        if canary {
            annotations.insert(format!("{PREFIX}/canary"), "true".to_owned());
        }
        let globals = Globals::default();
        let read = annotations::read(&Name::new("shop", "web"), &annotations, PREFIX, &globals);
        for trouble in &read.troubles {
            prop_assert!(!trouble.message.contains('\n'), "{}", trouble.message);
        }
    }

    #[test]
    fn values_that_are_nearly_right_do_not_panic(
        at in 0..136_usize,
        value in "(https?://|/|CN=|~|[0-9]{1,20}|[a-z]{1,6}|[$({\\[*.,: %=?-]|true|on|off){0,6}",
    ) {
        let name = annotations::all().nth(at).map(|(_, one)| one.name).expect("136 of them");
        let base = [
            ("enable-cors", "true"), ("affinity", "cookie"), ("auth-tls-secret", "shop/ca"),
            ("proxy-ssl-secret", "shop/tls"), ("auth-url", "http://a/"), ("auth-type", "basic"),
            ("auth-secret", "users"), (name, &*value),
        ];
        read(&base);
    }
}
