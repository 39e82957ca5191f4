//! Messages as the kernel writes them, built by the rules of netlink(7) and
//! rtnetlink(7).

use super::*;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((16 + body.len() as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    bytes
}

fn link(family: u8, index: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![family, 0, 1, 0];
    body.extend(index.to_ne_bytes());
    body.extend([0; 8]);
    body.extend(attributes.concat());
    body
}

fn events(bytes: &[u8]) -> Vec<Event> {
    let mut found = Vec::new();
    assert_eq!(parse(bytes, &mut found), Progress::More);
    found
}

#[test]
fn a_veth_whose_peer_left_is_told_by_its_attributes() {
    let info = attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, b"veth\0"));
    let attributes = [
        attribute(IFLA_IFNAME, b"veth0abc\0"),
        info,
        attribute(IFLA_LINK, &2u32.to_ne_bytes()),
        attribute(IFLA_LINK_NETNSID, &[0; 4]),
    ];
    let expected = Device {
        index: 7,
        name: "veth0abc".into(),
        kind: Some("veth".into()),
        peer: 2,
        peer_elsewhere: true,
        loopback: false,
    };
    let bytes = message(RTM_NEWLINK, &link(0, 7, &attributes));
    assert_eq!(events(&bytes), [Event::Device(expected)]);
}

#[test]
fn a_port_that_leaves_its_bridge_is_not_gone() {
    const AF_BRIDGE: u8 = 7;
    assert_eq!(events(&message(RTM_DELLINK, &link(AF_BRIDGE, 7, &[]))), []);
    assert_eq!(
        events(&message(RTM_DELLINK, &link(0, 7, &[]))),
        [Event::Gone(7)]
    );
}

#[test]
fn a_device_that_moved_is_told_from_one_that_is_gone() {
    let moved = link(0, 7, &[attribute(IFLA_NEW_NETNSID, &[0; 4])]);
    assert_eq!(events(&message(RTM_DELLINK, &moved)), [Event::Moved(7)]);
}

fn route(prefix_len: u8, kind: u8, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![2, prefix_len, 0, 0, 254, 3, 0, kind];
    body.extend(flags.to_ne_bytes());
    body.extend(attributes.concat());
    message(RTM_NEWROUTE, &body)
}

#[test]
fn default_routes_name_their_devices() {
    let oif = attribute(RTA_OIF, &3u32.to_ne_bytes());
    assert_eq!(
        events(&route(0, 1, 0, std::slice::from_ref(&oif))),
        [Event::DefaultRoute(3)]
    );
    assert_eq!(events(&route(24, 1, 0, std::slice::from_ref(&oif))), []);
    const RTN_UNREACHABLE: u8 = 7;
    assert_eq!(
        events(&route(0, RTN_UNREACHABLE, 0, std::slice::from_ref(&oif))),
        []
    );
    assert_eq!(events(&route(0, 1, RTM_F_CLONED, &[oif])), []);
}

#[test]
fn a_default_route_over_several_hops_names_every_device() {
    let hop = |index: u32, extra: &[u8]| {
        let mut bytes = Vec::new();
        bytes.extend((8 + extra.len() as u16).to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(index.to_ne_bytes());
        bytes.extend(extra);
        bytes
    };
    let gateway = attribute(5, &[10, 0, 0, 1]);
    let hops = attribute(RTA_MULTIPATH, &[hop(3, &gateway), hop(4, &[])].concat());
    let found = events(&route(0, 1, 0, &[hops]));
    assert_eq!(found, [Event::DefaultRoute(3), Event::DefaultRoute(4)]);
}

#[test]
fn the_own_end_of_a_point_to_point_address_counts() {
    let mut body = vec![2, 32, 0, 0];
    body.extend(9u32.to_ne_bytes());
    body.extend(attribute(IFA_ADDRESS, &[10, 0, 0, 2]));
    body.extend(attribute(IFA_LOCAL, &[10, 0, 0, 1]));
    let found = events(&message(RTM_NEWADDR, &body));
    assert_eq!(found, [Event::Address(9, "10.0.0.1".parse().unwrap())]);
}

#[test]
fn a_dump_ends_where_the_kernel_says_so_or_fails() {
    let mut found = Vec::new();
    assert_eq!(
        parse(&message(NLMSG_DONE, &[0; 4]), &mut found),
        Progress::Done
    );
    let denied = message(NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes());
    assert_eq!(parse(&denied, &mut found), Progress::Failed(libc::EPERM));
}

#[test]
fn a_truncated_datagram_is_no_panic() {
    let attributes = [attribute(IFLA_IFNAME, b"veth0abc\0")];
    let whole = message(RTM_NEWLINK, &link(0, 7, &attributes));
    for len in 0..whole.len() {
        assert_eq!(events(&whole[..len]), [], "{len} bytes");
    }
}
