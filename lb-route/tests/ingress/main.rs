//! Hosts and paths of Ingresses: the cases of ingress-controller-conformance and of the
//! documentation of Kubernetes, what ingress-nginx does otherwise, and a plain reading of the
//! specification beside the table.

mod expressions;
mod rules;

use std::collections::BTreeMap;

use lb_route::{
    Mode, PathType,
    PathType::{Exact, ImplementationSpecific, Prefix},
};
use proptest::prelude::*;

use rules::{ask, check, compiled, in_both, rule, table};

#[test]
fn the_conformance_tests_of_paths() {
    let rules = [
        ("exact", "/foo", Exact),
        ("prefix", "/foo", Prefix),
        ("prefix", "/aaa/bbb", Prefix),
        ("prefix", "/aaa", Prefix),
        ("mixed", "/foo", Prefix),
        ("mixed", "/foo", Exact),
        ("slash", "/aaa/bbb/", Prefix),
        ("slash", "/foo/", Exact),
    ];
    let cases = [
        ("exact", "/foo", "Exact /foo"),
        ("exact", "/foo/", "404"),
        ("exact", "/FOO", "404"),
        ("exact", "/bar", "404"),
        ("prefix", "/foo", "Prefix /foo"),
        ("prefix", "/foo/", "Prefix /foo"),
        ("prefix", "/FOO", "404"),
        ("prefix", "/aaa/bbb", "Prefix /aaa/bbb"),
        ("prefix", "/aaa/bbb/ccc", "Prefix /aaa/bbb"),
        ("prefix", "/aaa/ccc", "Prefix /aaa"),
        ("prefix", "/aaaccc", "404"),
        ("mixed", "/foo", "Exact /foo"),
        ("mixed", "/foo/bar", "Prefix /foo"),
        ("slash", "/aaa/bbb", "Prefix /aaa/bbb/"),
        ("slash", "/aaa/bbb/", "Prefix /aaa/bbb/"),
        ("slash", "/foo", "404"),
    ];
    in_both(&rules, &cases);
}

#[test]
fn the_conformance_tests_of_hosts() {
    let rules = [("*.foo.com", "/", Prefix), ("foo.bar.com", "/", Prefix)];
    for mode in [Mode::Specification, Mode::Nginx] {
        let routes = table(&rules, mode);
        for (authority, expected) in [
            ("foo.bar.com", "foo.bar.com Prefix /"),
            ("FOO.bar.com:8080", "foo.bar.com Prefix /"),
            ("subdomain.bar.com", "404"),
            ("bar.foo.com", "*.foo.com Prefix /"),
            ("baz.bar.foo.com", "404"),
            ("foo.com", "404"),
        ] {
            assert_eq!(ask(&routes, authority, "/"), expected, "{authority}");
        }
    }
}

/// https://kubernetes.io/docs/concepts/services-networking/ingress/#examples
#[test]
fn the_examples_of_the_documentation() {
    type Case<'a> = (&'a [(&'a str, PathType)], &'a str, &'a str);
    let cases: [Case<'_>; 10] = [
        (&[("/", Prefix)], "/any/path", "Prefix /"),
        (&[("/foo/", Exact)], "/foo", "404"),
        (&[("/foo/", Prefix)], "/foo", "Prefix /foo/"),
        (&[("/aaa/bb", Prefix)], "/aaa/bbb", "404"),
        (&[("/aaa/bbb/", Prefix)], "/aaa/bbb", "Prefix /aaa/bbb/"),
        (&[("/aaa/bbb", Prefix)], "/aaa/bbbxyz", "404"),
        (
            &[("/", Prefix), ("/aaa", Prefix)],
            "/aaa/ccc",
            "Prefix /aaa",
        ),
        (&[("/", Prefix), ("/aaa", Prefix)], "/ccc", "Prefix /"),
        (&[("/aaa", Prefix)], "/ccc", "404"),
        (&[("/foo", Prefix), ("/foo", Exact)], "/foo", "Exact /foo"),
    ];
    for (rules, path, expected) in cases {
        let rules: Vec<_> = rules.iter().map(|(p, kind)| ("h", *p, *kind)).collect();
        in_both(&rules, &[("h", path, expected)]);
    }
}

#[test]
fn a_host_that_has_no_path_for_a_request_is_not_helped_by_another() {
    let rules = [
        ("", "/", Prefix),
        ("*.foo.com", "/wild", Prefix),
        ("a.foo.com", "/own", Prefix),
    ];
    for mode in [Mode::Specification, Mode::Nginx] {
        let routes = table(&rules, mode);
        for (host, path, expected) in [
            ("a.foo.com", "/own", "a.foo.com Prefix /own"),
            ("a.foo.com", "/wild", "404"),
            ("b.foo.com", "/wild/x", "*.foo.com Prefix /wild"),
            ("b.foo.com", "/own", "404"),
            ("other.com", "/own", " Prefix /"),
        ] {
            assert_eq!(ask(&routes, host, path), expected, "{host}{path}");
        }
    }
}

#[test]
fn what_is_specific_is_elements_here_and_bytes_with_nginx() {
    let rules = [
        ("h", "/foo", ImplementationSpecific),
        ("h", "/bar/", ImplementationSpecific),
        ("h", "/foo/", Exact),
        ("h", "/elements/", Prefix),
        ("h", "/exact/", Exact),
    ];
    let foo = "ImplementationSpecific /foo";
    let bar = "ImplementationSpecific /bar/";
    let cases = [
        ("h", "/foo", foo),
        ("h", "/foo/x", foo),
        ("h", "/foobar", "404"),
        ("h", "/bar", bar),
        ("h", "/bar/x", bar),
    ];
    check(&table(&rules, Mode::Specification), &cases);
    let cases = [
        ("h", "/foo", foo),
        ("h", "/foo/x", foo),
        ("h", "/foobar", foo),
        ("h", "/bar", "301"),
        ("h", "/bar/x", bar),
        ("h", "/elements", "301"),
        ("h", "/elements/x", "Prefix /elements/"),
        ("h", "/exact", "301"),
        ("h", "/", "404"),
    ];
    check(&table(&rules, Mode::Nginx), &cases);
}

#[test]
fn of_locations_of_nginx_the_longest_wins() {
    let rules = [
        ("h", "/", ImplementationSpecific),
        ("h", "/foo", Prefix),
        ("h", "/foo", ImplementationSpecific),
        ("h", "/foo/b", ImplementationSpecific),
        ("h", "/foo/bar", Exact),
    ];
    let cases = [
        ("h", "/f", "ImplementationSpecific /"),
        ("h", "/foo", "Prefix /foo"),
        ("h", "/foo/a", "Prefix /foo"),
        ("h", "/food", "ImplementationSpecific /foo"),
        ("h", "/foo/bar", "Exact /foo/bar"),
        ("h", "/foo/baz", "ImplementationSpecific /foo/b"),
    ];
    check(&table(&rules, Mode::Nginx), &cases);
}

#[test]
fn the_older_rule_stays_and_what_is_wrong_is_told() {
    let mut rules = vec![
        rule("h", "/a", Prefix),
        rule("H", "/a/", Prefix),
        rule("h", "/a", Exact),
        rule("h", "/(", ImplementationSpecific),
        rule("h", "/((x{1000}){1000}){1000}", ImplementationSpecific),
        rule("h", "", ImplementationSpecific),
    ];
    rules[3].regex = true;
    let (routes, reasons) = compiled(&rules, Mode::Nginx);
    let expected = [
        (1, vec!["ConflictingPath"]),
        (3, vec!["InvalidPath"]),
        (4, vec!["InvalidPath"]),
    ];
    assert_eq!(reasons, BTreeMap::from(expected));
    // The rest is served.
    check(&routes, &[("h", "/b", "ImplementationSpecific ")]);
}

/// A reading of the specification, rule by rule.
fn plainly(rules: &[(String, PathType)], path: &str) -> Option<usize> {
    let elements = |path: &str| -> Vec<String> {
        let path = path.trim_end_matches('/');
        path.split('/').map(str::to_owned).collect()
    };
    let matches = |(rule, kind): &(String, PathType)| match kind {
        Exact => rule == path,
        _ => elements(path).starts_with(&elements(rule)),
    };
    let found = (0..rules.len()).filter(|at| matches(&rules[*at]));
    // The longest; Exact before Prefix; the oldest.
    found.max_by_key(|at| {
        let (rule, kind) = &rules[*at];
        let len = match kind {
            Exact => rule.len(),
            _ => rule.trim_end_matches('/').len(),
        };
        (*kind == Exact, len, std::cmp::Reverse(*at))
    })
}

proptest! {
    #[test]
    fn the_table_is_the_specification(
        rules in prop::collection::vec(("(/[ab]{0,2}){1,3}", prop::bool::ANY), 1..8),
        path in "(/[ab]{0,2}){1,4}",
    ) {
        let kind = |exact| if exact { Exact } else { Prefix };
        let plain = |path: &str| String::from_utf8(lb_route::uri::normal(path).unwrap()).unwrap();
        let rules: Vec<_> = rules.iter().map(|(p, exact)| (plain(p), kind(*exact))).collect();
        let path = plain(&path);
        let all: Vec<_> = rules.iter().map(|(path, kind)| rule("", path, *kind)).collect();
        let (table, _) = compiled(&all, Mode::Specification);
        let expected = match plainly(&rules, &path) {
            Some(at) => format!(" {:?} {}", rules[at].1, rules[at].0),
            None => "404".to_owned(),
        };
        prop_assert_eq!(ask(&table, "h", &path), expected, "{:?} {}", rules, path);
    }
}
