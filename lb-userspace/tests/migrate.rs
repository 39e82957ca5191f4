//! `bascule migrate ingress-nginx`: its report of manifests, and of a cluster.

#[expect(dead_code, reason = "other tests use the rest")]
mod fake_api;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use fake_api::FakeApi;
use lb_userspace::{
    proxy::{
        Source,
        migrate::{Report, Verdict},
        once,
        store::Settings,
    },
    watch::reflect,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time;

fn manifests(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migrate");
    tests.join(name)
}

fn bascule(dir: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bascule"));
    let command = command.args(["migrate", "ingress-nginx"]).arg(dir);
    command.args(flags).output().unwrap()
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn the_report_says_of_each_ingress_what_becomes_of_it() {
    let output = bascule(&manifests("manifests"), &[]);
    let expected = include_str!("migrate/report.txt");
    assert_eq!(text(&output), expected);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn the_report_has_the_same_as_json() {
    let output = bascule(&manifests("manifests"), &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let summary = json!({"ingresses": 8, "alike": 2, "differs": 1, "wrong": 1, "refused": 2,
        "denied": 2, "others": 2});
    assert_eq!(report["summary"], summary);
    assert_eq!(report["needs_change"], true);
    assert_eq!(
        report["config"]["config_map"],
        "ingress-nginx/ingress-nginx-controller"
    );
    let all = report["ingresses"].as_array().unwrap();
    let snippets = all
        .iter()
        .find(|one| one["ingress"] == "shop/snippets")
        .unwrap();
    assert_eq!(snippets["verdict"], "refused");
    assert_eq!(snippets["hosts"], json!(["snippets.example"]));
    let findings = snippets["findings"].as_array().unwrap();
    let server = findings.iter().find(|f| {
        let message = f["message"].as_str().unwrap();
        message.starts_with("nginx.ingress.kubernetes.io/server-snippet ")
    });
    let lines = json!([
        {"line": 1, "text": "location = /old { … }", "place": "rules", "settings": [], "note":
            "an Ingress of its own with the path /old of pathType Exact, and the annotations below"},
        {"line": 1, "text": "return 301 https://shop.example/new", "place": "annotation", "settings":
            [{"name": "permanent-redirect", "value": "https://shop.example/new"}], "note": ""},
    ]);
    assert_eq!(server.unwrap()["lines"], lines);
}

#[test]
fn of_a_chart_nothing_is_missed_and_it_is_alike() {
    let output = bascule(&manifests("charts"), &[]);
    let expected = "\
1 Ingress of ingress-nginx: 1 alike
  alike    served as ingress-nginx serves it
The directory has no Services and no Secrets and no ConfigMaps: whether those that Ingresses name \
are there is not told.
The directory has no IngressClasses: that of --ingress-class is taken for ingress-nginx's.

ConfigMap: none was found, so the defaults count; name it with --configmap

alike    shop/web  shop.example
";
    assert_eq!(text(&output), expected);
    assert_eq!(output.status.code(), Some(0));
    let others = bascule(&manifests("charts"), &["--ingress-class", "internal"]);
    assert!(
        text(&others).starts_with("0 Ingresses of ingress-nginx\n"),
        "{}",
        text(&others)
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told_of() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("bad.yaml"), "kind: Ingress\nspec: [").unwrap();
    let output = bascule(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("Not read: "), "{}", text(&output));
    assert!(
        text(&output).contains("bad.yaml: document 1: "),
        "{}",
        text(&output)
    );

    let output = bascule(&dir.path().join("gone"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("gone: give a directory of manifests"),
        "{error}"
    );
}

#[test]
fn a_config_map_that_is_named_and_missing_is_wrong() {
    let flags = ["--configmap", "a/b"];
    let output = bascule(&manifests("manifests"), &flags);
    let line = "wrong    there is no ConfigMap a/b: its defaults count; create it, or name another \
                with --configmap";
    assert!(text(&output).contains(line), "{}", text(&output));
}

const INGRESSES: &str = "/apis/networking.k8s.io/v1/ingresses";
const CLASSES: &str = "/apis/networking.k8s.io/v1/ingressclasses";
const SECRETS: &str = "/api/v1/secrets";
const MAPS: &str = "/api/v1/configmaps";

fn cluster(api: &FakeApi) -> (Source, tempfile::NamedTempFile) {
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let text = "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u, user: {}}]}";
    fs::write(kubeconfig.path(), text).unwrap();
    let source = Source::Cluster(reflect::Settings {
        kubeconfig: Some(kubeconfig.path().into()),
        apiserver: Some(api.url()),
        ..reflect::Settings::default()
    });
    (source, kubeconfig)
}

fn object(kind: &str, data: Value) -> Value {
    let mut object = data;
    object["kind"] = json!(kind);
    object["apiVersion"] = json!("v1");
    object["metadata"]["namespace"] = json!("shop");
    object
}

async fn api() -> FakeApi {
    let api = FakeApi::start().await;
    let class = json!({"kind": "IngressClass", "apiVersion": "networking.k8s.io/v1",
        "metadata": {}, "spec": {"controller": "k8s.io/ingress-nginx"}});
    api.put(CLASSES, "nginx", class);
    let service = json!({"spec": {"clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]}});
    api.put("/api/v1/services", "web", object("Service", service));
    let mut ingress = json!({"spec": {"ingressClassName": "nginx", "rules": [{"host": "a.example",
        "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}});
    ingress["metadata"]["annotations"] = json!({
        "nginx.ingress.kubernetes.io/auth-type": "basic",
        "nginx.ingress.kubernetes.io/auth-secret": "users",
    });
    let mut ingress = object("Ingress", ingress);
    ingress["apiVersion"] = json!("networking.k8s.io/v1");
    api.put(INGRESSES, "web", ingress);
    let data = json!({"data": {"auth": "dTp7U0hBfQ=="}});
    api.put(SECRETS, "users", object("Secret", data.clone()));
    api.put(SECRETS, "other", object("Secret", data));
    let data = json!({"data": {"enable-ocsp": "true"}});
    api.put(
        MAPS,
        "my-ingress-nginx-controller",
        object("ConfigMap", data.clone()),
    );
    api.put(MAPS, "other", object("ConfigMap", data));
    api
}

#[tokio::test]
async fn of_a_cluster_only_what_is_named_is_read() {
    let api = api().await;
    let (source, _kubeconfig) = cluster(&api);
    let read = once::read(&source, Settings::default());
    let read = time::timeout(Duration::from_secs(30), read)
        .await
        .unwrap()
        .unwrap();
    let report = Report::new(&read);
    let name = report.config.config_map.as_deref();
    assert_eq!(name, Some("shop/my-ingress-nginx-controller"));
    assert_eq!(report.config.verdict, Verdict::Differs);
    assert_eq!(report.ingresses.len(), 1);
    // The Secret is there, and its one user has a hash that is none.
    assert_eq!(report.ingresses[0].verdict, Verdict::Wrong);
    assert!(!report.needs_change);
    let state = api.state();
    let objects = state.requests.iter().filter_map(|request| {
        let (_, rest) = request.split_once("/namespaces/shop/")?;
        Some(rest.split('?').next().unwrap_or(rest))
    });
    let objects: BTreeSet<&str> = objects.collect();
    let expected = BTreeSet::from(["secrets/users", "configmaps/my-ingress-nginx-controller"]);
    assert_eq!(objects, expected);
}

#[tokio::test]
async fn a_cluster_that_does_not_let_itself_be_read_has_no_report() {
    let api = api().await;
    api.state().forbidden = vec![SECRETS];
    let (source, _kubeconfig) = cluster(&api);
    let read = once::read(&source, Settings::default());
    let read = time::timeout(Duration::from_secs(30), read).await.unwrap();
    let error = format!("{:#}", read.unwrap_err());
    assert!(error.contains("/api/v1/secrets is forbidden"), "{error}");
}
