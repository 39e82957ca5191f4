//! Limits that count for three proxies together, each a process, which know each other by a
//! Service.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use bascule_tests::{
    e2e::{eventually, netns::Netns},
    ingress::{
        backend::{self, Kind},
        client::ask,
        proxy::Proxy,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a proxy waits until it tells what it has counted (`lb_proxy::peers::EVERY`).
const EVERY: Duration = Duration::from_millis(20);
/// As long as it takes until everybody knows, and who is new knows too.
const KNOWN: Duration = Duration::from_millis(1500);

/// Limits by host, of all clients together, in a window that does not end.
const LIMITS: [(&str, usize); 3] = [("storm.test", 600), ("one.test", 30), ("free.test", 0)];

const fn proxy(number: u8) -> [u8; 4] {
    [10, 79, 0, number]
}

/// A Service, and the slice of its endpoints.
fn service(name: &str, ip: &str, port: &Value, addresses: &[&str]) -> [Value; 2] {
    let endpoints = addresses.iter();
    let endpoints: Vec<_> = endpoints.map(|ip| json!({"addresses": [ip]})).collect();
    [
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": ip, "ports": [port]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4", "endpoints": endpoints, "ports": [port],
        }),
    ]
}

fn ingress((host, limit): (&str, usize)) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"number": 8080}}});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {
            "name": host, "namespace": "default", "uid": host,
            "annotations": {
                "nginx.ingress.kubernetes.io/global-rate-limit": limit.to_string(),
                "nginx.ingress.kubernetes.io/global-rate-limit-window": "100000h",
                "nginx.ingress.kubernetes.io/global-rate-limit-key": "$host",
            },
        },
        "spec": {
            "ingressClassName": "bascule",
            "rules": [{"host": host, "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": backend},
            ]}}],
        },
    })
}

fn manifests() -> String {
    let class = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": "bascule"}, "spec": {"controller": "bascule.dev/ingress"},
    });
    let udp = json!({"port": 10253, "protocol": "UDP"});
    let proxies = ["10.79.0.1", "10.79.0.2", "10.79.0.3"];
    let mut objects = vec![class];
    objects.extend(service(
        "web",
        "10.79.2.1",
        &json!({"port": 8080}),
        &["10.79.1.1"],
    ));
    objects.extend(service("proxies", "None", &udp, &proxies));
    objects.extend(LIMITS.map(ingress));
    let documents = objects.iter().map(Value::to_string);
    documents.collect::<Vec<_>>().join("\n---\n")
}

fn start(number: u8, key: &str) -> Proxy {
    let listen = SocketAddr::from((proxy(number), 10253)).to_string();
    let flags = ["--peers", "default/proxies", "--peers-listen", &listen];
    let with_key = [&flags[..], &["--peers-key", key]].concat();
    let flags = if key.is_empty() {
        &flags[..]
    } else {
        &with_key
    };
    Proxy::start(proxy(number), &manifests(), flags)
}

/// Runs a test in a namespace where an endpoint serves, with a file for the key.
fn inside(name: &str, test: impl FnOnce(&str) + Send) {
    let netns = Netns::new(&format!("limits-{}-{name}", std::process::id()));
    netns.ip("addr add 10.79.0.1/16 dev lo\n");
    let dir = TempDir::new().expect("a directory can be made");
    let key = dir.path().join("key");
    fs::write(&key, "0123456789abcdef random\n").expect("it can be written");
    let key = key.to_str().expect("a path of this test");
    netns.inside(|| {
        backend::serve("web", ([10, 79, 1, 1], 8080).into(), Kind::Echo);
        test(key);
    });
}

/// How many of some requests for a host are let in.
fn admitted(proxy: &Proxy, host: &str, requests: usize) -> usize {
    let head = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    let one = |_: &usize| {
        let answer = ask(proxy.http, &head, "").expect("an answer");
        assert!([200, 429].contains(&answer.status), "{answer:?}");
        answer.status == 200
    };
    (0..requests).filter(one).count()
}

/// A metric of a proxy; 0 if there is none.
fn metric(proxy: [u8; 4], name: &str) -> f64 {
    let admin = SocketAddr::from((proxy, 10254));
    let head = "GET /metrics HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n";
    let text = ask(admin, head, "").expect("an answer").body;
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
    values.next().map_or(0.0, |value| {
        value.trim().parse().expect("a metric is a number")
    })
}

/// Asks on one connection until nothing is let in any more; when it was.
fn storm(to: SocketAddr, begun: Instant) -> Vec<Duration> {
    let stream = TcpStream::connect(to).expect("it accepts");
    let mut input = BufReader::new(&stream);
    let (mut admitted, mut refused) = (Vec::new(), 0);
    while refused < 50 {
        let request = b"GET / HTTP/1.1\r\nhost: storm.test\r\n\r\n";
        (&stream).write_all(request).expect("it reads");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            input.read_line(&mut line).expect("it answers");
            let line = line.trim().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status is a number");
            } else if let Some(rest) = line.strip_prefix("content-length:") {
                length = rest.trim().parse().expect("a length is a number");
            } else if line.is_empty() {
                break;
            }
        }
        input
            .read_exact(&mut vec![0; length])
            .expect("the body comes");
        match status {
            200 => admitted.push(begun.elapsed()),
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    admitted
}

/// The most of some times that are within a duration.
fn most_within(times: &[Duration], within: Duration) -> usize {
    let begun = |end: usize| times[..=end].partition_point(|at| times[end] - *at > within);
    let counts = (0..times.len()).map(|end| end + 1 - begun(end));
    counts.max().unwrap_or_default()
}

/// As many requests as go, at all three: beyond the limit they get by what two of them let in until
/// the third has heard of it.
#[test]
fn three_proxies_have_one_limit() {
    const LIMIT: usize = LIMITS[0].1;
    inside("storm", |key| {
        let proxies = [1, 2, 3].map(|number| start(number, key));
        let begun = Instant::now();
        let times = [(); 3].map(|()| Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for (proxy, times) in proxies.iter().zip(&times) {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let of_one = storm(proxy.http, begun);
                        times.lock().expect("nobody panicked").extend(of_one);
                    });
                }
            }
        });
        let times = times.map(|times| {
            let mut times = times.into_inner().expect("nobody panicked");
            times.sort_unstable();
            times
        });
        let total: usize = times.iter().map(Vec::len).sum();
        let most = |within| {
            let of_each = times.iter().map(|times| most_within(times, within));
            of_each.max().unwrap_or_default()
        };
        let (told, late) = (most(EVERY), most(EVERY * 5));
        println!("{total} of {LIMIT}; of each {told} at most within {EVERY:?}");
        assert!(total >= LIMIT, "{total}");
        // Beside what they wait, a machine that has others to do takes its time.
        assert!(total <= LIMIT + 2 * late, "{total}, {late}");
        assert_eq!(admitted(&proxies[1], "free.test", 50), 50);
    });
}

/// What one has let in counts when it has ended, and for its successor, which never met it.
#[test]
fn one_that_ends_takes_nothing_with_it() {
    inside("ends", |key| {
        let first = start(1, key);
        let (second, third) = (start(2, key), start(3, key));
        assert_eq!(admitted(&first, "one.test", 10), 10);
        thread::sleep(KNOWN);
        // Once it is killed, and once it ends by itself, right after its last request.
        drop(first);
        let mut first = start(1, key);
        thread::sleep(KNOWN);
        assert_eq!(admitted(&first, "one.test", 5), 5);
        first.terminate();
        first.ended();
        drop(first);
        let first = start(1, key);
        thread::sleep(KNOWN);
        assert_eq!(admitted(&first, "one.test", 100), 15);
        thread::sleep(KNOWN);
        assert_eq!(admitted(&second, "one.test", 10), 0);
        assert_eq!(admitted(&third, "one.test", 10), 0);
    });
}

/// Who has not the key is not heard; without one, whoever is at no proxy's address.
#[test]
fn datagrams_of_others_count_nothing() {
    for is_keyed in [true, false] {
        inside(if is_keyed { "keyed" } else { "plain" }, |key| {
            let key = if is_keyed { key } else { "" };
            let first = start(1, key);
            // One that spies what a proxy without a key tells, and tells it with other counts.
            let spy = UdpSocket::bind("10.79.0.9:10253").expect("an address");
            spy.set_read_timeout(Some(Duration::from_secs(10)))
                .expect("a socket has timeouts");
            let flags = [
                "--peer",
                "10.79.0.9:10253",
                "--peers-listen",
                "10.79.0.8:10253",
            ];
            let other = Proxy::start(proxy(8), &manifests(), &flags);
            assert_eq!(admitted(&other, "one.test", 1), 1);
            let mut datagram = [0; 2000];
            let mut length = 0;
            // Head, one Ingress, one key.
            while length != 13 + 18 + 24 {
                length = spy.recv(&mut datagram).expect("it tells");
            }
            datagram[length - 8..length - 4].copy_from_slice(&1_000_000_u32.to_be_bytes());
            for _ in 0..3 {
                spy.send_to(&datagram[..length], SocketAddr::from((proxy(1), 10253)))
                    .expect("it can be sent");
            }
            let result = if is_keyed { "forged" } else { "strange" };
            let name = format!("bascule_proxy_peer_datagrams_total{{result=\"{result}\"}}");
            eventually(Duration::from_secs(10), || match metric(proxy(1), &name) {
                3.0 => Ok(()),
                other => Err(format!("{other} datagrams")),
            });
            assert_eq!(admitted(&first, "one.test", 100), 30);
            let refused = "bascule_proxy_limited_requests_total{namespace=\"default\",\
                 ingress=\"one.test\",limit=\"overall\"}";
            assert_eq!(metric(proxy(1), refused), 70.0);
        });
    }
}
