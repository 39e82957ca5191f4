//! Connections that rest: they have no task, and lose nothing by it.

mod common;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{SOON, Talk, backend::Backend, header, status};
use lb_proxy::{Addresses, Connect as _, Dial, Observe, Record, Server, Stream, Target, listen};
use lb_route::{Compiler, settings::UpstreamTls};
use tokio::{runtime::Handle, time::sleep};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// After this long without a request a connection rests.
const RESTS: Duration = Duration::from_millis(1600);

/// Which request of which connection each one was.
#[derive(Default)]
struct Numbers(Mutex<Vec<(u64, u64)>>);

impl Observe for Numbers {
    fn done(&self, record: &Record) {
        let number = (record.connection, record.connection_requests);
        self.0.lock().unwrap().push(number);
    }
}

/// A proxy without a path, which answers 404 at an address of HTTP and one of HTTPS.
struct Site {
    server: Server,
    numbers: Arc<Numbers>,
    addresses: [SocketAddr; 2],
}

impl Site {
    async fn new(globals: &[(&str, &str)]) -> Self {
        let mut compiler = Compiler::new(lb_route::Options::default());
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        compiler.set_globals(&globals.iter().map(own).collect());
        let numbers = Arc::new(Numbers::default());
        let addresses = [common::nobody().await, common::nobody().await];
        let [http, https] = addresses.map(|address| [address].into());
        let (table, seen) = (Arc::new(compiler.compile()), numbers.clone());
        let server = Server::start(&Addresses { http, https }, table, seen).unwrap();
        Self {
            server,
            numbers,
            addresses,
        }
    }

    async fn connect(&self, tls: bool) -> Talk<Stream> {
        let dial = Dial::default();
        let tls = tls.then(|| {
            let unverified = UpstreamTls::default();
            dial.tls(&unverified, None, false, "a").unwrap()
        });
        let target = Target {
            address: self.addresses[usize::from(tls.is_some())],
            h2: false,
            tls,
        };
        Talk::over(dial.connect(&target).await.unwrap())
    }

    /// Connections that are there, after a moment.
    async fn open(&self, expected: u64) {
        let view = self.server.view();
        let open = || view.http().open + view.https().open;
        for _ in 0..400 {
            if open() == expected {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(open(), expected);
    }
}

async fn asks(talk: &mut Talk<Stream>) -> String {
    talk.send(REQUEST).await;
    let answer = talk.answer().await;
    assert_eq!(status(&answer), 404);
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rests_has_no_task_and_its_next_request_is_its_next() {
    let site = Site::new(&[]).await;
    let before = Handle::current().metrics().num_alive_tasks();
    let mut talks = [site.connect(false).await, site.connect(true).await];
    for round in 1..4 {
        for talk in &mut talks {
            asks(talk).await;
        }
        sleep(RESTS).await;
        site.open(2).await;
        let tasks = Handle::current().metrics().num_alive_tasks();
        assert_eq!(tasks, before, "round {round}");
    }
    let mut numbers = site.numbers.0.lock().unwrap().clone();
    numbers.sort_unstable();
    assert_eq!(numbers, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]);
}

/// Two requests at once, and one in pieces with pauses between them.
#[tokio::test]
async fn what_comes_while_it_rests_is_heard_whole() {
    let site = Site::new(&[]).await;
    for tls in [false, true] {
        let mut talk = site.connect(tls).await;
        asks(&mut talk).await;
        sleep(RESTS).await;
        talk.send(&REQUEST.repeat(2)).await;
        for _ in 0..2 {
            assert_eq!(status(&talk.answer().await), 404);
        }
        sleep(RESTS).await;
        for piece in REQUEST.chunks(11) {
            talk.send(piece).await;
            sleep(Duration::from_millis(600)).await;
        }
        assert_eq!(status(&talk.answer().await), 404);
    }
}

#[tokio::test]
async fn what_rests_ends_when_its_time_is_over() {
    let site = Site::new(&[("keep-alive", "2")]).await;
    for tls in [false, true] {
        let mut talk = site.connect(tls).await;
        asks(&mut talk).await;
        sleep(RESTS).await;
        // It counts from the last request.
        asks(&mut talk).await;
        let begun = Instant::now();
        assert_eq!(talk.rest().await, "");
        let lived = begun.elapsed();
        assert!(
            (1900..3500).contains(&lived.as_millis()),
            "TLS {tls}: {lived:?}"
        );
        site.open(0).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_it_rests_is_gone() {
    let site = Site::new(&[]).await;
    for tls in [false, true] {
        let mut talks = [site.connect(tls).await, site.connect(tls).await];
        for talk in &mut talks {
            asks(talk).await;
        }
        sleep(RESTS).await;
        site.open(2).await;
        let [gone, mut stays] = talks;
        drop(gone);
        site.open(1).await;
        asks(&mut stays).await;
        drop(stays);
        site.open(0).await;
    }
}

/// A client may be about to send a request: it is waited for, and told to connect anew.
#[tokio::test]
async fn a_proxy_that_ends_waits_for_a_last_request_of_what_rests() {
    let site = Site::new(&[]).await;
    let mut talks = Vec::new();
    for tls in [false, true, false, true] {
        let mut talk = site.connect(tls).await;
        asks(&mut talk).await;
        talks.push(talk);
    }
    sleep(RESTS).await;
    let begun = Instant::now();
    let ended = tokio::spawn(site.server.end());
    sleep(Duration::from_millis(200)).await;
    for talk in &mut talks[..2] {
        assert_eq!(header(&asks(talk).await, "connection"), Some("close"));
        assert_eq!(talk.rest().await, "");
    }
    assert!(!ended.is_finished());
    for talk in &mut talks[2..] {
        assert_eq!(talk.rest().await, "");
    }
    tokio::time::timeout(SOON, ended).await.unwrap().unwrap();
    // Five seconds after its last request (`LEAVING`).
    let lasted = begun.elapsed() + RESTS;
    assert!((4500..8000).contains(&lasted.as_millis()), "{lasted:?}");
}

/// As nginx does it: what rests does not keep others out.
#[tokio::test]
async fn what_has_rested_for_longest_makes_place() {
    let backend = Backend::plain().await;
    let proxy = common::Site::new(&[backend.address]).start().await;
    let options = listen::Options {
        connections: 4,
        ..Default::default()
    };
    let (_listeners, address) = common::listen(&proxy.proxy, options);
    let asks = async |talk: &mut Talk| {
        talk.send(REQUEST).await;
        assert_eq!(status(&talk.answer().await), 200);
    };
    let mut talks = Vec::new();
    for _ in 0..3 {
        let mut talk = Talk::to(address).await;
        asks(&mut talk).await;
        talks.push(talk);
    }
    sleep(RESTS).await;
    // The first is no longer the one that has rested for longest.
    asks(&mut talks[0]).await;
    sleep(RESTS).await;
    let mut more = Talk::to(address).await;
    asks(&mut more).await;
    assert_eq!(talks[1].rest().await, "");
    for talk in [0, 2] {
        asks(&mut talks[talk]).await;
    }
}
