//! `spec.healthCheckNodePort`: a server for each Service that asks for one. The
//! load balancer in front reads from it whether this node has endpoints.
//! kubernetes v1.36.3, pkg/proxy/healthcheck/service_health.go.

use std::{
    collections::HashMap,
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::SystemTime,
};

use lb_plan::{HealthCheck, model::ServiceKey};
use tokio::{runtime::Handle, task::JoinHandle};

use super::Health;
use crate::http::{self, Answer, Handler, Place, Turn};

/// The running servers.
#[derive(Debug)]
pub struct Servers {
    runtime: Handle,
    health: Arc<Health>,
    turn: Option<Turn>,
    running: HashMap<ServiceKey, Running>,
    changes: u64,
}

#[derive(Debug)]
struct Running {
    port: u16,
    endpoints: Arc<AtomicU32>,
    server: Server,
}

/// A server that is tried until it is dropped, and what is wrong with its address.
#[derive(Debug)]
pub struct Server {
    failure: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

/// kube-proxy's reason of an Event.
pub const FAILED: &str = "FailedToStartServiceHealthcheck";

impl Server {
    /// Serves a place in `runtime`.
    pub fn start(runtime: &Handle, place: Place, handler: Handler) -> Self {
        let failure = Arc::new(Mutex::new(None));
        let known = failure.clone();
        let place = place.tell(Arc::new(move |error| {
            *known.lock().unwrap_or_else(PoisonError::into_inner) = error;
        }));
        let task = runtime.spawn(async move {
            // Without a hard failure it serves until its last turn is over.
            let _never = http::serve(place, false, handler).await;
        });
        Self { failure, task }
    }

    /// Why the address cannot be listened on.
    pub fn failure(&self) -> Option<String> {
        let failure = self.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for its end, after its last turn.
    pub async fn ended(mut self) {
        // What has ended in another way has no more to say.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Servers {
    /// No server yet; they will run in `runtime`.
    pub fn new(runtime: Handle, health: Arc<Health>) -> Self {
        Self {
            runtime,
            health,
            turn: None,
            running: HashMap::new(),
            changes: 0,
        }
    }

    /// Has them answer in turns with those of another process.
    #[must_use]
    pub fn in_turn(self, turn: Turn) -> Self {
        let turn = Some(turn);
        Self { turn, ..self }
    }

    /// Says what the server of a Service answers; `None` when it has none.
    pub fn set(&mut self, service: &ServiceKey, check: Option<HealthCheck>) {
        let Some(check) = check else {
            self.changes += u64::from(self.running.remove(service).is_some());
            return;
        };
        if let Some(known) = self.running.get(service)
            && known.port == check.port
        {
            let before = known.endpoints.swap(check.local_ready, Ordering::Relaxed);
            self.changes += u64::from(before != check.local_ready);
            return;
        }
        self.changes += 1;
        let endpoints = Arc::new(AtomicU32::new(check.local_ready));
        let (name, count, health) = (service.clone(), endpoints.clone(), self.health.clone());
        // Both families: IPv6 sockets take IPv4 too, unless the host says no.
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, check.port));
        let what = "the health check of a Service";
        let mut place = Place::new(what, "its healthCheckNodePort", address);
        if let Some(turn) = &self.turn {
            place = place.in_turn(turn.clone());
        }
        let handler: Handler = Arc::new(move |_| {
            let count = count.load(Ordering::Relaxed);
            Some(answer(&name, count, health.is_alive(SystemTime::now())))
        });
        let new = Running {
            port: check.port,
            endpoints,
            server: Server::start(&self.runtime, place, handler),
        };
        self.running.insert(service.clone(), new);
    }

    /// Ends the servers of all other Services.
    pub fn retain(&mut self, keep: impl Fn(&ServiceKey) -> bool) {
        self.running.retain(|service, _| keep(service));
    }

    /// Waits for the end of all, after their last turn.
    pub async fn ended(self) {
        for running in self.running.into_values() {
            running.server.ended().await;
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// How often anything of what they answer has changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// What they answer, in the order of names.
    pub fn checks(&self) -> Vec<(ServiceKey, HealthCheck)> {
        let check = |running: &Running| HealthCheck {
            port: running.port,
            local_ready: running.endpoints.load(Ordering::Relaxed),
        };
        let all = self.running.iter();
        let mut checks: Vec<_> = all
            .map(|(s, running)| (s.clone(), check(running)))
            .collect();
        checks.sort_by(|a, b| a.0.cmp(&b.0));
        checks
    }

    /// The Services whose port cannot be listened on, with a sentence about it;
    /// in the order of their names.
    pub fn failures(&self) -> Vec<(ServiceKey, String)> {
        let all = self.running.iter();
        let mut failed: Vec<_> = all
            .filter_map(|(service, running)| {
                let error = running.server.failure()?;
                let port = running.port;
                let message = format!(
                    "healthCheckNodePort: {port} cannot be listened on: {error}; free it, or give the Service another"
                );
                Some((service.clone(), message))
            })
            .collect();
        failed.sort();
        failed
    }
}

/// What a load balancer reads: 200 with at least one endpoint here.
fn answer(service: &ServiceKey, endpoints: u32, alive: bool) -> Answer {
    // As kube-proxy writes it, byte for byte. Names need no escapes.
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {alive}\n}}",
        service.namespace, service.name
    );
    let status = if endpoints > 0 && alive { 200 } else { 503 };
    let mut answer = Answer::json(status, body);
    let weight = ("x-load-balancing-endpoint-weight", endpoints.to_string());
    answer.headers.push(weight);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_until_it_is_free() {
        let taken = std::net::TcpListener::bind("[::]:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let service = ServiceKey {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let check = HealthCheck {
            port,
            local_ready: 1,
        };
        let mut servers = Servers::new(Handle::current(), Arc::default());
        servers.set(&service, Some(check));
        let until = async |servers: &Servers, count: usize| {
            let start = tokio::time::Instant::now();
            while servers.failures().len() != count {
                assert!(start.elapsed().as_secs() < 10, "{:?}", servers.failures());
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        until(&servers, 1).await;
        let (of, message) = servers.failures().remove(0);
        assert_eq!(of, service);
        let words = format!("healthCheckNodePort: {port} cannot be listened on: Address already");
        assert!(message.starts_with(&words), "{message}");
        drop(taken);
        until(&servers, 0).await;
        servers.set(&service, None);
        assert_eq!(servers.failures(), []);
    }

    #[test]
    fn a_node_without_endpoints_of_the_service_is_refused() {
        let service = ServiceKey {
            namespace: "shop".into(),
            name: "web".into(),
        };
        for (endpoints, alive, status) in [(0, true, 503), (1, true, 200), (3, false, 503)] {
            let answer = answer(&service, endpoints, alive);
            assert_eq!(answer.status, status, "{endpoints} {alive}");
            let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(body["localEndpoints"], endpoints);
            assert_eq!(body["serviceProxyHealthy"], alive);
            assert_eq!(body["service"]["name"], "web");
            assert_eq!(answer.headers[1].1, endpoints.to_string());
        }
        // From the template of kubernetes v1.36.3, pkg/proxy/healthcheck/service_health.go.
        let expected = "{
\t\"service\": {
\t\t\"namespace\": \"shop\",
\t\t\"name\": \"web\"
\t},
\t\"localEndpoints\": 2,
\t\"serviceProxyHealthy\": true
}";
        assert_eq!(answer(&service, 2, true).body, expected);
    }
}
