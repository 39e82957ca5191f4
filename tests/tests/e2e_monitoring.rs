//! The chart's alerts and dashboards, by a real Prometheus that scrapes real agents: every
//! alert fires on the node that has its fault, and on no other; every panel has data.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bascule_tests::e2e::eventually;
use bascule_tests::e2e::faults::Faults;
use bascule_tests::e2e::prometheus::program;
use serde_json::Value;

/// Every alert with the nodes that it fires on; none in its labels where it is about objects.
/// n1 is well.
const EXPECTED: [(&str, &[&str]); 13] = [
    ("BasculeAgentDown", &["n5"]),
    ("BasculeAgentRestarts", &["n5"]),
    ("BasculeConntrackNearlyFull", &["n2"]),
    ("BasculeDrops", &["n2"]),
    ("BasculeHooksMissing", &["n2"]),
    ("BasculeKubeProxyRules", &["n2"]),
    ("BasculeMapNearlyFull", &["n2"]),
    ("BasculeMapsRepaired", &["n2"]),
    ("BasculeObjectsRefused", &[""]),
    ("BasculeSourceUnreadable", &["n2", "n4"]),
    ("BasculeSyncStale", &["n3"]),
    ("BasculeUnhealthy", &["n4"]),
    ("BasculeWritesFail", &["n3"]),
];
/// A change counts as stale after 30 s.
const WITHIN: Duration = Duration::from_secs(50);
/// What a panel is asked with; the node is one with faults.
const VARIABLES: [(&str, &str); 3] = [
    ("$__rate_interval", "5m"),
    ("$job", "bascule"),
    ("$node", "n2"),
];

/// A file of the project.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn monitoring(file: &str) -> String {
    let path = project("manifests/helm/bascule/monitoring").join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The alerts, which fire here at once.
fn without_patience(alerts: &str) -> String {
    let hasty = |line: &str| match line.trim_start().starts_with("for: ") {
        true => "        for: 0s\n".to_owned(),
        false => format!("{line}\n"),
    };
    let text: String = alerts.lines().map(hasty).collect();
    assert_eq!(text.matches("for: 0s").count(), EXPECTED.len());
    text
}

#[test]
fn every_alert_fires_on_the_node_that_has_its_fault() {
    let mut faults = Faults::new(&without_patience(&monitoring("alerts.yaml")));
    let names = EXPECTED.map(|(alert, _)| alert.to_owned());
    assert_eq!(faults.prometheus.alerts(), names.into());
    let amiss = "bascule_problems > 0 or bascule_apply_pending > 0";
    let found = faults.prometheus.query(amiss);
    assert!(found.is_empty(), "{found:?}");
    faults.freeze();
    faults.burden();
    faults.restart();
    let on = |(alert, nodes): &(&str, &[&str])| -> Vec<(String, String)> {
        let pair = |node: &&str| ((*alert).to_owned(), (*node).to_owned());
        nodes.iter().map(pair).collect()
    };
    let expected: BTreeSet<_> = EXPECTED.iter().flat_map(on).collect();
    let mut round = 0;
    eventually(WITHIN, || {
        // The panels are to have data.
        round += 1;
        faults.change(round);
        let firing = faults.firing();
        let differs: Vec<_> = firing.symmetric_difference(&expected).collect();
        differs
            .is_empty()
            .then_some(())
            .ok_or(format!("{differs:?}"))
    });
    for (labels, annotations) in faults.prometheus.firing() {
        let text = annotations.values().cloned().collect::<Vec<_>>().join(" ");
        let wrong = ["no value", "{{", "error"].iter().any(|w| text.contains(w));
        assert!(!wrong, "{labels:?}: {text}");
    }
    for file in ["fleet.json", "node.json"] {
        dashboard(&faults, file);
    }
    tests_name_what_there_is(&faults);
    runbooks_name_commands(&faults);
    // What the runbook says of a frozen map.
    faults.thaw();
    eventually(WITHIN, || {
        let firing = faults.firing();
        let well = firing.iter().all(|(_, node)| node != "n3");
        well.then_some(()).ok_or(format!("{firing:?}"))
    });
}

/// A query of a dashboard, with values for its variables.
fn filled(query: &str) -> String {
    let mut text = query.to_owned();
    for (variable, value) in VARIABLES {
        text = text.replace(variable, value);
    }
    assert!(!text.contains('$'), "{query}");
    text
}

/// Every panel has data, and every variable has the value that it is asked with.
fn dashboard(faults: &Faults, file: &str) {
    let dashboard: Value = serde_json::from_str(&monitoring(file)).unwrap();
    let list = |of: &Value| of.as_array().unwrap().clone();
    for variable in list(&dashboard["templating"]["list"]) {
        let Some(query) = variable["query"]["query"].as_str() else {
            assert_eq!(variable["type"], "datasource");
            continue;
        };
        let inner = query
            .strip_prefix("label_values(")
            .and_then(|q| q.strip_suffix(')'));
        let (selector, label) = inner.unwrap().rsplit_once(", ").unwrap();
        let found = faults.prometheus.values(label, &filled(selector));
        let name = format!("${}", variable["name"].as_str().unwrap());
        let (_, value) = VARIABLES.iter().find(|(v, _)| *v == name).unwrap();
        assert!(found.contains(*value), "{file}, {name}: {found:?}");
    }
    let panels = list(&dashboard["panels"]);
    assert!(panels.len() > 10, "{file}");
    for panel in panels {
        for target in list(&panel["targets"]) {
            let query = target["expr"].as_str().unwrap();
            let found = faults.prometheus.query(&filled(query));
            let is_data = !found.is_empty() && found.iter().all(|(_, value)| value.is_finite());
            assert!(is_data, "{file}, {}: {query}: {found:?}", panel["title"]);
            // Without labels it is a zero that the query says itself.
            let nobodys = filled(&query.replace("$node", "nobody"));
            let of_nobody = faults.prometheus.query(&nobodys);
            let other = of_nobody.iter().any(|(labels, _)| !labels.is_empty());
            assert!(
                !(other && query.contains("$node")),
                "{query}: {of_nobody:?}"
            );
            assert_eq!(file == "node.json", query.contains("$node"), "{query}");
        }
    }
}

/// The series of promtool's tests are such as agents have; and these have as many as the page of
/// metrics says, with some of n2's Services and backends.
fn tests_name_what_there_is(faults: &Faults) {
    let many = faults.prometheus.query("scrape_samples_scraped > 400");
    assert!(many.is_empty(), "{many:?}");
    let few = faults
        .prometheus
        .query("scrape_samples_scraped{instance='n2'} < 250");
    assert!(few.is_empty(), "{few:?}");
    let tests = fs::read_to_string(project("tests/monitoring/alerts_test.yaml")).unwrap();
    let series = tests
        .lines()
        .filter_map(|l| l.trim().strip_prefix("- series: '"));
    let series: BTreeSet<&str> = series.map(|s| s.trim_end_matches('\'')).collect();
    assert!(series.len() > 30, "{series:?}");
    for one in series {
        let (name, labels) = one.trim_end_matches('}').split_once('{').unwrap();
        let own = labels.split(',').filter(|label| {
            let name = label.split('=').next().unwrap();
            !["instance", "job"].contains(&name)
        });
        let query = format!("{name}{{{}}}", own.collect::<Vec<_>>().join(","));
        assert!(
            !faults.prometheus.query(&query).is_empty(),
            "{one}: no {query}"
        );
    }
}

/// The commands of the runbooks are such as the command line has.
fn runbooks_name_commands(faults: &Faults) {
    const VIEWS: [&str; 7] = [
        "status",
        "service",
        "backend",
        "conntrack",
        "maglev",
        "maps",
        "explain",
    ];
    for (alert, _) in EXPECTED {
        let page = project("docs/runbooks").join(format!("{alert}.md"));
        let page = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{alert}: {e}"));
        let commands = page
            .lines()
            .filter_map(|line| line.strip_prefix("bascule "));
        let commands: Vec<&str> = commands.map(|c| c.split(" #").next().unwrap()).collect();
        assert!(!commands.is_empty(), "{alert}");
        for command in commands {
            let words: Vec<&str> = command.split_whitespace().collect();
            assert!(VIEWS.contains(&words[0]), "{alert}: {command}");
            let said = faults.node(2).bascule(&words);
            // 2 is wrong usage.
            assert!(!matches!(said.status, None | Some(2)), "{alert}: {said:?}");
        }
    }
}

#[test]
fn alerts_fire_after_their_time_and_above_their_thresholds() {
    let dir = tempfile::tempdir().unwrap();
    let alerts = dir.path().join("alerts.yaml");
    fs::write(&alerts, monitoring("alerts.yaml")).unwrap();
    let tests = dir.path().join("alerts_test.yaml");
    fs::copy(project("tests/monitoring/alerts_test.yaml"), &tests).unwrap();
    for (command, file) in [("check", &alerts), ("test", &tests)] {
        let out = Command::new(program("promtool"))
            .args([command, "rules"])
            .arg(file)
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
    }
}
