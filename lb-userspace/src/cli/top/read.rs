//! Reads from the maps what is looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{backend_flags, frontend_flags, reason::Class};

use super::{
    rates::{Counted, Node, Part, Reading, Seen, Snat},
    state::View,
};
use crate::{
    agent::state::StateDir,
    bpf::{
        census::{Census, Dialled},
        failure::protocol_name,
        views::Views,
    },
    cli::{args::Paths, rows::service_name, show},
};

/// Reads what `view` shows at a moment.
///
/// # Errors
/// If the maps are not there, or cannot be read.
pub fn read(paths: &Paths, view: &View, at: Duration) -> anyhow::Result<Reading> {
    // By their pins each time: an agent with other settings makes maps anew.
    let views = show::open(paths)?;
    let mut note = None;
    let seen = match view {
        View::Services => {
            let (services, trouble) = services(&views, paths)?;
            note = trouble;
            Seen::Counted(services)
        }
        View::Backends { id, .. } => Seen::Counted(backends(&views, *id)?),
        View::Node => Seen::Node(Box::new(node(&views)?)),
    };
    Ok(Reading { at, seen, note })
}

/// Services, and why their names are not known.
fn services(views: &Views, paths: &Paths) -> anyhow::Result<(Vec<Counted>, Option<String>)> {
    let frontends = views.frontends()?;
    let ids: BTreeSet<u32> = frontends
        .iter()
        .filter(|(_, f)| f.flags & frontend_flags::VIP == 0)
        .map(|(_, f)| f.service)
        .collect();
    let names = StateDir::new(&paths.state_dir).read_names();
    let (names, note) = match names {
        Ok(names) => (names, None),
        Err(error) => (
            BTreeMap::new(),
            Some(format!("the names of services are not known: {error}")),
        ),
    };
    let counters = views.service_counters(ids.last().map_or(0, |id| id + 1))?;
    let service = |id: u32| Counted {
        id,
        name: service_name(&names, id),
        part: None,
        counter: counters.get(id as usize).copied().unwrap_or_default(),
    };
    Ok((ids.into_iter().map(service).collect(), note))
}

/// The backends of a service.
fn backends(views: &Views, service: u32) -> anyhow::Result<Vec<Counted>> {
    let mut frontends = views.frontends()?;
    frontends.retain(|(_, f)| f.service == service && f.flags & frontend_flags::VIP == 0);
    let mut slots: BTreeMap<u32, u32> = BTreeMap::new();
    for members in views.tables(&frontends)?.into_values() {
        for (id, own) in members {
            *slots.entry(id).or_default() += own;
        }
    }
    // A single backend needs no table.
    let single = frontends.iter().filter(|(_, f)| f.len == 1);
    let single: BTreeSet<u32> = single.map(|(_, f)| f.slots).collect();
    for id in single {
        *slots.entry(id).or_default() += 1;
    }
    let all: u32 = slots.values().sum();
    let carriers = views.carriers(slots.keys().copied())?;
    let counted = carriers
        .into_iter()
        .map(|(id, (backend, counter))| Counted {
            id,
            name: SocketAddr::new(backend.addr.into(), backend.port.get()).to_string(),
            part: Some(Part {
                local: backend.flags & backend_flags::LOCAL != 0,
                share: f64::from(slots[&id]) / f64::from(all),
            }),
            counter,
        });
    Ok(counted.collect())
}

fn node(views: &Views) -> anyhow::Result<Node> {
    let census = views.census()?;
    let config = views.node()?;
    let reasons = views.reasons()?.into_iter();
    let drops = reasons
        .filter(|(reason, c)| reason.class() != Class::Pass && c.packets > 0)
        .map(|(reason, c)| (reason, c.packets));
    let ports = u64::from(config.snat_port_max.saturating_sub(config.snat_port_min)) + 1;
    let snat = snat(&census, ports);
    let clients = census.clients.into_iter();
    let mut clients: Vec<(IpAddr, u64)> = clients.map(|(client, n)| (client.into(), n)).collect();
    clients.sort_unstable_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then(a.cmp(b)));
    Ok(Node {
        conntrack: census.tables,
        snat,
        drops: drops.collect(),
        clients,
    })
}

fn snat(census: &Census, ports: u64) -> Snat {
    let most = census.snat.iter().max_by_key(|(at, flows)| (**flows, **at));
    let name = |(addr, port, protocol): &Dialled| {
        let backend = SocketAddr::new((*addr).into(), *port);
        format!("{backend}/{}", protocol_name(*protocol))
    };
    Snat {
        flows: census.snat.values().sum(),
        most: most.map(|(at, flows)| (name(at), *flows)),
        ports,
    }
}
