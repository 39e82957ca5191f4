//! Files of manifests: documents, lists, and where an error is.

use lb_userspace::{
    change::Kind,
    intern::Interner,
    watch::manifest::{self, Parsed},
};

fn parse(text: &str) -> Parsed {
    manifest::parse(text, &Kind::AGENT, &Interner::default())
}

#[test]
fn a_file_holds_many_documents_and_lists() {
    let parsed = parse(
        "# a comment
---
kind: Service
metadata: {name: a}
---
# only a comment
--- # another
kind: ConfigMap
metadata: {name: skipped}
data: {text: \"---\"}
---
kind: List
items:
- {kind: Service, metadata: {name: b}}
- {kind: Pod, metadata: {name: skipped}}
- {kind: Node, metadata: {name: n1}}
",
    );
    assert_eq!(parsed.bad, []);
    let names: Vec<_> = parsed.objects.iter().map(|o| o.key.to_string()).collect();
    assert_eq!(names, ["Service default/a", "Service default/b", "Node n1"]);
}

#[test]
fn an_error_names_document_line_and_field() {
    let parsed = parse(
        "kind: Service
metadata: {name: good}
---
kind: Service
metadata: {name: bad}
spec:
  ports:
  - port: eighty
---
metadata: {name: kindless}
---
kind: List
items: [{kind: Service, metadata: {name: c}, spec: {ports: 7}}]
---
kind: Service
metadata: {namespace: nameless}
---
kind: Service
metadata: {name: [
",
    );
    assert_eq!(parsed.objects.len(), 1);
    let bad: Vec<String> = parsed.bad.iter().map(ToString::to_string).collect();
    assert_eq!(bad.len(), 5, "{bad:#?}");
    let expected = "document 2: line 8, column 11: field spec.ports[0].port: invalid i32";
    assert_eq!(bad[0], expected);
    let expected = "document 3: line 9: field kind is missing: it must be Service, EndpointSlice, Node or List";
    assert_eq!(bad[1], expected);
    let expected = "document 4: items[0]: field spec.ports: ";
    assert!(bad[2].starts_with(expected), "{}", bad[2]);
    let expected = "document 5: field metadata.name of this Service is missing";
    assert_eq!(bad[3], expected);
    assert!(bad[4].starts_with("document 6: line 1"), "{}", bad[4]);
}
