//! The state of the maps as text: sorted, one entry a line, without ids, so
//! that it depends on the services alone.

use std::{fmt::Write, net::IpAddr};

use lb_common::{Addr, Be16, Frontend, FrontendKey, backend_flags, frontend_flags, proto, scope};

use crate::{
    planner::{Planner, PortState},
    tables::SetId,
};

impl Planner {
    /// What the maps hold once every batch so far is executed, and what is
    /// wrong. For golden files and for comparing planners; ids, places of tables
    /// and filter bits are left out.
    pub fn dump(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        lines.extend(
            self.claims
                .all()
                .map(|(key, value)| self.frontend_line(key, value)),
        );
        lines.extend(self.backends.all().map(|(_, b)| {
            let local = if b.flags & backend_flags::LOCAL != 0 {
                " local"
            } else {
                ""
            };
            format!("backend {}{local}", endpoint(b.addr, b.port, b.proto))
        }));
        lines.extend(self.ranges.iter().map(|r| {
            let owner = self.owner(r.service.get());
            let v4 = r.addr.is_v4() && r.prefix_len >= 128;
            let prefix = r.prefix_len.saturating_sub(if v4 { 128 } else { 32 });
            format!("range {owner} {}/{prefix}", r.addr)
        }));
        lines.extend(
            self.problems()
                .into_iter()
                .map(|p| format!("problem {} {}: {}", p.object, p.reason, p.message)),
        );
        lines.sort_unstable();
        lines
            .into_iter()
            .fold(String::new(), |text, line| text + &line + "\n")
    }

    fn owner(&self, service: u32) -> String {
        self.owners
            .get(&service)
            .map_or_else(|| "nobody".into(), |o| o.to_string())
    }

    fn frontend_line(&self, key: &FrontendKey, value: &Frontend) -> String {
        let scope = if key.scope == scope::INTERNAL {
            "internal"
        } else {
            "external"
        };
        if key.proto == 0 {
            return format!("vip {} {scope}{}", key.addr, flags(value.flags));
        }
        let at = endpoint(key.addr, key.port, key.proto);
        let mut line = format!("frontend {at} {scope} {}", self.owner(value.service));
        let port = self.port(value.service);
        let plan = port.and_then(|p| p.frontends.iter().find(|f| f.key(key.proto) == *key));
        if let (Some(port), Some(plan)) = (port, plan) {
            line += &self.set_text(port, plan.set);
        }
        line += &flags(value.flags);
        if value.affinity > 0 {
            // Writing to a String cannot fail.
            let _ = write!(line, " affinity={}s", value.affinity);
        }
        line
    }

    fn set_text(&self, port: &PortState, set: Option<u8>) -> String {
        let Some(&set) = set.and_then(|set| port.sets.get(usize::from(set))) else {
            return " to nothing".into();
        };
        let members = self.members_text(set);
        match self.tables.range(set).1 {
            1 => format!(" to {members}"),
            len => format!(" to {members} by {len} slots"),
        }
    }

    fn members_text(&self, set: SetId) -> String {
        let weights = self.tables.weights(set);
        let members = self.tables.members(set).iter().enumerate().map(|(i, r)| {
            let b = self.backends.get(r.id());
            let weight = weights.get(i).map(|w| format!("*{w}")).unwrap_or_default();
            format!("{}{weight}", socket(b.addr, b.port))
        });
        members.collect::<Vec<_>>().join(",")
    }
}

fn flags(flags: u32) -> String {
    let names = [
        (frontend_flags::SOURCE_RANGES, "source-ranges"),
        (frontend_flags::DROP_IF_EMPTY, "drop-if-empty"),
        (frontend_flags::NO_SNAT, "no-snat"),
        (frontend_flags::NODE_ADDR, "pass-unknown-ports"),
        (frontend_flags::NODE_PORT, "node-port"),
        (frontend_flags::EMPTY, "empty"),
    ];
    let set = names.iter().filter(|(bit, _)| flags & bit != 0);
    set.fold(String::new(), |text, (_, name)| text + " " + name)
}

fn socket(addr: Addr, port: Be16) -> String {
    std::net::SocketAddr::new(IpAddr::from(addr), port.get()).to_string()
}

/// Address, port and protocol as users write them.
pub(crate) fn endpoint(addr: Addr, port: Be16, number: u8) -> String {
    let name = match number {
        proto::TCP => "TCP",
        proto::UDP => "UDP",
        proto::SCTP => "SCTP",
        _ => "unknown",
    };
    format!("{}/{name}", socket(addr, port))
}
