//! Hosts and paths of Ingresses: the cases of ingress-controller-conformance and of the
//! documentation of Kubernetes, what ingress-nginx does otherwise, and a plain reading of the
//! specification beside the table.

use lb_route::{Mode, PathType, Problem, Route, Routes, Rule, host, uri};
use proptest::prelude::*;

use PathType::{Exact, ImplementationSpecific, Prefix};

fn rule(host: &str, path: &str, kind: PathType) -> Rule<String> {
    Rule {
        host: host.to_owned(),
        path: path.to_owned(),
        kind,
        regex: false,
        target: format!("{host} {kind:?} {path}"),
    }
}

fn table(rules: &[(&str, &str, PathType)], mode: Mode) -> Routes<String> {
    let rules = rules.iter().map(|(h, p, kind)| rule(h, p, *kind)).collect();
    let (routes, problems) = Routes::new(rules, mode);
    assert_eq!(problems, []);
    routes
}

/// Where a request goes, as a proxy asks: the rule's kind and path, `301`, or `404`.
fn ask(routes: &Routes<String>, authority: &str, path: &str) -> String {
    let host = host::normal(authority).expect("a host");
    let path = uri::normal(path).expect("a path");
    match routes.find(&host, &path) {
        Some(Route::To { target, .. }) => target.clone(),
        Some(Route::AddSlash) => "301".to_owned(),
        None => "404".to_owned(),
    }
}

fn check(routes: &Routes<String>, cases: &[(&str, &str, &str)]) {
    for (authority, path, expected) in cases {
        let found = ask(routes, authority, path);
        let found = found
            .strip_prefix(&format!("{authority} "))
            .unwrap_or(&found);
        assert_eq!(&found, expected, "{authority}{path}");
    }
}

/// What holds in both modes.
fn in_both(rules: &[(&str, &str, PathType)], cases: &[(&str, &str, &str)]) {
    for mode in [Mode::Specification, Mode::Nginx] {
        check(&table(rules, mode), cases);
    }
}

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
fn one_expression_makes_all_paths_of_its_host_expressions() {
    let mut rules = vec![
        rule("h", "/foo", Exact),
        rule("h", "/Bar", Prefix),
        rule("h", "/app(/|$)(.*)", ImplementationSpecific),
        rule("other", "/foo", Exact),
    ];
    rules[2].regex = true;
    let (routes, problems) = Routes::new(rules.clone(), Mode::Nginx);
    assert_eq!(problems, []);
    let app = "ImplementationSpecific /app(/|$)(.*)";
    let cases = [
        ("h", "/foo", "Exact /foo"),
        ("h", "/FOOD/x", "Exact /foo"),
        ("h", "/barrel", "Prefix /Bar"),
        ("h", "/app", app),
        ("h", "/APP/x/y", app),
        ("h", "/apple", "404"),
        // The other host has none.
        ("other", "/FOO", "404"),
        ("other", "/foo/x", "404"),
    ];
    check(&routes, &cases);
    let Some(Route::To { groups, .. }) = routes.find("h", b"/app/x/y") else {
        panic!("it is found");
    };
    assert_eq!(groups, [&b"/app/x/y"[..], b"/", b"x/y"]);
    // By the specification a path is what it is.
    let (routes, _) = Routes::new(rules, Mode::Specification);
    check(&routes, &[("h", "/app/x", "404"), ("h", "/FOO", "404")]);
}

#[test]
fn expressions_are_tried_from_the_longest_on() {
    let mut rules = vec![
        rule("h", "/a.*", ImplementationSpecific),
        rule("h", "/abc", Prefix),
        rule("h", "/[a-z]+/x", ImplementationSpecific),
        rule("h", "/ab2", Prefix),
    ];
    rules[0].regex = true;
    let (routes, _) = Routes::new(rules, Mode::Nginx);
    let cases = [
        ("h", "/abc/x", "ImplementationSpecific /[a-z]+/x"),
        ("h", "/ab2", "Prefix /ab2"),
        ("h", "/abcd", "Prefix /abc"),
        ("h", "/axe", "ImplementationSpecific /a.*"),
    ];
    check(&routes, &cases);
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
    let (routes, problems) = Routes::new(rules, Mode::Nginx);
    assert_eq!(problems[0], Problem::Conflict { rule: 1, with: 0 });
    let bad = problems[1..].iter().map(|problem| match problem {
        Problem::Expression { rule, .. } => *rule,
        Problem::Conflict { .. } => panic!("{problem:?}"),
    });
    assert_eq!(bad.collect::<Vec<_>>(), [4, 3]);
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
        let plain = |path: &str| String::from_utf8(uri::normal(path).unwrap()).unwrap();
        let rules: Vec<_> = rules.iter().map(|(p, exact)| (plain(p), kind(*exact))).collect();
        let path = plain(&path);
        let all = rules.iter().enumerate().map(|(at, (path, kind))| Rule {
            host: String::new(),
            path: path.clone(),
            kind: *kind,
            regex: false,
            target: at,
        });
        let (routes, _) = Routes::new(all.collect(), Mode::Specification);
        let found = routes.find("h", path.as_bytes()).map(|route| match route {
            Route::To { target, .. } => *target,
            Route::AddSlash => usize::MAX,
        });
        prop_assert_eq!(found, plainly(&rules, &path), "{:?} {}", rules, path);
    }
}
