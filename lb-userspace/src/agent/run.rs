//! The agent as a process: a source, the straight line on a thread of its own,
//! servers, and files for the command line.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc as std_mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use lb_plan::Planner;
use tokio::{runtime, sync::mpsc, task::JoinSet, time};

use super::{
    core::{Core, Input, Setup, Shared},
    dataplane::Dataplane,
    files::{File, writer},
    publish::Publisher,
    state::StateDir,
};
use crate::{
    backoff::Backoff,
    change::{Change, Kind, Notice},
    config,
    health::{Health, service},
    http,
    metrics::{self, Exposition},
    node::{self, Facts, Kernel, netfilter},
    signals,
    source::dir::Dir,
    watch::{self, reflect},
};

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The files of a directory.
    Dir(PathBuf),
    /// A cluster.
    Cluster(reflect::Settings),
}

/// How the agent runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where objects come from.
    pub source: Source,
    /// What the user says about the node.
    pub node: node::Settings,
    /// Where what is answered.
    pub servers: Servers,
    /// How long a change may wait before the proxy is unhealthy.
    pub health_timeout: Duration,
    /// What to set of the kernel's conntrack, if anything.
    pub netfilter: Option<netfilter::Settings>,
    /// Files for the command line.
    pub state_dir: StateDir,
    /// The configuration file with its content: another content ends the agent.
    pub config: Option<(PathBuf, Vec<u8>)>,
    /// The configuration in force, to be shown.
    pub configz: serde_json::Value,
    /// Take over from kube-proxy.
    pub takeover: bool,
}

/// The agent's own servers.
#[derive(Clone, Copy, Debug)]
pub struct Servers {
    /// Where `/healthz` and `/livez` are answered.
    pub healthz: Option<SocketAddr>,
    /// Where `/metrics` is answered.
    pub metrics: Option<SocketAddr>,
    /// An address that cannot be bound ends the agent.
    pub hard_fail: bool,
}

/// Inputs that wait for the straight line; a source that is faster waits. There is room for the
/// lists of a large cluster, which are read while the programs are being loaded.
const QUEUE: usize = 1 << 20;
/// Inputs that are taken in one round at most.
const ROUND: usize = 4096;
/// What waits to be said by Events. More is said on the log alone.
const NOTICES: usize = 64;
/// Between two looks at the node's pods, while they are asked for.
const PODS: Duration = Duration::from_secs(2);
/// Files for the command line are written this often at most.
const TELL: Duration = Duration::from_millis(250);

/// Runs until a signal ends it. What is in the kernel stays, and serves on. The
/// datapath is loaded while the source is being read already.
///
/// # Errors
/// If the source cannot be used at all, or the process lacks something that it
/// cannot do without.
pub fn run<D: Dataplane + Send + 'static>(
    settings: Settings,
    facts: Facts,
    load: impl FnOnce() -> anyhow::Result<(D, Planner)>,
    readings: metrics::Reader,
) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut shared = Shared {
        health: Arc::new(Health::new(settings.health_timeout)),
        ..Shared::default()
    };
    if matches!(settings.source, Source::Cluster(_)) {
        shared.health.need_node();
    }
    let (inputs, queue) = mpsc::channel(QUEUE);
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let guard = runtime.enter();
    let turn = settings.state_dir.turn()?;
    serve(&settings, &shared, (readings, turn.clone()), &mut tasks);
    follow(&settings, &facts, inputs, &mut shared, &mut tasks);
    drop(guard);
    let (dataplane, planner) = load()?;
    let servers = service::Servers::new(runtime.handle().clone(), shared.health.clone());
    let setup = Setup {
        dataplane,
        planner,
        kernel: Kernel::read()?,
        facts,
        servers: servers.in_turn(turn),
        node: settings.node.clone(),
        shared: shared.clone(),
    };
    let now = Instant::now();
    let core = Core::new(setup, now);
    let out = Out {
        shared,
        files: writer(settings.state_dir.clone())?,
        publisher: Publisher::new(settings.servers.healthz, settings.health_timeout, now),
    };
    let line = start(core, queue, out)?;
    let ended = runtime.block_on(until_ended(&mut tasks));
    // With every sender gone the line ends.
    runtime.block_on(tasks.shutdown());
    runtime.shutdown_timeout(Duration::from_secs(1));
    match line.join() {
        Ok(result) => result?,
        Err(_) => anyhow::bail!(
            "the thread that programs the maps has panicked: this is a bug, please report it"
        ),
    }
    ended
}

/// Starts the straight line on a thread of its own.
fn start<D: Dataplane + Send + 'static>(
    core: Core<D>,
    queue: mpsc::Receiver<Input>,
    out: Out,
) -> io::Result<thread::JoinHandle<io::Result<()>>> {
    thread::Builder::new().name("line".into()).spawn(move || {
        let clock = runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        clock.block_on(straight_line(core, queue, out));
        Ok(())
    })
}

/// Waits for a signal, or for a task that cannot go on.
async fn until_ended(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let signal = signals::ended()?;
    tokio::select! {
        name = signal => tracing::info!("ended by {name}; the programs and maps serve on"),
        ended = tasks.join_next() => match ended {
            Some(Ok(result)) => return result,
            Some(Err(error)) => anyhow::bail!("a part of the agent has ended: {error}"),
            None => {}
        },
    }
    Ok(())
}

fn serve(
    settings: &Settings,
    shared: &Shared,
    (readings, turn): (metrics::Reader, http::Turn),
    tasks: &mut JoinSet<anyhow::Result<()>>,
) {
    let Servers {
        healthz,
        metrics: scrapes,
        hard_fail,
    } = settings.servers;
    if let Some(address) = healthz {
        let handler = shared.health.handler();
        tasks.spawn(async move {
            let place = http::Place::new("health", "--healthz-bind-address", address);
            http::serve(place.in_turn(turn), hard_fail, handler).await
        });
    }
    let Some(address) = scrapes else { return };
    let names = shared.names.clone();
    let source: metrics::Source = Box::new(move || {
        let names = names.read().map(|n| n.clone()).unwrap_or_default();
        readings(&names.ports)
    });
    let exposition = Exposition::new(&shared.metrics, shared.health.clone(), source);
    let handler = exposition.handler(settings.configz.clone());
    tasks.spawn(async move {
        let place = http::Place::new("metrics", "--metrics-bind-address", address);
        http::serve(place, hard_fail, handler).await
    });
}

/// Starts whatever follows something: addresses, objects, the configuration.
fn follow(
    settings: &Settings,
    facts: &Facts,
    inputs: mpsc::Sender<Input>,
    shared: &mut Shared,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) {
    tasks.spawn(addresses(facts.clone(), inputs.clone()));
    if let Source::Cluster(cluster) = &settings.source {
        let (notices, waiting) = mpsc::channel(NOTICES);
        shared.events = Some(notices);
        tasks.spawn(events(cluster.clone(), waiting));
        if settings.takeover {
            let asked = shared.ask_for_proxies.clone();
            tasks.spawn(proxies(cluster.clone(), asked, inputs.clone()));
        }
    }
    tasks.spawn(source(settings.source.clone(), inputs));
    if let Some(settings) = settings.netfilter.clone() {
        // Done or not, the agent goes on.
        tasks.spawn(async move {
            netfilter::make(settings).await;
            std::future::pending().await
        });
    }
    if let Some((path, content)) = settings.config.clone() {
        tasks.spawn(async move { config::changed(&path, &content).await });
    }
}

async fn source(source: Source, inputs: mpsc::Sender<Input>) -> anyhow::Result<()> {
    let (tx, mut changes) = mpsc::channel::<Change>(64);
    let forward = async {
        while let Some(change) = changes.recv().await {
            if inputs.send(Input::Change(change)).await.is_err() {
                break;
            }
        }
    };
    let follow = async {
        match source {
            Source::Dir(path) => {
                Dir::new(&path, &Kind::AGENT).follow(tx).await;
                Ok(())
            }
            Source::Cluster(settings) => reflect::follow(settings, tx).await,
        }
    };
    let (followed, ()) = tokio::join!(follow, forward);
    followed?;
    anyhow::bail!("the source of objects has ended")
}

/// Writes Events. Its end is not the agent's.
async fn events(cluster: reflect::Settings, notices: mpsc::Receiver<Notice>) -> anyhow::Result<()> {
    watch::events::write(cluster, "bascule-agent", notices).await;
    std::future::pending().await
}

/// Looks for kube-proxy's pods while the takeover asks for them.
async fn proxies(
    cluster: reflect::Settings,
    asked: Arc<AtomicBool>,
    inputs: mpsc::Sender<Input>,
) -> anyhow::Result<()> {
    let mut pods = watch::pods::Pods::new(cluster);
    while !inputs.is_closed() {
        if asked.load(Ordering::Relaxed)
            && let Err(closed) = inputs
                .send(Input::Proxies(pods.of_kube_proxy().await))
                .await
        {
            drop(closed);
            break;
        }
        time::sleep(PODS).await;
    }
    std::future::pending().await
}

/// Follows the node's addresses; what goes wrong there is tried again.
async fn addresses(facts: Facts, inputs: mpsc::Sender<Input>) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        let (tx, mut rx) = mpsc::channel(4);
        let forward = async {
            while let Some(facts) = rx.recv().await {
                if inputs.send(Input::Facts(facts)).await.is_err() {
                    break;
                }
            }
        };
        let (followed, ()) = tokio::join!(node::addresses::follow(facts.clone(), tx), forward);
        if let Err(error) = followed {
            tracing::warn!(%error, "the node's addresses cannot be followed; trying again");
        }
        time::sleep(backoff.pause()).await;
    }
}

/// Where the straight line tells.
struct Out {
    shared: Shared,
    files: std_mpsc::Sender<File>,
    publisher: Publisher,
}

/// Takes inputs, works when work is due, until the inputs end.
async fn straight_line<D: Dataplane>(
    mut core: Core<D>,
    mut queue: mpsc::Receiver<Input>,
    mut out: Out,
) {
    let mut tell_at = Instant::now();
    loop {
        let due = core.due().min(out.publisher.due(&core));
        let due = match core.is_untold() {
            true => due.min(tell_at),
            false => due,
        };
        tokio::select! {
            biased;
            input = queue.recv() => match input {
                Some(input) => core.take(input),
                None => break,
            },
            () = time::sleep_until(due.into()) => {}
        }
        // What has come meanwhile goes into the same round.
        for _ in 0..ROUND {
            match queue.try_recv() {
                Ok(input) => core.take(input),
                Err(_) => break,
            }
        }
        let now = Instant::now();
        if now >= core.due() {
            core.work(now);
        }
        // The writer lives as long as this thread.
        if let Some(sign) = out.publisher.sign(&core, Instant::now()) {
            let _ = out.files.send(File::Sign(sign));
        }
        if Instant::now() >= tell_at {
            tell_at = Instant::now() + TELL;
            if let Some(status) = core.tell() {
                let names = out.shared.names.read().map(|n| n.clone());
                let names = names.unwrap_or_default();
                let _ = out.files.send(File::Status(Box::new(status), names));
            }
        }
    }
}
