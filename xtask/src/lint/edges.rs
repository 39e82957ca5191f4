//! Dependencies that must not be: the crates' boundaries in ARCHITECTURE.md, kept by a check.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::build::cargo;

/// What a crate must never be linked with, by whichever way. Development dependencies are
/// free: tests may use what the code may not.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    (
        "lb-common",
        &[
            "aya",
            "aya-obj",
            "aya-ebpf",
            "libc",
            "serde",
            "tokio",
            "kube",
            "lb-datapath",
            "lb-plan",
        ],
    ),
    (
        "lb-datapath",
        &[
            "aya", "aya-obj", "aya-ebpf", "libc", "serde", "tokio", "kube", "lb-plan",
        ],
    ),
    (
        "lb-plan",
        &[
            "aya",
            "aya-obj",
            "tokio",
            "kube",
            "k8s-openapi",
            "rand",
            "rand_core",
            "libc",
            "lb-datapath",
        ],
    ),
    (
        "lb-route",
        &[
            "lb-common",
            "lb-datapath",
            "lb-plan",
            "tokio",
            "kube",
            "k8s-openapi",
            "rand",
            "getrandom",
        ],
    ),
    (
        "lb-proxy",
        &["lb-common", "lb-datapath", "lb-plan", "kube", "k8s-openapi"],
    ),
    ("lb-userspace", &["aya-ebpf"]),
    // It measures any proxy alike.
    (
        "bascule-loadgen",
        &["lb-common", "lb-datapath", "lb-plan", "lb-userspace"],
    ),
];
/// Crates that have these direct dependencies and no others.
const ONLY: [(&str, &[&str]); 2] = [
    ("lb-common", &["bytemuck"]),
    ("lb-datapath", &["bytemuck", "lb-common"]),
];
/// Crates that no other crate depends on.
const LEAVES: [&str; 5] = [
    "xtask",
    "bascule-tests",
    "bascule-loadgen",
    "bascule-fuzz",
    "lb-ebpf",
];

/// Checks the graph that cargo resolved.
///
/// # Errors
/// A forbidden edge; the error shows the way to it.
pub(super) fn check() -> Result<()> {
    let json = cargo("metadata").args(["--format-version", "1"]).read()?;
    let metadata = serde_json::from_str(&json).context("`cargo metadata` wrote no JSON")?;
    let wrong =
        violations(&Graph::read(&metadata).context("`cargo metadata` has no resolved graph")?);
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("forbidden dependencies:\n  {}", wrong.join("\n  "))
    }
}

/// Package names, and what each is linked with (normal and build dependencies).
struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    fn read(metadata: &Value) -> Option<Self> {
        let packages = metadata["packages"].as_array()?;
        let names: BTreeMap<&str, &str> = packages
            .iter()
            .filter_map(|p| Some((p["id"].as_str()?, p["name"].as_str()?)))
            .collect();
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array()? {
            let from = names.get(node["id"].as_str()?)?;
            let edges = graph.entry((*from).to_owned()).or_default();
            for dependency in node["deps"].as_array()?.iter().filter(|d| is_linked(d)) {
                edges.insert((*names.get(dependency["pkg"].as_str()?)?).to_owned());
            }
        }
        Some(Self(graph))
    }

    fn direct(&self, from: &str) -> impl Iterator<Item = &str> {
        self.0.get(from).into_iter().flatten().map(String::as_str)
    }

    /// A shortest way from one package to another.
    fn path(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut ways = vec![vec![from.to_owned()]];
        let mut seen = BTreeSet::from([from.to_owned()]);
        while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in &ways {
                for next in self.direct(way.last()?) {
                    let extended = [way.as_slice(), &[next.to_owned()]].concat();
                    if next == to {
                        return Some(extended);
                    }
                    if seen.insert(next.to_owned()) {
                        longer.push(extended);
                    }
                }
            }
            ways = longer;
        }
        None
    }
}

fn is_linked(dependency: &Value) -> bool {
    dependency["dep_kinds"]
        .as_array()
        .is_some_and(|kinds| kinds.iter().any(|k| k["kind"] != "dev"))
}

fn violations(graph: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, forbidden) in FORBIDDEN {
        let ways = forbidden.iter().filter_map(|to| graph.path(from, to));
        wrong.extend(ways.map(|way| way.join(" -> ")));
    }
    for (from, allowed) in ONLY {
        let others = graph.direct(from).filter(|d| !allowed.contains(d));
        wrong.extend(others.map(|d| {
            format!(
                "{from} -> {d} (it may depend on {} only)",
                allowed.join(" and ")
            )
        }));
    }
    for leaf in LEAVES {
        let users = graph.0.iter().filter(|(_, edges)| edges.contains(leaf));
        wrong.extend(users.map(|(user, _)| format!("{user} -> {leaf} (nobody depends on it)")));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Graph {
        Graph(
            edges
                .iter()
                .map(|(from, to)| {
                    (
                        (*from).to_owned(),
                        to.iter().map(|t| (*t).to_owned()).collect(),
                    )
                })
                .collect(),
        )
    }

    #[test]
    fn a_forbidden_dependency_is_found_at_any_depth() {
        let graph = graph(&[
            ("lb-plan", &["serde", "helper"]),
            ("helper", &["tokio", "lb-plan"]),
            ("serde", &[]),
        ]);
        assert_eq!(violations(&graph), ["lb-plan -> helper -> tokio"]);
    }

    #[test]
    fn the_abi_crate_has_one_dependency() {
        let graph = graph(&[("lb-common", &["bytemuck", "bitflags"])]);
        assert_eq!(
            violations(&graph),
            ["lb-common -> bitflags (it may depend on bytemuck only)"]
        );
    }

    #[test]
    fn nobody_depends_on_xtask() {
        let graph = graph(&[("lb-userspace", &["xtask"]), ("xtask", &["clap"])]);
        assert_eq!(
            violations(&graph),
            ["lb-userspace -> xtask (nobody depends on it)"]
        );
    }

    #[test]
    fn development_dependencies_are_free() {
        let metadata = serde_json::json!({
            "packages": [{"id": "a", "name": "lb-plan"}, {"id": "b", "name": "rand"}, {"id": "c", "name": "serde"}],
            "resolve": {"nodes": [
                {"id": "a", "deps": [
                    {"pkg": "b", "dep_kinds": [{"kind": "dev"}]},
                    {"pkg": "c", "dep_kinds": [{"kind": null}, {"kind": "dev"}]}
                ]},
                {"id": "b", "deps": []}, {"id": "c", "deps": []}
            ]}
        });
        let graph = Graph::read(&metadata).unwrap();
        assert_eq!(graph.direct("lb-plan").collect::<Vec<_>>(), ["serde"]);
        assert!(violations(&graph).is_empty());
    }
}
