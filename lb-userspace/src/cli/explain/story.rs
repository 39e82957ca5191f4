//! The decisions about a packet, in words. Pure.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    Backend, Frontend, Reason, backend_flags, frontend_flags, reason::Class, trace::verdict,
};
use serde::Serialize;

use super::super::text::{Mood, paint};
use crate::{
    bpf::{
        dry::{Decision, How},
        failure::protocol_name,
        frame::Ends,
    },
    node::{
        devices::{Device, name_of},
        route::Way,
    },
};

/// What a hook decided, and what its map entries say.
pub struct Hop<'a> {
    /// The hook, and the device or cgroup.
    pub hook: String,
    /// Whether a socket dials, and no packet comes yet.
    pub socket: bool,
    /// What it decided.
    pub decision: Decision,
    /// The frontend's entry.
    pub frontend: Option<Frontend>,
    /// Name of the frontend's service.
    pub service: Option<String>,
    /// The backend's entry.
    pub backend: Option<Backend>,
    /// The kernel's way to the backend.
    pub way: Option<Way>,
    /// The devices.
    pub devices: &'a [Device],
}

/// A line of an explanation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Line {
    /// Which decision.
    pub step: &'static str,
    /// What was decided, and why.
    pub text: String,
}

/// What becomes of a packet, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Explanation {
    /// The client.
    pub from: SocketAddr,
    /// Whom it dials.
    pub to: SocketAddr,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The decisions.
    pub steps: Vec<Line>,
    /// `balanced`, `untouched`, `refused` or `dropped`.
    pub result: &'static str,
    /// The label of the reason, as in metrics.
    pub reason: &'static str,
    /// Name of the service.
    pub service: Option<String>,
    /// The backend; where every connection has its own, one of them.
    pub backend: Option<SocketAddr>,
    /// What in Kubernetes, or on the node, makes it so.
    pub cause: Option<String>,
}

fn line(step: &'static str, text: impl Into<String>) -> Line {
    let text = text.into();
    Line { step, text }
}

/// Tells what hooks decided, one after the other: the last one's word counts.
pub fn tell(ends: &Ends, who: String, hops: &[Hop<'_>]) -> Option<Explanation> {
    let last = hops.last()?;
    let mut steps = vec![line("from", who)];
    for hop in hops {
        steps.push(line("hook", hop.hook.clone()));
        steps.extend(hop_lines(ends, hop));
    }
    let reason = last.decision.reason;
    Some(Explanation {
        from: ends.from,
        to: ends.to,
        protocol: protocol_name(ends.proto).into_owned(),
        steps,
        result: result(last),
        reason: reason.label(),
        service: last.service.clone(),
        backend: last.backend.as_ref().map(address),
        cause: cause(reason, last).map(str::to_owned),
    })
}

fn address(backend: &Backend) -> SocketAddr {
    SocketAddr::new(backend.addr.into(), backend.port.get())
}

fn result(hop: &Hop<'_>) -> &'static str {
    match hop.decision.reason.class() {
        _ if hop.decision.reason == Reason::NotOurs => "untouched",
        Class::Pass => "balanced",
        Class::Refuse => "refused",
        Class::Drop => "dropped",
    }
}

fn hop_lines(ends: &Ends, hop: &Hop<'_>) -> Vec<Line> {
    let mut lines = Vec::new();
    let known = hop.decision.how == Some(How::Conntrack);
    if known {
        lines.push(line(
            "conntrack",
            "the flow is known: it stays with its backend",
        ));
    } else if !hop.socket && hop.decision.reason != Reason::NotOurs {
        lines.push(line("conntrack", "a new flow"));
    }
    if let (Some(frontend), false) = (&hop.frontend, known) {
        lines.extend(frontend_lines(ends, hop, frontend));
    }
    if let Some(backend) = &hop.backend {
        let place = match backend.flags & backend_flags::LOCAL {
            0 => "on another node",
            _ => "on this node",
        };
        lines.push(line("backend", format!("{}, {place}", address(backend))));
        lines.extend(way_lines(hop, backend.addr.into()));
    }
    lines.push(line("result", outcome(ends, hop)));
    lines
}

fn frontend_lines(ends: &Ends, hop: &Hop<'_>, frontend: &Frontend) -> Vec<Line> {
    let decision = &hop.decision;
    let kind = match frontend.flags & frontend_flags::NODE_PORT {
        0 => "",
        _ => ", a NodePort",
    };
    let service = hop.service.as_deref().unwrap_or("no service");
    let protocol = protocol_name(ends.proto);
    let mut lines = vec![line(
        "frontend",
        format!("{}/{protocol} of {service}{kind}", ends.to),
    )];
    let local = frontend_flags::NO_SNAT | frontend_flags::DROP_IF_EMPTY;
    lines.push(line(
        "policy",
        match frontend.flags & local {
            0 => "Cluster: endpoints of all nodes".to_owned(),
            _ => "Local: only endpoints of this node".to_owned(),
        },
    ));
    if frontend.flags & frontend_flags::SOURCE_RANGES != 0 {
        let text = match decision.reason {
            Reason::SourceRange => "the client is in none of loadBalancerSourceRanges",
            Reason::NotOurs => "the socket's address is not known yet: its packets are checked",
            _ => "the client is in loadBalancerSourceRanges",
        };
        lines.push(line("ranges", text));
    }
    if frontend.affinity != 0 && frontend.len > 0 {
        let text = match decision.how {
            Some(How::Affinity) => "the client is bound to its backend",
            _ => "the client is not bound yet",
        };
        let seconds = frontend.affinity;
        lines.push(line("affinity", format!("ClientIP, {seconds} s: {text}")));
    }
    match (decision.slot, hop.socket && frontend.affinity == 0) {
        (Some(_), true) => lines.push(line(
            "slot",
            format!(
                "each connection of a socket has its own of {}",
                frontend.len
            ),
        )),
        (Some(slot), false) => lines.push(line("slot", format!("{slot} of {}", frontend.len))),
        (None, _) if decision.how == Some(How::Table) => {
            lines.push(line("slot", "the only backend"));
        }
        _ => {}
    }
    lines
}

/// How the packet gets to its backend.
fn way_lines(hop: &Hop<'_>, backend: IpAddr) -> Vec<Line> {
    let decision = &hop.decision;
    let mut lines = Vec::new();
    if !hop.socket {
        lines.push(line(
            "source",
            match decision.snat_port {
                Some(port) => {
                    format!("becomes the node's address (SNAT), port {port} if it is free")
                }
                None if decision.verdict == verdict::TURN_AROUND => {
                    "becomes the node's address: the pod dials itself".to_owned()
                }
                None => "the client's address stays".to_owned(),
            },
        ));
    }
    let via = |way: &Way| match way.gateway {
        Some(gateway) => format!("via {gateway} by {}", name_of(hop.devices, way.device)),
        None => format!("{backend} directly by {}", name_of(hop.devices, way.device)),
    };
    let text = match (decision.verdict, decision.out, &hop.way) {
        (verdict::REDIRECT, Some(out), _) => {
            let mac: Vec<String> = decision.frame[..6]
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            format!(
                "to {} by {}, past the stack",
                mac.join(":"),
                name_of(hop.devices, out)
            )
        }
        (verdict::REDIRECT_NEIGH, Some(out), _) => {
            format!(
                "by {}, whose neighbour is still to be found",
                name_of(hop.devices, out)
            )
        }
        (verdict::TURN_AROUND, ..) => "back by the device by which it came".to_owned(),
        (_, _, Some(way)) if way.local => "the backend's address is the node's own".to_owned(),
        (_, _, Some(way)) => format!("{}, by the stack", via(way)),
        (_, _, None) => format!("the node has no route to {backend}"),
    };
    lines.push(line("route", text));
    lines
}

/// The last word of a hook.
fn outcome(ends: &Ends, hop: &Hop<'_>) -> String {
    let reason = hop.decision.reason;
    match (result(hop), &hop.backend) {
        ("balanced", Some(backend)) if hop.socket => {
            format!("the socket is connected to {}", address(backend))
        }
        ("balanced", Some(backend)) => format!("sent to {}", address(backend)),
        ("untouched", _) => format!(
            "left alone: no frontend that this hook serves has {}/{}",
            ends.to,
            protocol_name(ends.proto)
        ),
        (word, _) => format!("{word}: {}", reason.describe()),
    }
}

/// What in Kubernetes, or on the node, is the cause, and what to do.
fn cause(reason: Reason, hop: &Hop<'_>) -> Option<&'static str> {
    let external = hop
        .frontend
        .is_some_and(|f| f.flags & frontend_flags::NO_SNAT != 0);
    Some(match reason {
        Reason::NoEndpoints => {
            "no endpoint of the Service is ready: look at its EndpointSlices, and at its .spec.selector and the readiness of its pods"
        }
        Reason::UnknownPort => "the Service that has this address has no such port: .spec.ports",
        Reason::NoLocalEndpoint if external => {
            ".spec.externalTrafficPolicy of the Service is Local, and none of its ready endpoints is on this node"
        }
        Reason::NoLocalEndpoint => {
            ".spec.internalTrafficPolicy of the Service is Local, and none of its ready endpoints is on this node"
        }
        Reason::SourceRange => {
            ".spec.loadBalancerSourceRanges of the Service does not have the client"
        }
        Reason::NoNodeAddress => {
            "the Node has no InternalIP of this family in .status.addresses, which SNAT needs"
        }
        Reason::NoRoute => "the node has no route to the backend: the business of the CNI plugin",
        Reason::BackendMissing => {
            "a table names a backend that is not in the maps: restart the agent, and report it with `bascule status --json`"
        }
        _ => return None,
    })
}

/// An explanation as text, a decision a line.
pub fn text(explanation: &Explanation, colour: bool) -> String {
    let mut text = String::new();
    for Line { step, text: words } in &explanation.steps {
        let words = match (*step, explanation.result) {
            ("result", "balanced") => paint(words, Mood::Good, colour),
            ("result", "refused" | "dropped") => paint(words, Mood::Bad, colour),
            _ => words.clone(),
        };
        text.push_str(&format!("{step:<10} {words}\n"));
    }
    if let Some(cause) = &explanation.cause {
        text.push_str(&format!("{:<10} {cause}\n", "cause"));
    }
    text
}
