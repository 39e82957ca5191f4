use std::net::SocketAddr;

use super::*;

fn load(mode: Mode, rate: Option<u32>) -> Run {
    Run {
        mode,
        target: "127.0.0.1:9".parse().unwrap(),
        connections: 2,
        seconds: 0.2,
        warmup: 0.1,
        rate,
        timeout_ms: 100,
        host: "a.example".to_owned(),
        path: "/".to_owned(),
    }
}

#[test]
fn what_is_due_at_a_rate_is_due_whatever_became_of_the_others() {
    let now = Instant::now();
    let mut schedule = Schedule::new(&load(Mode::Crr, Some(1000)), now);
    assert_eq!(schedule.next(now), Some(now));
    schedule.begun = 5;
    let later = now + Duration::from_secs(1);
    assert_eq!(schedule.next(later), Some(now + Duration::from_millis(5)));
    schedule.begun = 300;
    assert_eq!(schedule.next(now), None);
}

#[test]
fn at_a_rate_the_moment_that_it_was_due_decides() {
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    let paced = Schedule::new(&load(Mode::Crr, Some(1000)), now);
    assert!(paced.counts(at(299), at(900)) && !paced.counts(at(50), at(150)));
    let closed = Schedule::new(&load(Mode::Crr, None), now);
    assert!(closed.counts(at(50), at(150)) && !closed.counts(at(299), at(300)));
}

#[test]
fn a_load_that_is_none_is_refused() {
    let mut none = load(Mode::Crr, Some(0));
    assert!(run(&none).unwrap_err().to_string().contains("rate"));
    none.connections = 0;
    assert!(run(&none).unwrap_err().to_string().contains("connections"));
    assert!(run(&load(Mode::Bulk, Some(1))).is_err());
}

#[test]
fn nobody_who_listens_is_told_by_its_kind() {
    // The discard port: nobody has it on a machine that runs tests.
    let outcome = run(&load(Mode::Crr, Some(500))).unwrap();
    assert_eq!((outcome.transactions, outcome.answers.len()), (0, 0));
    assert_eq!(outcome.errors.keys().collect::<Vec<_>>(), ["refused"]);
    // 0.3 s at 500 a second.
    assert_eq!(outcome.errors["refused"], 150);
}

/// A server on a port that was free a moment ago.
fn server(answer: u8) -> SocketAddr {
    let free = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    std::thread::spawn(move || crate::server::serve(answer, port));
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    while std::net::TcpStream::connect(addr).is_err() {
        std::thread::yield_now();
    }
    addr
}

#[test]
fn every_mode_is_answered_closed_and_at_a_rate() {
    let target = server(b'a');
    for mode in [Mode::Crr, Mode::Rr, Mode::Urr] {
        for rate in [None, Some(500)] {
            let mut load = load(mode, rate);
            (load.target, load.timeout_ms) = (target, 2000);
            let outcome = run(&load).unwrap();
            assert!(outcome.errors.is_empty(), "{mode:?} {rate:?}: {outcome}");
            assert_eq!(outcome.answers.get(&'a'), Some(&outcome.transactions));
            match rate {
                // 0.2 s at 500 a second, however slow the machine.
                Some(_) => assert_eq!(outcome.transactions, 100, "{mode:?}"),
                None => assert!(outcome.transactions > 10, "{mode:?}: {outcome}"),
            }
        }
    }
}

/// A server of HTTP that closes every connection after its third answer.
fn web() -> SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                for last in [false, false, true] {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let mut bytes = [0; 256];
                        match stream.read(&mut bytes).unwrap_or(0) {
                            0 => return,
                            read => request.extend_from_slice(&bytes[..read]),
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    assert_eq!(request, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
                    let close = if last { "Connection: close\r\n" } else { "" };
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{close}\r\n");
                    stream.write_all(head.as_bytes()).unwrap();
                    stream.write_all(b"ab").unwrap();
                }
            });
        }
    });
    addr
}

#[test]
fn http_is_answered_closed_and_at_a_rate() {
    for rate in [None, Some(500)] {
        let mut load = load(Mode::Get, rate);
        (load.target, load.timeout_ms) = (web(), 2000);
        let outcome = run(&load).unwrap();
        assert!(outcome.errors.is_empty(), "{rate:?}: {outcome}");
        assert_eq!(outcome.answers.get(&'2'), Some(&outcome.transactions));
        match rate {
            Some(_) => assert_eq!(outcome.transactions, 100),
            None => assert!(outcome.transactions > 10, "{outcome}"),
        }
    }
}

#[test]
fn turns_go_to_each_target_over_connections_that_stay() {
    let targets = [(server(b'a'), 'a'), (server(b'b'), 'b')];
    let mut turns = Turns::default();
    for mode in [Mode::Crr, Mode::Rr, Mode::Urr] {
        for (target, id) in [targets, targets].concat() {
            let outcome = turns.take(&Run {
                target,
                seconds: 0.02,
                warmup: 0.01,
                timeout_ms: 2000,
                ..load(mode, None)
            });
            let outcome = outcome.unwrap();
            assert!(outcome.errors.is_empty(), "{mode:?}: {outcome}");
            assert_eq!(outcome.answers.keys().collect::<Vec<_>>(), [&id]);
            assert!(outcome.transactions > 1, "{mode:?}: {outcome}");
        }
        let loads = turns.engines.iter().map(|e| (e.run.mode, e.run.target));
        let each = targets.map(|(target, _)| (mode, target));
        assert_eq!(loads.collect::<Vec<_>>(), each);
    }
}

#[test]
fn bulk_counts_bytes_and_no_transactions() {
    let mut load = load(Mode::Bulk, None);
    load.target = server(b'a');
    let outcome = run(&load).unwrap();
    assert!(outcome.errors.is_empty(), "{outcome}");
    assert!(outcome.bytes > 1 << 20, "{outcome}");
    assert_eq!(outcome.transactions, 0);
}
