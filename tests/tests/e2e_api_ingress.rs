//! A real API server, and replicas of the proxy: the status of Ingresses, and their reviews.

use std::process::Command;
use std::time::Duration;

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::apiserver::ApiServer;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{load_balancer, service};
use bascule_tests::e2e::world::World;
use bascule_tests::e2e::{beside, eventually};
use serde_json::{Value, json};

/// A Lease that is not given up is free after 15 s.
const WITHIN: Duration = Duration::from_secs(40);
const CONFLICT: &str = "default/web, which is older";

fn class(name: &str, controller: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
           "metadata": {"name": name}, "spec": {"controller": controller}})
}

/// An Ingress with the path `/` of a host.
fn ingress(name: &str, class: &str, host: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
           "metadata": {"name": name, "namespace": "default"},
           "spec": {"ingressClassName": class, "rules": [{"host": host, "http": {"paths": [
               {"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}})
}

/// A replica of the proxy, with ports of its own.
fn proxy(node: &Node, api: &ApiServer<'_>, number: u16, flags: &[&str]) -> Agent {
    let mut command = Command::new(beside("bascule"));
    command
        .arg("proxy")
        .arg("--kubeconfig")
        .arg(api.kubeconfig());
    for (flag, port) in [("--http", 8000), ("--https", 9000), ("--admin", 10_000)] {
        let address = format!("127.0.0.1:{}", port + number);
        command.args([flag, &address]);
    }
    command.args(flags).env("POD_NAMESPACE", "default");
    command.env("POD_NAME", format!("proxy-{number}"));
    Agent::spawn(node, command, node.path(&format!("proxy{number}.log")))
}

/// The `status.loadBalancer.ingress` of an Ingress.
fn published(api: &ApiServer<'_>, name: &str) -> Value {
    let path = format!("/apis/networking.k8s.io/v1/namespaces/default/ingresses/{name}");
    let status = api.get(&path).unwrap()["status"].take();
    status["loadBalancer"]["ingress"].clone()
}

fn has_published(api: &ApiServer<'_>, name: &str, expected: &Value) {
    eventually(WITHIN, || match published(api, name) {
        found if &found == expected => Ok(()),
        found => Err(format!("{name}: {found}")),
    });
}

/// Who holds the Lease; nothing when it was given up.
fn holder(api: &ApiServer<'_>) -> String {
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/bascule-proxy-leader";
    let lease = api.get(path).unwrap_or_default();
    let holder = lease["spec"]["holderIdentity"].as_str();
    holder.unwrap_or_default().to_owned()
}

fn is_held_by(api: &ApiServer<'_>, pod: &str) {
    eventually(WITHIN, || match holder(api) {
        holder if holder.starts_with(pod) => Ok(()),
        holder => Err(format!("{holder} and not {pod}")),
    });
}

fn terminate(proxy: &mut Agent) {
    let pid = i32::try_from(proxy.pid()).unwrap();
    // SAFETY: a system call without memory, on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    let status = proxy.ended();
    assert!(status.success(), "{status}: {}", proxy.log());
}

#[test]
fn one_replica_writes_the_status_and_the_last_one_removes_it() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let api = ApiServer::start(&node);
    api.create(&[
        class("nginx", "k8s.io/ingress-nginx"),
        class("other", "other.invalid/controller"),
        ingress("web", "nginx", "web.test"),
        ingress("other", "other", "other.test"),
    ]);
    let outside = service("outside", json!({"type": "LoadBalancer"}));
    api.create(std::slice::from_ref(&outside));
    let flags = ["--publish-service", "default/outside"];
    let mut first = proxy(&node, &api, 1, &flags);
    is_held_by(&api, "proxy-1_");
    let second = proxy(&node, &api, 2, &flags);
    assert_eq!(published(&api, "web"), Value::Null);
    let with = |ips: &[&str]| {
        let found = api.get("/api/v1/namespaces/default/services/outside");
        api.replace_status(&[load_balancer(found.unwrap(), ips)]);
    };
    with(&["192.0.2.2", "192.0.2.1"]);
    let both = json!([{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]);
    has_published(&api, "web", &both);
    api.create(&[ingress("late", "nginx", "late.test")]);
    has_published(&api, "late", &both);

    // The second goes on where the first has ended.
    terminate(&mut first);
    is_held_by(&api, "proxy-2_");
    assert_eq!(published(&api, "web"), both);
    with(&["192.0.2.3"]);
    has_published(&api, "web", &json!([{"ip": "192.0.2.3"}]));

    // One that is killed holds the Lease until it has been silent for long enough.
    second.kill();
    let mut third = proxy(&node, &api, 3, &flags);
    is_held_by(&api, "proxy-3_");
    with(&["192.0.2.4"]);
    has_published(&api, "web", &json!([{"ip": "192.0.2.4"}]));
    terminate(&mut third);
    assert_eq!(published(&api, "web"), Value::Null);
    assert_eq!(published(&api, "late"), Value::Null);
    assert_eq!(published(&api, "other"), Value::Null);
    assert_eq!(holder(&api), "");

    // What is to stay stays.
    let stay = [
        "--publish-status-address=192.0.2.5,lb.test",
        "--update-status-on-shutdown=false",
    ];
    let mut fourth = proxy(&node, &api, 4, &stay);
    let fixed = json!([{"ip": "192.0.2.5"}, {"hostname": "lb.test"}]);
    has_published(&api, "web", &fixed);
    terminate(&mut fourth);
    assert_eq!(published(&api, "web"), fixed);
}

/// A certificate of `127.0.0.1`: its files, and it in base64.
fn certificate(node: &Node) -> ([String; 2], String) {
    let [crt, key] = ["tls.crt", "tls.key"].map(|name| node.path(name).display().to_string());
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args([
            "-nodes",
            "-subj",
            "/CN=webhook",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-keyout", &key, "-out", &crt])
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    let encoded = Command::new("base64").args(["-w0", &crt]).output().unwrap();
    ([crt, key], String::from_utf8(encoded.stdout).unwrap())
}

/// Has the API server ask a webhook on its own node.
fn webhook(bundle: &str) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
           "metadata": {"name": "bascule"},
           "webhooks": [{
               "name": "validate.ingresses.bascule.dev", "admissionReviewVersions": ["v1"],
               "sideEffects": "None", "failurePolicy": "Fail", "matchPolicy": "Equivalent",
               "clientConfig": {"url": "https://127.0.0.1:8443/networking/v1/ingresses", "caBundle": bundle},
               "rules": [{"apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"],
                          "operations": ["CREATE", "UPDATE"], "resources": ["ingresses"]}]}]})
}

#[test]
fn the_api_server_has_ingresses_reviewed() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let api = ApiServer::start(&node);
    let web = ingress("web", "nginx", "web.test");
    api.create(&[class("nginx", "k8s.io/ingress-nginx"), web.clone()]);
    let ([crt, key], bundle) = certificate(&node);
    let flags = [
        "--validating-webhook=:8443",
        "--validating-webhook-certificate",
        &crt,
        "--validating-webhook-key",
        &key,
        "--publish-status-address=192.0.2.1",
    ];
    let proxy = proxy(&node, &api, 1, &flags);
    has_published(&api, "web", &json!([{"ip": "192.0.2.1"}]));
    api.create(&[webhook(&bundle)]);
    // The API server takes a moment to know of it.
    eventually(WITHIN, || {
        let name = ingress("again", "nginx", "web.test");
        match api.try_create(&name) {
            Ok(()) => {
                api.delete(&[name]);
                Err("it is not asked".to_owned())
            }
            Err(said) if said.contains(CONFLICT) => Ok(()),
            Err(said) => panic!("{said}; {}", proxy.log()),
        }
    });
    let mut snippet = ingress("snippet", "nginx", "snippet.test");
    snippet["metadata"]["annotations"] =
        json!({"nginx.ingress.kubernetes.io/server-snippet": "deny all;"});
    let said = api.try_create(&snippet).unwrap_err();
    assert!(said.contains("server-snippet is refused"), "{said}");
    // What is well is taken, also a second time, and its status is written.
    let well = ingress("well", "nginx", "well.test");
    api.create(std::slice::from_ref(&well));
    has_published(&api, "well", &json!([{"ip": "192.0.2.1"}]));
    api.replace(&[web, well]);
    // What is no reason to refuse it is said where its users look.
    eventually(WITHIN, || {
        let events = api.get("/apis/events.k8s.io/v1/namespaces/default/events")?;
        let is_told = |event: &Value| {
            (&event["regarding"]["name"], &event["reason"])
                == (&json!("web"), &json!("MissingService"))
        };
        let mut told = events["items"].as_array().into_iter().flatten();
        let event = told.find(|event| is_told(event)).ok_or(proxy.log())?;
        assert_eq!(event["reportingController"], "bascule-proxy");
        assert_eq!(event["reportingInstance"], "proxy-1");
        Ok(())
    });
}
