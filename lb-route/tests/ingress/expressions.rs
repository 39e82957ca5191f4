//! Paths that are regular expressions.

use std::collections::BTreeMap;

use lb_route::{
    Mode,
    PathType::{Exact, ImplementationSpecific, Prefix},
};

use crate::rules::{check, compiled, forwarded, rule};

#[test]
fn one_expression_makes_all_paths_of_its_host_expressions() {
    let mut rules = vec![
        rule("h", "/foo", Exact),
        rule("h", "/Bar", Prefix),
        rule("h", "/app(/|$)(.*)", ImplementationSpecific),
        rule("other", "/foo", Exact),
    ];
    rules[2].regex = true;
    let (routes, reasons) = compiled(&rules, Mode::Nginx);
    assert_eq!(reasons, BTreeMap::new());
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
    let groups = forwarded(&routes, "h", "/app/x/y").groups;
    assert_eq!(groups, [&b"/app/x/y"[..], b"/", b"x/y"]);
    // By the specification a path is what it is.
    let (routes, _) = compiled(&rules, Mode::Specification);
    check(&routes, &[("h", "/app/x", "404"), ("h", "/FOO", "404")]);
}

/// https://www.pcre.org/original/doc/html/pcrepattern.html: look-around and back-references.
#[test]
fn expressions_may_look_around_and_back_but_not_for_long() {
    let mut rules = vec![
        rule("h", "/(?!api/)(.*)", ImplementationSpecific),
        rule("h", r"/api/(\w)/\1$", ImplementationSpecific),
        rule("h", r"/slow/(a+)+\1(?=b)", ImplementationSpecific),
    ];
    rules[0].regex = true;
    let (routes, reasons) = compiled(&rules, Mode::Nginx);
    assert_eq!(reasons, BTreeMap::new());
    let not_api = "ImplementationSpecific /(?!api/)(.*)";
    let cases = [
        ("h", "/web/x", not_api),
        ("h", "/api/y", "404"),
        ("h", "/api/x/x", r"ImplementationSpecific /api/(\w)/\1$"),
        ("h", "/api/x/y", "404"),
        (
            "h",
            "/slow/aaab",
            r"ImplementationSpecific /slow/(a+)+\1(?=b)",
        ),
        // It steps back too often: it does not match, and another does.
        (
            "h",
            "/slow/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            not_api,
        ),
    ];
    check(&routes, &cases);
    assert_eq!(
        forwarded(&routes, "h", "/web/x").groups,
        [&b"/web/x"[..], b"web/x"]
    );
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
    let (routes, _) = compiled(&rules, Mode::Nginx);
    let cases = [
        ("h", "/abc/x", "ImplementationSpecific /[a-z]+/x"),
        ("h", "/ab2", "Prefix /ab2"),
        ("h", "/abcd", "Prefix /abc"),
        ("h", "/axe", "ImplementationSpecific /a.*"),
    ];
    check(&routes, &cases);
}
