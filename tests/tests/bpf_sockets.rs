//! UDP sockets whose backend is gone, closed in their own network namespace.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bascule_tests::netns::{Cgroup, Netns, Node};
use lb_common::{
    Addr, Backend, Be16, Be32, Frontend, FrontendKey, backend_flags,
    hash::{filter_bit, filter_kind},
    proto, scope,
};
use lb_plan::op::{Batch, Op};

/// A process of a pod with one connected UDP socket: bash's `/dev/udp`.
struct Client(Child);

impl Client {
    fn connect(pod: &Netns, cgroup: &Cgroup, address: &str, port: u16) -> Self {
        let script = format!(
            "exec 3<>/dev/udp/{address}/{port}; echo open; read -r -t 4 -u 3 line; echo $?"
        );
        // `ip netns exec` hides the cgroups' mount: its process joins before.
        let join = "echo $$ >\"$0/cgroup.procs\" && exec ip netns exec \"$1\" bash -c \"$2\"";
        let mut child = Command::new("sh")
            .args(["-c", join])
            .args([
                cgroup.path().as_os_str(),
                pod.name().as_ref(),
                script.as_ref(),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        // One byte at a time: the rest is for `status`.
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0] as char);
        }
        assert_eq!(line, "open", "{address}:{port}");
        Self(child)
    }

    /// What `read` said: 1 for an error, more than 128 when nothing came for
    /// four seconds.
    fn status(mut self) -> i32 {
        let stdout = BufReader::new(self.0.stdout.take().unwrap());
        let line = stdout.lines().next().unwrap().unwrap();
        self.0.wait().unwrap();
        line.parse().unwrap()
    }
}

fn frontend(addr: &str, port: u16, service: u32, backend: u32) -> Op {
    let addr = addr.parse::<std::net::IpAddr>().unwrap().into();
    let key = FrontendKey {
        addr,
        port: Be16::new(port),
        proto: proto::UDP,
        scope: scope::INTERNAL,
    };
    let value = Frontend {
        service,
        flags: 0,
        slots: backend,
        len: 1,
        affinity: 0,
    };
    Op::PutFrontend { key, value }
}

fn backend(port: u16) -> Backend {
    Backend {
        addr: Addr::v4(Be32::new(0x7f00_0001)),
        port: Be16::new(port),
        proto: proto::UDP,
        reserved: 0,
        flags: backend_flags::LIVE,
    }
}

/// Two backends behind three vips: 7 by two services, 8 by the first of them.
fn setup() -> Batch {
    let mut ops = Vec::new();
    for (id, port) in [(7, 5307), (8, 5308)] {
        ops.push(Op::PutBackend {
            id,
            backend: backend(port),
        });
    }
    for (vip, service, id) in [
        ("10.96.0.10", 1, 7),
        ("10.96.0.20", 2, 7),
        ("10.96.0.30", 1, 8),
    ] {
        let addr = vip.parse::<std::net::IpAddr>().unwrap().into();
        let bit = filter_bit(filter_kind::VIP, addr, Be16::new(0), 0);
        ops.extend([Op::SetFilterBit(bit), frontend(vip, 53, service, id)]);
    }
    Batch { ops }
}

#[test]
fn only_connected_sockets_that_the_service_sent_to_the_backend_are_closed() {
    let (node, pod) = (Node::new("sockets").unwrap(), Netns::new("pod").unwrap());
    pod.exec("ip addr add 10.96.0.1/16 dev lo").unwrap();
    let (mut datapath, _) = node.load(&node.settings());
    assert!(datapath.apply(&setup()).is_complete());
    let connect = |address, port| Client::connect(&pod, &node.cgroup, address, port);
    let victim = connect("10.96.0.10", 53);
    let other_service = connect("10.96.0.20", 53);
    let other_backend = connect("10.96.0.30", 53);
    let straight = connect("127.0.0.1", 5307);
    let purge = Op::PurgeUdp {
        service: 1,
        id: 7,
        backend: backend(5307),
    };
    let gone = Batch {
        ops: vec![frontend("10.96.0.10", 53, 1, 8), purge],
    };
    assert!(datapath.apply(&gone).is_complete());
    assert_eq!(victim.status(), 1);
    // The socket is closed first, then counted: other namespaces are searched between.
    let closed = || datapath.status().janitor.closed_sockets;
    let end = Instant::now() + Duration::from_secs(5);
    while closed() == 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(closed(), 1);
    for client in [other_service, other_backend, straight] {
        assert!(client.status() > 128);
    }
}
