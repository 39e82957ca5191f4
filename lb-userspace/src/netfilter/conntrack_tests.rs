//! Against `dumps/connections.bin`, which `dumps/make.sh` made of real connections.

use super::*;
use crate::netlink::answers;

fn dumped() -> Vec<Translated> {
    let mut found = Vec::new();
    let bytes = include_bytes!("dumps/connections.bin");
    let ended = answers(bytes, |message| found.extend(connection(&message)));
    assert!(ended.unwrap());
    found.sort_unstable_by_key(|flow: &Translated| flow.original.src.port());
    for flow in &mut found {
        // How long the tools took is no matter.
        assert!(flow.expires > 0, "{flow:?}");
        flow.expires = 0;
    }
    found
}

fn ends(src: &str, dst: &str) -> Ends {
    let addr = |text: &str| text.parse().unwrap();
    Ends {
        src: addr(src),
        dst: addr(dst),
    }
}

fn tcp_flow(original: Ends, reply: Ends, tcp: Tcp) -> Translated {
    Translated {
        proto: proto::TCP,
        original,
        reply,
        answered: true,
        tcp: Some(tcp),
        expires: 0,
    }
}

#[test]
fn translated_connections_are_read_and_no_others() {
    let (vip, backend) = ("10.97.0.20:80", "10.201.1.2:8080");
    let (vip6, backend6) = ("[fd97::14]:80", "[fd20:1::2]:8080");
    let v4 = |port, tcp| {
        let client = format!("10.201.1.2:{port}");
        tcp_flow(ends(&client, vip), ends(backend, &client), tcp)
    };
    let client6 = "[fd20:1::2]:40001";
    let udp = Translated {
        proto: proto::UDP,
        original: ends("10.201.1.2:40004", "10.97.0.20:53"),
        reply: ends("10.201.1.2:5353", "10.201.1.2:40004"),
        answered: false,
        tcp: None,
        expires: 0,
    };
    let expected = [
        v4(40000, Tcp::Open),
        tcp_flow(ends(client6, vip6), ends(backend6, client6), Tcp::Open),
        v4(40003, Tcp::Closed),
        udp,
    ];
    assert_eq!(dumped(), expected);
}

#[test]
fn a_dump_that_was_cut_is_no_end() {
    let bytes = include_bytes!("dumps/connections.bin");
    // The last message says that it was the last one.
    let cut = &bytes[..bytes.len() - 20];
    assert!(!answers(cut, |_: NetfilterMessage| {}).unwrap());
}

#[test]
fn states_of_tcp_are_told_apart() {
    let of = |states: &[u8]| states.iter().map(|s| tcp(Some(*s))).collect::<Vec<_>>();
    assert_eq!(of(&[1, 2, 9]), [Tcp::Opening; 3]);
    assert_eq!(of(&[3, 4, 5]), [Tcp::Open; 3]);
    assert_eq!(of(&[6, 7]), [Tcp::Closed; 2]);
    assert_eq!((tcp(Some(8)), tcp(None)), (Tcp::Reset, Tcp::Open));
}
