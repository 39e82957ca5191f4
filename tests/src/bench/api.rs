//! The process behind `bench_api`.

use std::future::Future;
use std::io::{self, BufRead as _, Write as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
    NamedContext,
};
use kube::core::Request as Call;
use kube::core::params::{ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::objects;

/// Requests that are under way at once while the cluster is filled.
const IN_FLIGHT: usize = 32;

/// A request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    /// Wait until the server is ready.
    Ready { seconds: u64 },
    /// Create the objects of services `from` to `to`, without `to`.
    Populate { from: u32, to: u32 },
    /// Create objects as they are.
    Create { objects: Vec<Value> },
    /// Create a service in the last namespace, with one endpoint.
    Serve {
        name: String,
        ip: Ipv4Addr,
        endpoint: Ipv4Addr,
        node: String,
    },
    /// Set the endpoint of such a service.
    Patch {
        name: String,
        endpoint: Ipv4Addr,
        node: String,
    },
    /// Change the first endpoint of service after service, so many a second.
    Churn {
        services: u32,
        rate: u32,
        seconds: f64,
    },
}

/// What became of a request.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Requests that the server has answered.
    done: u64,
    /// Seconds for all of them.
    seconds: f64,
    /// When the first was sent, by the system's clock in nanoseconds.
    sent_ns: u64,
}

/// Answers requests until the standard input ends.
///
/// # Errors
/// A request is no JSON, or nobody reads the answers.
pub fn work(url: &str, token: &str) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = runtime
        .block_on(client(url, token))
        .map_err(io::Error::other)?;
    let mut version = 0;
    for line in io::stdin().lock().lines() {
        let request = serde_json::from_str(&line?)?;
        let outcome = runtime.block_on(answer(&client, request, &mut version));
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
        out.flush()?;
    }
    Ok(())
}

async fn client(
    url: &str,
    token: &str,
) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let name = "bench".to_owned();
    let file = Kubeconfig {
        current_context: Some(name.clone()),
        clusters: vec![NamedCluster {
            name: name.clone(),
            cluster: Some(Cluster {
                server: Some(url.to_owned()),
                // The server was made for the benchmark, in a namespace of its own.
                insecure_skip_tls_verify: Some(true),
                ..Cluster::default()
            }),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: name.clone(),
            auth_info: Some(AuthInfo {
                token: Some(token.to_owned().into()),
                ..AuthInfo::default()
            }),
            ..NamedAuthInfo::default()
        }],
        contexts: vec![NamedContext {
            name: name.clone(),
            context: Some(Context {
                cluster: name.clone(),
                user: Some(name),
                ..Context::default()
            }),
            ..NamedContext::default()
        }],
        ..Kubeconfig::default()
    };
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn answer(client: &Client, request: Request, version: &mut u32) -> Outcome {
    let start = Instant::now();
    let sent = SystemTime::now().duration_since(UNIX_EPOCH);
    let done = match request {
        Request::Ready { seconds } => ready(client, Duration::from_secs(seconds)).await,
        Request::Populate { from, to } => populate(client, from, to).await,
        Request::Create { objects } => create_all(client, objects).await,
        Request::Serve {
            name,
            ip,
            endpoint,
            node,
        } => {
            let service = objects::service_at(&name, objects::LAST, ip);
            let endpoints = json!([objects::endpoint(endpoint, &node)]);
            let slice = objects::slice_of(&name, objects::LAST, endpoints);
            create_all(client, vec![service, slice]).await
        }
        Request::Patch {
            name,
            endpoint,
            node,
        } => {
            let endpoints = json!([objects::endpoint(endpoint, &node)]);
            patch(client, objects::LAST, &name, endpoints)
                .await
                .map(|()| 1)
        }
        Request::Churn {
            services,
            rate,
            seconds,
        } => {
            *version += 1;
            churn(client, (services, *version), rate, seconds).await
        }
    };
    Outcome {
        error: done.as_ref().err().map(ToString::to_string),
        done: done.unwrap_or_default(),
        seconds: start.elapsed().as_secs_f64(),
        sent_ns: sent.map_or(0, |s| s.as_nanos() as u64),
    }
}

async fn ready(client: &Client, patience: Duration) -> kube::Result<u64> {
    let end = Instant::now() + patience;
    loop {
        let call = Call::new("/readyz").list(&ListParams::default());
        match client
            .request_text(call.map_err(kube::Error::BuildRequest)?)
            .await
        {
            Ok(_) => return Ok(1),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn populate(client: &Client, from: u32, to: u32) -> kube::Result<u64> {
    let all = (from..to).flat_map(|i| [objects::service(i), objects::slice(i, 0)]);
    in_flight(all.map(|object| create(client, object))).await
}

async fn create_all(client: &Client, objects: Vec<Value>) -> kube::Result<u64> {
    in_flight(objects.into_iter().map(|object| create(client, object))).await
}

/// Does many things at once; returns how many.
async fn in_flight<F: Future<Output = kube::Result<()>>>(
    all: impl Iterator<Item = F>,
) -> kube::Result<u64> {
    let done = stream::iter(all).buffer_unordered(IN_FLIGHT);
    done.try_fold(0, async |count, ()| Ok(count + 1)).await
}

async fn create(client: &Client, object: Value) -> kube::Result<()> {
    let meta = &object["metadata"];
    let namespace = meta["namespace"].as_str().unwrap_or_default();
    let path = collection(object["kind"].as_str().unwrap_or_default(), namespace);
    let body = object.to_string().into_bytes();
    let call = Call::new(path).create(&PostParams::default(), body);
    client
        .request_text(call.map_err(kube::Error::BuildRequest)?)
        .await?;
    Ok(())
}

async fn patch(
    client: &Client,
    namespace: &str,
    service: &str,
    endpoints: Value,
) -> kube::Result<()> {
    let patch = Patch::Merge(json!({"endpoints": endpoints}));
    let call = Call::new(collection("EndpointSlice", namespace)).patch(
        &format!("{service}-x7k2p"),
        &PatchParams::default(),
        &patch,
    );
    client
        .request_text(call.map_err(kube::Error::BuildRequest)?)
        .await?;
    Ok(())
}

/// Sends changes at their times, however long earlier ones take.
async fn churn(
    client: &Client,
    (services, version): (u32, u32),
    rate: u32,
    seconds: f64,
) -> kube::Result<u64> {
    let count = (f64::from(rate) * seconds) as u32;
    let start = tokio::time::Instant::now();
    let one = async |n: u32| {
        tokio::time::sleep_until(start + Duration::from_secs(1) / rate * n).await;
        // Neighbours in the order of changes are far from each other in the cluster.
        let i = (u64::from(n) * 7919 % u64::from(services)) as u32;
        let endpoints = objects::dummies(i, version + n / services);
        patch(
            client,
            &objects::namespace(i),
            &format!("service-{i}"),
            endpoints,
        )
        .await
    };
    in_flight((0..count).map(one)).await
}

/// Where objects of a kind are.
fn collection(kind: &str, namespace: &str) -> String {
    match kind {
        "EndpointSlice" => {
            format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
        }
        "Node" => "/api/v1/nodes".to_owned(),
        "Namespace" => "/api/v1/namespaces".to_owned(),
        _ => format!("/api/v1/namespaces/{namespace}/services"),
    }
}
