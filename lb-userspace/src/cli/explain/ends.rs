//! FROM and TO of `bascule explain`, as a user writes them.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use anyhow::{anyhow, bail, ensure};
use lb_common::{Frontend, FrontendKey, frontend_flags, proto, scope};

use super::super::rows::{Served, is_called};

/// Who dials.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum From {
    /// An address, and the port if it matters.
    Address(IpAddr, Option<u16>),
    /// A pod.
    Pod(Named),
    /// The node itself.
    Node,
}

/// Who is dialled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum To {
    /// An address and a port.
    Address(SocketAddr),
    /// A service, by `[NAMESPACE/]NAME[:PORT]`; the port by its name or number.
    Service(String, Option<String>),
}

/// An object of a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// The namespace of names without one, as in kubectl.
const DEFAULT: &str = "default";

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "node" {
            return Ok(Self::Node);
        }
        if let Some(pod) = text.strip_prefix("pod/") {
            let (namespace, name) = pod.split_once('/').unwrap_or((DEFAULT, pod));
            if namespace.is_empty() || name.is_empty() {
                return Err("not pod/[NAMESPACE/]NAME".to_owned());
            }
            return Ok(Self::Pod(Named {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }));
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self::Address(ip, None));
        }
        let both: Result<SocketAddr, _> = text.parse();
        both.map(|at| Self::Address(at.ip(), Some(at.port())))
            .map_err(|_| "neither IP, IP:PORT, pod/[NAMESPACE/]NAME nor the word node".to_owned())
    }
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let service = text.strip_prefix("svc/");
        if let Some(service) = service.or_else(|| text.strip_prefix("service/")) {
            let (name, port) = match service.split_once(':') {
                Some((name, port)) => (name, Some(port.to_owned())),
                None => (service, None),
            };
            if name.is_empty() || port.as_deref() == Some("") {
                return Err("not svc/[NAMESPACE/]NAME[:PORT]".to_owned());
            }
            return Ok(Self::Service(name.to_owned(), port));
        }
        text.parse()
            .map(Self::Address)
            .map_err(|_| "neither IP:PORT nor svc/[NAMESPACE/]NAME[:PORT]".to_owned())
    }
}

impl Served {
    /// Address, port and protocol of whom is dialled. Of a service's addresses the first of
    /// the wanted family that is no NodePort's: they all lead to the same backends.
    ///
    /// # Errors
    /// Nobody has that name, or it leaves open which port is meant.
    pub fn resolve(
        &self,
        to: &To,
        proto: Option<u8>,
        v4: Option<bool>,
    ) -> anyhow::Result<(SocketAddr, u8)> {
        match to {
            To::Address(at) => Ok((*at, proto.unwrap_or_else(|| self.proto_of(*at)))),
            To::Service(name, port) => self.service(name, port.as_deref(), (proto, v4)),
        }
    }

    /// The protocol of an address and port that are served by one only; else TCP.
    fn proto_of(&self, at: SocketAddr) -> u8 {
        let of = |(key, _): &&(FrontendKey, Frontend)| {
            IpAddr::from(key.addr) == at.ip() && key.port.get() == at.port()
        };
        let mut protos = self.frontends.iter().filter(of).map(|(key, _)| key.proto);
        let first = protos.next().unwrap_or(proto::TCP);
        match protos.all(|other| other == first) {
            true => first,
            false => proto::TCP,
        }
    }

    fn service(
        &self,
        name: &str,
        port: Option<&str>,
        (proto, v4): (Option<u8>, Option<bool>),
    ) -> anyhow::Result<(SocketAddr, u8)> {
        let mut all: Vec<(SocketAddr, u8, String)> = self
            .frontends
            .iter()
            .filter(|(key, value)| {
                let own = frontend_flags::VIP | frontend_flags::NODE_PORT;
                key.scope == scope::INTERNAL && value.flags & own == 0
            })
            .map(|(key, value)| {
                let at = SocketAddr::new(key.addr.into(), key.port.get());
                (at, key.proto, self.name(value.service))
            })
            .filter(|(_, _, called)| is_called(called, name))
            .collect();
        ensure!(
            !all.is_empty(),
            "no service is called {name}: `bascule service list` shows what this node serves"
        );
        let known: Vec<String> = all
            .iter()
            .map(|(at, _, called)| format!("{} ({called})", at.port()))
            .collect();
        all.retain(|(at, of, called)| {
            let named = port.is_none_or(|port| {
                at.port().to_string() == port || called.rsplit(':').next() == Some(port)
            });
            named
                && proto.is_none_or(|proto| proto == *of)
                && v4.is_none_or(|v4| v4 == at.is_ipv4())
        });
        all.sort_by_key(|(at, of, _)| (!at.is_ipv4(), *of != proto::TCP, *at));
        let Some((at, of, _)) = all.first() else {
            bail!(
                "svc/{name} has no such port, protocol or family; it has {}",
                list(known)
            );
        };
        match all.iter().all(|(other, ..)| other.port() == at.port()) {
            true => Ok((*at, *of)),
            false => Err(anyhow!(
                "svc/{name} has several ports: say which, of {}",
                list(known)
            )),
        }
    }
}

fn list(mut items: Vec<String>) -> String {
    items.sort();
    items.dedup();
    items.join(", ")
}
