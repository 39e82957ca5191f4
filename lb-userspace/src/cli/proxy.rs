//! `bascule proxy`: from the command line to a running proxy.

use std::{env, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{ArgAction, Args};
use lb_route::{
    Mode, Options,
    class::{Classes, INGRESS_NGINX, OWN},
    input::Name,
};

use super::agent;
use crate::{
    log::{self, LogFormat},
    proxy::{self, Settings, Source, peers, store},
    watch::{reflect, status},
    webhook,
};

/// What `bascule proxy` is told. Names of flags are those of ingress-nginx where it has them.
#[derive(Args, Debug)]
pub struct ProxyArgs {
    /// Read Ingresses and what they name from the .yaml, .yml and .json files of a directory, but not of those below it, and follow them
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "apiserver"])]
    pub source: Option<PathBuf>,
    /// How to reach the API server [default: $KUBECONFIG, then the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// URL of the API server, instead of the configured one
    #[arg(long, value_name = "URL", visible_alias = "apiserver-host")]
    pub apiserver: Option<String>,
    /// Where HTTP is served; [::] is every address of both families
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 1.., value_delimiter = ',', default_value = "[::]:80")]
    pub http: Vec<SocketAddr>,
    /// Where HTTPS is served
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 1.., value_delimiter = ',', default_value = "[::]:443")]
    pub https: Vec<SocketAddr>,
    /// Where health and metrics are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:10254")]
    pub admin: SocketAddr,
    /// Which objects count.
    #[command(flatten)]
    pub objects: ObjectArgs,
    /// Secret with the certificate of hosts that have none [default: one that is made at the start]
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = name)]
    pub default_ssl_certificate: Option<Name>,
    /// Service whose addresses are the status of Ingresses
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = name, conflicts_with_all = ["source", "publish_status_address"])]
    pub publish_service: Option<Name>,
    /// Addresses and host names that are the status of Ingresses
    #[arg(long, value_name = "ADDRESS", num_args = 1.., value_delimiter = ',', conflicts_with = "source")]
    pub publish_status_address: Vec<String>,
    /// Whether the last replica that ends removes the addresses from the status of Ingresses
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true")]
    pub update_status_on_shutdown: bool,
    /// Lease by which replicas agree who writes the status of Ingresses, in the namespace $POD_NAMESPACE
    #[arg(long, value_name = "NAME", default_value = "bascule-proxy-leader")]
    pub election_id: String,
    /// Where Ingresses are reviewed for the API server before they are there
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = webhook_address, requires_all = ["validating_webhook_certificate", "validating_webhook_key"])]
    pub validating_webhook: Option<SocketAddr>,
    /// Certificate of the validating webhook, with its chain
    #[arg(long, value_name = "FILE", requires = "validating_webhook")]
    pub validating_webhook_certificate: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", requires = "validating_webhook")]
    pub validating_webhook_key: Option<PathBuf>,
    /// What proxies tell each other.
    #[command(flatten)]
    pub peers: PeerArgs,
    /// How lines of the log are written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Levels of the log by module, such as info,lb_proxy=debug
    #[arg(long, value_name = "LEVELS")]
    pub log_levels: Option<String>,
}

/// How proxies tell each other what they have counted, for limits of them all (global-rate-limit).
#[derive(Args, Clone, Debug)]
pub struct PeerArgs {
    /// Headless Service of all proxies, with a port of UDP: they tell each other what they have counted, for global-rate-limit
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = name)]
    pub peers: Option<Name>,
    /// Other proxies, where no Service names them
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 1.., value_delimiter = ',')]
    pub peer: Vec<SocketAddr>,
    /// Where other proxies are heard, by UDP, and whence they are told
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:10253")]
    pub peers_listen: SocketAddr,
    /// File with random text, the same for all proxies: only who has it is believed [default: who sends from the address of one]
    #[arg(long, value_name = "FILE")]
    pub peers_key: Option<PathBuf>,
}

impl PeerArgs {
    /// Nothing where no flag names another proxy.
    fn settings(&self) -> Option<peers::Settings> {
        let is_any = self.peers.is_some() || !self.peer.is_empty();
        is_any.then(|| peers::Settings {
            listen: self.peers_listen,
            key: self.peers_key.clone(),
            fixed: self.peer.iter().copied().collect(),
        })
    }
}

/// Which objects count, as the flags of ingress-nginx say it.
#[derive(Args, Clone, Debug)]
pub struct ObjectArgs {
    /// Controllers of IngressClasses whose Ingresses are served as ingress-nginx does; those of bascule.dev/ingress are served as Kubernetes specifies
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',', default_value = INGRESS_NGINX)]
    pub controller_class: Vec<String>,
    /// Class of Ingresses with the annotation kubernetes.io/ingress.class
    #[arg(long, value_name = "NAME", default_value = "nginx")]
    pub ingress_class: String,
    /// Serve Ingresses without a class too
    #[arg(long)]
    pub watch_ingress_without_class: bool,
    /// ConfigMap with settings for all Ingresses
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = name)]
    pub configmap: Option<Name>,
    /// Service that answers what no Ingress has, by its first port
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = name)]
    pub default_backend_service: Option<Name>,
    /// What stands before the slash in names of annotations
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "nginx.ingress.kubernetes.io"
    )]
    pub annotations_prefix: String,
}

impl ObjectArgs {
    /// For the store of objects.
    pub(super) fn settings(&self) -> store::Settings {
        let nginx = self.controller_class.iter();
        let nginx = nginx.map(|name| (name.clone(), Mode::Nginx));
        let own = (OWN.to_owned(), Mode::Specification);
        store::Settings {
            classes: Classes {
                controllers: nginx.chain([own]).collect(),
                annotation: self.ingress_class.clone(),
                without_class: self.watch_ingress_without_class,
                ..Classes::default()
            },
            config_map: self.configmap.clone(),
            peers: None,
            options: Options {
                annotations_prefix: self.annotations_prefix.clone(),
                default_backend: self.default_backend_service.clone(),
                ..Options::default()
            },
        }
    }
}

/// `NAMESPACE/NAME`.
fn name(text: &str) -> Result<Name, String> {
    let parts = text.split_once('/');
    let parts = parts.filter(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains('/'));
    let (namespace, name) = parts.ok_or("it has to be NAMESPACE/NAME")?;
    Ok(Name::new(namespace, name))
}

/// `ADDRESS:PORT`, or `:PORT` for every address, as ingress-nginx's charts have it.
fn webhook_address(text: &str) -> Result<SocketAddr, String> {
    let whole = match text.strip_prefix(':') {
        Some(port) => format!("[::]:{port}"),
        None => text.to_owned(),
    };
    let wrong = |_| "it has to be ADDRESS:PORT or :PORT".to_owned();
    whole.parse().map_err(wrong)
}

/// Runs the proxy until a signal ends it.
///
/// # Errors
/// If it cannot start, or cannot go on; the message names the object and the remedy.
pub fn run(args: &ProxyArgs) -> anyhow::Result<()> {
    log::init(args.log_format, 0, args.log_levels.as_deref());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("the runtime of tasks cannot be made")?;
    runtime.block_on(proxy::run(settings(args)?))
}

/// What is written to the status of Ingresses; nothing where no flag names an address.
fn published(args: &ProxyArgs) -> Option<status::Settings> {
    let fixed = args.publish_status_address.iter();
    let fixed: Vec<_> = fixed.map(|text| status::address(text)).collect();
    let addresses = match (&args.publish_service, fixed) {
        (Some(service), _) => status::Addresses::Service(service.clone()),
        (None, fixed) if !fixed.is_empty() => status::Addresses::Fixed(fixed),
        _ => return None,
    };
    Some(status::Settings {
        addresses,
        election_id: args.election_id.clone(),
        on_shutdown: args.update_status_on_shutdown,
    })
}

fn webhook(args: &ProxyArgs) -> Option<webhook::Settings> {
    Some(webhook::Settings {
        address: args.validating_webhook?,
        certificate: args.validating_webhook_certificate.clone()?,
        key: args.validating_webhook_key.clone()?,
    })
}

fn settings(args: &ProxyArgs) -> anyhow::Result<Settings> {
    let source = match &args.source {
        Some(dir) => Source::Dir(dir.clone()),
        None => Source::Cluster(reflect::Settings {
            kubeconfig: args.kubeconfig.clone(),
            apiserver: args.apiserver.clone(),
            node_name: env::var("POD_NAME").or_else(|_| agent::host_name())?,
            ..reflect::Settings::default()
        }),
    };
    let mut objects = args.objects.settings();
    objects.options.default_certificate = args.default_ssl_certificate.clone();
    objects.peers = args.peers.peers.clone();
    let peers = args.peers.settings();
    objects.options.is_alone = peers.is_none();
    Ok(Settings {
        source,
        http: args.http.clone(),
        https: args.https.clone(),
        admin: args.admin,
        status: published(args),
        webhook: webhook(args),
        peers,
        objects,
    })
}
