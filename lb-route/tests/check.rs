//! What an Ingress would be told, before it is there.

use std::{collections::BTreeMap, sync::Arc};

use lb_route::{
    Check, Compiler, Mode, Options, PathType,
    annotations::PREFIX,
    input::{BackendRef, Ingress, IngressPath, IngressRule, IngressTls, Name, PortRef},
};
use proptest::prelude::*;

/// `shop/NAME` of an age, with annotations, and one path of `a.test`.
fn ingress(name: &str, created: i64, annotations: &[(&str, &str)], path: &str) -> Ingress {
    let with_prefix =
        |(name, value): &(&str, &str)| (format!("{PREFIX}/{name}"), (*value).to_owned());
    Ingress {
        key: Name::new("shop", name),
        mode: Mode::Nginx,
        uid: name.into(),
        created,
        annotations: annotations.iter().map(with_prefix).collect(),
        default_backend: None,
        rules: vec![IngressRule {
            host: "a.test".to_owned(),
            paths: vec![IngressPath {
                path: path.to_owned(),
                kind: PathType::Prefix,
                backend: Some(BackendRef {
                    service: "web".into(),
                    port: PortRef::Number(80),
                }),
            }],
        }],
        tls: vec![IngressTls {
            hosts: vec!["a.test".to_owned()],
            secret: Some("not-there".into()),
        }],
    }
}

fn compiler(ingresses: &[Ingress]) -> Compiler {
    let mut compiler = Compiler::new(Options::default());
    for ingress in ingresses {
        compiler.put_ingress(Arc::new(ingress.clone()));
    }
    compiler.compile();
    compiler
}

/// Reasons of what is told, a refusal with `!`: the Ingress's own, then those of others.
fn told(check: &Check) -> (Vec<String>, Vec<String>) {
    let told = |trouble: &lb_route::trouble::Trouble| {
        let mark = if trouble.is_refusal() { "!" } else { "" };
        format!("{mark}{}", trouble.reason)
    };
    let others = check.others.iter();
    (
        check.own.iter().map(told).collect(),
        others
            .map(|(name, trouble)| format!("{} {}", name.name, told(trouble)))
            .collect(),
    )
}

/// Name, age, annotations and path of an Ingress; what it is told; what others are told.
type Case = (
    (&'static str, i64, Annotations, &'static str),
    &'static [&'static str],
    &'static [&'static str],
);
type Annotations = &'static [(&'static str, &'static str)];

const CANARY: Annotations = &[("canary", "true"), ("canary-weight", "9")];
const SNIPPET: Annotations = &[("configuration-snippet", "more_set_headers x;")];
const FIREWALL: Annotations = &[("enable-modsecurity", "true")];
const NO_TIME: Annotations = &[("proxy-read-timeout", "soon")];
const BUFFERS: Annotations = &[("proxy-buffering", "on")];
const REFUSED: &str = "!RefusedAnnotation";
const FAILED: &str = "AnnotationParsingFailed";

/// Beside `shop/old` of age 10 and its canary of age 11, which both have `/x`.
const CASES: [Case; 13] = [
    // No Secret is there, and none is missed.
    (("new", 20, &[], "/y"), &[], &[]),
    (("new", 20, &[], "/x"), &["!ConflictingPath"], &[]),
    (("new", 5, &[], "/x"), &[], &["old !ConflictingPath"]),
    (("old", 10, &[], "/x"), &[], &[]),
    (
        ("old", 10, &[], "/y"),
        &[],
        &["canary CanaryWithoutPrimary"],
    ),
    (("new", 20, CANARY, "/x"), &["!ConflictingCanary"], &[]),
    (("canary", 11, CANARY, "/x"), &[], &[]),
    (("new", 20, CANARY, "/z"), &["CanaryWithoutPrimary"], &[]),
    (("new", 20, SNIPPET, "/y"), &[REFUSED], &[]),
    (
        ("new", 20, FIREWALL, "/y"),
        &[REFUSED, "!AnnotationParsingFailed"],
        &[],
    ),
    (("new", 20, NO_TIME, "/y"), &[FAILED], &[]),
    (
        ("new", 20, BUFFERS, "/y"),
        &["AnnotationWithoutEffect"],
        &[],
    ),
    (("new", 20, &[], "/y(.*)"), &["!InvalidPath"], &[]),
];

#[test]
fn what_is_told() {
    let compiler = compiler(&[
        ingress("old", 10, &[], "/x"),
        ingress("canary", 11, CANARY, "/x"),
    ]);
    for ((name, created, annotations, path), own, others) in CASES {
        let ingress = ingress(name, created, annotations, path);
        let check = compiler.check(&Arc::new(ingress.clone()));
        let (found, of_others) = told(&check);
        assert_eq!(found, own, "{ingress:?}: {check:?}");
        assert_eq!(of_others, others, "{ingress:?}: {check:?}");
    }
    let check = compiler.check(&Arc::new(ingress("new", 20, &[], "/x")));
    let sentence = &check.own[0].message;
    assert!(
        sentence.contains("shop/old") && sentence.contains("a.test"),
        "{sentence}"
    );
}

#[test]
fn the_configmap_counts() {
    let mut compiler = compiler(&[]);
    let snippet = [(
        "annotation-value-word-blocklist".to_owned(),
        "lua".to_owned(),
    )];
    compiler.set_globals(&BTreeMap::from(snippet));
    let bad = ingress("new", 20, &[("upstream-vhost", "lua.test")], "/");
    let check = compiler.check(&Arc::new(bad));
    assert_eq!(told(&check).0, ["!AnnotationParsingFailed"]);
}

fn any_ingress() -> impl Strategy<Value = Ingress> {
    let annotations = [
        ("canary", "true"),
        ("use-regex", "true"),
        ("fastcgi-index", "index.php"),
        ("proxy-body-size", "much"),
    ];
    let annotations = prop::sample::subsequence(annotations.to_vec(), 0..3);
    let path = prop::sample::select(vec!["/", "/x", "/x(", "/y"]);
    (0..4_usize, 0..3_i64, annotations, path, any::<bool>()).prop_map(
        |(number, created, annotations, path, other)| {
            let mut ingress = ingress(&format!("i{number}"), created, &annotations, path);
            if other {
                let mut rule = ingress.rules[0].clone();
                rule.host = "b.test".to_owned();
                ingress.rules.push(rule);
            }
            ingress
        },
    )
}

proptest! {
    /// What is told before is what is wrong then, but for objects that are not there; and
    /// nothing changes by asking.
    #[test]
    fn what_is_told_before_is_what_is_wrong_then(
        there in prop::collection::vec(any_ingress(), 0..6),
        new in any_ingress(),
    ) {
        let mut compiler = compiler(&there);
        let before = compiler.troubles();
        let check = compiler.check(&Arc::new(new.clone()));
        compiler.compile();
        prop_assert_eq!(&before, &compiler.troubles());
        compiler.put_ingress(Arc::new(new.clone()));
        compiler.compile();
        let mut wrong = compiler.troubles();
        for troubles in wrong.values_mut() {
            troubles.retain(|t| !["MissingSecret", "MissingService"].contains(&t.reason));
        }
        let own = wrong.remove(&new.key).unwrap_or_default();
        let is_same = own.len() == check.own.len() && own.iter().all(|t| check.own.contains(t));
        prop_assert!(is_same, "{:?} {:?}", own, check.own);
        for (name, trouble) in &check.others {
            prop_assert!(wrong[name].contains(trouble));
            prop_assert!(!before.get(name).is_some_and(|known| known.contains(trouble)));
        }
    }
}

/// A limit of all proxies that each has for itself is told of, and nothing else of it.
#[test]
fn a_limit_that_each_proxy_has_for_itself() {
    let limit = [
        ("global-rate-limit", "5"),
        ("global-rate-limit-window", "1m"),
    ];
    let alone = |is_alone| {
        Compiler::new(Options {
            is_alone,
            ..Options::default()
        })
    };
    let reasons = |is_alone, annotations: &[(&str, &str)]| {
        let with = Arc::new(ingress("web", 1, annotations, "/"));
        let without = Arc::new(ingress("web", 1, &[], "/"));
        let compiler = alone(is_alone);
        let (with, without) = (compiler.check(&with), compiler.check(&without));
        let (mut with, without) = (told(&with).0, told(&without).0);
        with.retain(|reason| !without.contains(reason));
        with
    };
    assert_eq!(reasons(true, &limit), ["CountedByEachProxy"]);
    assert_eq!(reasons(false, &limit), [""; 0]);
    assert_eq!(reasons(true, &[("limit-rps", "5")]), [""; 0]);
}
