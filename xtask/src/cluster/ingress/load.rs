//! Requests of every kind by the load balancer while something happens: is each answered?

use std::io::{BufRead, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::ask::Site;
use super::objects::{PLAIN, SHOP};
use super::{BALANCER, Entry};
use crate::cluster::topology::control_netns;
use crate::lab::netns;
use crate::ui;

/// How long a request may take; those that are slow on purpose take [`SLOW`].
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(20);
/// Load before something happens and after it.
const AROUND: Duration = Duration::from_secs(2);
/// A request that is under way for three seconds.
const SLOW: &str = "/shell?cmd=sleep%203";
/// Failures that are told.
const TOLD: usize = 5;

/// How a client asks.
#[derive(Clone, Copy, Debug)]
enum How {
    /// A connection for each request.
    New,
    /// One connection for as long as the proxy keeps it.
    Kept,
    /// Requests that take their time, on new connections.
    Slow,
    /// HTTPS, a connection for each request.
    Secure,
}

const ALL: [How; 4] = [How::New, How::Kept, How::Slow, How::Secure];

/// What became of the requests.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    requests: usize,
    connections: usize,
    failures: Vec<String>,
    took: Duration,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.connections += other.connections;
        self.failures.extend(other.failures);
    }

    /// How many there were.
    pub(super) fn text(&self) -> String {
        format!(
            "{} requests on {} connections in {}: {} failed",
            self.requests,
            self.connections,
            ui::duration(self.took),
            self.failures.len()
        )
    }

    /// Whether none failed.
    ///
    /// # Errors
    /// One did; or there were too few to tell.
    pub(super) fn check(&self) -> Result<()> {
        let told = &self.failures[..self.failures.len().min(TOLD)];
        ensure!(
            told.is_empty(),
            "{}; the first: {}",
            self.text(),
            told.join("; ")
        );
        ensure!(self.requests > 100, "too few to tell: {}", self.text());
        Ok(())
    }
}

/// Asks for as long as `what` goes on, and a little before and after it.
///
/// # Errors
/// `what` fails, or no client can be started.
pub(super) fn during(certificate: &Path, what: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let end = AtomicBool::new(false);
    let start = Instant::now();
    let (happened, load) = thread::scope(|scope| {
        let load = scope.spawn(|| netns::inside(&control_netns(), || clients(certificate, &end)));
        sleep(AROUND);
        let happened = what();
        sleep(AROUND);
        end.store(true, Ordering::Relaxed);
        (happened, load.join())
    });
    happened?;
    let mut outcome = load.map_err(|_| anyhow!("a client panicked"))??;
    outcome.took = start.elapsed();
    Ok(outcome)
}

/// All clients, each a thread: they are in the network namespace of the one that starts them.
fn clients(certificate: &Path, end: &AtomicBool) -> Outcome {
    let mut outcome = Outcome::default();
    thread::scope(|scope| {
        let pairs = ALL.iter().flat_map(|how| BALANCER.map(|addr| (*how, addr)));
        let start = |(how, addr)| scope.spawn(move || client(how, addr, certificate, end));
        let threads: Vec<_> = pairs.map(start).collect();
        for thread in threads {
            match thread.join() {
                Ok(one) => outcome.add(one),
                Err(_) => outcome.failures.push("a client panicked".to_owned()),
            }
        }
    });
    outcome
}

fn client(how: How, addr: &str, certificate: &Path, end: &AtomicBool) -> Outcome {
    let mut outcome = Outcome::default();
    let start = Instant::now();
    while !end.load(Ordering::Relaxed) {
        outcome.connections += 1;
        let done = match how {
            How::New => talk(addr, "/hostname", 1, end),
            How::Slow => talk(addr, SLOW, 1, end),
            How::Kept => talk(addr, "/hostname", usize::MAX, end),
            How::Secure => secure(addr, certificate),
        };
        match done {
            Ok(requests) => outcome.requests += requests,
            Err(error) => {
                let at = start.elapsed().as_secs_f64();
                let text = format!("{how:?} by {addr} after {at:.1} s: {error:#}");
                outcome.failures.push(text);
            }
        }
        sleep(PAUSE);
    }
    outcome
}

fn secure(addr: &str, certificate: &Path) -> Result<usize> {
    let entry = Entry::new(addr, 443);
    let site = Site::secure(SHOP, certificate.to_owned());
    let answer = site.at(&entry).get("/hostname")?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(1)
}

/// Asks on one connection so many times, until the end, or until the proxy says that it closes.
/// How often.
fn talk(addr: &str, path: &str, times: usize, end: &AtomicBool) -> Result<usize> {
    let addr: IpAddr = addr.parse().context("no address")?;
    let stream = TcpStream::connect_timeout(&SocketAddr::new(addr, 80), PATIENCE);
    let stream = stream.context("it cannot be dialled")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(&stream);
    let close = match times {
        1 => "connection: close\r\n",
        _ => "",
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: {PLAIN}\r\n{close}\r\n");
    for asked in 1..=times {
        (&stream)
            .write_all(request.as_bytes())
            .with_context(|| format!("request {asked} of a connection"))?;
        let goes_on =
            answered(&mut answers).with_context(|| format!("request {asked} of a connection"))?;
        if !goes_on || asked == times || end.load(Ordering::Relaxed) {
            return Ok(asked);
        }
        sleep(PAUSE);
    }
    Ok(times)
}

/// Reads an answer, which has to be 200. Whether the connection goes on.
fn answered(input: &mut impl BufRead) -> Result<bool> {
    let mut line = || {
        let mut line = String::new();
        input.read_line(&mut line).map(|_| line)
    };
    let first = line().context("no answer")?;
    let (mut length, mut goes_on) = (None, true);
    loop {
        let line = line().context("half an answer")?.to_ascii_lowercase();
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = Some(value.parse()?),
            Some(("connection", "close")) => goes_on = false,
            Some(_) => {}
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    ensure!(first.starts_with("HTTP/1.1 200 "), "{first:?}");
    let length = length.context("an answer without a length")?;
    let mut body = vec![0; length];
    input.read_exact(&mut body).context("half a body")?;
    Ok(goes_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<bool> {
        answered(&mut text.as_bytes())
    }

    #[test]
    fn an_answer_is_read_whole_and_says_whether_another_may_follow() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n";
        assert!(read(&format!("{head}\r\nabc")).unwrap());
        assert!(!read(&format!("{head}Connection: close\r\n\r\nabc")).unwrap());
        assert!(read(&format!("{head}\r\nab")).is_err());
        assert!(read("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(read("").is_err());
    }

    #[test]
    fn one_failure_is_one_too_many_and_so_are_few_requests() {
        let mut outcome = Outcome {
            requests: 101,
            ..Outcome::default()
        };
        assert!(outcome.check().is_ok());
        outcome.add(Outcome {
            failures: vec!["reset".to_owned()],
            ..Outcome::default()
        });
        assert!(outcome.check().unwrap_err().to_string().ends_with("reset"));
        assert!(Outcome::default().check().is_err());
    }
}
