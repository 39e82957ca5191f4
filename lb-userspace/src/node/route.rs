//! The kernel's way to an address, by rtnetlink.

use std::{io, net::IpAddr};

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink;

/// Where the kernel sends a packet of the node's own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Way {
    /// Whether the address is the node's.
    pub local: bool,
    /// Index of the device.
    pub device: u32,
    /// The next hop, if it is not the address itself.
    pub gateway: Option<IpAddr>,
}

/// The way to an address; `None` where there is none.
///
/// # Errors
/// If netlink cannot be used.
pub fn way_to(address: IpAddr) -> io::Result<Option<Way>> {
    let mut request = RouteMessage::default();
    let (family, bits) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    request.header.address_family = family;
    request.header.destination_prefix_length = bits;
    let destination = RouteAttribute::Destination(address.into());
    request.attributes.push(destination);
    let mut found = None;
    let request = RouteNetlinkMessage::GetRoute(request);
    let asked = netlink::ask(NETLINK_ROUTE, request, NLM_F_ACK, |answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer {
            found = Some(way(&route));
        }
    });
    match asked.map_err(|error| (error.raw_os_error(), error)) {
        Ok(()) => Ok(found),
        Err((Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL), _)) => {
            Ok(None)
        }
        Err((_, error)) => Err(error),
    }
}

fn way(route: &RouteMessage) -> Way {
    let mut way = Way {
        local: route.header.kind == RouteType::Local,
        ..Way::default()
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => way.device = *index,
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => way.gateway = Some((*ip).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => way.gateway = Some((*ip).into()),
            _ => {}
        }
    }
    way
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_local() {
        let way = way_to("127.0.0.1".parse().unwrap()).unwrap().unwrap();
        assert!(way.local && way.gateway.is_none());
        assert_eq!(way.device, 1);
    }
}
