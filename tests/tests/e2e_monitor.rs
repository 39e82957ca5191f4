//! `bascule monitor` on a node that serves.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bascule_tests::e2e::netns::Netns;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use bascule_tests::e2e::{beside, eventually};
use lb_common::Reason;
use lb_userspace::bpf::{Settings, monitor, views::Views};
use serde_json::{Value, json};

const WEB: &str = "10.97.0.10:80";
const STICKY: &str = "10.97.0.12:80";
const EMPTY: &str = "10.97.0.13:80";
const SOON: Duration = Duration::from_secs(20);

fn settings(node: &Node) -> Settings {
    Settings {
        bpffs: node.bpffs(),
        ..Settings::default()
    }
}

fn is_on(node: &Node) -> bool {
    monitor::is_on(&settings(node)).unwrap()
}

/// A monitor that looks on.
struct Looking {
    child: Child,
    out: std::path::PathBuf,
}

impl Looking {
    fn start(node: &Node, words: &[&str]) -> Self {
        let out = node.path("monitor.out");
        let file = |path| File::create(path).expect("a file can be made");
        let mut command = Command::new(beside("bascule"));
        command.arg("monitor").args(words);
        command.arg("--bpffs").arg(node.bpffs());
        command.arg("--state-dir").arg(node.path("state"));
        command.stdin(Stdio::null()).stdout(file(&out));
        command.stderr(file(&node.path("monitor.err")));
        let child = node.netns().inside(|| command.spawn()).unwrap();
        eventually(SOON, || is_on(node).then_some(()).ok_or_else(String::new));
        Self { child, out }
    }

    fn signal(&mut self, signal: i32) -> Option<i32> {
        // SAFETY: the process is a child that has not been waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        self.child.wait().unwrap().code()
    }

    /// What it has shown, once it has ended well.
    fn shown(mut self) -> Vec<Value> {
        // The ring is emptied twenty times a second.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(self.signal(libc::SIGTERM), Some(0));
        let text = std::fs::read_to_string(&self.out).unwrap();
        let row = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        text.lines().map(row).collect()
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn served(node: &Node) -> (Vec<Pod>, Pod) {
    let pods = vec![node.pod(2), node.pod(3)];
    let both: Vec<&Pod> = pods.iter().collect();
    node.apply("web", &with_pods(dual("web", 10, json!({})), &both));
    node.apply("sticky", &with_pods(dual("sticky", 12, json!({})), &both));
    node.apply("empty", &[dual("empty", 13, json!({}))]);
    (pods, node.pod(4))
}

fn of<'a>(rows: &'a [Value], reason: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["reason"] == reason).collect()
}

#[test]
fn a_connection_is_seen_from_its_first_packet_to_its_last() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (pods, mut client) = served(&node);
    let _agent = node.agent(&["--socket-lb", "host"]);
    let looking = Looking::start(&node, &["--json", "--service", "web"]);
    client.peer.dial(STICKY, How::Tcp, 1).well().unwrap();
    client.peer.dial(WEB, How::Tcp, 1).well().unwrap();
    let rows = looking.shown();
    assert!(!is_on(&node), "the datapath goes on telling");
    for row in &rows {
        let names = (&row["service"], &row["frontend"]);
        assert_eq!(names, (&json!("default/web:tcp"), &json!(WEB)), "{row}");
    }
    check(&rows, &pods, &client);
}

fn check(rows: &[Value], pods: &[Pod], client: &Pod) {
    let [new] = of(rows, "new_flow")[..] else {
        panic!("{rows:?}")
    };
    let backends: Vec<Value> = pods
        .iter()
        .map(|p| json!(format!("{}:8080", p.v4())))
        .collect();
    assert!(backends.contains(&new["backend"]), "{new}");
    assert!(
        new["client"]
            .as_str()
            .unwrap()
            .starts_with(&client.v4().to_string()),
        "{new}"
    );
    let rest = (&new["device"], &new["hook"], &new["flags"], &new["verdict"]);
    assert_eq!(
        rest,
        (
            &json!("pod4"),
            &json!("ingress"),
            &json!("SYN"),
            &json!("passed")
        )
    );
    let replies = of(rows, "reply");
    assert!(
        !replies.is_empty() && !of(rows, "established").is_empty(),
        "{rows:?}"
    );
    for reply in replies {
        let ends = (
            &reply["client"],
            &reply["backend"],
            &reply["hook"],
            &reply["reply"],
        );
        assert_eq!(
            ends,
            (
                &new["client"],
                &new["backend"],
                &json!("egress"),
                &json!(true)
            )
        );
    }
}

#[test]
fn what_is_asked_for_is_shown_and_nothing_else() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (_pods, mut client) = served(&node);
    let _agent = node.agent(&["--socket-lb", "host"]);
    let all = |client: &mut Pod| {
        client.peer.dial(WEB, How::Tcp, 2).well().unwrap();
        let _ = client.peer.dial(EMPTY, How::Tcp, 1);
    };
    let looking = Looking::start(&node, &["--json", "--drops"]);
    all(&mut client);
    let rows = looking.shown();
    assert!(!rows.is_empty());
    for row in &rows {
        let what = (
            &row["reason"],
            &row["frontend"],
            &row["backend"],
            &row["service"],
        );
        let service = json!("default/empty:tcp");
        assert_eq!(
            what,
            (
                &json!("no_endpoints"),
                &json!(EMPTY),
                &Value::Null,
                &service
            ),
            "{row}"
        );
    }
    let looking = Looking::start(&node, &["--json", "--new"]);
    all(&mut client);
    let rows = looking.shown();
    assert_eq!(
        (rows.len(), of(&rows, "new_flow").len()),
        (2, 2),
        "{rows:?}"
    );
    let looking = Looking::start(&node, &["--json", "--closed"]);
    all(&mut client);
    let rows = looking.shown();
    assert!(rows.len() >= 2, "{rows:?}");
    let ends = |row: &Value| {
        let flags = row["flags"].as_str().unwrap();
        flags.contains("FIN") || flags.contains("RST")
    };
    assert!(rows.iter().all(ends), "{rows:?}");
}

#[test]
fn what_sockets_dial_is_seen_as_their_calls() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (pods, mut client) = served(&node);
    // Somebody else's namespace, with the client's address.
    let twin = Netns::new(&format!("{}-twin", client.netns.name()));
    twin.ip(&format!("addr add {}/32 dev lo\n", client.v4()));
    let _agent = node.agent(&[]);
    let looking = Looking::start(&node, &["--json", "--service", "web", "--new"]);
    client.peer.dial(WEB, How::Tcp, 2).well().unwrap();
    client.peer.dial(STICKY, How::Tcp, 1).well().unwrap();
    let rows = looking.shown();
    assert_eq!(rows.len(), 2, "{rows:?}");
    let backends = pods.iter().map(|p| json!(format!("{}:8080", p.v4())));
    let backends: Vec<Value> = backends.collect();
    for row in &rows {
        assert!(backends.contains(&row["backend"]), "{row}");
        let told = [
            ("device", json!("socket")),
            ("hook", json!("connect")),
            ("protocol", json!("TCP")),
            ("client", json!(client.v4().to_string())),
            ("frontend", json!(WEB)),
            ("service", json!("default/web:tcp")),
            ("reason", json!("socket")),
            ("verdict", json!("connected")),
        ];
        for (field, value) in told {
            assert_eq!(row[field], value, "{field}: {row}");
        }
    }
    let looking = Looking::start(&node, &["--json", "--drops"]);
    let _ = client.peer.dial(EMPTY, How::Tcp, 1);
    let rows = looking.shown();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    let told = (&row["reason"], &row["verdict"], &row["backend"]);
    let refused = (&json!("no_endpoints"), &json!("refused"), &Value::Null);
    assert_eq!(told, refused, "{row}");
}

#[test]
fn a_monitor_that_is_killed_does_not_leave_the_datapath_telling() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (_pods, mut client) = served(&node);
    let mut agent = node.agent(&["--socket-lb", "host"]);
    let mut looking = Looking::start(&node, &["--json"]);
    let second = node.bascule(&["monitor", "--count", "1"]);
    assert_eq!(second.status, Some(1), "{second:?}");
    assert!(
        second.err.contains("another `bascule monitor`"),
        "{second:?}"
    );
    // An agent that starts again takes the maps over.
    agent.kill();
    agent = node.agent(&["--socket-lb", "host"]);
    eventually(SOON, || is_on(&node).then_some(()).ok_or_else(String::new));
    assert_eq!(looking.signal(libc::SIGKILL), None);
    assert!(is_on(&node));
    eventually(SOON, || {
        // Packets end it.
        client.peer.dial(WEB, How::Tcp, 1).well().unwrap();
        (!is_on(&node)).then_some(()).ok_or_else(String::new)
    });
    // The next one is not shown what the last one did not read.
    let looking = Looking::start(&node, &["--json", "--new"]);
    assert_eq!(looking.shown(), Vec::<Value>::new());
    drop(agent);
}

#[test]
fn a_limit_bounds_what_is_told_and_the_rest_is_counted() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (_pods, mut client) = served(&node);
    let _agent = node.agent(&["--socket-lb", "host"]);
    let looking = Looking::start(&node, &["--json", "--new", "--limit", "5"]);
    client.peer.dial(WEB, How::Tcp, 200).well().unwrap();
    let rows = looking.shown();
    let said = std::fs::read_to_string(node.path("monitor.err")).unwrap();
    let reasons = Views::open(&settings(&node)).unwrap().reasons().unwrap();
    let opened = reasons
        .iter()
        .find(|(reason, _)| *reason == Reason::NewFlow);
    assert_eq!(opened.map(|(_, counter)| counter.packets), Some(200));
    assert!(rows.len() >= 5 && rows.len() < 200, "{}", rows.len());
    let end = format!(
        "bascule: {} events shown, {} lost\n",
        rows.len(),
        200 - rows.len()
    );
    assert!(said.ends_with(&end), "{said} {end}");
    assert!(said.contains("beyond --limit"), "{said}");
}

#[test]
fn a_capture_has_each_packet_before_and_after() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (_pods, mut client) = served(&node);
    let none = node.bascule(&["monitor"]);
    assert_eq!(none.status, Some(1), "{none:?}");
    assert!(none.err.contains("start the agent"), "{none:?}");
    let _agent = node.agent(&["--socket-lb", "host"]);
    let file = node.path("web.pcapng");
    let words = ["--new", "--pcap", file.to_str().unwrap(), "--count", "1"];
    let mut looking = Looking::start(&node, &words);
    client.peer.dial(WEB, How::Tcp, 1).well().unwrap();
    assert!(looking.child.wait().unwrap().success());
    let packets = capture(&std::fs::read(&file).unwrap());
    let [(0, before, comment), (1, after, _)] = &packets[..] else {
        panic!("{packets:?}")
    };
    assert!(
        comment.starts_with("new_flow, passed; default/web:tcp;"),
        "{comment}"
    );
    let dst = |frame: &[u8]| std::net::Ipv4Addr::from(<[u8; 4]>::try_from(&frame[30..34]).unwrap());
    assert_eq!(dst(before), std::net::Ipv4Addr::new(10, 97, 0, 10));
    assert_eq!(dst(after).octets()[..3], [10, 201, 1]);
    assert_eq!(before[26..30], after[26..30], "the client stays");
}

/// The packets of a capture, read by another library: interface, bytes, comment.
fn capture(bytes: &[u8]) -> Vec<(u32, Vec<u8>, String)> {
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
    use pcap_file::pcapng::{Block, PcapNgReader};
    let mut reader = PcapNgReader::new(bytes).expect("a capture");
    let mut packets = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.expect("a block") else {
            continue;
        };
        let comment = packet.options.iter().find_map(|option| match option {
            EnhancedPacketOption::Comment(text) => Some(text.to_string()),
            _ => None,
        });
        let comment = comment.expect("a comment");
        packets.push((packet.interface_id, packet.data.to_vec(), comment));
    }
    assert_eq!(reader.interfaces().len(), 2);
    packets
}
