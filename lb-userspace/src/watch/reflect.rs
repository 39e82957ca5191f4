//! Follows a cluster: its Services, EndpointSlices and this node's Node, or what a proxy of
//! Ingresses reads.
//!
//! Each kind has its own watch. A watch that breaks resumes where it stopped; one
//! whose place the server has forgotten (410) lists again. A server that cannot
//! be reached is asked again with growing pauses, for as long as it takes, and
//! what is known stays in force meanwhile.

use std::{collections::BTreeSet, fmt::Debug, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::{Node as ApiNode, Service as ApiService},
    discovery::v1::EndpointSlice as ApiSlice,
    networking::v1::{Ingress as ApiIngress, IngressClass as ApiClass},
};
use kube::{
    Api, Client, Config, Resource,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher::{self, Event, watcher},
};
use lb_route::input::Name;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, watch},
    time,
};

use super::{
    convert::{self, PROXY_NAME_LABEL},
    ingress,
    named::Named,
    server::Server,
    trouble::{is_gone, refuses_streaming, status, unreachable},
};
use crate::{
    backoff::Backoff,
    change::{Change, Kind, Object},
    intern::Interner,
};

/// Endpoints of headless Services are not served, and there may be many.
/// kubernetes v1.36.3, cmd/kube-proxy/app/server.go:578.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Objects of a page of a list.
const PAGE: u32 = 500;
/// Length of a watch. A connection that dies silently is noticed 5 s after it.
const WATCH_SECONDS: u32 = 120;
/// Pauses before a watch that broke is tried again: the first, and the longest. A
/// server that answers but refuses the watch is asked this often; of one that does
/// not answer [`Server`] knows when it is back.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long a watch must stand, after an error, to count as well again.
const WELL_AFTER: Duration = Duration::from_secs(1);

/// How to reach a cluster.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// A kubeconfig file; without it `$KUBECONFIG`, then the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// URL of the API server, instead of the configured one. In a pod the
    /// configured one is a ClusterIP, which this agent itself has to serve.
    pub apiserver: Option<String>,
    /// Name of this node's Node object; of a proxy, its pod.
    pub node_name: String,
    /// Serve only Services with this `service-proxy-name`.
    pub proxy_name: Option<String>,
}

/// Why a cluster could not be followed at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig file cannot be used.
    #[error("kubeconfig {path}: {source}: give a readable file with --kubeconfig")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// There is no configuration.
    #[error(
        "no cluster configuration: give --kubeconfig FILE, or --source DIR to read manifests: {0}"
    )]
    NoConfig(#[source] kube::config::InferConfigError),
    /// `--apiserver` is no URL.
    #[error("--apiserver {url}: {error}: give a URL such as https://10.0.0.1:6443")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        error: String,
    },
    /// Objects cannot be listed.
    #[error(
        "{kind}s cannot be listed: {source}: see that the API server answers, and that you may \
         get, list and watch them"
    )]
    List {
        /// Of which kind.
        kind: Kind,
        /// What the client says.
        source: Box<kube::Error>,
    },
    /// The client cannot be built, for example from its certificates.
    #[error("the client of the API server: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// Follows a cluster until the receiver of its changes is gone.
///
/// # Errors
/// If the configuration cannot be used. A server that cannot be reached is no
/// error: it is told as [`Change::Trouble`] and tried again.
pub async fn follow(settings: Settings, changes: mpsc::Sender<Change>) -> Result<(), Error> {
    let (client, url) = client(&settings).await?;
    let server = Arc::new(Server::new(client.clone(), url, changes.clone()));
    let Some(streaming) = server.answers().await else {
        return Ok(());
    };
    let watch = |kind, config| Watch {
        kind,
        config,
        streaming,
        server: server.clone(),
        changes: changes.clone(),
        interner: Arc::default(),
    };
    let mut services = watch(Kind::Service, config(&service_selector(&settings)));
    let mut slices = watch(Kind::EndpointSlice, config(&slice_selector(&settings)));
    // Names repeat between Services and slices.
    slices.interner = services.interner.clone();
    let mut nodes = watch(
        Kind::Node,
        config("").fields(&format!("metadata.name={}", settings.node_name)),
    );
    tokio::join!(
        services.run(Api::<ApiService>::all(client.clone()), convert::service),
        slices.run(Api::<ApiSlice>::all(client.clone()), convert::slice),
        nodes.run(Api::<ApiNode>::all(client.clone()), convert::node),
    );
    Ok(())
}

/// Names of the Secrets and ConfigMaps that Ingresses name.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Secrets.
    pub secrets: watch::Receiver<BTreeSet<Name>>,
    /// ConfigMaps.
    pub config_maps: watch::Receiver<BTreeSet<Name>>,
}

/// Follows what a proxy of Ingresses reads, until the receiver of its changes is gone.
///
/// # Errors
/// As [`follow`].
pub async fn follow_ingresses(
    settings: Settings,
    wanted: Wanted,
    changes: mpsc::Sender<Change>,
) -> Result<(), Error> {
    let (client, url) = client(&settings).await?;
    let server = Arc::new(Server::new(client.clone(), url.clone(), changes.clone()));
    let Some(streaming) = server.answers().await else {
        return Ok(());
    };
    let interner = Arc::<Interner>::default();
    let watch = |kind| Watch {
        kind,
        config: config(""),
        streaming,
        server: server.clone(),
        changes: changes.clone(),
        interner: interner.clone(),
    };
    let mut services = watch(Kind::Service);
    let mut slices = watch(Kind::EndpointSlice);
    let mut ingresses = watch(Kind::Ingress);
    let mut classes = watch(Kind::IngressClass);
    let to = || (client.clone(), url.clone());
    let secrets = Named::new(Kind::Secret, to(), ingress::secret, changes.clone());
    let maps = Named::new(Kind::ConfigMap, to(), ingress::config_map, changes.clone());
    tokio::join!(
        services.run(Api::<ApiService>::all(client.clone()), convert::service),
        slices.run(Api::<ApiSlice>::all(client.clone()), convert::slice),
        ingresses.run(Api::<ApiIngress>::all(client.clone()), ingress::ingress),
        classes.run(Api::<ApiClass>::all(client.clone()), ingress::class),
        secrets.run(config(""), wanted.secrets),
        maps.run(config(""), wanted.config_maps),
    );
    Ok(())
}

/// The client, and the URL of its server, for messages.
pub(super) async fn client(settings: &Settings) -> Result<(Client, String), Error> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let failed = |source| Error::Kubeconfig {
                path: path.clone(),
                source,
            };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(failed)?
        }
        None => Config::infer().await.map_err(Error::NoConfig)?,
    };
    if let Some(url) = &settings.apiserver {
        match url.parse() {
            Ok(uri) => config.cluster_url = uri,
            Err(error) => {
                return Err(Error::Url {
                    url: url.clone(),
                    error: error.to_string(),
                });
            }
        }
    }
    config.connect_timeout = Some(Duration::from_secs(10));
    let url = config.cluster_url.to_string();
    let client = Client::try_from(config).map_err(|e| Error::Client(Box::new(e)))?;
    Ok((client, url))
}

fn config(labels: &str) -> watcher::Config {
    let config = watcher::Config::default()
        .timeout(WATCH_SECONDS)
        .page_size(PAGE);
    match labels {
        "" => config,
        labels => config.labels(labels),
    }
}

fn service_selector(settings: &Settings) -> String {
    match &settings.proxy_name {
        Some(name) => format!("{PROXY_NAME_LABEL}={name}"),
        None => format!("!{PROXY_NAME_LABEL}"),
    }
}

fn slice_selector(settings: &Settings) -> String {
    // The controller copies a Service's labels to its slices, but slices that
    // others write may lack the name: only the negative form is safe here.
    match &settings.proxy_name {
        Some(_) => format!("!{HEADLESS_LABEL}"),
        None => format!("!{HEADLESS_LABEL},!{PROXY_NAME_LABEL}"),
    }
}

async fn tell(changes: &mpsc::Sender<Change>, place: String, message: Option<String>) {
    // A closed channel means that the agent ends; callers notice.
    let _ = changes.send(Change::Trouble { place, message }).await;
}

/// The watch of one kind.
struct Watch {
    kind: Kind,
    config: watcher::Config,
    streaming: bool,
    server: Arc<Server>,
    changes: mpsc::Sender<Change>,
    interner: Arc<Interner>,
}

/// Why [`Watch::stream`] came back.
enum End {
    /// The agent ends.
    Closed,
    /// The server does not stream lists.
    NoStreaming,
}

impl Watch {
    async fn run<K>(&mut self, api: Api<K>, convert: fn(&K, &Interner) -> Object)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        loop {
            let config = match self.streaming {
                true => self.config.clone().streaming_lists(),
                false => self.config.clone(),
            };
            match self.stream(watcher(api.clone(), config), convert).await {
                End::Closed => return,
                End::NoStreaming => self.streaming = false,
            }
        }
    }

    async fn stream<K>(
        &self,
        events: impl StreamExt<Item = watcher::Result<Event<K>>>,
        convert: fn(&K, &Interner) -> Object,
    ) -> End {
        let mut events = pin!(events);
        let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
        let mut troubled = false;
        loop {
            let event = if troubled {
                match time::timeout(WELL_AFTER, events.next()).await {
                    Ok(event) => event,
                    // No news is good news: the watch stands.
                    Err(_) => {
                        troubled = self.well().await;
                        continue;
                    }
                }
            } else {
                events.next().await
            };
            match event {
                Some(Ok(event)) => {
                    backoff.reset();
                    if troubled {
                        troubled = self.well().await;
                    }
                    if self
                        .changes
                        .send(self.change(event, convert))
                        .await
                        .is_err()
                    {
                        return End::Closed;
                    }
                }
                Some(Err(error)) if self.streaming && refuses_streaming(&error) => {
                    return End::NoStreaming;
                }
                Some(Err(error)) => {
                    if !is_gone(&error) {
                        troubled = true;
                        self.trouble(&error).await;
                    }
                    if !self.pause(&mut backoff).await {
                        return End::Closed;
                    }
                }
                // kube's watcher never ends; if it did, start it anew.
                None => return End::NoStreaming,
            }
        }
    }

    fn change<K>(&self, event: Event<K>, convert: fn(&K, &Interner) -> Object) -> Change {
        match event {
            Event::Init => Change::Begin(self.kind),
            Event::InitDone => Change::Done(self.kind),
            Event::InitApply(object) | Event::Apply(object) => {
                Change::Put(convert(&object, &self.interner))
            }
            Event::Delete(object) => Change::Delete(convert(&object, &self.interner).key),
        }
    }

    /// Pauses until the server answers again; `false` when the agent ends.
    async fn pause(&self, backoff: &mut Backoff) -> bool {
        time::sleep(backoff.pause()).await;
        self.server.answers().await.is_some()
    }

    async fn trouble(&self, error: &watcher::Error) {
        let message = match status(error) {
            Some(status) if status.is_forbidden() => format!(
                "{}: let the agent's ServiceAccount get, list and watch {}s",
                status.message, self.kind
            ),
            Some(status) => format!("{}: {}", self.server.url(), status.message),
            None => unreachable(self.server.url(), error),
        };
        tell(&self.changes, self.place(), Some(message)).await;
    }

    async fn well(&self) -> bool {
        tell(&self.changes, self.place(), None).await;
        false
    }

    fn place(&self) -> String {
        format!("watch of {}s", self.kind)
    }
}
