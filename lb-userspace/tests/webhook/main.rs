//! Reviews of Ingresses, by a table, and over a real connection.

mod over_tls;

use lb_userspace::{
    change::{Change, Content, Kind, Object, ObjectKey},
    proxy::store::{Settings, Store},
    watch::ingress,
    webhook::{
        self,
        review::{Asked, verdict},
    },
};
use serde_json::{Value, json};

/// An Ingress with annotations of ingress-nginx, and a path of `a.test`.
fn ingress(name: &str, annotations: &[(&str, &str)], path: &str) -> Value {
    let annotations: serde_json::Map<String, Value> = annotations
        .iter()
        .map(|(key, value)| (format!("nginx.ingress.kubernetes.io/{key}"), json!(value)))
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"namespace": "shop", "name": name, "uid": name,
            "creationTimestamp": "2026-01-02T03:04:05Z", "annotations": annotations},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": ["a.test"], "secretName": "nobody-has-read-it"}],
            "rules": [{"host": "a.test", "http": {"paths": [{"path": path, "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}],
        },
    })
}

/// An object with a field that is another.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

/// With the class `nginx`, that of another controller, and Ingress `shop/old` with `/x`.
fn store() -> Store {
    let mut store = Store::new(Settings {
        options: lb_route::Options::default(),
        ..Settings::default()
    });
    for (name, controller) in [("nginx", "k8s.io/ingress-nginx"), ("other", "a.test/other")] {
        store.apply(Change::Put(Object {
            key: ObjectKey {
                kind: Kind::IngressClass,
                namespace: "".into(),
                name: name.into(),
            },
            content: Content::IngressClass(controller.to_owned()),
            problems: Vec::new(),
        }));
    }
    let old = ingress::from_json(ingress("old", &[], "/x")).unwrap();
    store.apply(Change::Put(old));
    store.table();
    store
}

/// A review. Without an old object it is of a new one.
fn review(object: &Value, old: Option<&Value>) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "4711",
            "kind": {"group": "networking.k8s.io", "version": "v1", "kind": "Ingress"},
            "resource": {"group": "networking.k8s.io", "version": "v1", "resource": "ingresses"},
            "namespace": "shop",
            "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
            "object": object,
            "oldObject": old,
            "userInfo": {"username": "somebody"},
            "dryRun": false,
        },
    })
}

/// What is said to a review.
fn said(store: &Store, review: &Value) -> Value {
    let asked = Asked::read(review.to_string().as_bytes()).unwrap();
    let verdict = match &asked.ingress {
        Some((ingress, problems)) => verdict(problems, store.check(ingress).as_ref()),
        None => webhook::review::Verdict::default(),
    };
    let answer: Value = serde_json::from_str(&asked.answer(&verdict)).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    let response = answer["response"].clone();
    assert_eq!(response["uid"], "4711");
    response
}

/// An Ingress, words of its refusal (none if it is allowed), and words of its warnings.
type Case = (Value, &'static [&'static str], &'static [&'static str]);

/// Of classes and paths.
fn cases() -> Vec<Case> {
    let plain = || ingress("new", &[], "/y");
    let class = |class| with(ingress("new", &[], "/x"), "/spec/ingressClassName", class);
    let kind = "/spec/rules/0/http/paths/0/pathType";
    let no_port = json!({"service": {"name": "web"}});
    vec![
        (plain(), &[], &[]),
        (
            ingress("new", &[], "/x"),
            &["\"/x\"", "a.test", "shop/old, which is older"],
            &[],
        ),
        // Those of others are not read.
        (class(json!("other")), &[], &[]),
        (class(json!("unknown")), &[], &[]),
        (class(json!(null)), &[], &[]),
        (
            ingress("new", &[], "/y(.*)"),
            &["strict-validate-path-type"],
            &[],
        ),
        (with(plain(), kind, json!("Fuzzy")), &["Fuzzy"], &[]),
        (
            with(plain(), "/spec/defaultBackend", no_port),
            &[],
            &["spec.defaultBackend"],
        ),
    ]
}

/// Annotations, words of the refusal, and words of the warnings.
type OfAnnotations = (
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
    &'static [&'static str],
);

const ANNOTATIONS: [OfAnnotations; 5] = [
    (
        &[("server-snippet", "deny all;")],
        &[
            "server-snippet is refused",
            "until then every request is refused",
        ],
        &[],
    ),
    (
        &[("whitelist-source-range", "everybody")],
        &["whitelist-source-range", "everybody"],
        &[],
    ),
    (
        &[("proxy-read-timeout", "soon")],
        &[],
        &["proxy-read-timeout is \"soon\", which is left out"],
    ),
    (
        &[("proxy-buffering", "on"), ("app-rot", "/a")],
        &[],
        &["app-root meant?", "proxy-buffering has no effect"],
    ),
    (
        &[("proxy-buffering", "on"), ("fastcgi-index", "index.php")],
        &["FastCGI is not spoken"],
        &["proxy-buffering"],
    ),
];

fn has(text: &Value, words: &[&str]) -> bool {
    let text = text.as_str().unwrap_or_default().to_owned();
    words.iter().all(|word| text.contains(word))
}

#[test]
fn what_is_said_of_new_ones() {
    let store = store();
    let annotated = ANNOTATIONS.map(|(annotations, refusal, warnings)| {
        (ingress("new", annotations, "/y"), refusal, warnings)
    });
    for (object, refusal, warnings) in cases().into_iter().chain(annotated) {
        let response = said(&store, &review(&object, None));
        let context = format!("{object}\n{response}");
        assert_eq!(response["allowed"], refusal.is_empty(), "{context}");
        assert!(has(&response["status"]["message"], refusal), "{context}");
        assert_eq!(
            response["status"].is_null(),
            refusal.is_empty(),
            "{context}"
        );
        let told = response["warnings"].as_array().cloned().unwrap_or_default();
        assert_eq!(told.len(), warnings.len(), "{context}");
        for (told, word) in told.iter().zip(warnings) {
            assert!(has(told, &[word]), "{context}");
        }
    }
}

#[test]
fn what_is_said_of_changes() {
    let store = store();
    let allowed = |object: &Value, old: &Value| {
        let response = said(&store, &review(object, Some(old)));
        response["allowed"] == true && response["warnings"].is_null()
    };
    let bad = ingress("bad", &[("server-snippet", "deny all;")], "/x");
    // What is there is left as it is, and may go.
    let labelled = with(bad.clone(), "/metadata/labels", json!({"a": "b"}));
    assert!(allowed(&labelled, &bad));
    let going = with(
        bad.clone(),
        "/metadata/deletionTimestamp",
        json!("2026-01-02T03:04:06Z"),
    );
    assert!(allowed(&going, &ingress("bad", &[], "/y")));
    assert!(!allowed(&bad, &ingress("bad", &[], "/x")));
    assert!(allowed(
        &ingress("old", &[], "/z"),
        &ingress("old", &[], "/x")
    ));

    // An older one may take a path, and its writer is told whose it was.
    let aged = |path| {
        let created = json!("2020-01-02T03:04:05Z");
        with(
            ingress("aged", &[], path),
            "/metadata/creationTimestamp",
            created,
        )
    };
    let response = said(&store, &review(&aged("/x"), Some(&aged("/y"))));
    assert_eq!(response["allowed"], true, "{response}");
    assert!(
        has(
            &response["warnings"][0],
            &["Ingress shop/old", "\"/x\"", "shop/aged"]
        ),
        "{response}"
    );
}

#[test]
fn other_operations_are_allowed() {
    let store = store();
    let bad = ingress("new", &[], "/x");
    let deleted = json!({"operation": "DELETE", "object": null, "oldObject": bad});
    for (pointer, value) in [
        ("/request/operation", json!("DELETE")),
        ("/request/operation", json!("CONNECT")),
        ("/request/subResource", json!("status")),
    ] {
        let review = with(review(&bad, None), pointer, value);
        assert_eq!(
            said(&store, &review),
            json!({"uid": "4711", "allowed": true})
        );
    }
    let mut request = review(&bad, None);
    for (key, value) in deleted.as_object().unwrap() {
        request["request"][key] = value.clone();
    }
    assert_eq!(
        said(&store, &request),
        json!({"uid": "4711", "allowed": true})
    );
}

#[test]
fn the_namespace_is_the_requests() {
    let mut object = ingress("old", &[], "/x");
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("namespace");
    // It is `shop/old` itself, that is there.
    assert_eq!(said(&store(), &review(&object, None))["allowed"], true);
}

#[test]
fn what_is_no_review_of_an_ingress() {
    let plain = review(&ingress("new", &[], "/y"), None);
    for (body, word) in [
        ("".to_owned(), "AdmissionReview"),
        ("[]".to_owned(), "AdmissionReview"),
        (
            with(
                plain.clone(),
                "/apiVersion",
                json!("admission.k8s.io/v1beta1"),
            )
            .to_string(),
            "v1beta1",
        ),
        (
            with(plain.clone(), "/request", json!(null)).to_string(),
            "AdmissionReview",
        ),
        (
            with(plain.clone(), "/request/kind/kind", json!("Service")).to_string(),
            "Service of networking.k8s.io/v1",
        ),
        (
            with(plain.clone(), "/request/kind/version", json!("v1beta1")).to_string(),
            "v1beta1",
        ),
        (
            with(plain, "/request/object/spec/rules", json!("none")).to_string(),
            "no Ingress",
        ),
    ] {
        let error = Asked::read(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(word), "{body}: {error}");
    }
}
