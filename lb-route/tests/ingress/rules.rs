//! Tables of rules, and what becomes of requests.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, Method, Uri, Version, header};
use lb_route::{
    Compiler, Mode, Options, PathType, Table,
    action::{Action, Forward},
    input::{BackendRef, Ingress, IngressPath, IngressRule, Name, PortRef},
    request::{Client, Head},
};

/// A rule of an Ingress of its own, whose Service tells which one it is.
#[derive(Clone)]
pub(crate) struct Rule {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) kind: PathType,
    pub(crate) regex: bool,
}

pub(crate) fn rule(host: &str, path: &str, kind: PathType) -> Rule {
    Rule {
        host: host.to_owned(),
        path: path.to_owned(),
        kind,
        regex: false,
    }
}

pub(crate) fn ingress(rule: &Rule, number: usize, mode: Mode) -> Ingress {
    let Rule {
        host,
        path,
        kind,
        regex,
    } = rule;
    let prefix = "nginx.ingress.kubernetes.io";
    let use_regex = regex.then(|| (format!("{prefix}/use-regex"), "true".to_owned()));
    Ingress {
        key: Name::new("default", &format!("rule-{number}")),
        mode,
        uid: number.to_string().into(),
        created: number as i64,
        annotations: BTreeMap::from_iter(use_regex),
        default_backend: None,
        rules: vec![IngressRule {
            host: host.clone(),
            paths: vec![IngressPath {
                path: path.clone(),
                kind: *kind,
                backend: Some(BackendRef {
                    service: format!("{host} {kind:?} {path}").into(),
                    port: PortRef::Number(80),
                }),
            }],
        }],
        tls: vec![],
    }
}

/// The table of rules, the older ones first, and the reasons of what is wrong with each.
pub(crate) fn compiled(rules: &[Rule], mode: Mode) -> (Table, BTreeMap<usize, Vec<&'static str>>) {
    let mut compiler = Compiler::new(Options::default());
    for (number, rule) in rules.iter().enumerate() {
        compiler.put_ingress(Arc::new(ingress(rule, number, mode)));
    }
    let table = compiler.compile();
    let mut reasons = BTreeMap::new();
    for (name, troubles) in compiler.troubles() {
        let number = name.name.strip_prefix("rule-").unwrap().parse().unwrap();
        let of: Vec<_> = troubles.iter().map(|trouble| trouble.reason).collect();
        // There are no Services here.
        let of: Vec<_> = of
            .into_iter()
            .filter(|reason| *reason != "MissingService")
            .collect();
        if !of.is_empty() {
            reasons.insert(number, of);
        }
    }
    (table, reasons)
}

pub(crate) fn table(rules: &[(&str, &str, PathType)], mode: Mode) -> Table {
    let rules: Vec<_> = rules.iter().map(|(h, p, kind)| rule(h, p, *kind)).collect();
    let (table, reasons) = compiled(&rules, mode);
    assert_eq!(reasons, BTreeMap::new());
    table
}

pub(crate) fn decide(table: &Table, authority: &str, path: &str) -> Action {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, authority.parse().expect("a value"));
    let uri: Uri = path.parse().expect("a target");
    let head = Head {
        method: &Method::GET,
        uri: &uri,
        version: Version::HTTP_11,
        headers: &headers,
    };
    let client = Client {
        address: "192.0.2.1:1".parse().unwrap(),
        port: 80,
        tls: None,
        random: 0,
        request_id: String::new(),
    };
    table.decide(&head, &client)
}

pub(crate) fn forwarded(table: &Table, authority: &str, path: &str) -> Forward {
    match decide(table, authority, path) {
        Action::Forward(forward) => *forward,
        other => panic!("{authority}{path}: {other:?}"),
    }
}

/// Where a request goes: the rule's host, kind and path, or the status of the answer.
pub(crate) fn ask(table: &Table, authority: &str, path: &str) -> String {
    match decide(table, authority, path) {
        Action::Forward(forward) => forward.location.service.name.to_string(),
        Action::Answer(answer) => answer.status.as_u16().to_string(),
    }
}

pub(crate) fn check(routes: &Table, cases: &[(&str, &str, &str)]) {
    for (authority, path, expected) in cases {
        let found = ask(routes, authority, path);
        let found = found
            .strip_prefix(&format!("{authority} "))
            .unwrap_or(&found);
        assert_eq!(&found, expected, "{authority}{path}");
    }
}

/// What holds in both modes; but nginx leads a path to that with a slash behind it, where only
/// that is there.
pub(crate) fn in_both(rules: &[(&str, &str, PathType)], cases: &[(&str, &str, &str)]) {
    check(&table(rules, Mode::Specification), cases);
    let has = |host: &str, path: &str| rules.iter().any(|(h, p, _)| *h == host && *p == path);
    let cases = cases.iter().map(|(host, path, expected)| {
        let leads = has(host, &format!("{path}/")) && !has(host, path);
        (*host, *path, if leads { "301" } else { *expected })
    });
    check(&table(rules, Mode::Nginx), &cases.collect::<Vec<_>>());
}
