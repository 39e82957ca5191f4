//! Comparing what is planned with what the maps hold, and with what the programs make of it,
//! a frontend at a time.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bytemuck::bytes_of;
use lb_common::{Frontend, Reason, frontend_flags, schema::PACK, scope};
use lb_plan::Expectation;

use super::{
    Datapath,
    dry::{Decision, Dry, How, Origin, Question},
    failure::{endpoint, scope_name},
    frame::{Ends, LOOPBACK, first},
    store::values_of,
    table::Table,
};

/// What an examination found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// All is as planned.
    Right,
    /// A map holds something else: what, and where.
    Drift(String),
    /// The maps are right, and the programs decide otherwise: how.
    Astray(String),
}

/// Clients that nobody is: of the networks for benchmarks (RFC 2544, RFC 5180).
const CLIENTS: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(198, 18, 0, 1),
    Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1),
);

impl Datapath {
    /// Compares a frontend's entries with what is expected of them, and asks the dry program
    /// where a client with this port would be sent.
    ///
    /// # Errors
    /// A map cannot be read, or the program cannot be run.
    pub fn examine(&self, expected: &Expectation, port: u16) -> io::Result<Finding> {
        if let Some(drift) = self.drift(expected)? {
            return Ok(Finding::Drift(drift));
        }
        let astray = self.dry().map(|dry| astray(dry, expected, port));
        let astray = astray.transpose()?.flatten();
        Ok(astray.map_or(Finding::Right, Finding::Astray))
    }

    /// What the maps hold otherwise.
    fn drift(&self, expected: &Expectation) -> io::Result<Option<String>> {
        let frontends = self.map(Table::lb_frontends_v1);
        let frontend = &expected.frontend;
        let found = frontends.lookup(bytes_of(&expected.key))?;
        if found.as_deref() != Some(bytes_of(frontend)) {
            let found = found
                .as_deref()
                .and_then(|b| values_of::<Frontend>(b).next());
            return Ok(Some(format!(
                "lb_frontends_v1: {} is {found:?} instead of {frontend:?}",
                place(expected)
            )));
        }
        let backends = self.map(Table::lb_backends_v1);
        for (id, backend) in &expected.backends {
            let found = backends.lookup(&id.to_ne_bytes())?;
            if found.as_deref() != Some(bytes_of(backend)) {
                return Ok(Some(format!("lb_backends_v1: {id} is not {backend:?}")));
            }
        }
        if frontend.len > 1 && !expected.backends.is_empty() {
            return self.stray_slot(expected);
        }
        Ok(None)
    }

    /// A slot that names none of the backends.
    fn stray_slot(&self, expected: &Expectation) -> io::Result<Option<String>> {
        let slots = self.map(Table::lb_slots_v1);
        let (start, len) = (expected.frontend.slots, expected.frontend.len);
        for element in start / PACK..=(start + len - 1) / PACK {
            let found = slots.lookup(&element.to_ne_bytes())?.unwrap_or_default();
            for (slot, id) in (element * PACK..).zip(values_of::<u32>(&found)) {
                let own = (start..start + len).contains(&slot);
                if own && !is_member(expected, id) {
                    return Ok(Some(format!(
                        "lb_slots_v1: {slot} of {} names backend {id}, which is none of its",
                        place(expected)
                    )));
                }
            }
        }
        Ok(None)
    }
}

fn is_member(expected: &Expectation, id: u32) -> bool {
    expected.backends.iter().any(|(member, _)| *member == id)
}

/// A frontend as users write it.
fn place(expected: &Expectation) -> String {
    let key = &expected.key;
    let at = endpoint(key.addr, key.port, key.proto);
    format!("{at}, {}", scope_name(key.scope))
}

/// What the dry program decides otherwise.
fn astray(dry: &Dry, expected: &Expectation, port: u16) -> io::Result<Option<String>> {
    let to = SocketAddr::new(expected.key.addr.into(), expected.key.port.get());
    let client = match to.ip() {
        IpAddr::V4(_) => CLIENTS.0.into(),
        IpAddr::V6(_) => CLIENTS.1.into(),
    };
    let ends = Ends {
        from: SocketAddr::new(client, port),
        to,
        proto: expected.key.proto,
    };
    let Some(frame) = first(&ends, LOOPBACK.1) else {
        return Ok(None);
    };
    let decision = dry.ask(&Question {
        frame: &frame,
        device: LOOPBACK.0,
        origin: match expected.key.scope {
            scope::EXTERNAL => Origin::Uplink,
            _ => Origin::Pod,
        },
    })?;
    let wrong = otherwise(expected, &decision);
    Ok(wrong.map(|what| format!("a packet to {}: {what}", place(expected))))
}

/// Why a decision is not the planned one.
fn otherwise(expected: &Expectation, decision: &Decision) -> Option<String> {
    let frontend = &expected.frontend;
    let reason = decision.reason;
    if decision.how == Some(How::Conntrack) {
        return None;
    }
    if decision.service != Some(frontend.service) {
        let (found, wanted) = (decision.service, frontend.service);
        return Some(format!(
            "service {found:?} instead of {wanted} ({})",
            reason.label()
        ));
    }
    let ranges = frontend.flags & frontend_flags::SOURCE_RANGES != 0;
    match (frontend.len, decision.backend) {
        (_, None) if ranges && reason == Reason::SourceRange => None,
        (0, None) if matches!(reason, Reason::NoEndpoints | Reason::NoLocalEndpoint) => None,
        (1.., Some(id)) if expected.backends.is_empty() || is_member(expected, id) => None,
        (_, found) => Some(format!("backend {found:?}, {}", reason.label())),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use lb_common::{Backend, FrontendKey};

    use super::*;

    fn expected(len: u32, flags: u32) -> Expectation {
        Expectation {
            key: FrontendKey::zeroed(),
            frontend: Frontend {
                service: 7,
                flags,
                slots: 100,
                len,
                affinity: 0,
            },
            backends: [3, 4].map(|id| (id, Backend::zeroed())).to_vec(),
        }
    }

    fn decision(reason: Reason, service: u32, backend: Option<u32>) -> Decision {
        Decision {
            verdict: 0,
            reason,
            how: backend.map(|_| How::Table),
            service: Some(service),
            slot: None,
            backend,
            snat_port: None,
            out: None,
            frame: Vec::new(),
        }
    }

    #[test]
    fn only_what_was_not_planned_is_astray() {
        let ranges = frontend_flags::SOURCE_RANGES;
        let right = [
            (expected(2, 0), decision(Reason::NewFlow, 7, Some(4))),
            // What becomes of the packet later is the way's business.
            (expected(2, 0), decision(Reason::NoRoute, 7, Some(3))),
            (expected(0, 0), decision(Reason::NoEndpoints, 7, None)),
            (expected(0, 0), decision(Reason::NoLocalEndpoint, 7, None)),
            (expected(2, ranges), decision(Reason::SourceRange, 7, None)),
        ];
        for (expected, decision) in right {
            assert_eq!(otherwise(&expected, &decision), None, "{decision:?}");
        }
        let wrong = [
            (expected(2, 0), decision(Reason::NewFlow, 8, Some(4))),
            (expected(2, 0), decision(Reason::NewFlow, 7, Some(5))),
            (expected(2, 0), decision(Reason::BackendMissing, 7, None)),
            (expected(2, 0), decision(Reason::SourceRange, 7, None)),
            (expected(0, 0), decision(Reason::NewFlow, 7, Some(3))),
            (expected(2, 0), decision(Reason::NotOurs, u32::MAX, None)),
        ];
        for (expected, decision) in wrong {
            assert!(otherwise(&expected, &decision).is_some(), "{decision:?}");
        }
        let mut known = decision(Reason::Established, 8, Some(9));
        known.how = Some(How::Conntrack);
        assert_eq!(otherwise(&expected(2, 0), &known), None);
    }
}
