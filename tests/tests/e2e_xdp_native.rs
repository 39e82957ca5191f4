//! XDP in a driver, end to end: the test owns the other side of a tap device, sends frames and
//! reads what comes out.

#![expect(
    clippy::too_many_lines,
    clippy::too_many_arguments,
    reason = "frames are told field by field, and a scenario from beginning to end"
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, slices, with_pods};
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use serde_json::{Value, json};

const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// `struct ifreq` (include/uapi/linux/if.h), as far as TUNSETIFF reads it.
#[repr(C)]
struct IfReq {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// A tap device `tap0` of a node.
struct Tap(File);

impl Tap {
    fn new(node: &Node) -> Self {
        // include/uapi/linux/if_tun.h
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        const IFF_TAP: i16 = 2;
        const IFF_NO_PI: i16 = 0x1000;
        let file = node.netns().inside(|| {
            let file = File::options()
                .read(true)
                .write(true)
                .open("/dev/net/tun")
                .unwrap();
            let mut request = IfReq {
                name: [0; 16],
                flags: IFF_TAP | IFF_NO_PI,
                rest: [0; 22],
            };
            request.name[..4].copy_from_slice(b"tap0");
            // SAFETY: the request is a valid ifreq that outlives the call.
            let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
            assert_eq!(done, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
            file
        });
        node.netns()
            .ip("link set tap0 address 02:00:00:00:00:01 up\n\
             addr add 172.28.0.1/24 dev tap0\n\
             addr add fd28::1/64 dev tap0 nodad\n\
             neigh add 172.28.0.2 lladdr 02:00:00:00:00:02 dev tap0 nud permanent\n\
             neigh add 172.28.0.3 lladdr 02:00:00:00:00:03 dev tap0 nud permanent\n\
             neigh add fd28::2 lladdr 02:00:00:00:00:02 dev tap0 nud permanent\n\
             neigh add fd28::3 lladdr 02:00:00:00:00:03 dev tap0 nud permanent\n");
        Self(file)
    }

    fn send(&mut self, frame: &[u8]) {
        assert_eq!(self.0.write(frame).unwrap(), frame.len());
    }

    /// The next TCP or UDP packet that comes out; the kernel's own chatter is left out.
    fn receive(&mut self) -> Packet {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let left = end.saturating_duration_since(Instant::now()).as_millis();
            let mut poll = libc::pollfd {
                fd: self.0.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid pollfd.
            let ready = unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left).unwrap()) };
            assert!(ready == 1, "nothing came out of the device");
            let mut buffer = vec![0; 2048];
            let read = self.0.read(&mut buffer).unwrap();
            if let Some(packet) = Packet::parse(&buffer[..read]) {
                return packet;
            }
        }
    }
}

/// What the test looks at in a packet.
#[derive(Debug, PartialEq)]
struct Packet {
    macs: [[u8; 6]; 2],
    from: SocketAddr,
    to: SocketAddr,
    hops: u8,
    reset: bool,
    payload: Vec<u8>,
}

impl Packet {
    /// `None` for what is neither TCP nor UDP.
    ///
    /// # Panics
    /// A checksum is wrong.
    fn parse(frame: &[u8]) -> Option<Self> {
        let headers = PacketHeaders::from_ethernet_slice(frame).ok()?;
        let ethernet = headers.link.as_ref()?.clone().ethernet2()?;
        let payload = headers.payload.slice().to_vec();
        let transport = headers.transport?;
        let (from, to, hops, right) = match headers.net? {
            NetHeaders::Ipv4(ip, _) => {
                assert_eq!(
                    ip.header_checksum,
                    ip.calc_header_checksum(),
                    "of the header"
                );
                let right = match &transport {
                    TransportHeader::Tcp(tcp) => tcp.calc_checksum_ipv4(&ip, &payload),
                    TransportHeader::Udp(udp) => udp.calc_checksum_ipv4(&ip, &payload),
                    _ => return None,
                };
                (
                    IpAddr::from(ip.source),
                    IpAddr::from(ip.destination),
                    ip.time_to_live,
                    right,
                )
            }
            NetHeaders::Ipv6(ip, _) => {
                let right = match &transport {
                    TransportHeader::Tcp(tcp) => tcp.calc_checksum_ipv6(&ip, &payload),
                    TransportHeader::Udp(udp) => udp.calc_checksum_ipv6(&ip, &payload),
                    _ => return None,
                };
                (
                    IpAddr::from(ip.source),
                    IpAddr::from(ip.destination),
                    ip.hop_limit,
                    right,
                )
            }
            NetHeaders::Arp(_) => return None,
        };
        let (ports, reset, checksum) = match &transport {
            TransportHeader::Tcp(tcp) => (
                (tcp.source_port, tcp.destination_port),
                tcp.rst,
                tcp.checksum,
            ),
            TransportHeader::Udp(udp) => {
                ((udp.source_port, udp.destination_port), false, udp.checksum)
            }
            _ => return None,
        };
        assert_eq!(checksum, right.unwrap(), "checksum of {from} to {to}");
        Some(Self {
            macs: [ethernet.source, ethernet.destination],
            from: SocketAddr::new(from, ports.0),
            to: SocketAddr::new(to, ports.1),
            hops,
            reset,
            payload,
        })
    }
}

/// A frame to the node.
fn frame(
    mac: [u8; 6],
    from: SocketAddr,
    to: SocketAddr,
    how: How,
    syn: bool,
    payload: &[u8],
) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(mac, NODE_MAC);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("two families"),
    };
    let mut bytes = Vec::new();
    if how == How::Tcp {
        let tcp = ip.tcp(from.port(), to.port(), 1000, 8192);
        let tcp = if syn { tcp.syn() } else { tcp.ack(1) };
        tcp.write(&mut bytes, payload).unwrap();
    } else {
        ip.udp(from.port(), to.port())
            .write(&mut bytes, payload)
            .unwrap();
    }
    bytes
}

/// Packets that the device handed to the stack.
fn received_by_the_stack(node: &Node) -> u64 {
    let out = node.netns().inside(|| {
        Command::new("ip")
            .args(["-j", "-s", "link", "show", "tap0"])
            .output()
            .unwrap()
    });
    let shown: Value = serde_json::from_slice(&out.stdout).unwrap();
    shown[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

/// A service whose only backend is behind the tap, on another node.
fn objects() -> Vec<Value> {
    let ips = json!({"externalIPs": ["10.97.1.1", "fd97::1:1"]});
    let mut all = with_pods(dual("web", 1, ips), &[]);
    for (slice, ip) in all[1..].iter_mut().zip(["172.28.0.3", "fd28::3"]) {
        slice["endpoints"] =
            json!([{"addresses": [ip], "nodeName": "n9", "conditions": {"ready": true}}]);
    }
    all
}

#[test]
fn requests_and_replies_turn_around_in_the_driver() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let mut tap = Tap::new(&node);
    node.apply("web", &objects());
    let agent = node.agent(&["--uplinks", "tap0"]);
    agent.says(&["tap0", "native XDP"]);
    let before = received_by_the_stack(&node);
    let sides = [
        (
            "172.28.0.2:5555",
            "10.97.1.1:80",
            "172.28.0.3:8080",
            "172.29.0.11",
        ),
        (
            "[fd28::2]:5555",
            "[fd97::1:1]:80",
            "[fd28::3]:8080",
            "fd29::11",
        ),
    ];
    for (client, frontend, backend, own) in sides {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (client, frontend, backend) = (addr(client), addr(frontend), addr(backend));
        for how in [How::Tcp, How::Udp] {
            let mut ports = Vec::new();
            for (syn, payload) in [(true, &b""[..]), (false, b"hello"), (false, b"odd")] {
                tap.send(&frame(CLIENT_MAC, client, frontend, how, syn, payload));
                let request = tap.receive();
                assert_eq!(request.macs, [NODE_MAC, BACKEND_MAC], "{request:?}");
                assert_eq!(
                    (request.to, request.from.ip()),
                    (backend, own.parse().unwrap())
                );
                assert_eq!((request.hops, &request.payload[..]), (63, payload));
                tap.send(&frame(
                    BACKEND_MAC,
                    backend,
                    request.from,
                    how,
                    false,
                    payload,
                ));
                let reply = tap.receive();
                assert_eq!(reply.macs, [NODE_MAC, CLIENT_MAC], "{reply:?}");
                assert_eq!((reply.from, reply.to), (frontend, client));
                assert_eq!((reply.hops, &reply.payload[..]), (63, payload));
                ports.push(request.from.port());
            }
            ports.dedup();
            assert_eq!(ports.len(), 1, "a flow keeps its port");
        }
        // A port that the cluster IP does not have is refused from here as well.
        let unknown = addr(if client.is_ipv4() {
            "10.97.0.1:81"
        } else {
            "[fd97::1]:81"
        });
        tap.send(&frame(CLIENT_MAC, client, unknown, How::Tcp, true, b""));
        let refusal = tap.receive();
        assert!(refusal.reset, "{refusal:?}");
        assert_eq!((refusal.from, refusal.to), (unknown, client));
    }
    assert_eq!(
        received_by_the_stack(&node),
        before,
        "all of it happened in the driver"
    );
}

#[test]
fn what_is_for_a_local_backend_or_for_nobody_goes_up_the_stack() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let pod = node.pod(2);
    let mut tap = Tap::new(&node);
    let mut all = objects();
    all.truncate(1);
    all.extend(slices("web", &[&pod]));
    node.apply("web", &all);
    let agent = node.agent(&["--uplinks", "tap0"]);
    agent.says(&["tap0", "native XDP"]);
    let sides = [
        ("172.28.0.2:5555", "10.97.1.1:80", "172.28.0.1:7777"),
        ("[fd28::2]:5555", "[fd97::1:1]:80", "[fd28::1]:7777"),
    ];
    for (client, frontend, own) in sides {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (client, frontend, own) = (addr(client), addr(frontend), addr(own));
        tap.send(&frame(
            CLIENT_MAC,
            client,
            frontend,
            How::Udp,
            false,
            b"who\n",
        ));
        let answer = tap.receive();
        assert_eq!((answer.from, answer.to), (frontend, client));
        let text = String::from_utf8(answer.payload).unwrap();
        assert!(
            text.contains("n1-2") && text.contains(&client.to_string()),
            "{text}"
        );
        // The node's own port: its kernel answers, with a reset.
        tap.send(&frame(CLIENT_MAC, client, own, How::Tcp, true, b""));
        let answer = tap.receive();
        assert!(answer.reset, "{answer:?}");
        assert_eq!((answer.from, answer.to), (own, client));
    }
}
