//! A packet or a socket's call in words. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use lb_common::{
    Addr, Be16, Frontend, FrontendKey, Reason,
    monitor::{CallEvent, Event, SNAP, hook},
    proto,
    reason::Class,
    scope,
};
use serde::Serialize;

use super::super::{
    rows::{Served, is_called},
    text::{Mood, paint},
};
use crate::bpf::failure::protocol_name;

/// What the headers of a frame say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Headers {
    src: IpAddr,
    dst: IpAddr,
    ports: Option<(u16, u16)>,
    proto: u8,
    flags: String,
}

impl Headers {
    /// Reads what there is of a frame; `None` where that is no IP header.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let net = packet.net?;
        let (src, dst): (IpAddr, IpAddr) = match &net {
            LaxNetSlice::Ipv4(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            LaxNetSlice::Ipv6(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            LaxNetSlice::Arp(_) => return None,
        };
        let payload = net.ip_payload_ref()?;
        let proto = payload.ip_number.0;
        let (ports, flags) = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                let all = [
                    ("SYN", tcp.syn()),
                    ("FIN", tcp.fin()),
                    ("RST", tcp.rst()),
                    ("ACK", tcp.ack()),
                ];
                let set = all.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
                let flags = set.collect::<Vec<_>>().join(",");
                (Some((tcp.source_port(), tcp.destination_port())), flags)
            }
            Some(TransportSlice::Udp(udp)) => (
                Some((udp.source_port(), udp.destination_port())),
                String::new(),
            ),
            _ if proto == proto::SCTP && !payload.fragmented => {
                (sctp_ports(payload.payload), String::new())
            }
            _ => (None, String::new()),
        };
        Some(Self {
            src,
            dst,
            ports,
            proto,
            flags,
        })
    }

    fn src(&self) -> String {
        end(self.src, self.ports.map(|(src, _)| src))
    }

    fn dst(&self) -> String {
        end(self.dst, self.ports.map(|(_, dst)| dst))
    }
}

fn sctp_ports(header: &[u8]) -> Option<(u16, u16)> {
    let port = |at: usize| Some(u16::from_be_bytes([*header.get(at)?, *header.get(at + 1)?]));
    Some((port(0)?, port(2)?))
}

fn end(ip: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(ip, port).to_string(),
        None => ip.to_string(),
    }
}

/// The frame of an event as it came, as far as it was taken.
pub fn before(event: &Event) -> &[u8] {
    &event.before[..SNAP.min(event.len as usize)]
}

/// The frame as it left, likewise.
pub fn after(event: &Event) -> &[u8] {
    &event.after[..SNAP.min(event.len_after as usize)]
}

/// An event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Told {
    /// When.
    pub time: String,
    /// The device, or `socket`.
    pub device: String,
    /// The program.
    pub hook: &'static str,
    /// Protocol; empty for what has no IP header.
    pub protocol: String,
    /// Flags of TCP.
    pub flags: String,
    /// Who dials.
    pub client: String,
    /// What is dialled.
    pub frontend: String,
    /// Who answers, if the packet was translated.
    pub backend: Option<String>,
    /// The source that the backend sees, where it is not the client.
    pub snat: Option<String>,
    /// Whether the packet goes to the client.
    pub reply: bool,
    /// The service of the frontend.
    pub service: Option<String>,
    /// The label of the reason, as in metrics.
    pub reason: String,
    /// `passed`, `dropped`, `transmitted` or `redirected`; of a call `connected`, `refused` or
    /// `dropped`.
    pub verdict: &'static str,
    /// Length of the frame; 0 of a call.
    pub bytes: u32,
}

/// The dialled place: address, port, protocol.
type Place = (IpAddr, Option<u16>, u8);

impl Served {
    /// The service of a frontend.
    fn service_of(&self, (addr, port, proto): Place) -> Option<String> {
        let at = SocketAddr::new(addr, port?);
        let scopes = [scope::INTERNAL, scope::EXTERNAL].into_iter();
        let found = scopes
            .filter_map(|scope| self.frontend(at, proto, scope))
            .next();
        found.map(|frontend| self.name(frontend.service))
    }

    /// Whether a packet was for a service: by its frontend, or, where it has none (no port, or
    /// a wrong one), by the address.
    fn is_of(&self, place: Place, wanted: &str) -> bool {
        if let Some(service) = self.service_of(place) {
            return is_called(&service, wanted);
        }
        let of = |(key, _): &&(FrontendKey, Frontend)| IpAddr::from(key.addr) == place.0;
        let ids = self.frontends.iter().filter(of).map(|(_, f)| f.service);
        let ids: BTreeSet<u32> = ids.filter(|id| *id != 0).collect();
        ids.iter().any(|id| is_called(&self.name(*id), wanted))
    }
}

/// Tells of an event; `None` where it is of another service than the one that is wanted.
pub fn tell(
    event: &Event,
    served: &Served,
    wanted: Option<&str>,
    (time, device): (String, String),
) -> Option<Told> {
    let reason = reason_of(event.reason);
    let (came, left) = (Headers::read(before(event)), Headers::read(after(event)));
    // An answer of the datapath itself is no translation.
    let passed = reason.is_some_and(|r| r.class() == Class::Pass);
    let left = left.filter(|_| passed && reason != Some(Reason::EchoReply));
    let reply = is_reply(event, reason, served, left.as_ref());
    let (near, far) = match reply {
        true => (left.as_ref(), came.as_ref()),
        false => (came.as_ref(), left.as_ref()),
    };
    let place = near.map(|h| match reply {
        true => (h.src, h.ports.map(|p| p.0), h.proto),
        false => (h.dst, h.ports.map(|p| p.1), h.proto),
    });
    if let Some(wanted) = wanted
        && !place.is_some_and(|place| served.is_of(place, wanted))
    {
        return None;
    }
    let ends = |h: &Headers| match reply {
        true => (h.dst(), h.src()),
        false => (h.src(), h.dst()),
    };
    let (client, frontend) = near.map(ends).unwrap_or_default();
    let (source, backend) = far.map(ends).unzip();
    Some(Told {
        time,
        device,
        hook: hook_name(event.hook),
        protocol: came
            .as_ref()
            .map_or_else(String::new, |h| protocol_name(h.proto).into_owned()),
        flags: came.as_ref().map_or_else(String::new, |h| h.flags.clone()),
        backend: backend.filter(|backend| *backend != frontend),
        snat: source.filter(|source| *source != client),
        service: place.and_then(|place| served.service_of(place)),
        client,
        frontend,
        reply,
        reason: label(event.reason),
        verdict: verdict(event),
        bytes: event.len,
    })
}

/// Tells of the call of a client's socket; `None` where it is of another service than the one
/// that is wanted.
pub fn tell_call(
    event: &CallEvent,
    served: &Served,
    wanted: Option<&str>,
    (time, client): (String, String),
) -> Option<Told> {
    let at = |addr: Addr, port: Be16| SocketAddr::new(addr.into(), port.get());
    let frontend = at(event.addr, event.port);
    let place = (frontend.ip(), Some(frontend.port()), event.proto);
    if wanted.is_some_and(|wanted| !served.is_of(place, wanted)) {
        return None;
    }
    let backend = at(event.backend, event.backend_port);
    Some(Told {
        time,
        device: "socket".to_owned(),
        hook: hook_name(event.hook),
        protocol: protocol_name(event.proto).into_owned(),
        flags: String::new(),
        client,
        frontend: frontend.to_string(),
        backend: (backend != frontend).then(|| backend.to_string()),
        snat: None,
        reply: false,
        service: served.service_of(place),
        reason: label(event.reason),
        verdict: match reason_of(event.reason).map(Reason::class) {
            Some(Class::Pass) => "connected",
            Some(Class::Refuse) => "refused",
            Some(Class::Drop) | None => "dropped",
        },
        bytes: 0,
    })
}

fn reason_of(number: u8) -> Option<Reason> {
    Reason::ALL.get(usize::from(number)).copied()
}

fn label(number: u8) -> String {
    reason_of(number).map_or_else(|| format!("#{number}"), |r| r.label().to_owned())
}

/// Whether a packet goes to the client. Of an ICMP error only its addresses tell.
fn is_reply(
    event: &Event,
    reason: Option<Reason>,
    served: &Served,
    left: Option<&Headers>,
) -> bool {
    match reason {
        Some(Reason::Reply) => true,
        Some(Reason::IcmpError) if event.hook == hook::EGRESS => true,
        Some(Reason::IcmpError) => left.is_some_and(|h| {
            let mut keys = served.frontends.iter().map(|(key, _)| key);
            keys.any(|key| IpAddr::from(key.addr) == h.src)
        }),
        _ => false,
    }
}

fn hook_name(of: u8) -> &'static str {
    match of {
        hook::XDP => "xdp",
        hook::UPLINK | hook::POD => "ingress",
        hook::EGRESS => "egress",
        hook::CONNECT => "connect",
        hook::SENDMSG => "sendmsg",
        _ => "unknown",
    }
}

/// What the program returned, in a word (`enum xdp_action`, `TC_ACT_*`).
fn verdict(event: &Event) -> &'static str {
    match (event.hook, event.action) {
        (hook::XDP, 2) | (_, 0xff) => "passed",
        (hook::XDP, 3) => "transmitted",
        (hook::XDP, 4) | (_, 7) => "redirected",
        _ => "dropped",
    }
}

impl Told {
    /// One line for people.
    pub fn line(&self, colour: bool) -> String {
        let arrow = if self.reply { "<-" } else { "->" };
        let mut line = format!(
            "{} {} {} {}",
            self.time, self.device, self.hook, self.protocol
        );
        if !self.flags.is_empty() {
            line.push_str(&format!(" {}", self.flags));
        }
        line.push_str(&format!(" {} {arrow} {}", self.client, self.frontend));
        if let Some(service) = &self.service {
            line.push_str(&format!(" ({service})"));
        }
        if let Some(backend) = &self.backend {
            line.push_str(&format!(" {arrow} {backend}"));
        }
        if let Some(snat) = &self.snat {
            line.push_str(&format!(" as {snat}"));
        }
        let mood = match self.verdict {
            "dropped" => Mood::Bad,
            "connected" => Mood::Good,
            _ if self.reason == Reason::NewFlow.label() => Mood::Good,
            _ => Mood::Warn,
        };
        let plain = matches!(self.reason.as_str(), "established" | "reply");
        let why = format!("{}, {}", self.reason, self.verdict);
        line.push_str(&format!("  {}", paint(&why, mood, colour && !plain)));
        if self.bytes > 0 {
            line.push_str(&format!(" ({} bytes)", self.bytes));
        }
        line
    }

    /// What the packets of a capture say besides themselves.
    pub fn comment(&self) -> String {
        let service = self.service.as_deref().unwrap_or("no service");
        format!(
            "{}, {}; {service}; {} of {}",
            self.reason, self.verdict, self.hook, self.device
        )
    }
}
