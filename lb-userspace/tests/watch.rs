//! Following a cluster: lists, watches, and what goes wrong with them.

mod fake_api;

use std::{collections::BTreeMap, time::Duration};

use fake_api::FakeApi;
use lb_userspace::{
    change::{Change, Kind},
    store::Store,
    watch::reflect::{self, Settings},
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::{sync::mpsc, task::JoinHandle, time};

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const NODES: &str = "/api/v1/nodes";

fn service(ip: &str) -> Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "default"},
        "spec": {"clusterIPs": [ip], "ports": [{"port": 80}]}})
}

struct Agent {
    changes: mpsc::Receiver<Change>,
    store: Store,
    troubles: BTreeMap<String, String>,
    /// Places that were in trouble at any time.
    troubled: BTreeMap<String, String>,
    begins: usize,
    task: JoinHandle<()>,
    _kubeconfig: NamedTempFile,
}

impl Agent {
    fn start(url: &str) -> Self {
        let kubeconfig = NamedTempFile::new().unwrap();
        let text = "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u, user: {}}]}";
        std::fs::write(kubeconfig.path(), text).unwrap();
        let settings = Settings {
            kubeconfig: Some(kubeconfig.path().into()),
            apiserver: Some(url.into()),
            node_name: "n1".into(),
            proxy_name: None,
        };
        let (tx, changes) = mpsc::channel(64);
        let task = tokio::spawn(async move { reflect::follow(settings, tx).await.unwrap() });
        Self {
            changes,
            store: Store::new(),
            troubles: BTreeMap::new(),
            troubled: BTreeMap::new(),
            begins: 0,
            task,
            _kubeconfig: kubeconfig,
        }
    }

    fn seen(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .store
            .services()
            .map(|k| {
                format!(
                    "{} {}",
                    k.name,
                    self.store.service(k).unwrap().0.cluster_ips[0]
                )
            })
            .collect();
        all.sort();
        all
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Trouble {
                place,
                message: Some(m),
            } => {
                self.troubled.insert(place.clone(), m.clone());
                self.troubles.insert(place, m);
            }
            Change::Trouble {
                place,
                message: None,
            } => {
                self.troubles.remove(&place);
            }
            change => {
                self.begins += usize::from(change == Change::Begin(Kind::Service));
                self.store.apply(change);
            }
        }
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let result = time::timeout(Duration::from_secs(30), async {
            while !done(self) {
                let change = self.changes.recv().await.expect("the source has ended");
                self.take(change);
            }
        })
        .await;
        assert!(
            result.is_ok(),
            "{what}: {:?}, troubles {:?}",
            self.seen(),
            self.troubles
        );
    }

    async fn sees(&mut self, services: &[&str]) {
        self.until(&format!("{services:?}"), |a| {
            a.store.synced() && a.seen() == services
        })
        .await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lists(api: &FakeApi, path: &str) -> Vec<String> {
    let requests = &api.state().requests;
    let of_path = requests
        .iter()
        .filter(|r| r.split('?').next() == Some(path));
    of_path
        .filter(|r| !r.contains("watch=true"))
        .cloned()
        .collect()
}

#[tokio::test]
async fn objects_are_listed_and_watched_with_kube_proxys_selectors() {
    let api = FakeApi::start().await;
    api.put(SERVICES, "a", service("10.0.0.1"));
    let slice = json!({"kind": "EndpointSlice", "metadata": {"namespace": "default",
        "labels": {"kubernetes.io/service-name": "a"}}, "addressType": "IPv4",
        "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.1.0.1"]}]});
    api.put(SLICES, "a-1", slice);
    let node = json!({"kind": "Node", "metadata": {}, "status": {"addresses": [{"type": "InternalIP", "address": "10.9.0.1"}]}});
    api.put(NODES, "n1", node);
    let mut agent = Agent::start(&api.url());
    agent.sees(&["a 10.0.0.1"]).await;
    let key = agent.store.services().next().unwrap().clone();
    assert_eq!(agent.store.service(&key).unwrap().1.len(), 1);
    assert_eq!(agent.store.node("n1").unwrap().internal_ips.len(), 1);
    api.put(SERVICES, "b", service("10.0.0.2"));
    agent.sees(&["a 10.0.0.1", "b 10.0.0.2"]).await;
    api.put(SERVICES, "a", service("10.0.0.3"));
    agent.sees(&["a 10.0.0.3", "b 10.0.0.2"]).await;
    api.delete(SERVICES, "a");
    agent.sees(&["b 10.0.0.2"]).await;
    assert!(agent.troubled.is_empty(), "{:?}", agent.troubled);
    let requests = api
        .state()
        .requests
        .join("\n")
        .replace("%2F", "/")
        .replace("%21", "!")
        .replace("%2C", ",")
        .replace("%3D", "=");
    for part in [
        "/api/v1/services?&limit=500&labelSelector=!service.kubernetes.io/service-proxy-name",
        "labelSelector=!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name",
        "fieldSelector=metadata.name=n1",
    ] {
        let wanted = part.split(['?', '&']).filter(|p| !p.is_empty());
        let found = requests
            .lines()
            .any(|r| wanted.clone().all(|p| r.contains(p)));
        assert!(found, "{part} in\n{requests}");
    }
}

#[tokio::test]
async fn large_lists_come_in_pages() {
    let api = FakeApi::start().await;
    for i in 0..1200 {
        api.put(SERVICES, &format!("s{i}"), service("10.0.0.1"));
    }
    let mut agent = Agent::start(&api.url());
    agent
        .until("1200 services", |a| {
            a.store.synced() && a.store.services().count() == 1200
        })
        .await;
    assert_eq!(
        lists(&api, SERVICES).len(),
        3,
        "{:?}",
        lists(&api, SERVICES)
    );
}

#[tokio::test]
async fn a_broken_watch_resumes_without_a_new_list() {
    let api = FakeApi::start().await;
    api.put(SERVICES, "a", service("10.0.0.1"));
    let mut agent = Agent::start(&api.url());
    agent.sees(&["a 10.0.0.1"]).await;
    for i in 2..5 {
        api.cut();
        api.put(SERVICES, "a", service(&format!("10.0.0.{i}")));
        agent.sees(&[&format!("a 10.0.0.{i}")]).await;
    }
    assert_eq!(lists(&api, SERVICES).len(), 1);
    assert_eq!(agent.begins, 1);
}

#[tokio::test]
async fn a_forgotten_version_leads_to_a_new_list_that_finds_what_went() {
    let api = FakeApi::start().await;
    api.put(SERVICES, "a", service("10.0.0.1"));
    api.put(SERVICES, "b", service("10.0.0.2"));
    let mut agent = Agent::start(&api.url());
    agent.sees(&["a 10.0.0.1", "b 10.0.0.2"]).await;
    // The deletion happens while the watch is broken, and is compacted away.
    api.state().failing = 3;
    api.cut();
    api.delete(SERVICES, "a");
    api.compact();
    agent.sees(&["b 10.0.0.2"]).await;
    assert!(agent.begins >= 2);
    agent.until("well again", |a| a.troubles.is_empty()).await;
}

#[tokio::test]
async fn errors_of_the_server_are_waited_out() {
    let api = FakeApi::start().await;
    api.put(SERVICES, "a", service("10.0.0.1"));
    api.state().failing = 5;
    let mut agent = Agent::start(&api.url());
    agent.sees(&["a 10.0.0.1"]).await;
    assert!(
        agent.troubled.values().any(|m| m.contains("on fire")),
        "{:?}",
        agent.troubled
    );
    agent.until("well again", |a| a.troubles.is_empty()).await;
}

#[tokio::test]
async fn a_server_that_is_down_at_start_and_goes_away_later_is_waited_for() {
    let mut api = FakeApi::start().await;
    api.put(SERVICES, "a", service("10.0.0.1"));
    api.down().await;
    let mut agent = Agent::start(&api.url());
    agent.until("trouble", |a| !a.troubles.is_empty()).await;
    let message = agent.troubles.values().next().unwrap();
    assert!(message.contains("refused"), "{message}");
    api.up().await;
    agent.sees(&["a 10.0.0.1"]).await;
    agent.until("well", |a| a.troubles.is_empty()).await;

    api.down().await;
    agent
        .until("the server and all watches troubled", |a| {
            a.troubles.len() == 4 && a.troubles.contains_key("API server")
        })
        .await;
    assert_eq!(agent.seen(), ["a 10.0.0.1"], "what is known stays");
    api.up().await;
    api.put(SERVICES, "b", service("10.0.0.2"));
    agent.sees(&["a 10.0.0.1", "b 10.0.0.2"]).await;
    agent.until("well again", |a| a.troubles.is_empty()).await;
    assert_eq!(agent.begins, 1, "it resumes, without a new list");
}

#[tokio::test]
async fn a_forbidden_kind_is_told_with_its_remedy_and_the_others_work() {
    let api = FakeApi::start().await;
    api.put(SERVICES, "a", service("10.0.0.1"));
    api.state().forbidden = vec![SLICES];
    let mut agent = Agent::start(&api.url());
    agent
        .until("services, and trouble", |a| {
            a.seen() == ["a 10.0.0.1"] && a.troubles.contains_key("watch of EndpointSlices")
        })
        .await;
    assert!(!agent.store.synced());
    let message = &agent.troubles["watch of EndpointSlices"];
    assert!(
        message.contains("ServiceAccount get, list and watch EndpointSlices"),
        "{message}"
    );
    api.state().forbidden.clear();
    agent.sees(&["a 10.0.0.1"]).await;
}

#[tokio::test]
async fn lists_are_streamed_where_the_server_does_that() {
    let api = FakeApi::start().await;
    (api.state().minor, api.state().streams) = ("36+", true);
    api.put(SERVICES, "a", service("10.0.0.1"));
    let mut agent = Agent::start(&api.url());
    agent.sees(&["a 10.0.0.1"]).await;
    assert_eq!(lists(&api, SERVICES), [""; 0]);
    api.put(SERVICES, "b", service("10.0.0.2"));
    agent.sees(&["a 10.0.0.1", "b 10.0.0.2"]).await;
}

#[tokio::test]
async fn a_new_server_that_does_not_stream_lists_is_asked_for_pages() {
    let api = FakeApi::start().await;
    api.state().minor = "36";
    api.put(SERVICES, "a", service("10.0.0.1"));
    let mut agent = Agent::start(&api.url());
    agent.sees(&["a 10.0.0.1"]).await;
    assert_eq!(lists(&api, SERVICES).len(), 1);
    assert!(agent.troubled.is_empty(), "{:?}", agent.troubled);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_for_an_hour_is_found_again_within_seconds() {
    let mut api = FakeApi::start().await;
    api.put(SERVICES, "a", service("10.0.0.1"));
    let mut agent = Agent::start(&api.url());
    agent.sees(&["a 10.0.0.1"]).await;
    api.down().await;
    // Time stands still but for pauses, and nobody takes what is told meanwhile.
    let hour = time::Instant::now() + Duration::from_secs(3600);
    while let Ok(change) = time::timeout_at(hour, agent.changes.recv()).await {
        agent.take(change.expect("the source goes on"));
    }
    api.up().await;
    api.put(SERVICES, "b", service("10.0.0.2"));
    let back = time::Instant::now();
    agent.sees(&["a 10.0.0.1", "b 10.0.0.2"]).await;
    let took = back.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
}
