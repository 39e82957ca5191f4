//! The clients that kube-proxy has bound to endpoints, in mode nftables: a set of
//! addresses for each endpoint, whose elements time out.
//!
//! kubernetes v1.36.3, pkg/proxy/nftables/proxier.go, `servicePortEndpointChainNameBase`:
//! `affinity-HASH-NAMESPACE/SERVICE/PROTOCOL/PORT__ADDRESS/PORT`, with dots for the colons
//! of an address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use lb_common::proto;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetAttribute, SetElementAttribute,
    SetElementList, SetElementMessage, SetMessage,
};

use super::{
    kube_proxy::TABLE,
    nft::{self, Family},
    recent,
};

/// A client that is bound to an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// The client.
    pub client: IpAddr,
    /// The service port, and its endpoint.
    pub endpoint: Endpoint,
    /// How long ago it last opened a connection, where that is known.
    pub idle: Duration,
}

/// An endpoint of a service port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// The name of its port; empty where it has none.
    pub port: String,
    /// IP protocol number.
    pub protocol: u8,
    /// The endpoint.
    pub addr: SocketAddr,
}

/// Every client that is bound, in either mode: a set names its endpoint, and in mode iptables
/// those of these endpoints are found.
///
/// # Errors
/// The kernel does not list the sets.
pub fn bound(endpoints: &[Endpoint]) -> io::Result<Vec<Bound>> {
    let mut all = recent::bound(Path::new(recent::LISTS), endpoints);
    for family in Family::ALL {
        for (name, timeout) in sets(family)? {
            let Some(endpoint) = endpoint(&name) else {
                continue;
            };
            let elements = elements(family, &name)?.into_iter();
            all.extend(elements.map(|(client, left)| Bound {
                client,
                endpoint: endpoint.clone(),
                idle: left.map_or(Duration::ZERO, |left| timeout.saturating_sub(left)),
            }));
        }
    }
    Ok(all)
}

/// The names of kube-proxy's sets, and how long their elements stay.
fn sets(family: Family) -> io::Result<Vec<(String, Duration)>> {
    let request = NfTablesMessage::GetSet(SetMessage {
        attributes: vec![SetAttribute::Table(TABLE.to_owned())],
    });
    nft::list(family, request, NLM_F_DUMP, |answer| match answer {
        NfTablesMessage::NewSet(set) => named(set),
        _ => None,
    })
}

fn named(set: SetMessage) -> Option<(String, Duration)> {
    let (mut name, mut timeout) = (None, Duration::ZERO);
    for attribute in set.attributes {
        match attribute {
            SetAttribute::Name(text) => name = Some(text),
            SetAttribute::Timeout(ms) => timeout = Duration::from_millis(ms),
            _ => {}
        }
    }
    Some((name?, timeout))
}

/// The endpoint of a set of clients.
fn endpoint(set: &str) -> Option<Endpoint> {
    let (_hash, rest) = set.strip_prefix("affinity-")?.split_once('-')?;
    let (service, addr) = rest.split_once("__")?;
    let mut parts = service.split('/');
    let mut next = || parts.next().map(str::to_owned);
    let (namespace, service, protocol, port) = (next()?, next()?, next()?, next()?);
    let (ip, number) = addr.split_once('/')?;
    let ip: IpAddr = match ip.parse() {
        Ok(ip) => ip,
        Err(_) => ip.replace('.', ":").parse().ok()?,
    };
    Some(Endpoint {
        namespace,
        service,
        port,
        protocol: match protocol.as_str() {
            "tcp" => proto::TCP,
            "udp" => proto::UDP,
            "sctp" => proto::SCTP,
            _ => return None,
        },
        addr: SocketAddr::new(ip, number.parse().ok()?),
    })
}

/// An address, and how long it stays.
type Element = (IpAddr, Option<Duration>);

/// The elements of a set.
fn elements(family: Family, set: &str) -> io::Result<Vec<Element>> {
    let request = NfTablesMessage::GetSetElement(SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.to_owned()),
            SetElementList::Set(set.to_owned()),
        ],
    });
    let lists = nft::list(family, request, NLM_F_DUMP, |answer| match answer {
        NfTablesMessage::NewSetElement(elements) => Some(read(&elements)),
        _ => None,
    })?;
    Ok(lists.into_iter().flatten().collect())
}

fn read(message: &SetElementMessage) -> Vec<Element> {
    let lists = message.attributes.iter().filter_map(|list| match list {
        SetElementList::Elements(elements) => Some(elements),
        _ => None,
    });
    let elements = lists.flatten().filter_map(|element| match element {
        ListAttribute::Element(attributes) => element_of(attributes),
        _ => None,
    });
    elements.collect()
}

fn element_of(attributes: &[SetElementAttribute]) -> Option<Element> {
    let (mut client, mut left) = (None, None);
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => client = address(bytes),
            SetElementAttribute::Expiration(ms) => left = Some(Duration::from_millis(*ms)),
            _ => {}
        }
    }
    Some((client?, left))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};

    use super::*;
    use crate::netlink::answers;

    /// Made by `dumps/make.sh`.
    #[test]
    fn elements_of_a_set_are_read_with_the_time_that_they_have_left() {
        let mut found = Vec::new();
        let bytes = include_bytes!("dumps/elements.bin");
        answers(bytes, |message: NetfilterMessage| {
            if let NetfilterMessageInner::NfTables(NfTablesMessage::NewSetElement(elements)) =
                message.inner
            {
                found.extend(read(&elements));
            }
        })
        .unwrap();
        found.sort_unstable();
        let minutes = |time: Option<Duration>| time.unwrap().as_secs_f64() / 60.0;
        let [(one, first), (two, second)] = found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(
            [one, two].map(|ip| ip.to_string()),
            ["10.201.1.3", "10.201.1.4"]
        );
        // The dump was made within a minute.
        assert!((178.0..=179.0).contains(&minutes(first)), "{first:?}");
        assert!((59.0..=60.0).contains(&minutes(second)), "{second:?}");
    }

    #[test]
    fn a_set_names_its_endpoint() {
        let found = endpoint("affinity-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80").unwrap();
        let expected = Endpoint {
            namespace: "ns1".into(),
            service: "svc1".into(),
            port: "p80".into(),
            protocol: proto::TCP,
            addr: "10.180.0.1:80".parse().unwrap(),
        };
        assert_eq!(found, expected);
        let found = endpoint("affinity-5OJB2KTY-a/b/udp/__fd00..1/53").unwrap();
        assert_eq!(
            (found.port.as_str(), found.addr),
            ("", "[fd00::1]:53".parse().unwrap())
        );
        for other in ["cluster-ips", "affinity-", "affinity-X-a/b/tcp/p__10.0.0.1"] {
            assert_eq!(endpoint(other), None, "{other}");
        }
    }
}
