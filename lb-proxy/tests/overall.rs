//! Limits that count for all proxies together: three of them on loopback.

mod common;

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{Running, Site, backend::Backend, status};
use http::StatusCode;
use lb_proxy::peers::{AGAIN, EVERY, Error, Peers, Settings};
use lb_route::settings::OverallLimit;
use tokio::time::{Instant, sleep};

const KEY: &[u8] = b"what all proxies know";

/// As long as a window is not over by the end of the test.
const LONG: Duration = Duration::from_secs(1_000_000);

fn limit(requests: u32, window: Duration) -> OverallLimit {
    OverallLimit {
        requests,
        window,
        key: None,
        ignored: Vec::new(),
    }
}

/// A proxy that tells others.
struct Member {
    running: Running,
    peers: Peers,
}

impl Member {
    async fn start(backend: &Backend, limit: &OverallLimit, key: Option<&[u8]>) -> Self {
        let running = proxy(backend, limit).await;
        let settings = Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            key: key.map(<[u8]>::to_vec),
        };
        let peers = Peers::start(&settings, running.proxy.together().clone()).unwrap();
        Self { running, peers }
    }

    fn address(&self) -> SocketAddr {
        self.peers.address().unwrap()
    }

    fn datagrams(&self, of: &str) -> u64 {
        let all = self.running.proxy.together().datagrams();
        all.into_iter().find(|(name, _)| *name == of).unwrap().1
    }

    /// How many of some requests are let in.
    async fn ask(&self, requests: usize) -> usize {
        ask(&self.running, requests).await
    }
}

/// A proxy that is alone.
async fn proxy(backend: &Backend, limit: &OverallLimit) -> Running {
    let site = Site::new(&[backend.address])
        .with(|settings| settings.limits.overall = Some(limit.clone()));
    let location = site.location();
    let running = site.start().await;
    running.proxy.together().set([&location].into_iter());
    running
}

async fn ask(running: &Running, requests: usize) -> usize {
    let mut talk = running.connect().await;
    let mut admitted = 0;
    for _ in 0..requests {
        talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        match status(&talk.answer().await) {
            200 => admitted += 1,
            other => assert_eq!(other, 429),
        }
    }
    admitted
}

async fn three(backend: &Backend, limit: &OverallLimit, key: Option<&[u8]>) -> [Member; 3] {
    let all = [
        Member::start(backend, limit, key).await,
        Member::start(backend, limit, key).await,
        Member::start(backend, limit, key).await,
    ];
    introduce(&all.each_ref());
    all
}

fn introduce(all: &[&Member]) {
    let addresses: BTreeSet<_> = all.iter().map(|member| member.address()).collect();
    all.iter().for_each(|member| member.peers.set(&addresses));
}

/// As long as it takes until what was counted is known everywhere.
async fn told() {
    sleep(EVERY * 5).await;
}

#[tokio::test]
async fn what_one_lets_in_others_do_not() {
    let backend = Backend::plain().await;
    for key in [None, Some(KEY)] {
        let all = three(&backend, &limit(30, LONG), key).await;
        assert_eq!(all[0].ask(10).await, 10);
        told().await;
        assert_eq!(all[1].ask(10).await, 10);
        told().await;
        assert_eq!(all[2].ask(100).await, 10);
        told().await;
        for member in &all {
            assert_eq!(member.ask(10).await, 0);
            assert_eq!(member.running.proxy.together().peers(), 2);
            assert_eq!(member.running.proxy.together().keys(), 1);
        }
        let record = all[0].running.seen(20).await.pop().unwrap();
        assert_eq!(record.status, StatusCode::TOO_MANY_REQUESTS);
    }
}

/// The most of some times that are within a duration.
fn most_within(times: &[Duration], within: Duration) -> usize {
    let begun = |end: usize| times[..=end].partition_point(|at| times[end] - *at > within);
    let counts = (0..times.len()).map(|end| end + 1 - begun(end));
    counts.max().unwrap_or_default()
}

/// Asks by some connections at the same time, as fast as it goes, until nothing is let in any more.
/// When it was.
async fn storm(member: &Member, begun: Instant) -> Vec<Duration> {
    let one = async || {
        let mut talk = member.running.connect().await;
        let (mut admitted, mut refused) = (Vec::new(), 0);
        while refused < 50 {
            talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            match status(&talk.answer().await) {
                200 => admitted.push(begun.elapsed()),
                _ => refused += 1,
            }
        }
        admitted
    };
    let all = tokio::join!(one(), one(), one(), one());
    let mut all: Vec<_> = [all.0, all.1, all.2, all.3].concat();
    all.sort_unstable();
    all
}

/// Requests come to all of them at the same time. Beyond the limit they get by what the other two
/// let in until they are heard, and none is refused below it.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_them_at_once() {
    const LIMIT: usize = 1_000;
    let backend = Backend::plain().await;
    let all = three(&backend, &limit(LIMIT as u32, LONG), Some(KEY)).await;
    let begun = Instant::now();
    let [a, b, c] = &all;
    let (a, b, c) = tokio::join!(storm(a, begun), storm(b, begun), storm(c, begun));
    let total = a.len() + b.len() + c.len();
    // Beside what they wait, a machine that has others to do takes its time.
    let [told, late] = [EVERY, EVERY * 5].map(|within| {
        let of_each = [&a, &b, &c].map(|times| most_within(times, within));
        of_each.into_iter().max().unwrap_or_default()
    });
    println!("{total} of {LIMIT}; of each {told} at most within {EVERY:?}");
    assert!(total >= LIMIT, "{total}");
    assert!(total <= LIMIT + 2 * late, "{total}, {late}");
}

#[tokio::test]
async fn one_that_dies_and_one_that_starts_anew() {
    let backend = Backend::plain().await;
    let limit = limit(30, LONG);
    let [first, second, third] = three(&backend, &limit, Some(KEY)).await;
    assert_eq!(first.ask(10).await, 10);
    told().await;
    // What it let in counts when it is gone.
    drop(first);
    assert_eq!(second.ask(5).await, 5);
    told().await;
    // A new one is told all, of those too that it never met.
    let new = Member::start(&backend, &limit, Some(KEY)).await;
    introduce(&[&new, &second, &third]);
    sleep(AGAIN * 3).await;
    assert_eq!(new.ask(100).await, 15);
    told().await;
    assert_eq!(second.ask(10).await, 0);
    assert_eq!(third.ask(10).await, 0);
}

/// What the last datagram had in it is told once more.
#[tokio::test]
async fn what_is_lost_is_told_again() {
    let backend = Backend::plain().await;
    let limit = limit(10, LONG);
    let all = three(&backend, &limit, None).await;
    sleep(AGAIN * 3).await;
    let until = async |member: &Member, of: &str, count: u64| {
        let begun = Instant::now();
        while member.datagrams(of) < count {
            assert!(begun.elapsed() < common::SOON, "{of}");
            sleep(Duration::from_millis(1)).await;
        }
    };
    // Two are told, and told once more: the next time that anything is, is a while from then.
    let sent = all[0].datagrams("sent");
    assert_eq!(all[0].ask(1).await, 1);
    until(&all[0], "sent", sent + 4).await;
    // Nothing is heard from strangers: as if it were lost.
    let strange = all[1].datagrams("strange");
    all[1].peers.set(&BTreeSet::new());
    assert_eq!(all[0].ask(7).await, 7);
    until(&all[1], "strange", strange + 1).await;
    all[1]
        .peers
        .set(&all.each_ref().map(Member::address).into());
    sleep(AGAIN * 2).await;
    assert_eq!(all[1].ask(10).await, 2);
}

/// Datagrams of who has not the key, or, where there is none, of who is none of the proxies.
#[tokio::test]
async fn who_is_no_proxy_changes_nothing() {
    let backend = Backend::plain().await;
    let window = Duration::from_secs(60);
    let limit = limit(100, window);
    for key in [None, Some(KEY)] {
        let all = three(&backend, &limit, key).await;
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        // What another proxy tells of a million requests, learnt from one without a key.
        let other = Member::start(&backend, &limit, None).await;
        let spy = UdpSocket::bind("127.0.0.1:0").unwrap();
        other.peers.set(&[spy.local_addr().unwrap()].into());
        other.ask(1).await;
        told().await;
        spy.set_nonblocking(true).unwrap();
        let mut datagram = vec![0; 13];
        // A greeting may come before it.
        while datagram.len() == 13 {
            datagram.resize(2000, 0);
            let length = spy.recv(&mut datagram).unwrap();
            datagram.truncate(length);
        }
        assert_eq!(datagram.len(), 13 + 18 + 24);
        let counts = datagram.len() - 8;
        datagram[counts..counts + 4].copy_from_slice(&1_000_000_u32.to_be_bytes());
        let mut sealed = datagram.clone();
        sealed.extend([7; 32]);
        for to in &all {
            for bytes in [&datagram[..], &sealed, &datagram[..20], b"", b"hello"] {
                stranger.send_to(bytes, to.address()).unwrap();
            }
        }
        told().await;
        for member in &all {
            assert_eq!(member.ask(1).await, 1, "{key:?}");
            let of = if key.is_some() { "forged" } else { "strange" };
            assert_eq!(member.datagrams(of), 5);
        }
        let passed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
            % 60;
        // Of a proxy it would count: the same bytes do where it is one.
        if key.is_none() && passed < 55 {
            all[0].peers.set(&[stranger.local_addr().unwrap()].into());
            stranger.send_to(&datagram, all[0].address()).unwrap();
            told().await;
            assert_eq!(all[0].ask(10).await, 0);
        }
    }
}

#[tokio::test]
async fn without_a_limit_nothing_is_sent() {
    let backend = Backend::plain().await;
    let all = three(&backend, &limit(1, LONG), Some(KEY)).await;
    for member in &all {
        member.running.proxy.together().set(std::iter::empty());
    }
    sleep(AGAIN * 2).await;
    let before = all.each_ref().map(|member| member.datagrams("sent"));
    for member in &all {
        assert_eq!(member.ask(20).await, 20);
    }
    sleep(AGAIN * 2).await;
    let after = all.each_ref().map(|member| member.datagrams("sent"));
    assert_eq!(before, after);
}

#[tokio::test]
async fn what_requests_are_counted_by() {
    let backend = Backend::plain().await;
    let by_key = |key: &str| {
        let key = lb_route::variables::Template::parse(key).unwrap();
        let mut limit = limit(2, LONG);
        limit.key = Some(key);
        limit
    };
    let request = |key: &str| {
        let header = format!("X-Key: {key}\r\n");
        let header = if key.is_empty() { "" } else { &header };
        format!("GET / HTTP/1.1\r\nHost: a\r\n{header}Connection: close\r\n\r\n")
    };
    let running = proxy(&backend, &by_key("$http_x_key")).await;
    // Without a value it is the client's address.
    for (key, expected) in [
        ("a", [200, 200, 429]),
        ("b", [200, 200, 429]),
        ("", [200, 200, 429]),
        ("127.0.0.1", [429, 429, 429]),
    ] {
        for expected in expected {
            let answer = running.all(request(key).as_bytes()).await;
            assert_eq!(status(&answer), expected, "{key}");
        }
    }
    // Clients without the limit.
    let mut limit = limit(1, LONG);
    limit.ignored = vec!["127.0.0.0/8".parse().unwrap()];
    let running = proxy(&backend, &limit).await;
    assert_eq!(ask(&running, 20).await, 20);
}

/// It is asked before the limits of one proxy, and before who asks.
#[tokio::test]
async fn it_goes_before_the_others() {
    let backend = Backend::plain().await;
    let site = Site::new(&[backend.address]).with(|settings| {
        settings.limits.overall = Some(limit(1, LONG));
        settings.limits.rps = Some(1);
        settings.access.deny = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let location = site.location();
    let running = site
        .start_with(|options| options.overall_status = StatusCode::IM_A_TEAPOT)
        .await;
    running.proxy.together().set([&location].into_iter());
    assert_eq!(status(&running.get("/").await), 200);
    for _ in 0..5 {
        assert_eq!(status(&running.get("/").await), 418);
    }
}

#[tokio::test]
async fn what_cannot_be_started() {
    let backend = Backend::plain().await;
    let running = proxy(&backend, &limit(1, LONG)).await;
    let start = |listen, key: &[u8]| {
        let settings = Settings {
            listen,
            key: Some(key.to_vec()),
        };
        Peers::start(&settings, running.proxy.together().clone())
    };
    let free = ([127, 0, 0, 1], 0).into();
    assert!(matches!(start(free, b"short"), Err(Error::ShortKey(5))));
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    assert!(matches!(start(taken, KEY), Err(Error::Listen { address, .. }) if address == taken));
}
