//! A process in a namespace and a cgroup that does what a test asks of it: the hooks of a
//! cgroup serve processes, so that threads of the test itself would not do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::beside;
use super::netns::Netns;
use super::proto::{How, Load, Outcome, Request};

/// Milliseconds until a dial counts as unanswered: longer than a SYN that is sent again.
const TIMEOUT_MS: u64 = 2500;

/// A process that dials, and serves if asked.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts one.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(netns: &Netns, cgroup: &Path) -> Self {
        let mut command = Command::new(beside("e2e_peer"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = netns.spawn(command, cgroup);
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self {
            child,
            input,
            output,
        }
    }

    /// Asks for something, and waits until it is done.
    ///
    /// # Panics
    /// The process has ended.
    pub fn ask(&mut self, request: &Request) -> Outcome {
        let text = serde_json::to_string(request).expect("a request is JSON");
        writeln!(self.input, "{text}").expect("the process reads");
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("the process answers");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{text}: {line:?}: {e}"))
    }

    /// Dials a few times.
    pub fn dial(&mut self, target: &str, how: How, times: u32) -> Outcome {
        self.dial_for(target, how, times, TIMEOUT_MS)
    }

    /// Dials a few times, and waits for each answer as long as is said.
    pub fn dial_for(&mut self, target: &str, how: How, times: u32, timeout_ms: u64) -> Outcome {
        let target = addr(target);
        self.ask(&Request::Dial {
            target,
            how,
            times,
            timeout_ms,
        })
    }

    /// Opens a socket and keeps it.
    pub fn open(&mut self, id: u32, target: &str, how: How) -> Outcome {
        self.ask(&Request::Open {
            target: addr(target),
            how,
            id,
        })
    }

    /// Asks again on a kept socket.
    pub fn again(&mut self, id: u32) -> Outcome {
        self.ask(&Request::Again { id })
    }

    /// Starts a load.
    pub fn load(&mut self, targets: &[&str], rate: u32, streams: u32) {
        let targets = targets.iter().map(|t| addr(t)).collect();
        self.ask(&Request::Load(Load {
            targets,
            rate,
            streams,
        }));
    }

    /// Ends the load.
    pub fn rest(&mut self) -> Outcome {
        self.ask(&Request::Rest)
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
