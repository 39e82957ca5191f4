//! The clients: a worker process at each place, which opens the connections that it is told
//! to (a JSON request a line on its standard input) and says who answered (a JSON line each
//! on its standard output).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::server::Answer;

/// Connections that are open at once.
const PARALLEL: u32 = 8;

/// Unanswered connections after which the rest is not tried: each takes its whole time.
const HOPELESS: u64 = PARALLEL as u64;

/// When a datagram without an answer is sent once more, as a lost SYN is (RFC 6298, section 2.1).
const RESEND: Duration = Duration::from_secs(1);

/// What a worker is asked to do.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Request {
    /// What to dial.
    pub target: SocketAddr,
    /// `tcp` or `udp`.
    pub proto: String,
    /// How many connections, each from a source port of its own.
    pub connections: u32,
    /// Milliseconds after which a connection counts as unanswered.
    pub timeout_ms: u64,
    /// UDP by connected sockets only: they alone learn that they are refused.
    pub connected: bool,
}

/// What became of a request's connections.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Report {
    /// Answers by pod.
    pub backends: BTreeMap<String, u64>,
    /// Failures by kind: `refused`, `timeout`, `reset`, `unreachable`, `wrong-peer`,
    /// `wrong-answer`, or what the system calls it.
    pub errors: BTreeMap<String, u64>,
    /// The addresses that the pods saw.
    pub clients: BTreeSet<IpAddr>,
    /// Of the answers, those that came for a datagram that was sent twice.
    pub resent: u64,
    /// Median microseconds from connect to answer.
    pub p50_us: u64,
    /// The slowest of a hundred, in microseconds.
    pub p99_us: u64,
}

/// Answers requests until the standard input ends.
///
/// # Errors
/// A request is no JSON, or the standard output is closed.
pub(crate) fn work() -> Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line.context("cannot read a request")?;
        let request: Request =
            serde_json::from_str(&line).with_context(|| format!("no request: {line}"))?;
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &run(&request))?;
        out.write_all(b"\n")
            .and_then(|()| out.flush())
            .context("nobody reads the reports")?;
    }
    Ok(())
}

/// Opens the connections of one request.
pub(crate) fn run(request: &Request) -> Report {
    let next = AtomicU32::new(0);
    let all = Mutex::new((Report::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL.min(request.connections) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= request.connections || hopeless(&all) {
                        return;
                    }
                    let start = Instant::now();
                    let outcome = connect(request, number);
                    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                    // Poisoned only if another thread panicked, and then the scope panics anyway.
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.1.extend(outcome.is_ok().then_some(micros));
                    all.0.count(outcome);
                }
            });
        }
    });
    let (mut report, mut times) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    (report.p50_us, report.p99_us) = (at(50), at(99));
    report
}

fn hopeless(all: &Mutex<(Report, Vec<u64>)>) -> bool {
    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.0.errors.get("timeout").is_some_and(|n| *n >= HOPELESS)
}

impl Report {
    fn count(&mut self, outcome: Result<(Answer, bool), String>) {
        match outcome {
            Ok((answer, resent)) => {
                *self.backends.entry(answer.pod).or_default() += 1;
                self.clients.insert(answer.client.ip());
                self.resent += u64::from(resent);
            }
            Err(kind) => *self.errors.entry(kind).or_default() += 1,
        }
    }
}

/// Opens a connection: who answered, and whether only the second datagram did it.
fn connect(request: &Request, number: u32) -> Result<(Answer, bool), String> {
    let timeout = Duration::from_millis(request.timeout_ms);
    let outcome = if request.proto == "tcp" {
        http(request.target, timeout).map(|text| (text, false))
    } else {
        let connected = request.connected || number.is_multiple_of(2);
        udp(request.target, timeout, connected)
    };
    let (text, resent) = outcome.map_err(|e| kind(&e))?;
    let answer = serde_json::from_str(&text).map_err(|_| "wrong-answer".to_owned())?;
    Ok((answer, resent))
}

/// One request over a connection of its own; the body of the answer.
fn http(target: SocketAddr, timeout: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    same_peer(stream.peer_addr()?, target)?;
    stream.write_all(
        format!("GET / HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or(ErrorKind::UnexpectedEof)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other("wrong-answer"));
    }
    Ok(body.to_owned())
}

/// One datagram by a socket of its own: its answer, and whether it had to be sent twice.
fn udp(target: SocketAddr, timeout: Duration, connected: bool) -> io::Result<(String, bool)> {
    let any: IpAddr = if target.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    if connected {
        socket.connect(target)?;
        same_peer(socket.peer_addr()?, target)?;
    }
    let ask = |patience: Duration| -> io::Result<String> {
        if connected {
            socket.send(b"hello")?;
        } else {
            socket.send_to(b"hello", target)?;
        }
        socket.set_read_timeout(Some(patience))?;
        let mut buffer = [0; 2048];
        let (n, from) = socket.recv_from(&mut buffer)?;
        same_peer(from, target)?;
        Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
    };
    match ask(timeout.min(RESEND)) {
        // A receive timeout is EAGAIN.
        Err(error) if error.kind() == ErrorKind::WouldBlock && timeout > RESEND => {
            Ok((ask(timeout.saturating_sub(RESEND))?, true))
        }
        outcome => Ok((outcome?, false)),
    }
}

/// A client must see the frontend that it dialled, whoever answers.
fn same_peer(peer: SocketAddr, target: SocketAddr) -> io::Result<()> {
    if peer == target {
        Ok(())
    } else {
        Err(io::Error::other("wrong-peer"))
    }
}

/// The name that the table gives an error.
fn kind(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        // A receive timeout is EAGAIN.
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset".to_owned(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable".to_owned(),
        ErrorKind::UnexpectedEof => "wrong-answer".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn request(target: SocketAddr, proto: &str, connections: u32) -> Request {
        Request {
            target,
            proto: proto.to_owned(),
            connections,
            timeout_ms: 2000,
            connected: false,
        }
    }

    #[test]
    fn every_udp_connection_is_counted_once_with_its_pod() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            for i in 0..20 {
                let (_, from) = server.recv_from(&mut buffer).unwrap();
                let pod = if i < 5 { "x" } else { "y" };
                server
                    .send_to(
                        format!("{{\"pod\":\"{pod}\",\"client\":\"{from}\"}}").as_bytes(),
                        from,
                    )
                    .unwrap();
            }
        });
        let report = run(&request(target, "udp", 20));
        assert_eq!(
            report.backends,
            BTreeMap::from([("x".to_owned(), 5), ("y".to_owned(), 15)])
        );
        assert_eq!((report.errors, report.resent), (BTreeMap::new(), 0));
        assert_eq!(
            report.clients,
            BTreeSet::from(["127.0.0.1".parse().unwrap()])
        );
        assert!(report.p50_us > 0 && report.p99_us >= report.p50_us);
    }

    #[test]
    fn a_datagram_that_is_lost_is_sent_once_more() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            let (_, first) = server.recv_from(&mut buffer).unwrap();
            let (_, second) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(first, second);
            let answer = format!("{{\"pod\":\"x\",\"client\":\"{second}\"}}");
            server.send_to(answer.as_bytes(), second).unwrap();
        });
        let report = run(&request(target, "udp", 1));
        assert_eq!(report.backends, BTreeMap::from([("x".to_owned(), 1)]));
        assert_eq!((report.errors, report.resent), (BTreeMap::new(), 1));
    }

    #[test]
    fn refusal_and_silence_and_rubbish_are_told_apart() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert_eq!(
            run(&request(closed, "tcp", 3)).errors,
            BTreeMap::from([("refused".to_owned(), 3)])
        );

        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut asks = request(silent.local_addr().unwrap(), "udp", 2);
        asks.timeout_ms = 50;
        assert_eq!(
            run(&asks).errors,
            BTreeMap::from([("timeout".to_owned(), 2)])
        );

        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut head = [0; 512];
            let _ = stream.read(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nrubbish").unwrap();
        });
        assert_eq!(
            run(&request(target, "tcp", 1)).errors,
            BTreeMap::from([("wrong-answer".to_owned(), 1)])
        );
    }
}
