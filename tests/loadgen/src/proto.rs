//! What is asked of a client, and what it answers: one line of JSON each.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What a transaction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// TCP: connect, a byte each way, close
    Crr,
    /// TCP: a byte each way on a connection that is kept
    Rr,
    /// UDP: a datagram of a byte each way on a connected socket that is kept
    Urr,
    /// HTTP/1.1: a GET on a connection that is kept
    Get,
    /// HTTPS: connect, a whole handshake of TLS 1.3, a GET, close
    Tls,
    /// TCP: as many bytes as the other side takes
    Bulk,
}

/// A request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    /// A load.
    Run(Run),
    /// A load whose connections stay for its next turn.
    Turn(Run),
    /// Connections one after the other until the right server answers.
    Until(Until),
}

/// A load.
#[derive(Clone, PartialEq, Debug, clap::Args, Serialize, Deserialize)]
// The subcommand has a group of this name.
#[group(skip)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// What a transaction is
    #[arg(value_enum)]
    pub(crate) mode: Mode,
    /// Address and port to dial
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) target: SocketAddr,
    /// Connections, or sockets, at a time; with a rate, at most so many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) connections: u32,
    /// Length of the measurement
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub(crate) seconds: f64,
    /// Load before it
    #[arg(long, default_value_t = 0.1, value_name = "S")]
    #[serde(default)]
    pub(crate) warmup: f64,
    /// Transactions a second; as many as there can be if not given
    // Latency then counts from the moment at which a transaction was due, also where none could
    // begin because all connections were waiting (no coordinated omission).
    #[arg(long)]
    pub(crate) rate: Option<u32>,
    /// A transaction that takes longer has failed
    #[arg(long = "timeout", default_value_t = timeout_ms(), value_name = "MS")]
    #[serde(default = "timeout_ms")]
    pub(crate) timeout_ms: u64,
    /// Host that HTTP asks for
    #[arg(long, default_value = HOST, value_name = "NAME")]
    #[serde(default = "host")]
    pub(crate) host: String,
    /// Path that HTTP asks for
    #[arg(long, default_value = PATH)]
    #[serde(default = "path")]
    pub(crate) path: String,
}

/// What HTTP asks for unless it is told otherwise.
const HOST: &str = "localhost";
const PATH: &str = "/";

fn host() -> String {
    HOST.to_owned()
}

fn path() -> String {
    PATH.to_owned()
}

fn timeout_ms() -> u64 {
    1000
}

/// Connections one after the other until the right server answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Until {
    /// Who is dialled.
    pub(crate) target: SocketAddr,
    /// The first byte of the right server's name.
    pub(crate) answer: char,
    /// Milliseconds after which it is given up.
    pub(crate) timeout_ms: u64,
    /// Milliseconds that an attempt may take.
    #[serde(default = "attempt_ms")]
    pub(crate) attempt_ms: u64,
    /// Microseconds from an attempt's end to the next.
    #[serde(default)]
    pub(crate) pause_us: u64,
}

fn attempt_ms() -> u64 {
    55
}

/// An answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// Of a load.
    Run(Outcome),
    /// Of attempts.
    Until(Attempts),
    /// It could not be done.
    Failed {
        /// Why.
        failed: String,
    },
}

impl Answer {
    pub(crate) fn failed(why: &str) -> Self {
        Self::Failed {
            failed: why.to_owned(),
        }
    }
}

/// What became of a load.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    /// Transactions that were answered while it was measured; with a rate, that were due then.
    pub(crate) transactions: u64,
    /// Seconds that were measured.
    pub(crate) seconds: f64,
    /// Bytes that were sent meanwhile.
    pub(crate) bytes: u64,
    /// CPU seconds of the whole machine meanwhile.
    pub(crate) cpu_seconds: f64,
    /// Microseconds of a transaction.
    pub(crate) latency_us: Latency,
    /// Failures by kind, the warm-up's too.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Answers by server; by the first digit of the status with HTTP.
    pub(crate) answers: BTreeMap<char, u64>,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// What became of the attempts.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Attempts {
    /// Nanoseconds since 1970 at the first right answer; none in time: `null`.
    pub(crate) at_ns: Option<u64>,
    /// Attempts, the last included.
    pub(crate) attempts: u64,
    /// Those that failed, by kind.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.transactions as f64 / self.seconds;
        let l = &self.latency_us;
        writeln!(
            f,
            "{} transactions in {:.3} s: {rate:.0} a second",
            self.transactions, self.seconds
        )?;
        writeln!(
            f,
            "latency: p50 {:.1} us, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
            l.p50, l.p90, l.p99, l.p999, l.max
        )?;
        let gigabits = self.bytes as f64 * 8.0 / self.seconds / 1e9;
        writeln!(f, "sent: {} bytes, {gigabits:.3} Gbit/s", self.bytes)?;
        writeln!(f, "CPU of the machine: {:.3} s", self.cpu_seconds)?;
        for (kind, count) in &self.errors {
            writeln!(f, "failed: {count} x {kind}")?;
        }
        let servers: Vec<_> = self
            .answers
            .iter()
            .map(|(id, count)| format!("{id} {count}"))
            .collect();
        write!(f, "answered by: {}", servers.join(", "))
    }
}
