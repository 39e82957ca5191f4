//! `bascule explain`: what becomes of a packet, and why. The programs in the kernel decide,
//! by the maps in place, and nothing changes.

pub mod ends;
pub mod story;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use lb_common::{Frontend, NodeConfig, Reason, node_flags, proto, scope};

use self::{
    ends::{From, To},
    story::{Explanation, Hop, tell, text},
};
use super::{
    agent::cgroup2,
    args::{Paths, View},
    rows::Served,
    show::{called, names, open, print, vips},
    text::wants_colour,
};
use crate::{
    agent::{
        kernel::pins,
        state::{self, ServiceNames, StateDir},
    },
    bpf::{
        cookies,
        dry::{Dry, Origin, Question},
        frame::{CLIENT_PORT, Ends, LOOPBACK, first},
        views::Views,
    },
    node::{
        devices::{Device, devices, name_of},
        route::way_to,
    },
    watch::pods,
};

/// `bascule explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Who dials: IP, IP:PORT, pod/[NAMESPACE/]NAME, or `node` for a process of the node itself
    from: From,
    /// Whom it dials: IP:PORT, or svc/[NAMESPACE/]NAME[:PORT]
    to: To,
    /// The protocol [default: what TO serves, or tcp]
    #[arg(long, value_enum)]
    proto: Option<Proto>,
    /// Where pods' addresses are asked for [default: $KUBECONFIG, then the pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// How to show it.
    #[command(flatten)]
    view: View,
}

/// The protocols of Services.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Proto {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Proto {
    fn number(self) -> u8 {
        match self {
            Self::Tcp => proto::TCP,
            Self::Udp => proto::UDP,
            Self::Sctp => proto::SCTP,
        }
    }
}

/// Pin of the first of the socket hooks.
const SOCKET_HOOK: &str = "lb_connect4";

/// Runs the command.
///
/// # Errors
/// Nobody has the names that are given, no agent serves, or the kernel does not answer.
pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let told = explain(args)?;
    print(&args.view, &told, || text(&told, wants_colour()))
}

fn explain(args: &ExplainArgs) -> anyhow::Result<Explanation> {
    let paths = &args.view.paths;
    let views = open(paths)?;
    let dry = Dry::open(&pins(&paths.bpffs)).context(
        "the program that explains is not there: the agent loads it a moment after its start; see its log (`bascule status` tells whether it runs)",
    )?;
    let served = match &args.to {
        To::Address(at) => Served {
            frontends: views.frontends_at(*at)?,
            names: names(paths),
        },
        To::Service(name, _) => named(&views, vips(paths), name)?,
    };
    let node = views.node()?;
    let (from, port) = match &args.from {
        From::Address(ip, port) => (vec![*ip], *port),
        From::Pod(pod) => (
            pods::addresses(args.kubeconfig.clone(), &pod.namespace, &pod.name)?,
            None,
        ),
        From::Node => (own_addresses(&node), None),
    };
    let only = |v4| from.iter().all(|ip| ip.is_ipv4() == v4).then_some(v4);
    let proto = args.proto.map(Proto::number);
    let (to, proto) = served.resolve(&args.to, proto, only(true).or(only(false)))?;
    let from = from.into_iter().find(|ip| ip.is_ipv4() == to.is_ipv4());
    let from = from.ok_or_else(|| anyhow!("FROM has no address of the family of {to}"))?;
    let from = SocketAddr::new(from, port.unwrap_or(CLIENT_PORT));
    let ends = Ends { from, to, proto };
    let place = Place::of(from.ip(), paths, &views)?;
    let asked = Asked {
        views: &views,
        dry: &dry,
        served: &served,
        node,
        ends,
        place: &place,
    };
    let hops = asked.hops()?;
    tell(&ends, place.who(from), &hops).ok_or_else(|| anyhow!("{from} meets no hook"))
}

/// The frontends of a service by its name: those where the agent says that it is dialled, which
/// spares the walk through all that the map holds. If one is not the service's, or none is known,
/// all are looked through: the map counts.
fn named(views: &Views, names: ServiceNames, name: &str) -> anyhow::Result<Served> {
    let wanted = |id| called(&names.ports, id, name);
    let mut frontends = Vec::new();
    for (id, at) in names.vips.iter().filter(|(id, _)| wanted(*id)) {
        let mut there = views.frontends_at(*at)?;
        there.retain(|(_, frontend)| frontend.service == *id);
        if there.is_empty() {
            frontends.clear();
            break;
        }
        frontends.append(&mut there);
    }
    if frontends.is_empty() {
        frontends = views.frontends_of(wanted)?;
    }
    frontends.sort_unstable_by_key(|(key, _)| *key);
    Ok(Served {
        frontends,
        names: names.ports,
    })
}

/// The addresses that the node dials from.
fn own_addresses(node: &NodeConfig) -> Vec<IpAddr> {
    let all = [node.snat4, node.snat6].map(IpAddr::from).into_iter();
    all.filter(|address| !address.is_unspecified()).collect()
}

/// Where a client's packets meet the datapath.
struct Place {
    devices: Vec<Device>,
    /// The device, and what the agent's record says of it; `None` for the node's own sockets.
    device: Option<(Device, state::Device)>,
}

impl Place {
    fn of(from: IpAddr, paths: &Paths, views: &Views) -> anyhow::Result<Self> {
        let devices = devices().context("the devices cannot be listed")?;
        let way = way_to(from).with_context(|| format!("the way to {from} cannot be found"))?;
        let Some(way) = way else {
            bail!(
                "the node has no route to {from}: packets of it cannot come here, or its answers cannot go back"
            )
        };
        if way.local {
            return Ok(Self {
                devices,
                device: None,
            });
        }
        let status = StateDir::new(&paths.state_dir).read_status();
        let status = status.ok().flatten().with_context(|| {
            format!(
                "no record of an agent in {}: name its --state-dir",
                paths.state_dir.display()
            )
        })?;
        // Of a bridge its ports have the hooks.
        let ports = devices
            .iter()
            .filter(|device| way.device == device.index || Some(way.device) == device.controller);
        let mut found = ports.filter_map(|device| {
            let mut hooked = status.datapath.devices.iter();
            let hooked = hooked.find(|hooked| hooked.name == device.name)?;
            Some((device.clone(), hooked.clone()))
        });
        let Some(device) = found.next() else {
            let name = name_of(&devices, way.device);
            let of = views.dir().display();
            bail!(
                "packets of {from} come by {name}, which has no hooks of the agent with the pins in {of}: they meet no frontend; name the device with --pod-devices or --uplinks"
            )
        };
        Ok(Self {
            devices,
            device: Some(device),
        })
    }

    fn who(&self, from: SocketAddr) -> String {
        match &self.device {
            None => format!("{from}, a process of the node"),
            Some((link, device)) if device.role == "pod" => {
                format!("{from}, a pod behind {}", link.name)
            }
            Some((link, _)) => format!("{from}, from outside by {}", link.name),
        }
    }

    fn is_pod(&self) -> bool {
        self.device
            .as_ref()
            .is_none_or(|(_, device)| device.role == "pod")
    }
}

/// A question, and where its answers are looked up.
struct Asked<'a> {
    views: &'a Views,
    dry: &'a Dry,
    served: &'a Served,
    node: NodeConfig,
    ends: Ends,
    place: &'a Place,
}

impl<'a> Asked<'a> {
    /// The hooks that the client meets, one after the other, until one decides.
    fn hops(&self) -> anyhow::Result<Vec<Hop<'a>>> {
        let mut hops = Vec::new();
        if let Some(origin) = self.socket()? {
            hops.push(self.hop("socket hooks: connect, sendmsg".to_owned(), origin)?);
        }
        let decided = hops
            .last()
            .is_some_and(|hop| hop.decision.reason != Reason::NotOurs);
        let Some((link, device)) = self.place.device.as_ref().filter(|_| !decided) else {
            return Ok(hops);
        };
        let origin = match self.place.is_pod() {
            true => Origin::Pod,
            false => Origin::Uplink,
        };
        hops.push(self.hop(format!("{} of {}", device.hooks, link.name), origin)?);
        Ok(hops)
    }

    /// The client as a socket, where sockets are served.
    fn socket(&self) -> anyhow::Result<Option<Origin>> {
        let is_node = self.place.device.is_none();
        let pods = self.node.flags & node_flags::SOCKET_LB_HOST_ONLY == 0;
        let served = is_node || (pods && self.place.is_pod());
        let links = self.views.links()?;
        if !served || !links.iter().any(|link| link.name == SOCKET_HOOK) {
            return Ok(None);
        }
        let netns = match is_node {
            true => self.node.host_netns,
            // Only affinity asks which pod's it is; no namespace has the cookie 0.
            false => self.namespace().unwrap_or(0),
        };
        Ok(Some(Origin::Socket { cookie: 0, netns }))
    }

    /// The cookie of the client's namespace, where affinity goes by it.
    fn namespace(&self) -> Option<u64> {
        self.frontend(scope::INTERNAL)
            .filter(|frontend| frontend.affinity != 0)?;
        let all = cookies(&cgroup2()?).ok()?;
        let own = all.into_iter().find(|(ip, _)| *ip == self.ends.from.ip());
        own.map(|(_, cookie)| cookie)
    }

    fn frontend(&self, scope: u8) -> Option<Frontend> {
        let Ends { to, proto, .. } = self.ends;
        self.served.frontend(to, proto, scope).copied()
    }

    fn hop(&self, hook: String, origin: Origin) -> anyhow::Result<Hop<'a>> {
        let device = self.place.device.as_ref();
        let (device, address) =
            device.map_or(LOOPBACK, |(device, _)| (device.index, device.address));
        let frame = first(&self.ends, address).context("FROM and TO are of two families")?;
        let question = Question {
            frame: &frame,
            device,
            origin,
        };
        let decision = self
            .dry
            .ask(&question)
            .context("the dry program cannot be asked")?;
        let scope = match origin {
            Origin::Uplink => scope::EXTERNAL,
            Origin::Pod | Origin::Socket { .. } => scope::INTERNAL,
        };
        let carriers = self.views.carriers(decision.backend)?;
        let backend = carriers.into_values().next().map(|(backend, _)| backend);
        let way = backend.and_then(|b| way_to(b.addr.into()).ok().flatten());
        Ok(Hop {
            hook,
            socket: matches!(origin, Origin::Socket { .. }),
            service: decision.service.map(|id| self.served.name(id)),
            frontend: self.frontend(scope),
            backend,
            way,
            devices: &self.place.devices,
            decision,
        })
    }
}
