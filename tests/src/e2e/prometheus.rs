//! A real Prometheus on the fabric, which scrapes agents once a second and judges by the
//! alerts of the chart.
//!
//! The programs are those of `PROMETHEUS_DIR`, which `cargo xtask test` sets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::eventually;
use super::netns::Netns;
use super::world::World;

const URL: &str = "http://127.0.0.1:9090";
/// How long a start may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// A running Prometheus. It is killed when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    netns: Netns,
    child: Child,
}

impl Prometheus {
    /// Starts one that scrapes `targets`, as the job `bascule` with the name of each as its
    /// instance, and follows the rules of a file.
    ///
    /// # Panics
    /// It cannot be had or started.
    #[must_use]
    pub fn start(world: &World, targets: &[(String, String)], rules: &Path) -> Self {
        let dir = world.dir().join("prometheus");
        fs::create_dir_all(&dir).expect("a directory can be made");
        let target = |(name, address): &(String, String)| serde_json::json!({"targets": [address], "labels": {"instance": name}});
        let targets: Vec<Value> = targets.iter().map(target).collect();
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "bascule", "static_configs": targets}],
        });
        // JSON is YAML.
        fs::write(dir.join("config.yaml"), config.to_string()).expect("a file can be written");
        let netns = world.shared.host("prometheus", 200, Netns::new);
        let log = File::create(dir.join("log")).expect("a log can be made");
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!(
                "--config.file={}",
                dir.join("config.yaml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:9090")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor can be duplicated"))
            .stderr(log);
        let child = netns.spawn(command, &world.shared.cgroup_of("prometheus"));
        let prometheus = Self { netns, child };
        eventually(PATIENCE, || {
            let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
            let answer = prometheus.curl(&[&format!("{URL}/-/ready")]);
            answer.map_err(|e| format!("{e}; the log:\n{}", log()))
        });
        prometheus
    }

    /// The series that a query gives now, with their values.
    ///
    /// # Panics
    /// The query is wrong.
    #[must_use]
    pub fn query(&self, query: &str) -> Vec<(Labels, f64)> {
        let data = self.get("query", &[("query", query)]);
        let rows = data["result"].as_array().expect("a vector has rows");
        let value = |row: &Value| row["value"][1].as_str().and_then(|v| v.parse().ok());
        rows.iter()
            .map(|row| (labels(&row["metric"]), value(row).expect("a number")))
            .collect()
    }

    /// The values of a label among the series of a selector.
    #[must_use]
    pub fn values(&self, label: &str, selector: &str) -> BTreeSet<String> {
        let data = self.get(&format!("label/{label}/values"), &[("match[]", selector)]);
        serde_json::from_value(data).expect("a list of texts")
    }

    /// The alerts that fire: labels, among them `alertname`, and annotations.
    #[must_use]
    pub fn firing(&self) -> Vec<(Labels, Labels)> {
        let data = self.get("alerts", &[]);
        let alerts = data["alerts"].as_array().expect("a list").iter();
        alerts
            .filter(|alert| alert["state"] == "firing")
            .map(|alert| (labels(&alert["labels"]), labels(&alert["annotations"])))
            .collect()
    }

    /// The names of all alerts that it judges by.
    ///
    /// # Panics
    /// It cannot judge by one.
    #[must_use]
    pub fn alerts(&self) -> BTreeSet<String> {
        let data = self.get("rules", &[("type", "alert")]);
        let groups = data["groups"].as_array().expect("a list").iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().expect("a list"));
        rules
            .map(|rule| {
                assert_eq!(rule["health"], "ok", "{rule}");
                rule["name"].as_str().expect("a name").to_owned()
            })
            .collect()
    }

    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = format!("{URL}/api/v1/{path}");
        let pairs: Vec<String> = parameters.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut words = vec!["--get", &url];
        words.extend(pairs.iter().flat_map(|pair| ["--data-urlencode", pair]));
        let text = self
            .curl(&words)
            .unwrap_or_else(|e| panic!("{words:?}: {e}"));
        let mut answer: Value = serde_json::from_str(&text).expect("Prometheus answers in JSON");
        answer["data"].take()
    }

    fn curl(&self, words: &[&str]) -> Result<String, String> {
        self.netns.inside(|| {
            let mut curl = Command::new("curl");
            curl.args([
                "--silent",
                "--show-error",
                "--fail-with-body",
                "--max-time",
                "10",
            ]);
            let out = curl
                .args(words)
                .output()
                .map_err(|e| format!("curl: {e}"))?;
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            match out.status.success() {
                true => Ok(text),
                false => Err(format!("{}{text}", String::from_utf8_lossy(&out.stderr))),
            }
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prometheus or promtool.
///
/// # Panics
/// Nobody says where they are.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let dir = std::env::var_os("PROMETHEUS_DIR").expect(
        "`cargo xtask test netns` fetches prometheus and promtool, and sets PROMETHEUS_DIR; by hand, set it to their directory",
    );
    PathBuf::from(dir).join(name)
}

fn labels(object: &Value) -> Labels {
    serde_json::from_value(object.clone()).expect("labels are texts")
}
