//! Health checks while the agent restarts: another process answers them in its place.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, load_balancer, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::world::{Outside, World};
use bascule_tests::e2e::{beside, eventually};
use serde_json::json;

const WITHIN: Duration = Duration::from_secs(20);
const CHECK: u16 = 32_123;
/// New connections a second.
const RATE: u64 = 200;

struct Cluster {
    pods: [Pod; 3],
    client: Outside,
    node: Node,
    _world: World,
}

fn cluster() -> Cluster {
    let world = World::new();
    let node = Node::new(&world, 1);
    let pods = [node.pod(2), node.pod(3), node.pod(4)];
    let client = world.outside(50);
    Cluster {
        pods,
        client,
        node,
        _world: world,
    }
}

impl Cluster {
    /// Gives the Service this many endpoints on the node.
    fn endpoints(&self, count: usize) {
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
                          "healthCheckNodePort": CHECK});
        let web = load_balancer(dual("web", 20, spec), &["10.97.2.1", "fd97::2:1"]);
        let pods: Vec<&Pod> = self.pods.iter().take(count).collect();
        self.node.apply("web", &with_pods(web, &pods));
    }

    /// Flags of an agent that load balancers outside can ask.
    fn agent(&self, flags: &[&str]) -> Agent {
        let outside = ["--healthz-bind-address", "0.0.0.0:10256"];
        self.node.agent_unready(&[&outside, flags].concat())
    }

    fn stand_in(&self) -> StandIn {
        // As in a pod: the same user as the agent, and no capability.
        let mut command = Command::new("setpriv");
        command
            .args(["--inh-caps=-all", "--bounding-set=-all", "--"])
            .arg(beside("bascule"))
            .args(["health", "--state-dir"])
            .arg(self.node.path("state"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        let cgroup = self.node.cgroup().join("host");
        StandIn(self.node.netns().spawn(command, &cgroup))
    }

    /// Waits until health checks are answered by another process.
    fn is_stood_in(&self, wanted: bool) {
        let state = lb_userspace::agent::state::StateDir::new(&self.node.path("state"));
        eventually(WITHIN, || {
            let found = state.is_stood_in();
            (found == wanted)
                .then_some(())
                .ok_or_else(|| format!("{found}"))
        });
    }

    /// Waits until only one process listens on each port: the others have left.
    fn is_settled(&self) {
        let ports = [10_256, CHECK].map(|port: u16| format!(":{port:04X}"));
        // include/net/tcp_states.h: 0A is TCP_LISTEN.
        let is_one = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            ports.iter().any(|port| words[1].ends_with(port)) && words[3] == "0A"
        };
        eventually(WITHIN, || {
            let read =
                |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
            let both = || Ok::<_, std::io::Error>(read("tcp")? + &read("tcp6")?);
            let text = self.node.netns().inside(both).map_err(|e| e.to_string())?;
            let found = text.lines().filter(is_one).count();
            (found == ports.len())
                .then_some(())
                .ok_or(format!("{found} listen:\n{text}"))
        });
    }

    fn ask(&self, port: u16, path: &str) -> Result<Answer, String> {
        let ask = || ask(SocketAddr::from(([172, 29, 0, 11], port)), path);
        self.client.netns.inside(ask)
    }

    /// Waits until a health check has an answer.
    fn answers(&self, port: u16, path: &str, status: u16, words: &str) {
        eventually(WITHIN, || {
            let answer = self.ask(port, path)?;
            let well = answer.status == status && answer.text.contains(words);
            well.then_some(()).ok_or(answer.text)
        });
    }
}

/// A process that answers in the agent's place.
struct StandIn(Child);

impl StandIn {
    /// Ends it with SIGTERM, and waits for its end.
    fn leave(mut self) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.is_ok_and(|s| s.success()));
        let status = self.0.wait().expect("a child can be waited for");
        assert!(status.success(), "{status}");
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    text: String,
}

fn ask(address: SocketAddr, path: &str) -> Result<Answer, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = ask().map_err(|e| e.to_string())?;
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| format!("no answer: {text:?}"))?;
    Ok(Answer { status, text })
}

/// A load balancer that asks on new connections, without end.
struct Asker {
    stop: Arc<AtomicBool>,
    /// Answers by what was asked and the status, and errors by their text.
    seen: Arc<Mutex<BTreeMap<String, u64>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Asker {
    fn start(c: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
        let (start, tickets) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        // A thread stays in the namespace that it was started in.
        let threads = c.client.netns.inside(|| {
            let dial = |_| {
                let (stop, seen, tickets) = (stop.clone(), seen.clone(), tickets.clone());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let ticket = tickets.fetch_add(1, Ordering::Relaxed);
                        let due = Duration::from_micros(ticket * 1_000_000 / RATE);
                        std::thread::sleep(due.saturating_sub(start.elapsed()));
                        let what = [(10_256, "/healthz"), (10_256, "/livez"), (CHECK, "/")];
                        let (port, path) = what[usize::try_from(ticket % 3).unwrap()];
                        let answer = ask(SocketAddr::from(([172, 29, 0, 11], port)), path);
                        let key = match answer {
                            Ok(answer) => format!("{path} {}", answer.status),
                            Err(error) => format!("{path} {error}"),
                        };
                        *seen.lock().unwrap().entry(key).or_default() += 1;
                    }
                })
            };
            (0..8).map(dial).collect()
        });
        Self {
            stop,
            seen,
            threads,
        }
    }

    /// Ends it: what it has seen.
    fn stop(self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it does not panic");
        }
        let seen = self.seen.lock().unwrap();
        println!("{seen:?}");
        seen.clone()
    }
}

/// Everything was answered, and nothing else than this.
#[track_caller]
fn only(seen: &BTreeMap<String, u64>, expected: &[&str]) {
    assert!(
        seen.keys().map(String::as_str).eq(expected.iter().copied()),
        "{seen:?}"
    );
    assert!(seen.values().all(|count| *count > 50), "{seen:?}");
}

#[test]
fn no_health_check_fails_over_twenty_kills_and_the_answers_stay_true() {
    let c = cluster();
    c.endpoints(1);
    let mut agent = c.agent(&[]);
    agent.ready(c.node.netns());
    let _stand_in = c.stand_in();
    c.is_stood_in(true);
    c.is_settled();
    let asker = Asker::start(&c);
    for round in 0..20 {
        agent.kill();
        // Endpoints change while nobody can see it.
        let count = 1 + round % 3;
        c.endpoints(count);
        agent = c.agent(&[]);
        if round % 4 == 3 {
            // This one is killed on its way to serving.
            std::thread::sleep(Duration::from_millis(20 * round as u64));
            continue;
        }
        let weight = format!("x-load-balancing-endpoint-weight: {count}\r\n");
        c.answers(CHECK, "/", 200, &weight);
    }
    agent.ready(c.node.netns());
    only(&asker.stop(), &["/ 200", "/healthz 200", "/livez 200"]);
    // As kube-proxy's, byte for byte.
    c.endpoints(0);
    let body = "\r\n\r\n{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 0,\n\t\"serviceProxyHealthy\": true\n}";
    c.answers(CHECK, "/", 503, body);
    c.answers(CHECK, "/", 503, "content-type: application/json\r\n");
    c.answers(CHECK, "/", 503, "x-content-type-options: nosniff\r\n");
}

#[test]
fn no_health_check_fails_while_who_answers_changes() {
    let c = cluster();
    c.endpoints(1);
    let agent = c.agent(&[]);
    agent.ready(c.node.netns());
    let asker = Asker::start(&c);
    for _ in 0..3 {
        // Before this the agent answers.
        let first = c.stand_in();
        c.is_stood_in(true);
        std::thread::sleep(Duration::from_millis(500));
        let second = c.stand_in();
        std::thread::sleep(Duration::from_millis(500));
        first.leave();
        c.is_stood_in(true);
        second.leave();
        c.is_stood_in(false);
    }
    only(&asker.stop(), &["/ 200", "/healthz 200", "/livez 200"]);
}

#[test]
fn an_agent_that_is_away_or_hangs_is_told_after_the_timeout_and_not_before() {
    let c = cluster();
    c.endpoints(1);
    let flags = ["--iptables-sync-period", "1500ms"];
    let agent = c.agent(&flags);
    agent.ready(c.node.netns());
    let _stand_in = c.stand_in();
    c.is_stood_in(true);
    // An agent that hung while it was leaving its ports would keep what it has accepted.
    c.is_settled();
    c.answers(CHECK, "/", 200, "\"serviceProxyHealthy\": true");
    // The process is there, and does nothing.
    let hang = |how: &str| {
        let pid = agent.pid().to_string();
        let sent = Command::new("kill").args([how, &pid]).status();
        assert!(sent.is_ok_and(|s| s.success()));
    };
    hang("-STOP");
    assert_eq!(c.ask(10_256, "/livez").unwrap().status, 200);
    c.answers(10_256, "/livez", 503, "\"healthy\":false");
    c.answers(10_256, "/healthz", 503, "\"healthy\":false");
    c.answers(CHECK, "/", 503, "\"serviceProxyHealthy\": false");
    hang("-CONT");
    for (port, path) in [(10_256, "/livez"), (10_256, "/healthz"), (CHECK, "/")] {
        c.answers(port, path, 200, "");
    }
    // It ends, and another one starts without its objects: it is alive and knows nothing.
    agent.kill();
    assert_eq!(c.ask(CHECK, "/").unwrap().status, 200);
    c.answers(CHECK, "/", 503, "\"serviceProxyHealthy\": false");
    let (here, away) = (c.node.manifests(), c.node.path("away"));
    std::fs::rename(&here, &away).unwrap();
    let agent = c.agent(&flags);
    c.answers(10_256, "/livez", 200, "");
    c.answers(10_256, "/healthz", 503, "");
    c.answers(CHECK, "/", 200, "\"serviceProxyHealthy\": true");
    std::fs::rename(&away, &here).unwrap();
    c.answers(10_256, "/healthz", 200, "");
    drop(agent);
}
