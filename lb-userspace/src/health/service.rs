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
use crate::http::{self, Answer};

/// The running servers.
#[derive(Debug)]
pub struct Servers {
    runtime: Handle,
    health: Arc<Health>,
    running: HashMap<ServiceKey, Running>,
}

#[derive(Debug)]
struct Running {
    port: u16,
    endpoints: Arc<AtomicU32>,
    /// Why the port cannot be listened on.
    failure: Failure,
    task: JoinHandle<()>,
}

type Failure = Arc<Mutex<Option<String>>>;

/// kube-proxy's reason of an Event.
pub const FAILED: &str = "FailedToStartServiceHealthcheck";

impl Drop for Running {
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
            running: HashMap::new(),
        }
    }

    /// Says what the server of a Service answers; `None` when it has none.
    pub fn set(&mut self, service: &ServiceKey, check: Option<HealthCheck>) {
        let Some(check) = check else {
            self.running.remove(service);
            return;
        };
        if let Some(known) = self.running.get(service)
            && known.port == check.port
        {
            known.endpoints.store(check.local_ready, Ordering::Relaxed);
            return;
        }
        let endpoints = Arc::new(AtomicU32::new(check.local_ready));
        let (name, count, health) = (service.clone(), endpoints.clone(), self.health.clone());
        // Both families: IPv6 sockets take IPv4 too, unless the host says no.
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, check.port));
        let what = "the health check of a Service";
        let failure = Failure::default();
        let known = failure.clone();
        let teller: http::Teller = Arc::new(move |error| {
            *known.lock().unwrap_or_else(PoisonError::into_inner) = error;
        });
        let place = http::Place::new(what, "its healthCheckNodePort", address).tell(teller);
        let handler: http::Handler = Arc::new(move |_| {
            let count = count.load(Ordering::Relaxed);
            Some(answer(&name, count, health.is_alive(SystemTime::now())))
        });
        let task = self.runtime.spawn(async move {
            // Without a hard failure it serves until the task is aborted.
            let _never = http::serve(place, false, handler).await;
        });
        let new = Running {
            port: check.port,
            endpoints,
            failure,
            task,
        };
        self.running.insert(service.clone(), new);
    }

    /// The Services whose port cannot be listened on, with a sentence about it;
    /// in the order of their names.
    pub fn failures(&self) -> Vec<(ServiceKey, String)> {
        let all = self.running.iter();
        let mut failed: Vec<_> = all
            .filter_map(|(service, running)| {
                let failure = running.failure.lock();
                let error = failure.unwrap_or_else(PoisonError::into_inner).clone()?;
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
