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
use lb_common::{Be16, Frontend, FrontendKey, NodeConfig, Reason, node_flags, proto, scope};

use self::{
    ends::{From, Served, To},
    story::{Explanation, Hop, tell, text},
};
use super::{
    agent::cgroup2,
    args::{Paths, View},
    rows::service_name,
    show::{names, open, print},
    text::wants_colour,
};
use crate::{
    agent::{
        kernel::pins,
        state::{Device, StateDir},
    },
    bpf::{
        cookies,
        dry::{Dry, Origin, Question},
        frame::{Ends, first},
        views::{LinkView, Views},
    },
    node::route::{Link, links, way_to},
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

/// A port that a client may have (RFC 6335, section 6).
const CLIENT_PORT: u16 = 49152;
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
    let (frontends, names) = (views.frontends()?, names(paths));
    let served = Served {
        frontends: &frontends,
        names: &names,
    };
    let own = |v4| own_address(&views, v4);
    let (from, port) = match &args.from {
        From::Address(ip, port) => (vec![*ip], *port),
        From::Pod(pod) => (
            pods::addresses(args.kubeconfig.clone(), &pod.namespace, &pod.name)?,
            None,
        ),
        From::Node => ([true, false].into_iter().filter_map(own).collect(), None),
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
        served,
        ends,
        place: &place,
    };
    let hops = asked.hops()?;
    tell(&ends, place.who(from), &hops).ok_or_else(|| anyhow!("{from} meets no hook"))
}

/// The address that the node dials from.
fn own_address(views: &Views, v4: bool) -> Option<IpAddr> {
    let node = views.node().ok()?;
    let address = if v4 { node.snat4 } else { node.snat6 };
    let address = IpAddr::from(address);
    (!address.is_unspecified()).then_some(address)
}

/// Where a client's packets meet the datapath.
struct Place {
    links: Vec<Link>,
    /// The device, and its role by the agent's record; `None` for the node's own sockets.
    device: Option<(Link, Device)>,
}

impl Place {
    fn of(from: IpAddr, paths: &Paths, views: &Views) -> anyhow::Result<Self> {
        let links = links().context("the devices cannot be listed")?;
        let way = way_to(from).with_context(|| format!("the way to {from} cannot be found"))?;
        let Some(way) = way else {
            bail!(
                "the node has no route to {from}: packets of it cannot come here, or its answers cannot go back"
            )
        };
        if way.local {
            return Ok(Self {
                links,
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
        let ports = links
            .iter()
            .filter(|link| way.device == link.index || way.device == link.controller);
        let mut found = ports.filter_map(|link| {
            let mut devices = status.datapath.devices.iter();
            let device = devices.find(|device| device.name == link.name)?;
            Some((link.clone(), device.clone()))
        });
        let Some(device) = found.next() else {
            let name = name_of(&links, way.device);
            let of = views.dir().display();
            bail!(
                "packets of {from} come by {name}, which has no hooks of the agent with the pins in {of}: they meet no frontend; name the device with --pod-devices or --uplinks"
            )
        };
        Ok(Self {
            links,
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

fn name_of(links: &[Link], index: u32) -> String {
    let link = links.iter().find(|link| link.index == index);
    link.map_or_else(|| format!("device {index}"), |link| link.name.clone())
}

/// A question, and where its answers are looked up.
struct Asked<'a> {
    views: &'a Views,
    dry: &'a Dry,
    served: Served<'a>,
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
        let node: NodeConfig = self.views.node()?;
        let all: Vec<LinkView> = self.views.links()?;
        let hooked = all.iter().any(|link| link.name == SOCKET_HOOK);
        let is_node = self.place.device.is_none();
        let pods = node.flags & node_flags::SOCKET_LB_HOST_ONLY == 0;
        let served = is_node || (pods && self.place.is_pod());
        let netns = match is_node {
            true => node.host_netns,
            // Only affinity asks which pod's it is; no namespace has the cookie 0.
            false => self.namespace().unwrap_or(0),
        };
        let origin = Origin::Socket { cookie: 0, netns };
        Ok((hooked && served).then_some(origin))
    }

    /// The cookie of the client's namespace, where affinity goes by it.
    fn namespace(&self) -> Option<u64> {
        self.frontend(scope::INTERNAL)
            .filter(|frontend| frontend.affinity != 0)?;
        let all = cookies(&cgroup2()?).ok()?;
        all.get(&self.ends.from.ip()).copied()
    }

    fn frontend(&self, scope: u8) -> Option<Frontend> {
        let key = FrontendKey {
            addr: self.ends.to.ip().into(),
            port: Be16::new(self.ends.to.port()),
            proto: self.ends.proto,
            scope,
        };
        let frontends = self.served.frontends;
        let at = frontends.binary_search_by_key(&key, |(key, _)| *key);
        at.ok().map(|at| frontends[at].1)
    }

    fn hop(&self, hook: String, origin: Origin) -> anyhow::Result<Hop<'a>> {
        let link = self.place.device.as_ref().map(|(link, _)| link);
        let loopback = Link {
            index: 1,
            ..Link::default()
        };
        let link = link.unwrap_or(&loopback);
        let frame = first(&self.ends, link.address).context("FROM and TO are of two families")?;
        let question = Question {
            frame: &frame,
            device: link.index,
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
        let backend = match decision.backend {
            Some(id) => self.views.backends()?.get(&id).copied(),
            None => None,
        };
        let way = backend.and_then(|b| way_to(b.addr.into()).ok().flatten());
        let links = &self.place.links;
        Ok(Hop {
            hook,
            socket: matches!(origin, Origin::Socket { .. }),
            service: decision
                .service
                .map(|id| service_name(self.served.names, id)),
            frontend: self.frontend(scope),
            backend,
            way,
            device: Box::new(move |index| name_of(links, index)),
            decision,
        })
    }
}
