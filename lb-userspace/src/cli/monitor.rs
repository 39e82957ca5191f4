//! `bascule monitor`: packets and sockets' calls as the datapath meets them, and what becomes of
//! them.

pub mod pcapng;
pub mod told;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    pin::pin,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::Args;
use lb_common::{Reason, reason::Class};
use tokio::{runtime, time::MissedTickBehavior};

use self::told::{tell, tell_call};
use super::{
    agent::cgroup2,
    args::View,
    list_args::Which,
    rows::Served,
    show::{known, names, open},
    text::wants_colour,
};
use crate::{
    agent::{kernel::pins, state::StateDir},
    bpf::{
        cookies,
        monitor::{Lost, Monitor, Record, Wanted},
        views::Views,
    },
    node::devices::devices,
    signals,
};

/// `bascule monitor`.
#[derive(Args, Clone, Debug)]
pub struct MonitorArgs {
    /// Which services.
    #[command(flatten)]
    which: Which,
    /// Packets that are dropped or refused
    #[arg(long)]
    drops: bool,
    /// First packets of flows, and calls of local sockets that are led to a backend
    #[arg(long)]
    new: bool,
    /// Packets that end a TCP connection
    #[arg(long)]
    closed: bool,
    /// Look at one packet or call of N only, on each CPU
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// Most events in a second, of all services and CPUs; what is more is counted as lost
    #[arg(long, value_name = "EVENTS_PER_SECOND", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Write a capture (pcapng) of the packets that came and that left; `-` is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pcap: Option<PathBuf>,
    /// How to show it.
    #[command(flatten)]
    view: View,
}

/// How often the ring is emptied and the budget filled up.
const PERIOD: Duration = Duration::from_millis(50);
/// How often losses are told of, and services that are not known looked up.
const SELDOM: Duration = Duration::from_secs(1);

impl MonitorArgs {
    fn wanted(&self) -> Wanted {
        let all = !(self.drops || self.new || self.closed);
        let is = |reason: &&Reason| match reason.class() {
            _ if **reason == Reason::NotOurs => false,
            Class::Pass => all || self.new && matches!(reason, Reason::NewFlow | Reason::Socket),
            Class::Refuse | Class::Drop => all || self.drops,
        };
        let bits = Reason::ALL.iter().filter(is).map(|r| 1 << *r as u32);
        Wanted {
            every: self.sample,
            limit: self.limit,
            reasons: bits.sum(),
            closed: self.closed,
        }
    }
}

/// Runs until a signal ends it, or `--count` events were shown.
///
/// # Errors
/// No agent has run there, somebody else looks, or what is shown cannot be written.
pub fn run(args: &MonitorArgs) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signal = pin!(signals::ended()?);
        let mut look = Look::begin(args)?;
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut going = true;
        while going {
            going = tokio::select! {
                _ = &mut signal => false,
                _ = ticks.tick() => true,
            };
            // What was told of before the end is shown.
            going &= look.show()?;
        }
        look.end()
    })
}

/// A look at packets, and where it is shown.
struct Look<'a> {
    args: &'a MonitorArgs,
    views: Views,
    served: Served,
    devices: BTreeMap<u32, String>,
    clients: Clients,
    monitor: Monitor,
    out: Box<dyn Write>,
    colour: bool,
    shown: u64,
    lost: Lost,
    filled: Instant,
    seldom: Instant,
}

impl<'a> Look<'a> {
    fn begin(args: &'a MonitorArgs) -> anyhow::Result<Self> {
        let paths = &args.view.paths;
        let views = open(paths)?;
        let served = Served {
            frontends: views.frontends()?,
            names: names(paths),
        };
        if let Some(service) = &args.which.service {
            known(&served.frontends, &served.names, service)?;
        }
        let mut out: Box<dyn Write> = match &args.pcap {
            Some(path) if path.as_os_str() != "-" => {
                let file = File::create(path);
                let file = file.with_context(|| format!("cannot write {}", path.display()))?;
                Box::new(BufWriter::new(file))
            }
            _ => Box::new(BufWriter::new(io::stdout())),
        };
        if args.pcap.is_some() {
            out.write_all(&pcapng::header())?;
            out.flush()?;
        }
        let monitor = Monitor::start(&pins(&paths.bpffs), args.wanted())
            .context("the datapath cannot be asked to tell of packets")?;
        let now = Instant::now();
        let node = views.node()?.host_netns;
        Ok(Self {
            views,
            served,
            devices: BTreeMap::new(),
            clients: Clients {
                node,
                names: HashMap::new(),
                may_look: true,
            },
            monitor,
            out,
            colour: wants_colour(),
            shown: 0,
            lost: Lost::default(),
            filled: now,
            seldom: now,
            args,
        })
    }

    /// Shows what was told of since; returns whether there is more to come.
    fn show(&mut self) -> anyhow::Result<bool> {
        if self.seldom.elapsed() > SELDOM {
            self.seldom = Instant::now();
            self.refresh()?;
            self.tell_losses()?;
        }
        let since_boot = since_boot();
        while let Some(record) = self.monitor.record() {
            self.record(&record, since_boot)?;
            if self.args.count == Some(self.shown) {
                self.out.flush()?;
                return Ok(false);
            }
        }
        self.out.flush()?;
        let more = u64::from(self.args.limit) * self.filled.elapsed().as_millis() as u64 / 1000;
        if more > 0 {
            self.filled = Instant::now();
        }
        self.monitor.keep_on(more as i64)?;
        Ok(true)
    }

    fn record(&mut self, record: &Record, since_boot: u64) -> anyhow::Result<()> {
        if self.args.pcap.is_some() && matches!(record, Record::Call(_)) {
            // A call is no packet.
            return Ok(());
        }
        let time = record.time().wrapping_add(since_boot);
        let stamp = jiff::Timestamp::from_nanosecond(i128::from(time))?;
        let shown = match self.args.view.json {
            true => stamp.to_string(),
            false => stamp.strftime("%H:%M:%S%.6f").to_string(),
        };
        let told = match record {
            Record::Packet(event) => {
                let place = (shown, self.device(event.device));
                tell(event, &self.served, self.wanted(), place)
            }
            Record::Call(event) => {
                let place = (shown, self.clients.name(event.netns));
                tell_call(event, &self.served, self.wanted(), place)
            }
        };
        let Some(told) = told else { return Ok(()) };
        if let (Some(_), Record::Packet(event)) = (&self.args.pcap, record) {
            let packets = pcapng::packets(event, time, &told.comment());
            self.out.write_all(&packets)?;
        } else if self.args.view.json {
            serde_json::to_writer(&mut self.out, &told)?;
            self.out.write_all(b"\n")?;
        } else {
            writeln!(self.out, "{}", told.line(self.colour))?;
        }
        self.shown += 1;
        Ok(())
    }

    fn wanted(&self) -> Option<&'a str> {
        self.args.which.service.as_deref()
    }

    /// The name of a device; devices come and go.
    fn device(&mut self, index: u32) -> String {
        if !self.devices.contains_key(&index) {
            let all = devices().unwrap_or_default().into_iter();
            self.devices = all.map(|device| (device.index, device.name)).collect();
        }
        let unknown = || format!("device {index}");
        self.devices.entry(index).or_insert_with(unknown).clone()
    }

    /// Services come and go, too.
    fn refresh(&mut self) -> anyhow::Result<()> {
        self.served.frontends = self.views.frontends()?;
        // Whether they are known was told at the start.
        if let Ok(names) = StateDir::new(&self.args.view.paths.state_dir).read_names() {
            self.served.names = names;
        }
        self.devices.clear();
        self.clients.may_look = true;
        Ok(())
    }

    fn tell_losses(&mut self) -> anyhow::Result<()> {
        let lost = self.monitor.lost()?;
        let new = lost.since(self.lost);
        if new.total() > 0 {
            eprintln!(
                "bascule: {} events are lost: {} beyond --limit, {} because they were not read in time",
                new.total(),
                new.over,
                new.full
            );
        }
        self.lost = lost;
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<()> {
        self.tell_losses()?;
        eprintln!(
            "bascule: {} events shown, {} lost",
            self.shown,
            self.lost.total()
        );
        Ok(())
    }
}

/// Whose the sockets of a network namespace are.
struct Clients {
    /// The node's own namespace.
    node: u64,
    /// By the namespace's cookie.
    names: HashMap<u64, String>,
    /// To look into all namespaces takes a moment: at most once a second.
    may_look: bool,
}

impl Clients {
    fn name(&mut self, cookie: u64) -> String {
        if cookie == self.node {
            return "node".to_owned();
        }
        if !self.names.contains_key(&cookie) && self.may_look {
            self.may_look = false;
            let found = cgroup2().and_then(|cgroup| cookies(&cgroup).ok());
            // IPv4 before IPv6: a pod has one name.
            let mut all = found.unwrap_or_default();
            all.sort_unstable_by(|a, b| b.cmp(a));
            let named = all.into_iter().map(|(ip, cookie)| (cookie, ip.to_string()));
            self.names = named.collect();
        }
        let unknown = || format!("namespace {cookie}");
        self.names.get(&cookie).cloned().unwrap_or_else(unknown)
    }
}

/// Nanoseconds between 1970 and the kernel's monotonic clock's zero.
fn since_boot() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let wall = wall.unwrap_or_default().as_nanos() as u64;
    wall.wrapping_sub(crate::bpf::monitor::clock())
}
